//! Requests and their replies, one after the other, until the connection ends or a handler parks.

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
use super::feed::Feed;
use super::gate::Pass;
use super::head::{self, Head};
use super::idle::IdlePlace;
use super::link::Link;
use super::refusal::Refusal;
use super::upgrade::{Takeover, Upgrade};
use super::wire::{self, Manner, SendError, Sending};
use super::{Handler, Listening, Work};
use crate::reply::{Answer, Parked, Peer, Reply};

/// A request that was parked, and what is needed to answer it.
pub(super) struct ParkedRequest {
    /// Resolves to the reply.
    pub slot: Parked,
    /// The place among running requests.
    pub pass: Pass,
    /// How the reply is framed.
    pub manner: Manner,
}

/// How a run of exchanges ended.
pub(super) enum End {
    /// No more requests; the stream may be closed in form. `unread`: the client may still be sending.
    Close { unread: bool },
    /// A deadline passed, or the connection broke: nothing more can be said to the client.
    Cut,
    /// A handler wants to be parked.
    Park(ParkedRequest),
    /// A handler takes the connection over; it keeps its place among running requests.
    Upgrade { takeover: Takeover, pass: Pass },
}

/// What became of a handler's work.
enum Worked {
    Answered(Answer),
    /// Its request did not come in time, and it did not say so.
    Late,
}

/// A run of exchanges over a connection.
pub(super) struct Exchanges<'a, S, H> {
    link: Link<S>,
    listening: &'a Arc<Listening<H>>,
    peer: &'a Peer,
    place: &'a mut Place,
    alarm: Alarm,
    /// When the connection came, or the last reply went.
    since: Instant,
    is_first: bool,
    /// While it waits for a request.
    idle: Option<IdlePlace>,
}

impl<'a, S, H> Exchanges<'a, S, H>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    /// Over `link`, from now on. One after a parked reply counts as an exchange after another.
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

    /// Frees the place among the unauthenticated as soon as a request carried valid credentials.
    fn note_authentication(&mut self) {
        if self.place.stranger.is_some() && self.peer.is_authenticated() {
            self.place.stranger = None;
        }
    }

    /// Runs to the end; gives the stream back.
    pub async fn run(mut self) -> (End, Link<S>) {
        let listening = Arc::clone(self.listening);
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

    /// Ready with the next request's head, or with what is wrong with it, or when there is none.
    fn poll_head(
        &mut self,
        mut stopping: Pin<&mut WaitForCancellationFuture<'_>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Result<Head, Refusal>, End>> {
        let mut fresh = !self.link.input.is_empty();
        loop {
            if fresh {
                match head::take(&mut self.link.input) {
                    Ok(Some(head)) => return Poll::Ready(Ok(Ok(head))),
                    Ok(None) => {}
                    Err(refusal) => return Poll::Ready(Ok(Err(refusal))),
                }
            }
            let idle = self.link.input.is_empty();
            match self.link.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::Close { unread: false })),
                Poll::Ready(Ok(_)) => {
                    fresh = true;
                    self.idle = None;
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
            if idle && stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(End::Close { unread: false }));
            }
            if idle && self.poll_displaced(cx).is_ready() {
                self.listening.handler.note(&Refusal::TooManyIdle, self.peer);
                return Poll::Ready(Err(End::Close { unread: false }));
            }
            return self.poll_head_late(idle, cx).map(Err);
        }
    }

    /// Ready when the key of this connection has too many without a request, and this is the oldest.
    fn poll_displaced(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(key) = self.peer.key() else { return Poll::Pending };
        let idle = self.idle.get_or_insert_with(|| self.listening.idle.enter(Arc::clone(key)));
        idle.poll_displaced(cx)
    }

    /// A head is due from its first byte. Before that a connection may idle, also before its first request (load
    /// balancers open spare ones), unless it is one too many of the unauthenticated.
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

    /// Answers a request that no handler sees.
    async fn refuse(&mut self, refusal: &Refusal) -> Option<End> {
        let manner = Manner { keep_alive: false, is_11: true, head_only: false };
        let reply = self.listening.handler.refuse(refusal, self.peer);
        match self.send(reply, manner).await {
            Ok(()) => Some(End::Close { unread: true }),
            Err(end) => Some(end),
        }
    }

    /// Has a request answered. `None`: the next one may come.
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
                let manner = Manner { keep_alive: manner.keep_alive && !feed.is_open(), ..manner };
                Some(End::Park(ParkedRequest { slot, pass, manner }))
            }
            Worked::Answered(Answer::Upgrade(upgrade)) => Some(self.upgrade(upgrade, pass, &feed).await),
            Worked::Late => Some(self.cut("the request body arrived too slowly")),
        }
    }

    /// Sends the head of an upgrade. What the client sent behind its request belongs to the new protocol.
    async fn upgrade(&mut self, upgrade: Upgrade, pass: Pass, feed: &Feed) -> End {
        // Where the request ends and the other protocol begins must not depend on how the body is read.
        if feed.is_open() {
            return self.cut("it was to be upgraded with its body unread");
        }
        self.note_authentication();
        let Upgrade { reply, takeover } = upgrade;
        match self.send(reply, Manner { keep_alive: false, is_11: true, head_only: true }).await {
            Ok(()) => End::Upgrade { takeover, pass },
            Err(end) => end,
        }
    }

    /// Lets the handler work, and feeds it with the body as far as it reads. A body that is late is told so, and has
    /// as long again to answer 408.
    async fn work(&mut self, mut work: Work, feed: &mut Feed) -> Worked {
        let read = self.listening.timeouts.read;
        let mut due = feed.is_open().then(|| Instant::now() + read);
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(answer) = work.as_mut().poll(cx) {
                    return Poll::Ready(Worked::Answered(answer));
                }
                if feed.poll(&mut self.link, cx).is_ready() {
                    continue;
                }
                let Some(deadline) = due.filter(|_| feed.is_open()) else { return Poll::Pending };
                ready!(self.alarm.poll(deadline, cx));
                if !feed.tell_late() {
                    return Poll::Ready(Worked::Late);
                }
                due = Some(deadline + read);
            }
        })
        .await
    }

    /// Sends a reply and makes ready for the next request. `None`: it may come.
    async fn finish(&mut self, reply: Reply, mut feed: Feed, manner: Manner) -> Option<End> {
        // A client whose body was late has a connection that nobody waits for any longer.
        let late = reply.status() == StatusCode::REQUEST_TIMEOUT;
        self.note_authentication();
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
            SendError::Late => self.cut("the client does not read the response"),
            error => {
                debug!(%error, "response not sent completely");
                End::Cut
            }
        })
    }

    /// Reads off the rest of a body that nobody wanted.
    async fn skip(&mut self, feed: &mut Feed) -> Option<End> {
        let deadline = Instant::now() + self.listening.timeouts.read;
        let skipped = poll_fn(|cx| match feed.poll_skip(&mut self.link, cx) {
            Poll::Ready(skipped) => Poll::Ready(skipped.ok()),
            Poll::Pending => self.alarm.poll(deadline, cx).map(|()| None),
        });
        if skipped.await.is_some() { None } else { Some(End::Cut) }
    }
}
