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

/// A stream and the bytes that were read from it and not used yet.
#[derive(Debug)]
pub(super) struct Link<S> {
    pub stream: S,
    /// Bytes that were read and not used yet.
    pub input: BytesMut,
    /// Bytes of [`CONTINUE`] still to be sent. A count, because a write may be partial and must be resumed before
    /// anything else is sent.
    owed: u8,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Creates a link with an empty buffer.
    pub fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), owed: 0 }
    }

    /// Reads more into the buffer; returns the number of bytes, 0 when the client has closed its side.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = if self.input.len() < READ { READ } else { READ_MUCH };
        self.input.reserve(room);
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input)
    }

    /// Frees unused buffer space before a long wait. Unused bytes are kept.
    pub fn release_room(&mut self) {
        // Copied, because `BytesMut` can't shrink in place, and a 16 KiB buffer would be held for each parked agent.
        self.input = BytesMut::from(&self.input[..]);
    }

    /// Reads at most 1 KiB, without reserving buffer space: for a parked connection, which is only watched for a
    /// disconnect.
    pub fn poll_fill_little(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Read on the stack first: reserving before a read that is pending would allocate 4 KiB for each parked agent.
        let mut space = [0u8; 1024];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        self.input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Schedules an interim response 100.
    pub fn owe_continue(&mut self) {
        self.owed = CONTINUE.len() as u8;
    }

    /// Sends the scheduled interim response.
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
