//! WebSockets of the server: the handshake, after which a connection is upgraded (RFC 6455 §4.2), and the limits of messages.

use http::request::Parts;
use http::{HeaderMap, Request};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::upgrade::Stream;

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

/// Limits of what a client can make a WebSocket allocate. The defaults of the library reserve 128 KiB for each connection and
/// accept messages of 64 MiB.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that are read at once. They are allocated as long as the connection exists.
    pub read_buffer: usize,
    /// Maximum length of a message of the client, bytes.
    pub max_message: usize,
}

/// Speaks WebSocket on a connection that has been upgraded. Messages are written at once.
pub async fn serve<S: Stream>(stream: S, limits: Limits) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(limits.read_buffer)
        .write_buffer_size(0)
        .max_message_size(Some(limits.max_message))
        .max_frame_size(Some(limits.max_message));
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
}
