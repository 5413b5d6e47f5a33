//! Writes a response: its head, and its body when it is available, within the write deadlines.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::alarm::Alarm;
use super::date::write_date;
use super::pieces::Pieces;
use super::{BodyError, head};
use crate::Timeouts;
use crate::reply::{Reply, ReplyBody};

/// Properties of the request that determine the framing of the response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Whether another request may follow.
    pub keep_alive: bool,
    /// Whether the client uses HTTP/1.1.
    pub is_11: bool,
    /// Whether the request is a `HEAD`, whose response has no body.
    pub head_only: bool,
}

/// Why a response was not sent completely.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The client did not read it in time.
    #[error("the client did not read the response in time")]
    Late,
    /// The connection was lost.
    #[error("lost the connection: {0}")]
    Io(#[from] io::Error),
    /// The body ended with an error or has the wrong length. The connection is closed, so that the client detects it.
    #[error("incomplete response body: {0}")]
    Body(BodyError),
}

/// Framing of the body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// There is no body.
    Nothing,
    /// A body of this many bytes.
    Exact(u64),
}

impl Framing {
    fn of(reply: &Reply, manner: Manner) -> Self {
        // RFC 9110 §6.4.1: a body here would be read as the beginning of the next response.
        if is_bodiless(reply.status()) {
            return Self::Nothing;
        }
        let stated = || reply.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        // In the response to a HEAD, a handler can specify a length without providing a body.
        let known = if manner.head_only { stated() } else { None };
        Self::Exact(known.unwrap_or(reply.body().len() as u64))
    }
}

fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Returns whether the connection is closed after a response.
pub(super) fn ends_connection(reply: &Reply, manner: Manner) -> bool {
    !manner.keep_alive || head::has_token(reply.headers(), &CONNECTION, "close")
}

/// Serializes a complete response, after which the connection is closed.
pub(super) fn whole(reply: Reply) -> Vec<u8> {
    let framing = Framing::of(&reply, Manner { keep_alive: false, is_11: true, head_only: false });
    let (parts, body) = reply.into_parts();
    let mut bytes = write_head(parts.status, &parts.headers, framing, false);
    body.into_pieces().for_each(|piece| bytes.extend_from_slice(&piece));
    bytes
}

/// A response that is being sent.
pub(super) struct Sending<'a, S> {
    stream: &'a mut S,
    alarm: &'a mut Alarm,
    timeouts: &'a Timeouts,
    body: Option<ReplyBody>,
    framing: Framing,
    /// Number of bytes of the body that were sent or are in `pieces`.
    came: u64,
    pieces: Pieces,
    /// Whether the stream has buffered bytes that must be flushed.
    unflushed: bool,
    blocked: Option<Blocked>,
}

/// The client currently does not accept more data.
#[derive(Clone, Copy, Debug)]
struct Blocked {
    began: Instant,
    moved: Instant,
}

impl<'a, S: AsyncWrite + Unpin> Sending<'a, S> {
    /// Starts with the head.
    pub fn begin(
        stream: &'a mut S,
        alarm: &'a mut Alarm,
        timeouts: &'a Timeouts,
        reply: Reply,
        manner: Manner,
    ) -> Self {
        let framing = Framing::of(&reply, manner);
        let (parts, body) = reply.into_parts();
        let head = write_head(parts.status, &parts.headers, framing, manner.keep_alive);
        let bodiless = manner.head_only || framing == Framing::Nothing;
        Self {
            stream,
            alarm,
            timeouts,
            // The head of a HEAD's response still announces the length.
            body: (!bodiless).then_some(body),
            framing,
            came: 0,
            pieces: Pieces::new(head),
            unflushed: false,
            blocked: None,
        }
    }

    /// Ready when the response is sent completely.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        loop {
            // Pieces are collected before each write, so that one write sends as many as possible.
            // The result is looked at after the write: pieces that were collected before an error are still sent.
            let gathered = self.poll_gather(cx);
            let written = self.poll_write(cx);
            if written.is_pending() {
                // Pieces that arrive in the meantime are collected with the next poll, which the stream or the body
                // wakes.
                return self.poll_late(cx);
            }
            ready!(written)?;
            match gathered {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(SendError::Body(error))),
                Poll::Ready(Ok(())) if self.body.is_none() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    /// Collects pieces of the body while there is room. Ready when the buffer is full or the body has ended.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while let Some(body) = &mut self.body {
            if !self.pieces.has_room() {
                break;
            }
            // Nothing is collected while the client blocks, so a fast body cannot fill the memory.
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                Some(Ok(frame)) => {
                    // Trailers are ignored, because responses always have a declared length.
                    if let Ok(data) = frame.into_data() {
                        self.add(data);
                    }
                }
                None => {
                    self.body = None;
                    self.end()?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn add(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        self.came += data.len() as u64;
        self.pieces.add(data);
    }

    fn end(&mut self) -> Result<(), BodyError> {
        match self.framing {
            Framing::Exact(bytes) if bytes != self.came => {
                Err(format!("received {} of {bytes} bytes", self.came).into())
            }
            _ => Ok(()),
        }
    }

    /// Ready when all collected pieces are sent.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pieces.is_empty() {
            if ready!(self.pieces.poll_write(self.stream, cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            if let Some(blocked) = &mut self.blocked {
                // Progress restarts the shorter deadline, never the longer one.
                blocked.moved = Instant::now();
            }
        }
        // A stream over TLS may hold encrypted bytes back until it is flushed.
        if self.unflushed {
            ready!(Pin::new(&mut *self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        self.blocked = None;
        Poll::Ready(Ok(()))
    }

    /// Ready if the client has blocked for too long. The total time counts from the moment at which it blocked, so that
    /// a client cannot extend it by reading single bytes.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let blocked = *self.blocked.get_or_insert_with(|| {
            let now = Instant::now();
            Blocked { began: now, moved: now }
        });
        // Two deadlines: no progress at all, and all in all.
        let deadline = (blocked.began + self.timeouts.write).min(blocked.moved + self.timeouts.write_stall);
        ready!(self.alarm.poll(deadline, cx));
        Poll::Ready(Err(SendError::Late))
    }
}

/// Serializes the head. Header values cannot contain line breaks, which their type does not allow.
fn write_head(status: StatusCode, headers: &HeaderMap, framing: Framing, keep_alive: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    // The reason phrase may be empty, but the space before it is required (RFC 9112 §4).
    head.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    for (name, value) in headers.iter().filter(|(name, _)| !is_ours(name)) {
        line(&mut head, name.as_str(), value.as_bytes());
    }
    if let Framing::Exact(bytes) = framing {
        line(&mut head, "content-length", HeaderValue::from(bytes).as_bytes());
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        line(&mut head, "connection", b"upgrade");
    } else if !keep_alive {
        line(&mut head, "connection", b"close");
    }
    head.extend_from_slice(b"\r\ndate: ");
    write_date(&mut head);
    head.extend_from_slice(b"\r\n\r\n");
    head
}

/// Returns whether this module sets the header itself. Values that a handler sets are ignored.
fn is_ours(name: &http::HeaderName) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, DATE].contains(name)
}

fn line(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(b"\r\n");
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_digits() {
        for number in [0, 7, 10, 1234, u64::MAX] {
            let head = write_head(StatusCode::OK, &HeaderMap::new(), Framing::Exact(number), true);
            let head = String::from_utf8(head).unwrap();
            assert!(head.contains(&format!("\r\ncontent-length: {number}\r\n")), "{head}");
        }
    }
}
