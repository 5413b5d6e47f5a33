//! A TLS connection that holds no buffers while it waits.
//!
//! rustls' buffered connections keep room for a read (4 KiB) as long as they live, and an agent is parked almost all its
//! life. Here the bytes on their way belong to us (`rustls::unbuffered`): a read happens in a buffer of the thread,
//! and a connection keeps only what is unfinished: a record that is not whole, text that nobody has read yet, records that
//! the client does not take.

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

/// Room for a read: the longest record (RFC 8446 §5.2, with what TLS 1.2 adds).
const READ: usize = 16 * 1024 + 2048 + 5;
/// Bytes of records that are not whole. Only the messages of a handshake are longer than a record.
const MAX_UNFINISHED: usize = 64 * 1024;
/// Text that is encrypted at a time: two records.
const WRITE: usize = 32 * 1024;
/// What records add to [`WRITE`] bytes of text, with a change of keys before it, or an alert.
const OVERHEAD: usize = 512;

thread_local! {
    /// Where this thread reads to.
    static SPACE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What is done once all records are processed.
#[derive(Clone, Copy)]
enum Then<'a> {
    Wait,
    /// Encrypts a text.
    Write(&'a [u8]),
    /// Ends our side in form.
    Close,
}

/// The server's side of a TLS connection over `S`.
pub(super) struct TlsStream<S> {
    stream: S,
    session: UnbufferedServerConnection,
    /// Begin of a record, or of a handshake message, that is not whole yet.
    unfinished: Vec<u8>,
    buffers: Buffers,
    state: State,
}

/// What may still be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Our side was ended in form.
    Closed,
    /// The session met an error, and must not be asked again.
    Failed,
}

/// What waits to be read or sent; empty most of the time.
#[derive(Default)]
struct Buffers {
    /// Text that came with other text and was not read yet.
    text: BytesMut,
    /// Records to send.
    records: Vec<u8>,
    /// Bytes of `records` that are sent.
    sent: usize,
    /// The client sends no more.
    has_ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Takes the handshake.
    pub async fn accept(stream: S, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let mut tls = Self { stream, session, unfinished: Vec::new(), buffers: Buffers::default(), state: State::Open };
        poll_fn(|cx| tls.poll_handshake(cx)).await?;
        Ok(tls)
    }

    /// The client's certificate and its chain, if it presented one.
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
            // What a client sends right behind its handshake is kept.
            ready!(self.poll_receive(cx, &mut ReadBuf::new(&mut [])))?;
        }
    }

    /// Reads once, and processes what came: text goes to `into`, and what finds no room there is kept.
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unfinished.len() >= MAX_UNFINISHED {
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, "a TLS message is too long")));
        }
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
                // Made anew, of the size that is needed: as a rule there is nothing to keep.
                self.unfinished = records[used..].to_vec();
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                self.fail(records);
                // As far as the client takes the alert: the error is what counts.
                let _ = self.poll_send(cx);
                Poll::Ready(Err(invalid(error)))
            }
        }
    }

    /// Ends everything, with the alert that tells the client why.
    fn fail(&mut self, records: &mut [u8]) {
        let mut room = [0; OVERHEAD];
        // Only what the session has to say: it must not look at the records again.
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

    /// Encrypts, or closes. What waited to be processed is processed first; text that comes of it is kept.
    fn perform(&mut self, then: Then<'_>) -> io::Result<()> {
        if self.state != State::Open {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "the TLS connection has ended"));
        }
        let none = &mut ReadBuf::new(&mut []);
        let used = process(&mut self.session, &mut self.unfinished, &mut self.buffers, none, then)
            .inspect_err(|_| self.state = State::Failed)
            .map_err(invalid)?;
        self.unfinished.drain(..used);
        Ok(())
    }

    fn poll_write_text(&mut self, cx: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<usize>> {
        // No more than one piece of text waits as records.
        ready!(self.poll_send(cx))?;
        self.perform(Then::Write(text))?;
        // It counts as written: who flushes, or writes on, waits until it is sent.
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(text.len())),
        }
    }
}

/// Processes all whole records, then does what is to be done. Returns how many bytes of `records` are used up.
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
            // Early data is off; states that are added to the library later are none of ours.
            other => return Err(rustls::Error::General(format!("unexpected TLS state: {other:?}"))),
        }
        used += discard;
    }
}

/// Why bytes were not added.
enum Short {
    /// So many bytes of room are needed.
    Of(usize),
    /// Room is not what is missing.
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
        // Behind what waits already, else it would overtake it.
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

    /// Adds records that `put` writes; `room` bytes should do.
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
        // Who only reads must not keep from the client what it waits for.
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
