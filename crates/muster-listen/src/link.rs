//! A connection's stream, with what was read of it too early.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Room that a read finds: a check-in with its head fits.
const READ: usize = 4096;
/// Room that a read finds when much comes.
const READ_MUCH: usize = 16 * 1024;
/// What tells a client to send its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A stream and its unread bytes.
#[derive(Debug)]
pub(super) struct Link<S> {
    pub stream: S,
    /// Bytes that came and were not used yet.
    pub input: BytesMut,
    /// What is still to be sent of [`CONTINUE`].
    owed: u8,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Nothing read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), owed: 0 }
    }

    /// Reads more behind what there is; how much. 0: the client will send no more.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = if self.input.len() < READ { READ } else { READ_MUCH };
        self.input.reserve(room);
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input)
    }

    /// Gives back the room of reads before a long wait; what was read and not used is kept.
    pub fn release_room(&mut self) {
        self.input = BytesMut::from(&self.input[..]);
    }

    /// Reads a little behind what there is, without making room for much: for a connection that only waits.
    pub fn poll_fill_little(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [0u8; 1024];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        self.input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// The client shall be told to send its body.
    pub fn owe_continue(&mut self) {
        self.owed = CONTINUE.len() as u8;
    }

    /// Sends what is owed.
    pub fn poll_pay_continue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.owed > 0 {
            let rest = &CONTINUE[CONTINUE.len() - usize::from(self.owed)..];
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.owed = self.owed.saturating_sub(sent as u8);
            if self.owed == 0 {
                ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            }
        }
        Poll::Ready(Ok(()))
    }
}
