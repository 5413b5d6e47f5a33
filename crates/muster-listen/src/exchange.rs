//! Processes requests and their responses one after another, until the connection ends or a handler parks the request.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Method, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFuture;
use tracing::{debug, trace};

use super::accept::Place;
use super::alarm::Alarm;
use super::concurrency_limit::Pass;
use super::feed::Feed;
use super::head::{self, Head};
use super::idle::IdlePlace;
use super::link::Link;
use super::refusal::Refusal;
use super::upgrade::{Takeover, Upgrade};
use super::wire::{self, Manner, SendError, Sending};
use super::{Handler, Listening, Work};
use crate::reply::{Answer, Parked, Peer, Reply};

/// A parked request with everything that is needed to send its response.
pub(super) struct ParkedRequest {
    /// Resolves to the response.
    pub slot: Parked,
    /// The slot among running requests.
    pub pass: Pass,
    /// How the response is framed.
    pub manner: Manner,
}

/// Why a run of exchanges ended.
pub(super) enum End {
    /// No more requests follow, and the stream is closed gracefully. `unread` is set if the client may still be
    /// sending.
    Close { unread: bool },
    /// A deadline passed or the connection failed. It is closed without a response.
    Cut,
    /// A handler parked its request.
    Park(ParkedRequest),
    /// A handler takes over the connection, which keeps its slot among running requests.
    Upgrade { takeover: Takeover, pass: Pass },
}

/// Result of running a handler.
enum Worked {
    Answered(Answer),
    /// The body was late, and the handler did not respond within the extra time.
    Late,
}

/// A run of exchanges on a connection.
pub(super) struct Exchanges<'a, S, H> {
    link: Link<S>,
    listening: &'a Arc<Listening<H>>,
    peer: &'a Peer,
    place: &'a mut Place,
    alarm: Alarm,
    /// Start of the current deadline: when the connection was accepted, the last response was sent, or the first byte of
    /// a head arrived.
    since: Instant,
    is_first: bool,
    /// The entry of this connection among those of its key, when the key is known.
    idle: Option<IdlePlace>,
}

impl<'a, S, H> Exchanges<'a, S, H>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    /// Starts a run on `link`. `is_first` is false in a run that follows a parked response.
    pub fn new(
        link: Link<S>,
        listening: &'a Arc<Listening<H>>,
        peer: &'a Peer,
        place: &'a mut Place,
        is_first: bool,
    ) -> Self {
        let since = Instant::now();
        let alarm = Alarm::new(since + listening.timeouts.idle.min(listening.timeouts.read_header));
        let mut exchanges = Self { link, listening, peer, place, alarm, since, is_first, idle: None };
        exchanges.note_authentication();
        exchanges
    }

    /// Frees the slot among unauthenticated connections once a request has carried valid credentials.
    fn note_authentication(&mut self) {
        if self.place.unauthenticated.is_some() && self.peer.is_authenticated() {
            self.place.unauthenticated = None;
        }
    }

    /// Runs until the connection ends or is parked or upgraded; returns the stream.
    pub async fn run(mut self) -> (End, Link<S>) {
        let listening = Arc::clone(self.listening);
        // Created once for all requests: a new future for each would take the lock of the token.
        let mut stopping = pin!(listening.shutdown.cancelled());
        loop {
            let end = match poll_fn(|cx| self.poll_head(stopping.as_mut(), cx)).await {
                Ok(Ok(head)) => self.answer(head).await,
                Ok(Err(refusal)) => self.refuse(&refusal).await,
                Err(end) => Some(end),
            };
            if let Some(end) = end {
                return (end, self.link);
            }
            self.is_first = false;
            self.since = Instant::now();
        }
    }

    /// Ready with the head of the next request, with the reason to reject it, or with the end of the run.
    fn poll_head(
        &mut self,
        mut stopping: Pin<&mut WaitForCancellationFuture<'_>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Result<Head, Refusal>, End>> {
        // The buffer is parsed before the first read, because pipelined bytes may follow the previous request.
        let mut fresh = !self.link.input.is_empty();
        loop {
            if fresh {
                match head::take(&mut self.link.input) {
                    Ok(Some(_)) if !self.place.keep() => return Poll::Ready(Err(self.displaced())),
                    Ok(Some(head)) => return Poll::Ready(Ok(Ok(head))),
                    Ok(None) => {}
                    Err(refusal) => return Poll::Ready(Ok(Err(refusal))),
                }
            }
            let idle = self.link.input.is_empty();
            match self.link.poll_fill(cx) {
                // A client that closes its side in the middle of a head gets no response, because it cannot be
                // distinguished from one that crashed.
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::Close { unread: false })),
                Poll::Ready(Ok(_)) => {
                    fresh = true;
                    if let Some(place) = &self.idle {
                        place.is_busy();
                    }
                    if idle {
                        self.since = Instant::now();
                    }
                    continue;
                }
                Poll::Ready(Err(error)) => {
                    debug!(%error, "connection failed");
                    return Poll::Ready(Err(End::Cut));
                }
                Poll::Pending => {}
            }
            if idle {
                // Hosts of fleetd are idle most of the time, with two connections each.
                self.link.release_buffer();
            }
            self.place.waits();
            if self.place.poll_displaced(cx).is_ready() {
                return Poll::Ready(Err(self.displaced()));
            }
            // Shutdown closes only idle connections. If a head has begun, it is read and its request is processed.
            if idle && stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(End::Close { unread: false }));
            }
            if idle && self.poll_surplus(cx).is_ready() {
                self.listening.handler.note(&Refusal::TooManyIdle, self.peer);
                return Poll::Ready(Err(End::Close { unread: false }));
            }
            return self.poll_head_late(idle, cx).map(Err);
        }
    }

    /// Ends the run of a connection whose place another one has taken.
    fn displaced(&self) -> End {
        self.listening.note_displaced(self.peer);
        End::Cut
    }

    /// Ready if the key of this connection has too many idle connections, and this is the oldest.
    fn poll_surplus(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(key) = self.peer.key() else { return Poll::Pending };
        let idle = self.idle.get_or_insert_with(|| self.listening.idle.enter(Arc::clone(key)));
        idle.poll_surplus(cx)
    }

    /// Ready when the deadline of a head has passed, which counts from its first byte. Before that, the connection may
    /// be idle, also before its first request (load balancers open connections in advance), unless there are too many
    /// unauthenticated connections.
    fn poll_head_late(&mut self, idle: bool, cx: &mut Context<'_>) -> Poll<End> {
        let timeouts = &self.listening.timeouts;
        let patience = if idle && self.place.may_idle() { timeouts.idle } else { timeouts.read_header };
        ready!(self.alarm.poll(self.since + patience, cx));
        Poll::Ready(if idle { End::Close { unread: false } } else { self.cut("the request head arrived too slowly") })
    }

    fn cut(&self, why: &str) -> End {
        trace!(why, "connection closed at a deadline");
        self.listening.metrics.cut_connections.inc();
        End::Cut
    }

    /// Sends the response to a request that is rejected before it reaches the handler.
    async fn refuse(&mut self, refusal: &Refusal) -> Option<End> {
        // The connection is closed, because after a malformed head, it is unknown where the next request begins.
        let manner = Manner { keep_alive: false, is_11: true, head_only: false };
        let reply = self.listening.handler.refuse(refusal, self.peer);
        match self.send(reply, manner).await {
            Ok(()) => Some(End::Close { unread: true }),
            Err(end) => Some(end),
        }
    }

    /// Passes a request to the handler and sends the response. Returns `None` if another request can follow.
    async fn answer(&mut self, head: Head) -> Option<End> {
        let Head { request, length, keep_alive, expects_continue } = head;
        let (mut feed, body) = Feed::begin(length, expects_continue, &mut self.link.input);
        let manner = Manner {
            keep_alive,
            is_11: request.version() == Version::HTTP_11,
            head_only: request.method() == Method::HEAD,
        };
        let Some(pass) = self.listening.requests.enter() else {
            self.listening.metrics.refused_requests.inc();
            // Freed before the response is sent, because a slow client must not keep this memory allocated while the
            // server is at its limit.
            drop((request, body));
            let reply = self.listening.handler.refuse(&Refusal::Full, self.peer);
            return self.finish(reply, feed, manner).await;
        };
        let work = self.listening.handler.handle(request.map(|()| body), self.peer.clone());
        match self.work(work, &mut feed).await {
            Worked::Answered(Answer::Reply(reply)) => {
                let end = self.finish(reply, feed, manner).await;
                drop(pass);
                end
            }
            Worked::Answered(Answer::Park(slot)) => {
                // Otherwise, a held poll would occupy one of the few slots of unauthenticated clients until it ends.
                self.note_authentication();
                // If a part of the body is unread, the connection cannot be used again. Reading it while the request is
                // parked would require the decoder, which parking must free.
                let manner = Manner { keep_alive: manner.keep_alive && !feed.is_open(), ..manner };
                Some(End::Park(ParkedRequest { slot, pass, manner }))
            }
            Worked::Answered(Answer::Upgrade(upgrade)) => Some(self.upgrade(upgrade, pass, &feed).await),
            Worked::Late => Some(self.cut("the request body arrived too slowly")),
        }
    }

    /// Sends the head of an upgrade. Bytes that the client sent after its request belong to the new protocol.
    async fn upgrade(&mut self, upgrade: Upgrade, pass: Pass, feed: &Feed) -> End {
        // If a part of the body is unread, client and server could disagree on where the new protocol begins.
        if feed.is_open() {
            return self.cut("the handler upgraded a request with an unread body");
        }
        self.note_authentication();
        let Upgrade { reply, takeover } = upgrade;
        match self.send(reply, Manner { keep_alive: false, is_11: true, head_only: true }).await {
            Ok(()) => End::Upgrade { takeover, pass },
            Err(end) => end,
        }
    }

    /// Runs the handler and passes it the body when it reads. If the body is late, the handler gets an error, and the
    /// same time again to respond with 408.
    async fn work(&mut self, mut work: Work, feed: &mut Feed) -> Worked {
        let read = self.listening.timeouts.read;
        let mut due = feed.is_open().then(|| Instant::now() + read);
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(answer) = work.as_mut().poll(cx) {
                    return Poll::Ready(Worked::Answered(answer));
                }
                // The handler is polled again immediately after each piece. It runs in this task, so that a wake-up
                // would only reschedule the current task.
                if feed.poll(&mut self.link, cx).is_ready() {
                    continue;
                }
                // Without an open body, there is no deadline here. Handlers have their own deadlines.
                let Some(deadline) = due.filter(|_| feed.is_open()) else { return Poll::Pending };
                ready!(self.alarm.poll(deadline, cx));
                if !feed.report_late() {
                    return Poll::Ready(Worked::Late);
                }
                due = Some(deadline + read);
            }
        })
        .await
    }

    /// Sends a response and prepares for the next request. Returns `None` if another request can follow.
    async fn finish(&mut self, reply: Reply, mut feed: Feed, manner: Manner) -> Option<End> {
        // The rest of a late body may still arrive, and would be interpreted as the next request.
        let late = reply.status() == StatusCode::REQUEST_TIMEOUT;
        // This precedes the response, whose `connection` header depends on whether the connection may stay open.
        self.note_authentication();
        // On shutdown, the connection is closed after the response, so that the client reconnects to another node.
        let may_stay = self.place.may_idle() && !self.listening.shutdown.is_cancelled();
        let stays = manner.keep_alive && feed.can_be_skipped() && !late && may_stay;
        let manner = Manner { keep_alive: stays, ..manner };
        let keep_alive = !wire::ends_connection(&reply, manner);
        let manner = Manner { keep_alive, ..manner };
        if let Err(end) = self.send(reply, manner).await {
            return Some(end);
        }
        if !keep_alive {
            return Some(End::Close { unread: true });
        }
        if feed.is_open() { self.skip(&mut feed).await } else { None }
    }

    async fn send(&mut self, reply: Reply, manner: Manner) -> Result<(), End> {
        let timeouts = &self.listening.timeouts;
        let mut sending = Sending::begin(&mut self.link.stream, &mut self.alarm, timeouts, reply, manner);
        let sent = poll_fn(|cx| sending.poll(cx)).await;
        sent.map_err(|error| match error {
            SendError::Late => self.cut("the client did not read the response"),
            error => {
                debug!(%error, "response not sent completely");
                End::Cut
            }
        })
    }

    /// Discards the rest of a body that the handler did not read.
    async fn skip(&mut self, feed: &mut Feed) -> Option<End> {
        // The response has been sent, so that a failure only closes the connection.
        let deadline = Instant::now() + self.listening.timeouts.read;
        let skipped = poll_fn(|cx| match feed.poll_skip(&mut self.link, cx) {
            Poll::Ready(skipped) => Poll::Ready(skipped.ok()),
            Poll::Pending => self.alarm.poll(deadline, cx).map(|()| None),
        });
        if skipped.await.is_some() { None } else { Some(End::Cut) }
    }
}
