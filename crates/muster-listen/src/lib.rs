//! Our accept loop and our HTTP/1.1: everything with a limit or a deadline is here.
//!
//! * [`socket`] binds, [`accept`] takes connections within limits ([`gate`], [`strangers`]) and drains them
//!   at the end.
//! * [`connection`] drives one: [`exchange`] reads a request's [`head`], lets the handler work while [`feed`] brings
//!   the body ([`body`], [`chunked`]), and sends the reply ([`wire`], [`pieces`]). When a handler parks, all of that
//!   is freed, and the connection holds its stream and the slot alone ([`hold`]). A TLS stream that waits holds no
//!   buffers ([`tls_stream`]).
//!   [`upgrade`] hands the connection over to another protocol.
//! * [`idle`] bounds the connections that a key keeps open without a request.
//! * [`web`] serves people's listeners by hyper, with our checks and deadlines in front ([`guard`]).
//! * [`refusal`] is what never reaches a handler.
//!
//! `httparse` reads the syntax. Agents have no general HTTP server below them, because an agent is parked almost all its life:
//! what a parked connection weighs and what a heartbeat costs is decided here (docs/where-the-time-goes.md).

pub mod accept;
mod alarm;
pub mod body;
mod chunked;
pub mod connection;
mod date;
mod exchange;
mod feed;
pub mod gate;
mod guard;
mod head;
mod hold;
pub mod idle;
mod link;
pub mod metrics;
mod pieces;
mod plain;
pub mod refusal;
pub mod reply;
mod reserve;
pub mod socket;
pub mod strangers;
mod timeouts;
pub mod tls;
mod tls_stream;
pub mod upgrade;
pub mod web;
mod wire;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::Request;
use tokio_util::sync::CancellationToken;

use self::accept::Place;
use self::body::RequestBody;
use self::gate::Gate;
use self::idle::IdleConnections;
use self::refusal::Refusal;
use self::strangers::Strangers;
use self::upgrade::Stream;
use crate::metrics::ConnectionMetrics;
use crate::reply::{ListenerKind, Peer, Reply};
use crate::tls::ServerTls;

pub use self::reply::Answer;
pub use self::timeouts::Timeouts;

/// An error of any body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A handler's work on one request.
pub type Work = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What answers the requests of an agents' listener.
pub trait Handler: Send + Sync + 'static {
    /// The reply to a request that the connection layer refuses.
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Reply;

    /// Takes note of a client that was turned away without a reply.
    fn note(&self, refusal: &Refusal, peer: &Peer) {
        let _ = (refusal, peer);
    }

    /// Begins to answer a request.
    fn handle(&self, request: Request<RequestBody>, peer: Peer) -> Work;
}

/// How the connections of a listener are served: by our own HTTP/1.1 (any [`Handler`]), or by hyper
/// ([`web::OnHyper`]).
pub trait Serve: Send + Sync + Sized + 'static {
    /// The reply to a client that is refused before its request is read.
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Reply;

    /// Takes note of a client that was turned away without a reply.
    fn note(&self, refusal: &Refusal, peer: &Peer);

    /// Serves a connection until it ends. TLS, if any, is done already.
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

/// Everything that the connections of one listener share.
pub struct Listening<H> {
    /// Which one.
    pub kind: ListenerKind,
    /// What answers.
    pub handler: H,
    /// TLS, unless plain.
    pub tls: Option<Arc<ServerTls>>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Requests at a time.
    pub requests: Arc<Gate>,
    /// Connections at a time.
    pub connections: Arc<Gate>,
    /// Those of them that have not authenticated.
    pub strangers: Arc<Strangers>,
    /// Those of them that authenticated and wait for a request.
    pub idle: Arc<IdleConnections>,
    /// Counters.
    pub metrics: Arc<ConnectionMetrics>,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
}
