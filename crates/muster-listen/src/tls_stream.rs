//! A TLS connection without buffers while it is waiting.
//!
//! Buffered connections of rustls keep a read buffer of 4 KiB for their whole lifetime, and most connections are parked
//! almost all the time. This implementation uses `rustls::unbuffered`: it reads into a buffer of the thread, and a
//! connection keeps only unfinished data: a partial record, plaintext that has not been read yet, and records that the
//! client has not accepted yet.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Size of a read: the longest record (RFC 8446 §5.2, plus the overhead of TLS 1.2).
const READ: usize = 16 * 1024 + 2048 + 5;
/// Maximum number of bytes of incomplete records. Only handshake messages can be longer than a record.
const MAX_UNFINISHED: usize = 64 * 1024;
/// Maximum length of plaintext that is encrypted at once: two records.
const WRITE: usize = 32 * 1024;
/// Maximum overhead of the records for [`WRITE`] bytes of plaintext, including a key update or an alert.
const OVERHEAD: usize = 512;

thread_local! {
    /// Read buffer of this thread.
    static SPACE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What to do after all records are processed.
#[derive(Clone, Copy)]
enum Then<'a> {
    Wait,
    /// Encrypt plaintext.
    Write(&'a [u8]),
    /// Send a close_notify.
    Close,
}

/// The server side of a TLS connection over `S`.
pub(super) struct TlsStream<S> {
    stream: S,
    session: UnbufferedServerConnection,
    /// The beginning of an incomplete record or handshake message.
    unfinished: Vec<u8>,
    buffers: Buffers,
    state: State,
}

/// State of our side of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A close_notify was sent.
    Closed,
    /// The session has returned an error and must not be used again.
    Failed,
}

/// Data that has not been read or sent yet. Empty most of the time.
#[derive(Default)]
struct Buffers {
    /// Decrypted plaintext that has not been read yet.
    text: BytesMut,
    /// Records to send.
    records: Vec<u8>,
    /// Number of bytes of `records` that were sent.
    sent: usize,
    /// Whether the client has closed its sending side.
    has_ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Performs the handshake.
    pub async fn accept(stream: S, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let mut tls = Self { stream, session, unfinished: Vec::new(), buffers: Buffers::default(), state: State::Open };
        poll_fn(|cx| tls.poll_handshake(cx)).await?;
        Ok(tls)
    }

    /// Returns the client's certificate chain, if it presented one.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session.peer_certificates()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.buffers.has_ended {
                return Poll::Ready(Err(io::Error::new(ErrorKind::UnexpectedEof, "tls handshake eof")));
            }
            // Data that the client sends directly after its handshake is kept.
            ready!(self.poll_receive(cx, &mut ReadBuf::new(&mut [])))?;
        }
    }

    /// Reads once and processes the received records. Plaintext is written to `into`; if there is not enough space, the
    /// rest is kept.
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unfinished.len() >= MAX_UNFINISHED {
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, "a TLS message is too long")));
        }
        // Taken out of the thread-local and put back, because the borrow must not last while the session runs.
        let mut space = SPACE.take();
        let received = self.receive(cx, &mut space, into);
        SPACE.set(space);
        received
    }

    fn receive(&mut self, cx: &mut Context<'_>, space: &mut Vec<u8>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let kept = self.unfinished.len();
        if space.len() < kept + READ {
            space.resize(kept + READ, 0);
        }
        let mut free = ReadBuf::new(&mut space[kept..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut free))?;
        let came = free.filled().len();
        if came == 0 {
            self.buffers.has_ended = true;
            return Poll::Ready(if self.session.is_handshaking() { Ok(()) } else { Err(cut_off()) });
        }
        space[..kept].copy_from_slice(&self.unfinished);
        let records = &mut space[..kept + came];
        match process(&mut self.session, records, &mut self.buffers, into, Then::Wait) {
            Ok(used) => {
                // Allocated with the exact size. Usually, there is nothing to keep.
                self.unfinished = records[used..].to_vec();
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                self.fail(records);
                // Sends the alert if possible. The error is returned in any case.
                let _ = self.poll_send(cx);
                Poll::Ready(Err(invalid(error)))
            }
        }
    }

    /// Ends the session, and queues the alert that informs the client of the reason.
    fn fail(&mut self, records: &mut [u8]) {
        let mut room = [0; OVERHEAD];
        // Only collects output of the session, which must not process the records again.
        while self.session.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut data)) = self.session.process_tls_records(records).state
            && let Ok(length) = data.encode(&mut room)
        {
            self.buffers.records.extend_from_slice(&room[..length]);
        }
        self.buffers.has_ended = true;
        self.state = State::Failed;
    }

    /// Ready when all records are sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Buffers { records, sent, .. } = &mut self.buffers;
        while *sent < records.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &records[*sent..]))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                count => *sent += count,
            }
        }
        (*records, *sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Encrypts plaintext, or closes our side. Processes pending records first, and keeps their plaintext.
    fn perform(&mut self, then: Then<'_>) -> io::Result<()> {
        if self.state != State::Open {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "the TLS connection has ended"));
        }
        let none = &mut ReadBuf::new(&mut []);
        let used = process(&mut self.session, &mut self.unfinished, &mut self.buffers, none, then)
            .inspect_err(|_| self.state = State::Failed)
            .map_err(invalid)?;
        // Usually nothing: unfinished data is incomplete, so that the session consumes none of it.
        self.unfinished.drain(..used);
        Ok(())
    }

    fn poll_write_text(&mut self, cx: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<usize>> {
        // At most one piece of plaintext is buffered as records.
        ready!(self.poll_send(cx))?;
        self.perform(Then::Write(text))?;
        // The plaintext counts as written. A flush or the next write waits until its records are sent.
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(text.len())),
        }
    }
}

/// Processes all complete records, then performs `then`. Returns the number of bytes of `records` that were consumed.
fn process(
    session: &mut UnbufferedServerConnection,
    records: &mut [u8],
    buffers: &mut Buffers,
    into: &mut ReadBuf<'_>,
    then: Then<'_>,
) -> Result<usize, rustls::Error> {
    let mut used = 0;
    loop {
        let UnbufferedStatus { mut discard, state } = session.process_tls_records(&mut records[used..]);
        match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    buffers.take_text(record.payload, into);
                }
            }
            ConnectionState::EncodeTlsData(mut data) => {
                buffers.add(0, |room| data.encode(room).map_err(Into::into))?;
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => buffers.has_ended = true,
            ConnectionState::WriteTraffic(traffic) => {
                buffers.perform(traffic, then)?;
                return Ok(used + discard);
            }
            ConnectionState::BlockedHandshake | ConnectionState::Closed => {
                buffers.has_ended |= !session.is_handshaking();
                return match then {
                    Then::Write(_) => Err(rustls::Error::General("the TLS connection is closed".into())),
                    Then::Wait | Then::Close => Ok(used + discard),
                };
            }
            // Early data is disabled, and states of later versions of the library are unknown.
            other => return Err(rustls::Error::General(format!("unexpected TLS state: {other:?}"))),
        }
        used += discard;
    }
}

/// Why records were not written.
enum Short {
    /// The buffer must have at least this many bytes.
    Of(usize),
    /// A larger buffer would not help.
    Never,
}

impl From<EncodeError> for Short {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(error) => Self::Of(error.required_size),
            EncodeError::AlreadyEncoded => Self::Never,
        }
    }
}

impl From<EncryptError> for Short {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(error) => Self::Of(error.required_size),
            EncryptError::EncryptExhausted => Self::Never,
        }
    }
}

impl Buffers {
    fn take_text(&mut self, text: &[u8], into: &mut ReadBuf<'_>) {
        // If plaintext is already buffered, new plaintext must follow it.
        let fits = if self.text.is_empty() { text.len().min(into.remaining()) } else { 0 };
        into.put_slice(&text[..fits]);
        self.text.extend_from_slice(&text[fits..]);
    }

    fn perform(
        &mut self,
        mut traffic: WriteTraffic<'_, ServerConnectionData>,
        then: Then<'_>,
    ) -> Result<(), rustls::Error> {
        match then {
            Then::Wait => Ok(()),
            Then::Write(text) => {
                self.add(text.len() + OVERHEAD, |room| traffic.encrypt(text, room).map_err(Into::into))
            }
            Then::Close => self.add(OVERHEAD, |room| traffic.queue_close_notify(room).map_err(Into::into)),
        }
    }

    /// Appends the records that `put` writes. `room` is the expected length in bytes.
    fn add(
        &mut self,
        room: usize,
        mut put: impl FnMut(&mut [u8]) -> Result<usize, Short>,
    ) -> Result<(), rustls::Error> {
        let before = self.records.len();
        let mut room = room;
        loop {
            self.records.resize(before + room, 0);
            match put(&mut self.records[before..]) {
                Ok(length) => {
                    self.records.truncate(before + length);
                    return Ok(());
                }
                Err(Short::Of(required)) if required > room => room = required,
                Err(_) => {
                    self.records.truncate(before);
                    return Err(rustls::Error::EncryptError);
                }
            }
        }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

fn cut_off() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the client closed the connection without a close_notify")
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tls = self.get_mut();
        // A caller that only reads must also send pending records, because the client may be waiting for them.
        if let Poll::Ready(Err(error)) = tls.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        let before = into.filled().len();
        while into.filled().len() == before && into.remaining() > 0 {
            let text = &mut tls.buffers.text;
            if !text.is_empty() {
                let part = text.len().min(into.remaining());
                into.put_slice(&text[..part]);
                text.advance(part);
                if text.is_empty() {
                    // Frees the allocation, because the connection may now be parked.
                    *text = BytesMut::new();
                }
            } else if tls.buffers.has_ended {
                break;
            } else {
                ready!(tls.poll_receive(cx, into))?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_text(cx, &text[..text.len().min(WRITE)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = pieces.iter().map(|piece| piece.len()).sum::<usize>().min(WRITE);
        let mut text = Vec::with_capacity(total);
        for piece in pieces {
            let fits = piece.len().min(total - text.len());
            text.extend_from_slice(&piece[..fits]);
        }
        self.get_mut().poll_write_text(cx, &text)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tls = self.get_mut();
        ready!(tls.poll_send(cx))?;
        Pin::new(&mut tls.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tls = self.get_mut();
        if tls.state == State::Open {
            tls.perform(Then::Close)?;
            tls.state = State::Closed;
        }
        ready!(tls.poll_send(cx))?;
        Pin::new(&mut tls.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
