//! WebSockets: streams for clients that can read them more easily than server-sent events. Messages of the client are ignored.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use muster_core::Error;
use muster_listen::upgrade::Stream;
use muster_listen::websocket::{self, Limits, handshake};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::credentials;
use super::openapi::{Extracts, Operation};

/// Maximum time to send a message. While a client does not read, nothing is read from the store for it.
const SEND: Duration = Duration::from_secs(10);
/// Time after which a client that does not answer pings is taken for lost.
const SILENCE: Duration = Duration::from_secs(60);
/// Messages of the client are ignored.
const LIMITS: Limits = Limits { read_buffer: 256, max_message: 1024 };
/// Maximum number of messages of the client between two pings.
const MAX_MESSAGES: u32 = 1000;

/// A source of messages. The future of [`Self::next`] may be dropped and created anew without losing a message.
pub trait Messages: Send + 'static {
    /// Returns the next texts, none if the client is to be pinged; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Vec<String>>> + Send;

    /// Returns whether the end was the regular one: the client has no reason to connect again.
    fn is_complete(&self) -> bool;
}

/// The handshake of a client that wants a WebSocket, or the reason to refuse it. The reason comes after errors about the object,
/// as in all endpoints.
pub struct Handshake(Result<Accepted, Error>);

/// A handshake without a fault.
struct Accepted {
    headers: HeaderMap,
    connection: OnUpgrade,
}

impl<S: Send + Sync> FromRequestParts<S> for Handshake {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(accepted(parts)))
    }
}

fn accepted(parts: &mut Parts) -> Result<Accepted, Error> {
    // Browsers let the pages of all sites open WebSockets, and send their cookies with them.
    if credentials::session(&parts.headers).is_some() {
        credentials::check_same_origin(&parts.headers)?;
    }
    let headers = handshake(parts).map_err(|reason| Error::invalid("Upgrade", reason))?;
    let connection = parts.extensions.remove::<OnUpgrade>();
    let connection = connection.ok_or_else(|| Error::invalid("Upgrade", "is not possible on this connection"))?;
    Ok(Accepted { headers, connection })
}

impl Extracts for Handshake {
    fn describe(to: &mut Operation<'_>) {
        let schema = serde_json::json!({"type": "string", "const": "websocket"});
        to.parameter("header", "Upgrade", "With the other headers of a WebSocket handshake (RFC 6455).", &schema);
    }
}

impl Handshake {
    /// Returns the response that completes the handshake, after which the messages are sent.
    pub fn response(self, messages: impl Messages) -> Result<Response, Error> {
        let Accepted { headers, connection } = self.0?;
        tokio::spawn(async move {
            match connection.await {
                Ok(upgraded) => serve(TokioIo::new(upgraded), messages).await,
                Err(error) => tracing::debug!(%error, "the client left during the handshake of a WebSocket"),
            }
        });
        let mut response = Response::new(Body::empty());
        (*response.status_mut(), *response.headers_mut()) = (StatusCode::SWITCHING_PROTOCOLS, headers);
        Ok(response)
    }
}

async fn serve(stream: impl Stream, mut messages: impl Messages) {
    let socket = websocket::serve(stream, LIMITS).await;
    let mut client = Client { socket, heard: Instant::now(), ignored: 0 };
    while let Ok(()) = client.step(&mut messages).await {}
}

/// A client that is connected.
struct Client<S> {
    socket: WebSocketStream<S>,
    /// Time of its last message.
    heard: Instant,
    /// Number of its messages since the last ping.
    ignored: u32,
}

/// The connection has ended, or must be cut.
struct Over;

impl<S: Stream> Client<S> {
    async fn step(&mut self, messages: &mut impl Messages) -> Result<(), Over> {
        let next = tokio::select! {
            next = messages.next() => next,
            received = self.socket.next() => return self.received(matches!(received, Some(Ok(_)))),
        };
        let Some(texts) = next else {
            self.close(messages.is_complete()).await;
            return Err(Over);
        };
        if texts.is_empty() {
            return self.ping().await;
        }
        for text in texts {
            self.send(Message::text(text)).await?;
        }
        Ok(())
    }

    fn received(&mut self, is_message: bool) -> Result<(), Over> {
        (self.heard, self.ignored) = (Instant::now(), self.ignored + 1);
        if is_message && self.ignored <= MAX_MESSAGES { Ok(()) } else { Err(Over) }
    }

    async fn ping(&mut self) -> Result<(), Over> {
        self.ignored = 0;
        if self.heard.elapsed() > SILENCE {
            return Err(Over);
        }
        self.send(Message::Ping(Bytes::new())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Over> {
        match timeout(SEND, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Over),
        }
    }

    async fn close(&mut self, is_complete: bool) {
        let (code, reason) = match is_complete {
            true => (CloseCode::Normal, ""),
            false => (CloseCode::Again, "connect again"),
        };
        // The client may be gone. The connection ends anyway.
        let _ = timeout(SEND, self.socket.close(Some(CloseFrame { code, reason: reason.into() }))).await;
    }
}
