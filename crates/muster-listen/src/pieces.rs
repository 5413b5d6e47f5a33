//! The output buffer of a connection: pieces of a response that have not been written yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Maximum number of pieces in a single vectored write.
const SLICES: usize = 32;
/// Number of buffered bytes above which no more pieces are added.
const ROOM: usize = 64 * 1024;
/// Maximum total length of small pieces that are copied into one buffer, because a single write is cheaper than a
/// vectored one.
const TOGETHER: usize = 4 * 1024;

/// An owned first piece, which grows while it is small, followed by shared pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    first: Vec<u8>,
    /// Bytes of `first` that were written.
    written: usize,
    rest: VecDeque<Bytes>,
    /// Unwritten bytes of all pieces.
    waiting: usize,
}

impl Pieces {
    /// Creates a buffer that begins with `first`, usually the head of a response.
    pub fn new(first: Vec<u8>) -> Self {
        Self { waiting: first.len(), first, written: 0, rest: VecDeque::new() }
    }

    /// Returns whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Returns whether more pieces may be added: at most 64 KiB in 32 pieces are buffered.
    pub fn has_room(&self) -> bool {
        self.waiting < ROOM && self.rest.len() < SLICES
    }

    /// Appends a piece. Copies it while all pieces are small, and shares it otherwise.
    pub fn add(&mut self, piece: Bytes) {
        self.waiting += piece.len();
        // Copying is correct only while there are no shared pieces, because the order must be preserved.
        if self.rest.is_empty() && self.first.len() + piece.len() <= TOGETHER {
            self.first.extend_from_slice(&piece);
        } else {
            self.rest.push_back(piece);
        }
    }

    /// Writes as much as the stream accepts, and returns the number of bytes.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        let first = &self.first[self.written..];
        let written = if self.rest.is_empty() {
            ready!(stream.poll_write(cx, first))?
        } else {
            // One more than `SLICES`, for the first piece.
            let mut slices = [IoSlice::new(&[]); SLICES + 1];
            let all =
                std::iter::once(first).chain(self.rest.iter().map(AsRef::as_ref)).filter(|piece| !piece.is_empty());
            let count = slices.iter_mut().zip(all).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            ready!(stream.poll_write_vectored(cx, &slices[..count]))?
        };
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, mut count: usize) {
        self.waiting -= count;
        let of_first = count.min(self.first.len() - self.written);
        self.written += of_first;
        count -= of_first;
        while let Some(piece) = self.rest.front_mut() {
            let part = piece.len().min(count);
            piece.advance(part);
            count -= part;
            if !piece.is_empty() {
                break;
            }
            self.rest.pop_front();
        }
        // The allocation is kept for pieces that are added later.
        if self.written == self.first.len() {
            self.first.clear();
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that accepts a few bytes at a time, and sometimes none.
    struct Slow(Vec<u8>, usize);

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.1 += 1;
            if self.1.is_multiple_of(3) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let part = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..part]);
            Poll::Ready(Ok(part))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn pieces_are_written_in_sequence_to_a_slow_stream() {
        let mut pieces = Pieces::new(b"head ".to_vec());
        let mut expected = b"head ".to_vec();
        for number in 0..20 {
            let piece = vec![b'a' + number; 1 + usize::from(number) * 40];
            expected.extend_from_slice(&piece);
            pieces.add(piece.into());
        }
        let mut slow = Slow(Vec::new(), 0);
        while !pieces.is_empty() {
            std::future::poll_fn(|cx| pieces.poll_write(&mut slow, cx)).await.unwrap();
        }
        assert_eq!(slow.0, expected);
        pieces.add("more".into());
        assert!(!pieces.is_empty() && pieces.has_room());
    }
}
