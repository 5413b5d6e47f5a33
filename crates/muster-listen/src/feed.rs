//! Passes the body of a request from the connection to the handler, on demand.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http_body::SizeHint;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::{Pipe, RequestBody, RequestBodyError};
use super::chunked::{Chunked, Step};
use super::head::Length;
use super::link::Link;

/// Maximum length of an unread body, in bytes, that is discarded to keep the connection open. For a longer body, a new
/// connection is cheaper.
const SKIP: u64 = 64 * 1024;

/// The part of a body that has not been read yet.
#[derive(Debug)]
enum Rest {
    Exact(u64),
    Chunks(Chunked),
    Nothing,
    Broken,
}

/// The connection's side of a body.
#[derive(Debug)]
pub(super) struct Feed {
    rest: Rest,
    pipe: Option<Arc<Pipe>>,
    /// The client sent `Expect: 100-continue` and has not received a response.
    awaits_continue: bool,
    /// The handler was notified that the body is late.
    late: bool,
}

impl Feed {
    /// Starts a body. A body that is complete in `input` needs no pipe.
    pub fn begin(length: Length, expects_continue: bool, input: &mut BytesMut) -> (Self, RequestBody) {
        let rest = match length {
            Length::Exact(bytes) if bytes <= input.len() as u64 => {
                let whole = input.split_to(usize::try_from(bytes).unwrap_or_default()).freeze();
                let feed = Self { rest: Rest::Nothing, pipe: None, awaits_continue: false, late: false };
                return (feed, RequestBody::whole(whole));
            }
            Length::Exact(bytes) => Rest::Exact(bytes),
            Length::Chunked => Rest::Chunks(Chunked::new()),
        };
        let pipe = Pipe::new(rest.hint());
        let body = RequestBody::piped(Arc::clone(&pipe));
        // A client that has begun to send its body does not wait for the 100 (RFC 9110 §10.1.1).
        let awaits_continue = expects_continue && input.is_empty();
        (Self { rest, pipe: Some(pipe), awaits_continue, late: false }, body)
    }

    /// Returns whether a part of the body is unread.
    pub fn is_open(&self) -> bool {
        !matches!(self.rest, Rest::Nothing)
    }

    /// Returns whether the rest of the body is small enough to be discarded, so that the connection can be reused.
    pub fn can_be_skipped(&self) -> bool {
        match &self.rest {
            Rest::Nothing => true,
            // A client that waits for the 100 and gets a final response may send the body or omit it. It is then
            // unknown where its next request begins (RFC 9110 §10.1.1).
            Rest::Exact(bytes) => *bytes <= SKIP && !self.awaits_continue && !self.late,
            // The remaining length of a chunked body is unknown.
            Rest::Chunks(_) | Rest::Broken => false,
        }
    }

    /// Ends the body with [`RequestBodyError::Late`]. Returns false if this was done before.
    pub fn report_late(&mut self) -> bool {
        if let Some(pipe) = &self.pipe {
            pipe.end(Err(RequestBodyError::Late));
        }
        !std::mem::replace(&mut self.late, true)
    }

    /// Ready when the handler has a new piece or the end of the body.
    pub fn poll<S>(&mut self, link: &mut Link<S>, cx: &mut Context<'_>) -> Poll<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Nothing is read from the connection until the handler wants data. This is the backpressure on the client.
        let Some(pipe) = self.pipe.clone().filter(|pipe| self.is_open() && !self.late && pipe.is_wanted(cx)) else {
            return Poll::Pending;
        };
        let ended = match ready!(self.poll_piece(link, cx)) {
            Ok(Some(piece)) => {
                pipe.put(piece, self.rest.hint());
                (!self.is_open()).then_some(Ok(()))
            }
            Ok(None) => Some(Ok(())),
            Err(error) => {
                self.rest = Rest::Broken;
                Some(Err(RequestBodyError::Broken(error.to_string())))
            }
        };
        if let Some(end) = ended {
            pipe.end(end);
        }
        Poll::Ready(())
    }

    /// Ready with the next piece, or `None` at the end of the body.
    fn poll_piece<S>(&mut self, link: &mut Link<S>, cx: &mut Context<'_>) -> Poll<io::Result<Option<bytes::Bytes>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // The 100 is sent when the handler reads for the first time. If the handler rejects the request because of its
        // head, the client does not have to send the body.
        if std::mem::take(&mut self.awaits_continue) && link.input.is_empty() {
            link.queue_continue();
        }
        ready!(link.poll_send_continue(cx))?;
        loop {
            match self.rest.next(&mut link.input).map_err(io::Error::other)? {
                Step::Data(piece) => return Poll::Ready(Ok(Some(piece))),
                Step::End => {
                    self.rest = Rest::Nothing;
                    return Poll::Ready(Ok(None));
                }
                Step::More => {
                    if ready!(link.poll_fill(cx))? == 0 {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }

    /// Discards the unread part. Ready at the end of the body.
    pub fn poll_skip<S>(&mut self, link: &mut Link<S>, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        while self.is_open() {
            ready!(self.poll_piece(link, cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Rest {
    fn hint(&self) -> SizeHint {
        // For a chunked body, only the size of the current chunk is known, which is a lower bound.
        match self {
            Self::Exact(bytes) => SizeHint::with_exact(*bytes),
            Self::Chunks(chunks) => {
                let mut hint = SizeHint::new();
                hint.set_lower(chunks.left());
                hint
            }
            Self::Nothing | Self::Broken => SizeHint::with_exact(0),
        }
    }

    fn next(&mut self, input: &mut BytesMut) -> Result<Step, super::chunked::BadChunk> {
        match self {
            Self::Exact(_) if input.is_empty() => Ok(Step::More),
            Self::Exact(left) => {
                let part = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= part as u64;
                let piece = input.split_to(part).freeze();
                if *left == 0 {
                    *self = Self::Nothing;
                }
                Ok(Step::Data(piece))
            }
            Self::Chunks(chunks) => chunks.next(input),
            Self::Nothing | Self::Broken => Ok(Step::End),
        }
    }
}
