//! The body of a request, as a handler reads it. Most are here whole, together with their head; the others come
//! through a [`Pipe`] that the connection fills when somebody reads ([`feed`](super::feed)).

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Why a request's body ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestBodyError {
    /// It was not whole at `timeouts.read`: 408.
    #[error("timeout on request")]
    Late,
    /// The client hung up, or its framing is wrong.
    #[error("the body is broken: {0}")]
    Broken(String),
}

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody(Source);

#[derive(Debug)]
enum Source {
    /// All of it, until it is read.
    Whole(Bytes),
    /// It comes.
    Piped(Arc<Pipe>),
}

impl RequestBody {
    /// A body that is here.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self(Source::Whole(bytes))
    }

    /// A body that comes through `pipe`.
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

/// Between the connection, which has the bytes, and the handler, which reads them: one piece at a time.
#[derive(Debug)]
pub(super) struct Pipe(Mutex<State>);

#[derive(Debug)]
struct State {
    piece: Option<Bytes>,
    end: Option<Result<(), RequestBodyError>>,
    hint: SizeHint,
    /// Somebody reads and finds nothing.
    wanted: bool,
    reader: Option<Waker>,
    feeder: Option<Waker>,
}

impl Pipe {
    /// Empty and open; `hint` is what `Content-Length` promises.
    pub fn new(hint: SizeHint) -> Arc<Self> {
        let state = State { piece: None, end: None, hint, wanted: false, reader: None, feeder: None };
        Arc::new(Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way, so a poisoned state is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RequestBodyError>>> {
        let mut state = self.state();
        if let Some(piece) = state.piece.take() {
            return Poll::Ready(Some(Ok(piece)));
        }
        match &state.end {
            Some(Ok(())) => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.clone()))),
            None => {}
        }
        state.wanted = true;
        state.reader = Some(cx.waker().clone());
        // A reader in another task than the connection's must tell it.
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

    /// Whether somebody waits for bytes; if not, the connection's task is woken as soon as somebody does.
    pub fn is_wanted(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        if !state.wanted && state.end.is_none() {
            state.feeder = Some(cx.waker().clone());
        }
        state.wanted
    }

    /// Hands a piece to the reader, and what is known of the length of the rest.
    pub fn put(&self, piece: Bytes, rest: SizeHint) {
        let mut state = self.state();
        state.piece = Some(piece);
        state.hint = rest;
        state.tell();
    }

    /// Ends the body. The first end counts.
    pub fn end(&self, end: Result<(), RequestBodyError>) {
        let mut state = self.state();
        state.end.get_or_insert(end);
        state.tell();
    }
}

impl State {
    fn tell(&mut self) {
        self.wanted = false;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}
