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

/// What a host does next, by its WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hinted {
    /// Read queries.
    Read,
    /// Request the configuration of orbit.
    Config,
    /// Connect: the connection is lost, or the pause before the next one is over.
    Lost,
}

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

    /// Waits for a hint.
    pub async fn hinted(&mut self) -> Hinted {
        let Some(socket) = &mut self.socket else {
            let next = self.next.unwrap_or_else(Instant::now);
            tokio::time::sleep_until(next.into()).await;
            return Hinted::Lost;
        };
        while let Some(Ok(message)) = socket.next().await {
            if let Some(hinted) = hint(&message) {
                return hinted;
            }
        }
        self.socket = None;
        Hinted::Lost
    }
}

/// Reads a message; `None` if it is of an unknown type, which orbit ignores.
fn hint(message: &Message) -> Option<Hinted> {
    let hint: Value = serde_json::from_str(message.to_text().ok()?).ok()?;
    match hint["type"].as_str()? {
        "distributed/read" => Some(Hinted::Read),
        "orbit/config" => Some(Hinted::Config),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_of_an_unknown_type_are_ignored() {
        let typed = |kind: &str| Message::text(format!(r#"{{"type":"{kind}","reason":"detail"}}"#));
        assert_eq!(hint(&typed("distributed/read")), Some(Hinted::Read));
        assert_eq!(hint(&typed("orbit/config")), Some(Hinted::Config));
        for other in [typed("orbit/other"), Message::text("x"), Message::Ping(Vec::new().into())] {
            assert_eq!(hint(&other), None, "{other:?}");
        }
    }
}
