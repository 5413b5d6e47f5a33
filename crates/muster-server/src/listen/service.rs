//! Between hyper and a handler: the bound on running requests, and parking.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::body::{RequestBody, SentBody};
use super::gate::Pass;
use super::progress::{ParkedRequest, Progress};
use super::{Answer, Handler, Listening, Work};
use crate::reply::{Parked, Peer, Reply, ReplyBody};

/// What hyper calls for each request of a connection.
pub(super) struct Service<H> {
    pub listening: Arc<Listening<H>>,
    pub peer: Peer,
    pub progress: Progress,
}

impl<H: Handler> hyper::service::Service<Request<Incoming>> for Service<H> {
    type Response = Response<SentBody<H::Body>>;
    type Error = Infallible;
    type Future = Answering<H::Body>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let progress = self.progress.clone();
        let keep_alive = may_stay(&request) && !self.listening.shutdown.is_cancelled();
        let request = request.map(|body| RequestBody::new(body, progress.clone()));
        progress.head_done(!http_body::Body::is_end_stream(request.body()));
        let Some(pass) = self.listening.requests.enter() else {
            self.listening.metrics.refused_requests.inc();
            return Answering { doing: Doing::Reply(Some(full())), pass: None, progress, keep_alive };
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
fn full<B: From<Bytes>>() -> Response<B> {
    let mut response = Response::new(Bytes::from_static(b"Server capacity exceeded.").into());
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

enum Doing<B> {
    /// The handler works.
    Work(Work<B>),
    /// The reply is there.
    Reply(Option<Response<B>>),
    /// Parked while bytes of its request are still to come: hyper can't be taken apart, so we wait in here.
    Wait(Parked),
    /// Parked; the driver has the slot and drops us.
    Parked,
}

/// One request being answered.
pub(super) struct Answering<B> {
    doing: Doing<B>,
    pass: Option<Pass>,
    progress: Progress,
    keep_alive: bool,
}

impl<B: Unpin + From<Bytes>> Answering<B> {
    fn reply(&mut self, response: Response<B>) -> Poll<Result<Response<SentBody<B>>, Infallible>> {
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

impl<B: Unpin + From<Bytes>> Future for Answering<B> {
    type Output = Result<Response<SentBody<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.doing {
                Doing::Work(work) => match std::task::ready!(work.as_mut().poll(cx)) {
                    Answer::Reply(response) => return self.reply(response),
                    Answer::Park(slot) => self.park(slot),
                },
                Doing::Reply(response) => {
                    let response = response.take().unwrap_or_else(full);
                    return self.reply(response);
                }
                Doing::Wait(slot) => {
                    let reply = std::task::ready!(slot.as_mut().poll(cx));
                    return self.reply(whole(reply));
                }
                Doing::Parked => return Poll::Pending,
            }
        }
    }
}

/// A slot's reply as a handler's own kind of body.
fn whole<B: From<Bytes>>(reply: Reply) -> Response<B> {
    reply.map(|body: ReplyBody| B::from(body.into_bytes()))
}
