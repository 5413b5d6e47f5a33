//! Holds a parked connection, which consists only of its stream and its slot.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::link::Link;
use crate::reply::{Parked, Reply};

/// Maximum number of bytes that a client may send ahead while its poll is held. A client that sends more is
/// disconnected: reading further would use memory, and without reading, a disconnect could not be detected.
pub(super) const MAX_EARLY: usize = 16 * 1024;
/// Pauses between probes of a client that has closed its sending side. If the client is gone, the first write fails
/// only when the next one is made, so that the second probe follows soon.
const SECOND_PROBE: Duration = Duration::from_secs(1);
const NEXT_PROBES: Duration = Duration::from_secs(30);
/// Maximum time to send a probe.
const PROBE: Duration = Duration::from_secs(5);

/// How a hold ended.
pub(super) enum Held {
    /// The slot has resolved to a response.
    Reply(Reply),
    /// The client has disconnected.
    Gone,
    /// The client sent too much data ahead.
    Flooded,
}

/// What the client did while its request was held.
enum Sent {
    /// It closed its sending side, and may still be waiting for the response.
    Ended,
    /// It sent too much data ahead.
    TooMuch,
}

/// Waits for the response of the slot, or for the client to disconnect. `takes_interim` is set for HTTP/1.1, whose
/// clients accept interim responses.
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
        // Boxed, so that the many connections that are never half-closed have no space for the timer.
        Ok(Ok(Sent::Ended)) if takes_interim => Box::pin(hold_half_closed(link, slot)).await,
        // HTTP/1.0 has no interim responses, so that the client cannot be probed. A client that is gone must not count
        // as connected.
        Ok(Ok(Sent::Ended) | Err(_)) => Held::Gone,
    }
}

/// Ready when the client has closed its sending side or sent too much. Bytes that it sends ahead are kept for the next
/// request.
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

/// Holds a connection whose client closed its sending side. The client may still be reading, or may have disconnected.
/// An interim response (RFC 9110 §15.2) distinguishes these cases: a client that is waiting ignores it, and it cannot
/// be sent to a client that is gone.
async fn hold_half_closed<S>(link: &mut Link<S>, slot: &mut Parked) -> Held
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pause = SECOND_PROBE;
    loop {
        link.queue_continue();
        let probe = poll_fn(|cx| link.poll_send_continue(cx));
        if !matches!(timeout(PROBE, probe).await, Ok(Ok(()))) {
            return Held::Gone;
        }
        if let Ok(reply) = timeout(pause, slot.as_mut()).await {
            return Held::Reply(reply);
        }
        pause = NEXT_PROBES;
    }
}
