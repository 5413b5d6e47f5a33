//! The network: one small trait, so that tests run without sockets, and hyper over rustls behind it.

pub mod gzip;
pub mod http1;
pub mod server;
pub mod tls;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::time::Instant;

pub use server::Server;

/// Greatest reply that is read, before and after decompression.
pub const REPLY_MAX: usize = 32 << 20;

/// A request to a server.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, `PUT`.
    pub method: Method,
    /// Path and query, from the server's root.
    pub path: String,
    /// Headers but `Host` and `Content-Length`.
    pub headers: HeaderMap,
    /// The body, as it goes out.
    pub body: Bytes,
    /// How long it may take from connect to the last byte.
    pub timeout: Duration,
    /// Marked when a trusted server takes the request: a held response may be long in coming.
    pub reached: Reached,
}

/// When a trusted server took a request. Clones share the mark.
#[derive(Clone, Debug, Default)]
pub struct Reached(Arc<Mutex<Option<Instant>>>);

impl Reached {
    /// Marks that the request goes out now, over a connection to a trusted server.
    pub fn mark(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long the server has held the request; `None` if none took it.
    pub fn held(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }
}

/// A reply, whole and decompressed.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection: name, route, refusal.
    #[error("can't connect to {server}: {reason}")]
    Connect {
        /// Which one.
        server: String,
        /// Why.
        reason: String,
    },
    /// The connection was made, but the server is not trusted, or speaks no TLS.
    #[error("can't trust {server}: {reason}")]
    Tls {
        /// Which one.
        server: String,
        /// Why.
        reason: String,
    },
    /// No reply in time.
    #[error("no reply within {0:?}")]
    Timeout(Duration),
    /// The connection broke, or what came is not HTTP.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// More than [`REPLY_MAX`].
    #[error("the reply is longer than {REPLY_MAX} bytes")]
    TooLarge,
}

impl TransportError {
    /// Whether another server may do better.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Tls { .. })
    }
}

/// Something that carries a request to a server.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends one request. Redirects are replies like any other: nothing follows them.
    async fn send(&self, server: &Server, request: Request) -> Result<Response, TransportError>;
}
