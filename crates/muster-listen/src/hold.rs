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
/// Probes of a client that has closed its sending side come in pairs. The first write after the client is gone still
/// succeeds, and only the next one fails, so that the second probe of a pair follows soon.
const SECOND_PROBE: Duration = Duration::from_secs(1);
/// Maximum pause between pairs. The first pause is as short as that within a pair and doubles: a program that is told to
/// stop closes its sending side first and ends within seconds, while a client that stays may stay for minutes.
const MAX_PAUSE: Duration = Duration::from_secs(30);
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
        // The slot first: if both are ready, the response is sent, and the next read finds the disconnect.
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
    // A held poll normally receives nothing, so this reads in small steps, without a large buffer.
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
        for wait in [SECOND_PROBE, pause] {
            link.queue_continue();
            let probe = poll_fn(|cx| link.poll_send_continue(cx));
            if !matches!(timeout(PROBE, probe).await, Ok(Ok(()))) {
                return Held::Gone;
            }
            // The slot is polled during the pause, so a response is not delayed by the probes.
            if let Ok(reply) = timeout(wait, slot.as_mut()).await {
                return Held::Reply(reply);
            }
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use tokio::io::ReadBuf;
    use tokio::time::Instant;

    use super::*;

    /// A client that has closed its sending side, and is gone from `dies_at`. As over TCP, the first write after that
    /// succeeds.
    struct Dying {
        dies_at: Instant,
        is_reset: bool,
    }

    impl AsyncRead for Dying {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Dying {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            if self.is_reset {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.is_reset = Instant::now() >= self.dies_at;
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_half_closes_first_and_dies_later_is_noticed_soon() {
        for (after_ms, within_ms) in
            [(0, 1000), (500, 2000), (1500, 3500), (4000, 4000), (8000, 8000), (120_000, 32_000)]
        {
            let start = Instant::now();
            let after = Duration::from_millis(after_ms);
            let mut link = Link::new(Dying { dies_at: start + after, is_reset: false });
            let mut slot: Parked = Box::pin(std::future::pending());
            assert!(matches!(hold(&mut link, &mut slot, true).await, Held::Gone));
            let took = start.elapsed() - after;
            assert!(took <= Duration::from_millis(within_ms), "gone after {after:?}, noticed {took:?} later");
        }
    }
}
