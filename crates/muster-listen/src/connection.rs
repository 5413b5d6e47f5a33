//! One connection, from its first byte to its last.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tracing::{debug, trace};

use super::accept::Place;
use super::alarm::Alarm;
use super::exchange::{End, Exchanges, ParkedRequest};
use super::hold::{Held, MAX_EARLY, hold};
use super::link::Link;
use super::refusal::Refusal;
use super::upgrade::Upgraded;
use super::wire::{self, Manner, Sending};
use super::{Handler, Listening};
use crate::reply::{Peer, Reply};

/// A slot answers by itself at the end of its poll; one that does not is cut this long after the longest poll.
const HOLD_GRACE: Duration = Duration::from_secs(300);
/// How long a goodbye may take.
const CLOSE: Duration = Duration::from_secs(2);

/// Serves a connection until it ends. TLS, if any, is done already.
pub async fn serve<S, H>(stream: S, listening: Arc<Listening<H>>, peer: Peer, mut place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let mut link = Link::new(stream);
    let mut is_first = true;
    loop {
        // Boxed, so that a parked connection does not keep the space.
        let phase = Box::pin(Exchanges::new(link, &listening, &peer, &mut place, is_first).run());
        let (end, back) = phase.await;
        link = back;
        is_first = false;
        match end {
            End::Park(request) => match answer_parked(link, request, &listening, &peer).await {
                Some(back) => link = back,
                None => return,
            },
            End::Upgrade { takeover, pass } => {
                let early = std::mem::take(&mut link.input).freeze();
                takeover(Upgraded::new(link.stream, early)).await;
                return drop(pass);
            }
            End::Close { unread } => return close(link, unread).await,
            End::Cut => return,
        }
    }
}

/// Sends a reply to a client whose request is not read, and closes the connection.
pub(super) async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(stream: S, reply: Reply) {
    let mut link = Link::new(stream);
    if let Ok(Ok(())) = timeout(CLOSE, link.stream.write_all(&wire::whole(reply))).await {
        close(link, true).await;
    }
}

/// Waits for the slot and sends its reply. `None` when the connection is over.
async fn answer_parked<S, H>(
    mut link: Link<S>,
    request: ParkedRequest,
    listening: &Arc<Listening<H>>,
    peer: &Peer,
) -> Option<Link<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let ParkedRequest { mut slot, pass, manner } = request;
    let longest = listening.timeouts.hold + HOLD_GRACE;
    link.release_room();
    listening.metrics.parked.inc();
    let held = timeout(longest, hold(&mut link, &mut slot, manner.is_11)).await;
    listening.metrics.parked.dec();
    drop(slot);
    let reply = match held {
        Ok(Held::Reply(reply)) => reply,
        Ok(Held::Flooded) => {
            listening.metrics.cut_connections.inc();
            listening.handler.note(&Refusal::SentAhead, peer);
            debug!(limit = MAX_EARLY, "connection closed: the client sent too much data while its request was held");
            return None;
        }
        Ok(Held::Gone) | Err(_) => return None,
    };
    let keep_alive = manner.keep_alive && !listening.shutdown.is_cancelled();
    let manner = Manner { keep_alive, ..manner };
    let timeouts = &listening.timeouts;
    let sent = Box::pin(async {
        let mut alarm = Alarm::new(tokio::time::Instant::now() + timeouts.write_stall);
        let mut sending = Sending::begin(&mut link.stream, &mut alarm, timeouts, reply, manner);
        std::future::poll_fn(|cx| sending.poll(cx)).await
    })
    .await;
    drop(pass);
    if let Err(error) = sent {
        debug!(%error, "failed to send the response to a parked request");
        return None;
    }
    if !keep_alive {
        close(link, true).await;
        return None;
    }
    Some(link)
}

/// Says goodbye: what is buffered is sent, then the end of TLS and of the stream. What the client still sends is read
/// for a moment: bytes that nobody read would make the kernel take back the reply.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut link: Link<S>, unread: bool) {
    let goodbye = async {
        if let Err(error) = link.stream.shutdown().await {
            return trace!(%error, "connection not closed cleanly");
        }
        if unread {
            while matches!(std::future::poll_fn(|cx| link.poll_fill(cx)).await, Ok(1..)) {
                link.input.clear();
            }
        }
    };
    // Whoever is still sending then is cut.
    let _ = timeout(CLOSE, goodbye).await;
}
