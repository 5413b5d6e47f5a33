//! The network: a small trait, which allows tests without sockets, and its implementation with hyper over rustls.

pub mod extra_headers;
pub mod gzip;
pub mod http1;
pub mod pem;
pub mod proxy;
pub mod server;
pub mod tls;
mod tls_fault;

use muster_core::error_chain::SharedError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::time::Instant;

pub use server::Server;

/// Maximum size of a response, before and after decompression.
pub const REPLY_MAX: usize = 32 << 20;

/// A request to a server.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, `PUT`.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Headers, except `Host` and `Content-Length`.
    pub headers: HeaderMap,
    /// Body, encoded.
    pub body: Bytes,
    /// Maximum time from the connection attempt to the last byte of the response.
    pub timeout: Duration,
    /// Marked when the request is sent to a trusted server, which may hold the response for a long time.
    pub reached: Reached,
}

/// The time at which a request was sent to a trusted server. Clones share the mark.
#[derive(Clone, Debug, Default)]
pub struct Reached(Arc<Mutex<Option<Instant>>>);

impl Reached {
    /// Marks that the request is sent now, over a connection to a trusted server.
    pub fn mark(&self) {
        // A retry on a new connection replaces the time, because the poll is held from then on.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns how long the server has held the request; `None` if it was not sent.
    pub fn held(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }
}

/// A complete, decompressed response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection: name resolution, routing, or connection refused.
    #[error("cannot connect to {server}: {source}")]
    Connect {
        /// The server's URL.
        server: String,
        /// The reason.
        source: SharedError,
    },
    /// The TCP connection was made, but the TLS handshake failed.
    #[error("cannot trust {server}: {reason}")]
    Tls {
        /// The server's URL.
        server: String,
        /// Kind of the failure.
        fault: TlsFault,
        /// The reason.
        reason: String,
    },
    /// No response in time.
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// The connection was lost, or the response is not HTTP.
    #[error("the connection failed: {0}")]
    Broken(#[source] SharedError),
    /// More than [`REPLY_MAX`].
    #[error("the response exceeds {REPLY_MAX} bytes")]
    TooLarge,
}

/// Kind of a TLS failure, which determines the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// According to this host's clock, a certificate has expired or is not valid yet.
    Clock,
    /// The certificate is for other names.
    Name,
    /// The server does not use TLS.
    NotTls,
    /// The certificate is not trusted, or unusable.
    Trust,
}

impl TransportError {
    /// Returns whether another server of the same fleet may be reachable.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Tls { .. })
    }
}

/// Carries requests to a server.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends one request. Redirects are returned like any other response.
    // An error status is not an error here: callers interpret the responses of servers.
    async fn send(&self, server: &Server, request: Request) -> Result<Response, TransportError>;
}
