//! Our accept loop and what drives a connection. `hyper` frames requests; everything with a limit or a deadline is here.
//!
//! * [`socket`] binds, [`accept`] takes connections within limits ([`gate`]) and drains them at the end.
//! * [`connection`] drives one: hyper serves requests until a handler parks. Then hyper is taken apart, its buffers
//!   are freed, and the connection holds its stream and the slot alone ([`hold`]); the reply is written by [`wire`],
//!   and a fresh hyper takes over with the next request.
//! * [`progress`] knows how far a request is, and which deadline counts ([`stream`] and [`body`] tell it).

pub mod accept;
pub mod body;
pub mod connection;
pub mod gate;
mod head_scan;
mod hold;
mod progress;
mod service;
pub mod socket;
mod stream;
mod wire;

#[cfg(test)]
pub(crate) mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio_util::sync::CancellationToken;

use self::body::RequestBody;
use self::gate::Gate;
use crate::config::Timeouts;
use crate::metrics::Metrics;
use crate::reply::{ListenerKind, Outcome, Parked, Peer, ReplyBody};
use crate::tls::Tls;

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

    /// A body of its kind from one of ours.
    fn body(body: ReplyBody) -> Self::Body;

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
    pub tls: Option<Arc<Tls>>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Requests at a time.
    pub requests: Arc<Gate>,
    /// Connections at a time.
    pub connections: Arc<Gate>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
}
