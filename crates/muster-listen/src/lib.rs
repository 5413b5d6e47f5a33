//! Accept loop and HTTP/1.1 servers, with all limits and deadlines of connections.
//!
//! * [`socket`] binds listeners. [`accept`] accepts connections within limits ([`concurrency_limit`], [`unauthenticated`]),
//!   closes [`expendable`] ones when none is free, and drains them on shutdown.
//! * [`connection`] serves a connection: [`exchange`] reads the [`head`] of a request, runs the handler while [`feed`]
//!   delivers the body ([`body`], [`chunked`]), and sends the response ([`wire`], [`pieces`]). When a handler parks the
//!   request, all of this is freed, and the connection keeps only its stream and the slot ([`hold`]). A waiting TLS
//!   stream has no buffers ([`tls_stream`]). [`upgrade`] passes the connection to another protocol, such as [`websocket`].
//! * [`idle`] limits the idle connections of each key.
//! * [`web`] serves management listeners with hyper, behind our own checks and deadlines ([`guard`]).
//! * [`receive`] reads a request's body for a handler, within limits, and [`gzip`] inflates it.
//! * [`cookie()`] finds a cookie of a request.
//! * [`refusal`] lists the reasons to reject requests and connections before they reach a handler.
//!
//! `httparse` parses heads. Agents are not served by a general-purpose HTTP server, because their requests are parked
//! almost all the time. This crate determines the memory of a parked connection and the CPU time of a heartbeat
//! (docs/where-the-time-goes.md).

pub mod accept;
mod alarm;
pub mod body;
mod chunked;
pub mod concurrency_limit;
pub mod connection;
mod cookie;
mod date;
mod exchange;
mod expendable;
mod feed;
mod guard;
pub mod gzip;
mod head;
mod hold;
pub mod idle;
mod link;
pub mod metrics;
mod pieces;
mod plain;
mod proxy_protocol;
pub mod receive;
pub mod refusal;
pub mod reply;
mod reserve;
mod signal;
pub mod socket;
mod timeouts;
pub mod tls;
mod tls_stream;
pub mod unauthenticated;
pub mod upgrade;
pub mod web;
pub mod websocket;
mod wire;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use self::cookie::cookie;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::Request;
use tokio_util::sync::CancellationToken;

use self::accept::Place;
use self::body::RequestBody;
use self::concurrency_limit::ConcurrencyLimit;
use self::idle::IdleConnections;
use self::refusal::Refusal;
use self::unauthenticated::UnauthenticatedLimit;
use self::upgrade::Stream;
use crate::metrics::ConnectionMetrics;
use crate::reply::{ListenerKind, Peer, Reply};
use crate::tls::ServerTls;

pub use self::reply::Answer;
pub use self::timeouts::Timeouts;

/// An error of a request or response body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A handler's work on one request.
pub type Work = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The request handler of an agents' listener.
pub trait Handler: Send + Sync + 'static {
    /// Returns the response to a request that the connection layer rejects.
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Reply;

    /// Records a client that was rejected without a response.
    fn note(&self, refusal: &Refusal, peer: &Peer) {
        let _ = (refusal, peer);
    }

    /// Starts handling a request.
    fn handle(&self, request: Request<RequestBody>, peer: Peer) -> Work;
}

/// Serves the connections of a listener: with our own HTTP/1.1 (any [`Handler`]) or with hyper ([`web::OnHyper`]).
pub trait Serve: Send + Sync + Sized + 'static {
    /// Returns the response to a client that is rejected before its request is read.
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Reply;

    /// Records a client that was rejected without a response.
    fn note(&self, refusal: &Refusal, peer: &Peer);

    /// Serves a connection until it ends, after the TLS handshake.
    fn serve<S: Stream>(
        stream: S,
        listening: Arc<Listening<Self>>,
        peer: Peer,
        place: Place,
    ) -> impl Future<Output = ()> + Send;
}

impl<H: Handler> Serve for H {
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Reply {
        Handler::refuse(self, refusal, peer)
    }

    fn note(&self, refusal: &Refusal, peer: &Peer) {
        Handler::note(self, refusal, peer);
    }

    fn serve<S: Stream>(
        stream: S,
        listening: Arc<Listening<Self>>,
        peer: Peer,
        place: Place,
    ) -> impl Future<Output = ()> + Send {
        connection::serve(stream, listening, peer, place)
    }
}

/// State shared by the connections of a listener.
pub struct Listening<H> {
    /// The listener.
    pub kind: ListenerKind,
    /// The request handler.
    pub handler: H,
    /// TLS; `None` on plain listeners.
    pub tls: Option<Arc<ServerTls>>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Limit on concurrent requests, including parked ones.
    pub requests: Arc<ConcurrencyLimit>,
    /// Limit on open connections.
    pub connections: Arc<ConcurrencyLimit>,
    /// Limit on unauthenticated connections.
    pub unauthenticated: Arc<UnauthenticatedLimit>,
    /// Limit on idle authenticated connections.
    pub idle: Arc<IdleConnections>,
    /// Counters.
    pub metrics: Arc<ConnectionMetrics>,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
}

impl<H: Serve> Listening<H> {
    /// Records a connection that is closed because another one has taken its place.
    fn note_displaced(&self, peer: &Peer) {
        self.metrics.displaced_connections.inc();
        self.handler.note(&Refusal::Displaced, peer);
    }
}
