//! A connection's stream with its read buffer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Free space for a read: fits a typical check-in with its head, so that a heartbeat takes a single read.
const READ: usize = 4096;
/// Free space for a read while a large body arrives; the size of a TLS record.
const READ_MUCH: usize = 16 * 1024;
/// The interim response that asks a client to send its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A stream, and bytes that were read from it but not used yet.
#[derive(Debug)]
pub(super) struct Link<S> {
    pub stream: S,
    /// Bytes that were read and not used yet.
    pub input: BytesMut,
    /// Number of unsent bytes of [`CONTINUE`]. A write can be partial, and must then be resumed before anything else is
    /// sent.
    unsent: u8,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Creates a link with an empty buffer.
    pub fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), unsent: 0 }
    }

    /// Reads more into the buffer. Returns the number of bytes; 0 means that the client has closed its side.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = if self.input.len() < READ { READ } else { READ_MUCH };
        self.input.reserve(room);
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input)
    }

    /// Frees unused buffer space before a long wait. Unused bytes are kept.
    pub fn release_buffer(&mut self) {
        // The bytes are copied, because `BytesMut` cannot shrink in place, and each parked agent would otherwise keep a
        // buffer of 16 KiB.
        self.input = BytesMut::from(&self.input[..]);
    }

    /// Reads at most 1 KiB, without reserving buffer space. Used for parked connections, which are only read to detect
    /// a disconnect.
    pub fn poll_fill_little(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // The buffer is on the stack. Reserving space before a pending read would allocate 4 KiB for each parked agent.
        let mut space = [0u8; 1024];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        self.input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Schedules an interim response 100.
    pub fn queue_continue(&mut self) {
        self.unsent = CONTINUE.len() as u8;
    }

    /// Sends the scheduled interim response.
    pub fn poll_send_continue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unsent > 0 {
            let rest = &CONTINUE[CONTINUE.len() - usize::from(self.unsent)..];
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent = self.unsent.saturating_sub(sent as u8);
            if self.unsent == 0 {
                ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            }
        }
        Poll::Ready(Ok(()))
    }
}
