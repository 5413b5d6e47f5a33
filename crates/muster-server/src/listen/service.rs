//! Between hyper and a handler: the bound on running requests, and parking.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::body::{RequestBody, SentBody};
use super::gate::Pass;
use super::head_scan::Framing;
use super::progress::{ParkedRequest, Progress};
use super::{Answer, Handler, Listening, Work};
use crate::reply::{Parked, Peer, Reply};

/// What hyper calls for each request of a connection.
pub(super) struct Service<H> {
    pub listening: Arc<Listening<H>>,
    pub peer: Peer,
    pub progress: Progress,
}

impl<H: Handler> hyper::service::Service<Request<Incoming>> for Service<H> {
    type Response = Response<SentBody<H::Body>>;
    type Error = Infallible;
    type Future = Answering<H>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let progress = self.progress.clone();
        let keep_alive = may_stay(&request) && !self.listening.shutdown.is_cancelled();
        let request = request.map(|body| RequestBody::new(body, progress.clone()));
        let framing = progress.head_done(!http_body::Body::is_end_stream(request.body()));
        if framing != Framing::Clear && request.headers().contains_key(TRANSFER_ENCODING) {
            return Answering { doing: Doing::Refused(two_lengths), pass: None, progress, keep_alive: false };
        }
        let Some(pass) = self.listening.requests.enter() else {
            self.listening.metrics.refused_requests.inc();
            return Answering { doing: Doing::Refused(full), pass: None, progress, keep_alive };
        };
        let work = self.listening.handler.handle(request, self.peer.clone());
        Answering { doing: Doing::Work(work), pass: Some(pass), progress, keep_alive }
    }
}

/// Whether another request may follow on the connection.
fn may_stay<B>(request: &Request<B>) -> bool {
    let closes = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|token| token.trim().eq_ignore_ascii_case("close")))
    };
    request.version() == Version::HTTP_11 && !request.headers().get_all(CONNECTION).iter().any(closes)
}

/// Too many requests on this listener (EA17).
fn full() -> Reply {
    let mut response = Reply::new(Bytes::from_static(b"Server capacity exceeded.").into());
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// A request that states its length twice, or may do so: nobody knows where the next one begins.
fn two_lengths() -> Reply {
    const BODY: &[u8] =
        br#"{"statusCode":400,"error":"BadRequest","message":"Bad request: the length of the body is stated twice"}"#;
    let mut response = Reply::new(Bytes::from_static(BODY).into());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

enum Doing<B> {
    /// The handler works.
    Work(Work<B>),
    /// No handler was asked.
    Refused(fn() -> Reply),
    /// Parked while bytes of its request are still to come: hyper can't be taken apart, so we wait in here.
    Wait(Parked),
    /// Parked; the driver has the slot and drops us.
    Parked,
}

/// One request being answered.
pub(super) struct Answering<H: Handler> {
    doing: Doing<H::Body>,
    pass: Option<Pass>,
    progress: Progress,
    keep_alive: bool,
}

impl<H: Handler> Answering<H> {
    fn reply(&mut self, response: Response<H::Body>) -> Poll<Result<Response<SentBody<H::Body>>, Infallible>> {
        let (pass, progress) = (self.pass.take(), self.progress.clone());
        Poll::Ready(Ok(response.map(|body| SentBody::new(body, pass, progress))))
    }

    /// Hands the slot to the driver; the handler and what it held are gone.
    fn park(&mut self, slot: Parked) {
        self.doing = match self.pass.take() {
            Some(pass) if self.progress.is_received() => {
                self.progress.park(ParkedRequest { slot, pass, keep_alive: self.keep_alive });
                Doing::Parked
            }
            pass => {
                self.pass = pass;
                Doing::Wait(slot)
            }
        };
    }
}

impl<H: Handler> Future for Answering<H> {
    type Output = Result<Response<SentBody<H::Body>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.doing {
                Doing::Work(work) => match std::task::ready!(work.as_mut().poll(cx)) {
                    Answer::Reply(response) => return self.reply(response),
                    Answer::Park(slot) => self.park(slot),
                },
                Doing::Refused(reply) => {
                    let reply = reply();
                    return self.reply(reply.map(H::body));
                }
                Doing::Wait(slot) => {
                    let reply = std::task::ready!(slot.as_mut().poll(cx));
                    return self.reply(reply.map(H::body));
                }
                Doing::Parked => return Poll::Pending,
            }
        }
    }
}
