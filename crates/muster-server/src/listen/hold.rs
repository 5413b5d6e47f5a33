//! Holding a parked connection: its stream and its slot, nothing else.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::stream::Watched;
use crate::reply::{Parked, Reply};

/// A client that sends ahead while its poll is held is read no further than this.
const MAX_EARLY: usize = 16 * 1024;

/// How a hold ended.
pub(super) enum Held {
    /// The slot has a reply.
    Reply(Reply),
    /// The client is gone.
    Gone,
}

/// Waits for the slot's reply, or for the client to hang up.
pub(super) async fn hold<S: AsyncRead + Unpin>(stream: &mut Watched<S>, slot: &mut Parked) -> Held {
    std::future::poll_fn(|cx| {
        if let Poll::Ready(reply) = slot.as_mut().poll(cx) {
            return Poll::Ready(Held::Reply(reply));
        }
        match poll_gone(stream, cx) {
            Poll::Ready(_) => Poll::Ready(Held::Gone),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Ready when the client hung up. What it sends ahead is kept for the next request.
fn poll_gone<S: AsyncRead + Unpin>(stream: &mut Watched<S>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut space = [0u8; 1024];
    while stream.early() < MAX_EARLY {
        let mut buffer = ReadBuf::new(&mut space);
        ready!(stream.poll_read_fresh(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        stream.add_early(buffer.filled());
    }
    Poll::Pending
}
