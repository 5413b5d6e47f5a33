//! The handshake of WebSocket, after which a connection is upgraded (RFC 6455 §4.2).

use http::request::Parts;
use http::{HeaderMap, Request};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

/// Checks the handshake of a client; returns the headers of the response.
///
/// # Errors
/// What is missing, for the client.
pub fn handshake(head: &Parts) -> Result<HeaderMap, String> {
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers.clone();
    let response = create_response_with_body(&request, || ());
    let response = response.map_err(|error| format!("expected a WebSocket handshake: {error}"))?;
    Ok(response.into_parts().0.headers)
}
