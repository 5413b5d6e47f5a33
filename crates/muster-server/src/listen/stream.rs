//! A connection's stream: gives back bytes that were read too early, and notes progress.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::progress::Progress;

/// A stream with its progress.
pub(super) struct Watched<S> {
    inner: S,
    /// Bytes that were read before and belong to the next reader.
    early: Bytes,
    progress: Progress,
}

impl<S> Watched<S> {
    pub fn new(inner: S, progress: Progress) -> Self {
        Self { inner, early: Bytes::new(), progress }
    }

    /// Puts bytes back in front of the stream, and of what was put back before and not read yet.
    pub fn put_back(&mut self, bytes: Bytes) {
        self.early = if self.early.is_empty() { bytes } else { [bytes, self.early.clone()].concat().into() };
    }

    /// Bytes that were put back and not read yet.
    pub fn early(&self) -> usize {
        self.early.len()
    }

    /// Adds bytes that were read behind those that were put back.
    pub fn add_early(&mut self, bytes: &[u8]) {
        self.early = [&self.early, bytes].concat().into();
    }

    fn note_write(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending => self.progress.write_blocked(),
            Poll::Ready(Ok(_)) => self.progress.write_moved(),
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Reads past what was put back.
    pub fn poll_read_fresh(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.early.is_empty() {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
        } else {
            let part = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..part]);
            self.early.advance(part);
        }
        self.progress.bytes_came(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.note_write(&result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Pending => {
                self.progress.write_blocked();
                Poll::Pending
            }
            Poll::Ready(result) => {
                self.progress.write_clean();
                Poll::Ready(result)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.note_write(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
