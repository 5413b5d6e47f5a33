//! Our accept loop and our HTTP/1.1: everything with a limit or a deadline is here.
//!
//! * [`socket`] binds, [`accept`] takes connections within limits ([`gate`], [`strangers`]) and drains them
//!   at the end.
//! * [`connection`] drives one: [`exchange`] reads a request's [`head`], lets the handler work while [`feed`] brings
//!   the body ([`body`], [`chunked`]), and sends the reply ([`wire`], [`pieces`]). When a handler parks, all of that
//!   is freed, and the connection holds its stream and the slot alone ([`hold`]).
//! * [`refusal`] is what never reaches a handler.
//!
//! `httparse` reads the syntax. There is no general HTTP server below, because an agent is parked almost all its life:
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
mod head;
mod hold;
mod link;
pub mod metrics;
mod pieces;
mod plain;
pub mod refusal;
pub mod reply;
pub mod socket;
pub mod strangers;
mod timeouts;
pub mod tls;
mod wire;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio_util::sync::CancellationToken;

use self::body::RequestBody;
use self::gate::Gate;
use self::refusal::Refusal;
use self::strangers::Strangers;
use crate::metrics::ConnectionMetrics;
use crate::reply::{ListenerKind, Outcome, Parked, Peer, ReplyBody};
use crate::tls::ServerTls;

pub use self::timeouts::Timeouts;

/// An error of any body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// What a handler answers: a reply with a body of its kind, or the wish to be parked.
pub enum Answer<B> {
    /// Send this.
    Reply(Response<B>),
    /// Drop the request and wait for this.
    Park(Parked),
}

impl From<Outcome> for Answer<ReplyBody> {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Reply(reply) => Self::Reply(reply),
            Outcome::Park(parked) => Self::Park(parked),
        }
    }
}

/// A handler's work on one request.
pub type Work<B> = Pin<Box<dyn Future<Output = Answer<B>> + Send>>;

/// What answers the requests of a listener.
pub trait Handler: Send + Sync + 'static {
    /// Bodies of its replies.
    type Body: Body<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static;

    /// The reply to a request that the connection layer refuses.
    fn refuse(&self, refusal: &Refusal) -> Response<Self::Body>;

    /// Begins to answer a request.
    fn handle(&self, request: Request<RequestBody>, peer: Peer) -> Work<Self::Body>;
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
    /// Counters.
    pub metrics: Arc<ConnectionMetrics>,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
}
