//! The body of a request. Most bodies arrive completely, in the same read as the head. Others are streamed through a
//! [`Pipe`], which the connection fills when the handler reads ([`feed`](super::feed)).

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Why the body of a request ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestBodyError {
    /// The body was incomplete at the end of `timeouts.read`: 408.
    #[error("timeout on request")]
    Late,
    /// The client disconnected, or the framing is malformed.
    #[error("incomplete body: {0}")]
    Broken(String),
}

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody(Source);

#[derive(Debug)]
enum Source {
    /// The complete body; empty once it has been read.
    Whole(Bytes),
    /// The body is streamed.
    Piped(Arc<Pipe>),
}

impl RequestBody {
    /// A body that has arrived completely.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self(Source::Whole(bytes))
    }

    /// A body that is streamed through `pipe`.
    pub(super) fn piped(pipe: Arc<Pipe>) -> Self {
        Self(Source::Piped(pipe))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match &mut self.0 {
            Source::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Piped(pipe) => pipe.poll_take(cx).map(|data| data.map(|data| data.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Piped(pipe) => pipe.is_drained(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Piped(pipe) => pipe.size_hint(),
        }
    }
}

/// Passes a body piece by piece from the connection, which reads the stream, to the handler. It contains at most one
/// piece, so that a slow handler slows down the client instead of filling memory.
#[derive(Debug)]
pub(super) struct Pipe(Mutex<State>);

#[derive(Debug)]
struct State {
    piece: Option<Bytes>,
    end: Option<Result<(), RequestBodyError>>,
    hint: SizeHint,
    /// The handler is waiting for a piece.
    wanted: bool,
    /// Wakes the handler when there is a piece or the end.
    reader: Option<Waker>,
    /// Wakes the connection's task when the handler wants a piece.
    feeder: Option<Waker>,
}

impl Pipe {
    /// Creates an empty, open pipe; `hint` is the length according to `Content-Length`, if any.
    pub fn new(hint: SizeHint) -> Arc<Self> {
        let state = State { piece: None, end: None, hint, wanted: false, reader: None, feeder: None };
        Arc::new(Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No critical section can panic halfway, so that a poisoned state is still consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RequestBodyError>>> {
        let mut state = self.state();
        if let Some(piece) = state.piece.take() {
            return Poll::Ready(Some(Ok(piece)));
        }
        // After the piece: the end may be known while a piece is still waiting.
        match &state.end {
            Some(Ok(())) => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.clone()))),
            None => {}
        }
        state.wanted = true;
        state.reader = Some(cx.waker().clone());
        // The connection polls the handler and the feed in the same task, and usually needs no wake-up. It does if the
        // handler passed the body to another task.
        if let Some(feeder) = state.feeder.take() {
            feeder.wake();
        }
        Poll::Pending
    }

    fn is_drained(&self) -> bool {
        let state = self.state();
        state.piece.is_none() && state.end == Some(Ok(()))
    }

    fn size_hint(&self) -> SizeHint {
        self.state().hint
    }

    /// Returns whether the handler is waiting for bytes. If it is not, registers the task of the connection to be
    /// woken.
    pub fn is_wanted(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        if !state.wanted && state.end.is_none() {
            // Registered under the same lock as the check, so that a wish between the two is not lost.
            state.feeder = Some(cx.waker().clone());
        }
        state.wanted
    }

    /// Passes a piece to the reader, with a hint about the length of the rest.
    pub fn put(&self, piece: Bytes, rest: SizeHint) {
        let mut state = self.state();
        state.piece = Some(piece);
        state.hint = rest;
        state.wake_reader();
    }

    /// Ends the body. Later calls have no effect: a body that was late stays late even if the rest arrives.
    pub fn end(&self, end: Result<(), RequestBodyError>) {
        let mut state = self.state();
        state.end.get_or_insert(end);
        state.wake_reader();
    }
}

impl State {
    fn wake_reader(&mut self) {
        self.wanted = false;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}
