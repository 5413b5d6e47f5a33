//! Holding a parked connection: its stream and its slot, nothing else.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::link::Link;
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
pub(super) async fn hold<S: AsyncRead + AsyncWrite + Unpin>(link: &mut Link<S>, slot: &mut Parked) -> Held {
    std::future::poll_fn(|cx| {
        if let Poll::Ready(reply) = slot.as_mut().poll(cx) {
            return Poll::Ready(Held::Reply(reply));
        }
        match poll_gone(link, cx) {
            Poll::Ready(_) => Poll::Ready(Held::Gone),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Ready when the client hung up. What it sends ahead is kept for the next request.
fn poll_gone<S>(link: &mut Link<S>, cx: &mut Context<'_>) -> Poll<io::Result<()>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while link.input.len() < MAX_EARLY {
        if ready!(link.poll_fill_little(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
    }
    Poll::Pending
}
