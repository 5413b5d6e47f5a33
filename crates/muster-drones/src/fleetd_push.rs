//! The WebSocket of a simulated orbit, over which the server tells it that queries are due (FL §2.9).

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::dial::Dialer;

const PATH: &str = "/api/fleet/orbit/notifications";
/// Maximum random pause before a new connection, as in orbit.
const PAUSE: Duration = Duration::from_secs(30);
/// Size of the buffers. There are thousands of connections.
const BUFFER: usize = 512;

/// A connection that may not be open.
#[derive(Default)]
pub struct Push {
    socket: Option<WebSocketStream<TlsStream<TcpStream>>>,
    /// Time of the next attempt to connect.
    next: Option<Instant>,
}

impl Push {
    /// Connects, if the connection is not open and the pause since the last attempt is over.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses.
    pub async fn connect(&mut self, dialer: &Dialer, number: u32, key: &str) -> anyhow::Result<()> {
        if self.socket.is_some() || self.next.is_some_and(|next| Instant::now() < next) {
            return Ok(());
        }
        // Also the pause after a connection that is lost at once.
        self.next = Some(Instant::now() + PAUSE.mul_f64(rand::random()));
        let mut request = format!("wss://{}{PATH}", dialer.authority).into_client_request()?;
        let authorization = HeaderValue::from_str(&format!("Node key {key}"))?;
        request.headers_mut().insert(AUTHORIZATION, authorization);
        let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(0);
        let stream = dialer.dial(number).await?;
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Waits for a hint to read queries; returns false if the connection is lost, or it is time to connect.
    pub async fn hinted(&mut self) -> bool {
        let Some(socket) = &mut self.socket else {
            let next = self.next.unwrap_or_else(Instant::now);
            tokio::time::sleep_until(next.into()).await;
            return false;
        };
        while let Some(Ok(message)) = socket.next().await {
            if is_read(&message) {
                return true;
            }
        }
        self.socket = None;
        false
    }
}

fn is_read(message: &Message) -> bool {
    let Ok(text) = message.to_text() else { return false };
    serde_json::from_str::<Value>(text).is_ok_and(|hint| hint["type"] == "distributed/read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hint_to_read_counts() {
        assert!(is_read(&Message::text(r#"{"type":"distributed/read","reason":"detail"}"#)));
        for other in [Message::text(r#"{"type":"orbit/config"}"#), Message::text("x"), Message::Ping(Vec::new().into())]
        {
            assert!(!is_read(&other), "{other:?}");
        }
    }
}
