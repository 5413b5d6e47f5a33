//! Serves a connection from its first to its last byte.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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

/// Time after the longest poll at which a parked connection is closed. Slots normally resolve at the end of their poll.
const HOLD_GRACE: Duration = Duration::from_secs(300);
/// Maximum time to close a connection.
const CLOSE: Duration = Duration::from_secs(2);

/// Serves a connection until it ends. The TLS handshake, if any, is already complete.
pub async fn serve<S, H>(stream: S, listening: Arc<Listening<H>>, peer: Peer, mut place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let mut link = Link::new(stream);
    let mut is_first = true;
    loop {
        // Boxed, so that its memory is freed while the connection is parked.
        let phase = Box::pin(Exchanges::new(link, &listening, &peer, &mut place, is_first).run());
        let (end, back) = phase.await;
        link = back;
        is_first = false;
        match end {
            // After the response, the loop goes on with the next request on the same connection.
            End::Park(request) => match answer_parked(link, request, &listening, &peer).await {
                Some(back) => link = back,
                None => return,
            },
            // Bytes that were read after the head belong to the new protocol.
            End::Upgrade { takeover, pass } => {
                // Copied, because the buffer would stay allocated as long as the connection.
                let early = Bytes::copy_from_slice(&link.input);
                drop(link.input);
                takeover(Upgraded::new(link.stream, early)).await;
                return drop(pass);
            }
            End::Close { unread } => {
                place.waits();
                // Boxed, so that the task of a parked connection has no space for it.
                return Box::pin(close_unless_displaced(link, unread, &place)).await;
            }
            End::Cut => return,
        }
    }
}

/// Sends a response without reading the request, and closes the connection.
pub(super) async fn reject<S: AsyncRead + AsyncWrite + Unpin>(stream: S, reply: Reply, place: &Place) {
    let mut link = Link::new(stream);
    // The request is not read. Its sender may be flooding this server.
    if let Ok(Ok(())) = timeout(CLOSE, link.stream.write_all(&wire::whole(reply))).await {
        close_unless_displaced(link, true, place).await;
    }
}

/// Closes the connection, immediately if another one takes its place.
async fn close_unless_displaced<S: AsyncRead + AsyncWrite + Unpin>(link: Link<S>, unread: bool, place: &Place) {
    tokio::select! {
        () = close(link, unread) => {}
        () = place.displaced() => {}
    }
}

/// Waits for the slot and sends its response. Returns `None` if the connection has ended.
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
    link.release_buffer();
    listening.metrics.parked.inc();
    // The deadline is only a safety net, for a slot that never resolves.
    let held = timeout(longest, hold(&mut link, &mut slot, manner.is_11)).await;
    listening.metrics.parked.dec();
    // Freed before the response is sent, which can take a while with a slow client.
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
    let timeouts = &listening.timeouts;
    // All of it boxed, so that the task of a parked connection has no space for it.
    let sent = Box::pin(async {
        // On shutdown, the client must reconnect to another node, as when the response says so.
        let keep_alive = !listening.shutdown.is_cancelled() && !wire::ends_connection(&reply, manner);
        let mut alarm = Alarm::new(tokio::time::Instant::now() + timeouts.write_stall);
        let manner = Manner { keep_alive, ..manner };
        let mut sending = Sending::begin(&mut link.stream, &mut alarm, timeouts, reply, manner);
        std::future::poll_fn(|cx| sending.poll(cx)).await.map(|_| keep_alive)
    })
    .await;
    drop(pass);
    match sent {
        Ok(true) => {}
        Ok(false) => {
            close(link, true).await;
            return None;
        }
        Err(error) => {
            debug!(%error, "failed to send the response to a parked request");
            return None;
        }
    }
    Some(link)
}

/// Closes the connection: sends buffered data, the end of TLS, and the end of the stream. Then reads and discards for a
/// moment what the client still sends, because the kernel resets a connection with unread bytes, and the client could
/// lose the response.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut link: Link<S>, unread: bool) {
    let closing = async {
        if let Err(error) = link.stream.shutdown().await {
            return trace!(%error, "connection not closed cleanly");
        }
        if unread {
            // The input is dropped as it arrives, so a client that keeps sending uses no memory.
            while matches!(std::future::poll_fn(|cx| link.poll_fill(cx)).await, Ok(1..)) {
                link.input.clear();
            }
        }
    };
    // A client that is still sending after this time is disconnected.
    let _ = timeout(CLOSE, closing).await;
}
