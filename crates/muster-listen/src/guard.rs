//! The stream between hyper and the client on a management listener, which enforces our limits and deadlines.
//!
//! hyper reads only checked input. A head is passed on when it is complete and valid by our rules ([`head`]), which
//! prevent request smuggling. The response to an invalid head is an error in the format of the API (hyper's errors have
//! no body). Bodies are passed on when they arrive, and their framing is checked.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tracing::trace;

use super::accept::Place;
use super::alarm::Alarm;
use super::chunked::{Chunked, Step};
use super::head::{self, Length, MAX_HEAD};
use super::link::Link;
use super::web::{OnHyper, Web};
use super::wire;
use super::{Listening, Serve as _};
use crate::reply::Peer;

/// Maximum time for which a rejected client may continue to send. Its bytes are read and discarded, because closing a
/// socket with unread bytes sends a reset, after which the client may lose the response.
const CLOSE: Duration = Duration::from_secs(2);

/// State shared by the stream and the requests on it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Number of requests whose response is not complete.
    running: AtomicUsize,
    /// The connection must not stay open between requests.
    closes: AtomicBool,
    /// The connection was upgraded to another protocol.
    upgraded: AtomicBool,
    /// Wakes the reader when a response has ended.
    reader: Mutex<Option<Waker>>,
}

impl Shared {
    /// Returns whether the connection must be closed after the current response.
    pub fn closes(&self) -> bool {
        self.closes.load(Ordering::Relaxed)
    }

    /// Records an upgrade. From now on, bytes are passed on unchecked.
    pub fn upgraded(&self) {
        self.upgraded.store(true, Ordering::Relaxed);
    }

    /// Records the end of a response.
    pub fn ended(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        if let Some(reader) = self.reader().take() {
            reader.wake();
        }
    }

    fn reader(&self) -> MutexGuard<'_, Option<Waker>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when no response is in progress.
    fn poll_idle(&self, cx: &Context<'_>) -> Poll<()> {
        *self.reader() = Some(cx.waker().clone());
        // Checked after the waker is stored, so that a response that ends in between wakes this task.
        if self.running.load(Ordering::Relaxed) == 0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What the next bytes from the client belong to.
enum Inbound {
    Head,
    /// A body with this many remaining bytes.
    Exact(u64),
    Chunks(Chunked),
    /// Nothing more is read, because the client closed its side or was rejected.
    Ended,
}

/// A write that the client blocks, with the time when this began and the time of the last progress.
#[derive(Clone, Copy)]
struct Blocked {
    began: Instant,
    moved: Instant,
}

/// See the module's documentation.
pub(super) struct Guard<S, W> {
    link: Link<S>,
    listening: Arc<Listening<OnHyper<W>>>,
    peer: Peer,
    place: Place,
    shared: Arc<Shared>,
    inbound: Inbound,
    /// Checked bytes that hyper has not read yet.
    checked: BytesMut,
    reading: Alarm,
    /// When the connection became idle, or the first byte of a head arrived.
    since: Instant,
    was_running: bool,
    writing: Option<Alarm>,
    blocked: Option<Blocked>,
    /// The unsent part of the response to a rejected client.
    refusal: Vec<u8>,
    refused: bool,
}

impl<S, W> Guard<S, W>
where
    S: AsyncRead + AsyncWrite + Unpin,
    W: Web,
{
    /// Guards the connection of a client, which has to send a head in time.
    pub fn new(
        stream: S,
        listening: Arc<Listening<OnHyper<W>>>,
        peer: Peer,
        place: Place,
        shared: Arc<Shared>,
    ) -> Self {
        let since = Instant::now();
        let reading = Alarm::new(since + listening.timeouts.idle.min(listening.timeouts.read_header));
        shared.closes.store(!place.may_idle(), Ordering::Relaxed);
        Self {
            link: Link::new(stream),
            listening,
            peer,
            place,
            shared,
            inbound: Inbound::Head,
            checked: BytesMut::new(),
            reading,
            since,
            was_running: false,
            writing: None,
            blocked: None,
            refusal: Vec::new(),
            refused: false,
        }
    }

    /// Ready when there are checked bytes, or at the end of the stream.
    fn poll_checked(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.checked.is_empty() {
            match &mut self.inbound {
                Inbound::Ended => break,
                // The new protocol begins where the next head would.
                Inbound::Head if self.shared.upgraded.load(Ordering::Relaxed) => {
                    self.checked = self.link.input.split();
                    if self.checked.is_empty() {
                        ready!(self.poll_more(cx))?;
                    }
                }
                Inbound::Head => {
                    if self.take_head()? {
                        continue;
                    }
                    ready!(self.poll_head(cx))?;
                }
                Inbound::Exact(left) => {
                    let part = usize::try_from(*left).unwrap_or(usize::MAX).min(self.link.input.len());
                    self.checked = self.link.input.split_to(part);
                    *left -= part as u64;
                    if *left == 0 {
                        self.inbound = Inbound::Head;
                    } else if part == 0 {
                        ready!(self.poll_more(cx))?;
                    }
                }
                Inbound::Chunks(chunks) => {
                    let (length, is_whole) = advance(chunks, &self.link.input)?;
                    self.checked = self.link.input.split_to(length);
                    if is_whole {
                        self.inbound = Inbound::Head;
                    } else if length == 0 {
                        ready!(self.poll_more(cx))?;
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Passes the next head on, or rejects it. Returns false if it is incomplete.
    fn take_head(&mut self) -> io::Result<bool> {
        if self.link.input.is_empty() {
            return Ok(false);
        }
        // A copy is parsed, because hyper needs the original bytes. One byte above the limit is sufficient to recognize
        // that a head is too long, and limits the number of bytes that are copied again with each read of a slow head.
        let visible = self.link.input.len().min(MAX_HEAD + 1);
        let mut copy = BytesMut::from(&self.link.input[..visible]);
        match head::take(&mut copy) {
            Ok(None) => return Ok(false),
            Ok(Some(_)) if !self.place.keep() => return Err(self.displaced()),
            Ok(Some(head)) => {
                self.checked = self.link.input.split_to(visible - copy.len());
                self.inbound = match head.length {
                    Length::Exact(0) => Inbound::Head,
                    Length::Exact(bytes) => Inbound::Exact(bytes),
                    Length::Chunked => Inbound::Chunks(Chunked::new()),
                };
                self.shared.running.fetch_add(1, Ordering::Relaxed);
                self.was_running = true;
            }
            // For hyper, this is the end of the stream. It completes the responses in progress and shuts the stream
            // down, which sends the error (`poll_close`). Responses must be sent in the order of their requests.
            Err(refusal) => {
                self.refusal = wire::whole(self.listening.handler.refuse(&refusal, &self.peer));
                self.refused = true;
                self.inbound = Inbound::Ended;
            }
        }
        Ok(true)
    }

    /// Returns the error that closes a connection whose place another one has taken.
    fn displaced(&self) -> io::Error {
        self.listening.note_displaced(&self.peer);
        io::Error::new(io::ErrorKind::ConnectionAborted, "another connection has taken the place of this one")
    }

    /// Reads more of a head. There is no deadline while a response is in progress. The idle timeout applies before the
    /// first byte of the head, and `read_header` from there.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let runs = self.shared.running.load(Ordering::Relaxed) > 0;
        // The idle time counts from the end of the last response, which is detected at the first poll after it.
        if !runs && std::mem::take(&mut self.was_running) {
            self.since = Instant::now();
        }
        self.note_authentication();
        let idle = self.link.input.is_empty();
        if let Poll::Ready(count) = self.link.poll_fill(cx)? {
            if count == 0 {
                self.inbound = Inbound::Ended;
            } else if idle {
                self.since = Instant::now();
            }
            return Poll::Ready(Ok(()));
        }
        if runs {
            // The deadlines count from the end of the response, and hyper need not read again when it has ended.
            return self.shared.poll_idle(cx).map(Ok);
        }
        self.place.waits();
        if self.place.poll_displaced(cx).is_ready() {
            return Poll::Ready(Err(self.displaced()));
        }
        let timeouts = &self.listening.timeouts;
        let patience = if idle && self.place.may_idle() { timeouts.idle } else { timeouts.read_header };
        ready!(self.reading.poll(self.since + patience, cx));
        if !idle {
            trace!("connection closed: the request head arrived too slowly");
            self.listening.metrics.cut_connections.inc();
        }
        self.inbound = Inbound::Ended;
        Poll::Ready(Ok(()))
    }

    /// Reads more of a body. The deadline is enforced where the handler reads the body ([`super::web`]).
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if ready!(self.link.poll_fill(cx))? == 0 {
            self.inbound = Inbound::Ended;
        }
        Poll::Ready(Ok(()))
    }

    /// Frees the slot among unauthenticated connections once a request has carried valid credentials.
    fn note_authentication(&mut self) {
        if self.place.unauthenticated.is_some() && self.peer.is_authenticated() {
            self.place.unauthenticated = None;
            self.shared.closes.store(false, Ordering::Relaxed);
        }
    }

    /// Ready with an error if the client has blocked a write for too long.
    fn poll_blocked<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let now = Instant::now();
        let blocked = *self.blocked.get_or_insert(Blocked { began: now, moved: now });
        let timeouts = &self.listening.timeouts;
        // The total time counts from the moment at which the client blocked, so that a client cannot extend it by
        // reading single bytes.
        let deadline = (blocked.began + timeouts.write).min(blocked.moved + timeouts.write_stall);
        ready!(self.writing.get_or_insert_with(|| Alarm::new(deadline)).poll(deadline, cx));
        self.listening.metrics.cut_connections.inc();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }

    /// Sends the response to a rejected client, closes our side, and discards what the client still sends.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            let written = ready!(Pin::new(&mut self.link.stream).poll_write(cx, &self.refusal))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.refusal.drain(..written);
        }
        ready!(Pin::new(&mut self.link.stream).poll_shutdown(cx))?;
        while self.refused {
            if self.place.poll_displaced(cx).is_ready() {
                return Poll::Ready(Err(self.displaced()));
            }
            self.link.input.clear();
            self.refused = ready!(self.link.poll_fill(cx))? > 0;
        }
        Poll::Ready(Ok(()))
    }
}

/// Returns how many bytes of `input` belong to the chunked body, and whether it ends there.
fn advance(chunks: &mut Chunked, input: &[u8]) -> io::Result<(usize, bool)> {
    // Only positions are needed: hyper decodes the original bytes again.
    let mut copy = BytesMut::from(input);
    loop {
        match chunks.next(&mut copy).map_err(io::Error::other)? {
            Step::Data(_) => {}
            Step::More => return Ok((input.len() - copy.len(), false)),
            Step::End => return Ok((input.len() - copy.len(), true)),
        }
    }
}

impl<S, W> AsyncRead for Guard<S, W>
where
    S: AsyncRead + AsyncWrite + Unpin,
    W: Web,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_checked(cx))?;
        let part = self.checked.len().min(buffer.remaining());
        buffer.put_slice(&self.checked[..part]);
        self.checked.advance(part);
        Poll::Ready(Ok(()))
    }
}

impl<S, W> AsyncWrite for Guard<S, W>
where
    S: AsyncRead + AsyncWrite + Unpin,
    W: Web,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.link.stream).poll_write(cx, bytes) {
            Poll::Ready(Ok(written)) => {
                match &mut self.blocked {
                    // A partial write means that the socket buffer is full again.
                    Some(blocked) if written < bytes.len() => blocked.moved = Instant::now(),
                    blocked => *blocked = None,
                }
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_blocked(cx),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.link.stream).poll_flush(cx) {
            Poll::Pending => self.poll_blocked(cx),
            flushed => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(closed) = self.poll_close(cx) {
            return Poll::Ready(closed);
        }
        // A client that does not close its side in time is disconnected, which is not an error.
        let now = Instant::now();
        let deadline = self.blocked.get_or_insert(Blocked { began: now, moved: now }).began + CLOSE;
        self.writing.get_or_insert_with(|| Alarm::new(deadline)).poll(deadline, cx).map(Ok)
    }
}
