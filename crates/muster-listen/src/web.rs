//! Management listeners: HTTP/1.1 by hyper, behind our accept loop, TLS, limits and deadlines ([`guard`]).
//!
//! Management requests are few but diverse (pages, events, uploads, upgrades), so that a general-purpose server handles
//! them. The listener for agents uses our own HTTP/1.1 implementation ([`connection`](super::connection)), because
//! there, the memory of a parked connection matters.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::accept::Place;
use super::body::RequestBodyError;
use super::concurrency_limit::Pass;
use super::guard::{Guard, Shared};
use super::refusal::Refusal;
use super::upgrade::Stream;
use super::{BodyError, Listening, Serve};
use crate::reply::{Peer, Reply, ReplyBody};

/// Maximum number of header lines of a request, as in our own parser.
const MAX_LINES: usize = 100;

/// The request handler of a management listener.
pub trait Web: Send + Sync + 'static {
    /// The type of response bodies.
    type Body: Body<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static;

    /// Returns the response to a request that the connection layer rejects.
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Reply;

    /// Starts handling a request.
    fn handle(&self, request: Request<WebBody>, peer: Peer) -> WebWork<Self::Body>;
}

/// A handler's work on one request.
pub type WebWork<B> = Pin<Box<dyn Future<Output = Response<B>> + Send>>;

/// Serves a listener with hyper.
pub struct OnHyper<W>(pub W);

impl<W: Web> Serve for OnHyper<W> {
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Reply {
        self.0.refuse(refusal, peer)
    }

    fn note(&self, refusal: &Refusal, peer: &Peer) {
        debug!(address = peer.ip(), %refusal, "management connection rejected");
    }

    async fn serve<S: Stream>(stream: S, listening: Arc<Listening<Self>>, peer: Peer, place: Place) {
        let shared = Arc::new(Shared::default());
        let guard = Guard::new(stream, Arc::clone(&listening), peer.clone(), place, Arc::clone(&shared));
        let (shutdown, ours) = (listening.shutdown.clone(), listening);
        let service = service_fn(move |request| answer(request, Arc::clone(&ours), peer.clone(), Arc::clone(&shared)));
        let connection = http1::Builder::new()
            // A client that has closed its side still gets the response.
            .half_close(true)
            .max_headers(MAX_LINES)
            // The guard enforces the deadline of a head.
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(guard), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                // Completes the request in progress, then closes the connection.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(error = &error as &dyn std::error::Error, "management connection closed early");
        }
    }
}

/// Passes a request to the handler, unless too many requests are running.
async fn answer<W: Web>(
    request: Request<Incoming>,
    listening: Arc<Listening<OnHyper<W>>>,
    peer: Peer,
    shared: Arc<Shared>,
) -> Result<Response<Sent<W::Body>>, Infallible> {
    // Created first, because the guard has counted this request as running, and dropping `running` undoes this.
    let running = Running { shared: Arc::clone(&shared), _pass: listening.requests.enter() };
    let mut response = if running._pass.is_some() {
        let deadline = Instant::now() + listening.timeouts.read;
        let work = listening.handler.0.handle(request.map(|body| WebBody::new(body, deadline)), peer.clone());
        work.await.map(Content::Handler)
    } else {
        listening.metrics.refused_requests.inc();
        listening.handler.0.refuse(&Refusal::Full, &peer).map(Content::Ours)
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Set before hyper sends the 101, because the client may immediately continue with the new protocol.
        shared.upgraded();
    } else if shared.closes() && !peer.is_authenticated() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|content| Sent { content, _running: running }))
}

/// A running request, from its head to the end of its response.
struct Running {
    shared: Arc<Shared>,
    _pass: Option<Pass>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.ended();
    }
}

/// A streamed request body with a deadline.
pub struct WebBody {
    incoming: Incoming,
    deadline: Instant,
    /// The timer, which is created when it is needed. Most bodies arrive with their head and need no timer.
    late: Option<Pin<Box<Sleep>>>,
}

impl WebBody {
    fn new(incoming: Incoming, deadline: Instant) -> Self {
        Self { incoming, deadline, late: None }
    }
}

impl Body for WebBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            // hyper's own text names only the step; the cause says what was wrong.
            let broken = |error: hyper::Error| {
                let cause = std::error::Error::source(&error).map(|cause| format!("{error}: {cause}"));
                RequestBodyError::Broken(cause.unwrap_or_else(|| error.to_string()))
            };
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        let deadline = self.deadline;
        ready!(self.late.get_or_insert_with(|| Box::pin(sleep_until(deadline))).as_mut().poll(cx));
        Poll::Ready(Some(Err(RequestBodyError::Late)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A response body. The request counts as running until this is dropped.
pub(super) struct Sent<B> {
    // `_running` is dropped with the body, so that the request counts as running until its response is sent.
    content: Content<B>,
    _running: Running,
}

enum Content<B> {
    Handler(B),
    /// The body of an error of the connection layer.
    Ours(ReplyBody),
}

impl<B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin> Body for Sent<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.content {
            Content::Handler(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Content::Ours(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Handler(body) => body.is_end_stream(),
            Content::Ours(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Handler(body) => body.size_hint(),
            Content::Ours(body) => body.size_hint(),
        }
    }
}
