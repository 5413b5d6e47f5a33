//! Holding a parked connection: its stream and its slot, nothing else.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::link::Link;
use crate::reply::{Parked, Reply};

/// Bytes that a client may send ahead while its poll is held. Reading further would hold memory for it, and not
/// reading would hide that it hangs up: whoever sends more is disconnected.
pub(super) const MAX_EARLY: usize = 16 * 1024;
/// Pauses between two probes of a client that has closed its sending side. The first write to a client that is gone
/// fails at the earliest when the next one is made, so the second follows soon.
const SECOND_PROBE: Duration = Duration::from_secs(1);
const NEXT_PROBES: Duration = Duration::from_secs(30);
/// Time in which the few bytes of a probe must be taken.
const PROBE: Duration = Duration::from_secs(5);

/// How a hold ended.
pub(super) enum Held {
    /// The slot has a reply.
    Reply(Reply),
    /// The client is gone.
    Gone,
    /// The client sent more ahead than it may.
    Flooded,
}

/// What the client did while its reply was waited for.
enum Sent {
    /// It sends no more; it may still be waiting for the reply.
    Ended,
    /// More ahead than it may.
    TooMuch,
}

/// Waits for the slot's reply, or for the client to hang up. `takes_interim`: the client speaks HTTP/1.1, and so
/// takes interim responses.
pub(super) async fn hold<S>(link: &mut Link<S>, slot: &mut Parked, takes_interim: bool) -> Held
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let sent = poll_fn(|cx| {
        if let Poll::Ready(reply) = slot.as_mut().poll(cx) {
            return Poll::Ready(Err(reply));
        }
        poll_client(link, cx).map(Ok)
    });
    match sent.await {
        Err(reply) => Held::Reply(reply),
        Ok(Ok(Sent::TooMuch)) => Held::Flooded,
        // Boxed, so that the many that are never half-closed do not carry the timer.
        Ok(Ok(Sent::Ended)) if takes_interim => Box::pin(hold_half_closed(link, slot)).await,
        // HTTP/1.0 has no interim response to probe with, and a client that is gone must not count as connected.
        Ok(Ok(Sent::Ended) | Err(_)) => Held::Gone,
    }
}

/// Ready when the client sends no more. What it sends ahead is kept for the next request.
fn poll_client<S>(link: &mut Link<S>, cx: &mut Context<'_>) -> Poll<io::Result<Sent>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while link.input.len() < MAX_EARLY {
        if ready!(link.poll_fill_little(cx))? == 0 {
            return Poll::Ready(Ok(Sent::Ended));
        }
    }
    Poll::Ready(Ok(Sent::TooMuch))
}

/// Holds a connection whose client closed its sending side. A client that only did that still reads; one that hung up
/// looks the same until something is sent to it. An interim response (RFC 9110 §15.2) tells them apart and means
/// nothing to the one that waits.
async fn hold_half_closed<S>(link: &mut Link<S>, slot: &mut Parked) -> Held
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pause = SECOND_PROBE;
    loop {
        link.owe_continue();
        let probe = poll_fn(|cx| link.poll_pay_continue(cx));
        if !matches!(timeout(PROBE, probe).await, Ok(Ok(()))) {
            return Held::Gone;
        }
        if let Ok(reply) = timeout(pause, slot.as_mut()).await {
            return Held::Reply(reply);
        }
        pause = NEXT_PROBES;
    }
}
