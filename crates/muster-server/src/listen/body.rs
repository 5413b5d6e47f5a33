//! Bodies: a request's, which tells progress and ends at its deadline; a reply's, which holds its place until sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::BodyError;
use super::gate::Pass;
use super::progress::Progress;

/// Why a request's body ended early.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// It was not whole at `timeouts.read`: 408.
    #[error("timeout on request")]
    Late,
    /// The client hung up, or its framing is wrong.
    #[error("the body is broken: {0}")]
    Broken(#[from] hyper::Error),
}

/// The body of a request.
pub struct RequestBody {
    inner: Incoming,
    progress: Progress,
    done: bool,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, progress: Progress) -> Self {
        let done = inner.is_end_stream();
        Self { inner, progress, done }
    }

    fn note(&mut self) {
        if !self.done && self.inner.is_end_stream() {
            self.done = true;
            self.progress.body_done();
        }
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBody").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending if self.progress.is_body_late() => Poll::Ready(Some(Err(RequestBodyError::Late))),
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.done = true;
                self.progress.body_done();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(Some(Ok(frame))) => {
                self.note();
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a reply; its place among running requests is free again when it is sent or dropped.
pub(super) struct SentBody<B> {
    inner: B,
    _pass: Option<Pass>,
    progress: Progress,
}

impl<B> SentBody<B> {
    pub fn new(inner: B, pass: Option<Pass>, progress: Progress) -> Self {
        Self { inner, _pass: pass, progress }
    }
}

impl<B> Drop for SentBody<B> {
    fn drop(&mut self) {
        self.progress.reply_done();
    }
}

impl<B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin> Body for SentBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
