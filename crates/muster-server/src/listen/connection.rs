//! One connection, from its first byte to its last.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tracing::{debug, trace};

use super::hold::{Held, hold};
use super::progress::{Late, ParkedRequest, Progress};
use super::service::Service;
use super::stream::Watched;
use super::{Handler, Listening, wire};
use crate::reply::Peer;

/// Bytes of a request's head (§1.3).
const MAX_HEAD: usize = 8192;
/// Bytes that hyper may hold of what it reads.
const READ_BUFFER: usize = 16 * 1024;
/// A slot answers by itself at the end of its poll; one that does not is cut this long after the longest poll.
const HOLD_GRACE: Duration = Duration::from_secs(300);
/// How long a goodbye may take.
const CLOSE: Duration = Duration::from_secs(2);

type Hyper<S, H> = http1::Connection<TokioIo<Watched<S>>, Service<H>>;

/// How hyper's part ended.
enum End {
    /// No more requests; the stream may be closed.
    Done,
    /// A deadline passed, or the connection broke: nothing more can be said to the client.
    Cut,
    /// A handler wants to be parked.
    Park(ParkedRequest),
}

/// Serves a connection until it ends. TLS, if any, is done already.
pub(super) async fn serve<S, H>(stream: S, listening: Arc<Listening<H>>, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let progress = Progress::new();
    let mut stream = Watched::new(stream, progress.clone());
    loop {
        // Boxed, so that a parked connection does not keep the space.
        let phase = Box::pin(serve_requests(stream, Arc::clone(&listening), peer.clone(), progress.clone()));
        let (end, back) = phase.await;
        stream = back;
        match end {
            End::Park(request) => match answer_parked(stream, request, &listening, &progress).await {
                Some(back) => stream = back,
                None => return,
            },
            End::Done => return close(stream).await,
            End::Cut => return,
        }
    }
}

/// Lets hyper serve until the connection ends or a handler parks; gives the stream back.
async fn serve_requests<S, H>(
    stream: Watched<S>,
    listening: Arc<Listening<H>>,
    peer: Peer,
    progress: Progress,
) -> (End, Watched<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let service = Service { listening: Arc::clone(&listening), peer, progress: progress.clone() };
    let mut hyper = builder().serve_connection(TokioIo::new(stream), service);
    let end = {
        let mut shutdown = pin!(listening.shutdown.cancelled());
        let mut driver = Driver { listening: &listening, progress: &progress, draining: false };
        let mut alarm = pin!(sleep_until(Instant::now() + listening.timeouts.idle));
        std::future::poll_fn(|cx| driver.poll(&mut hyper, shutdown.as_mut(), alarm.as_mut(), cx)).await
    };
    let parts = hyper.into_parts();
    let mut stream = parts.io.into_inner();
    stream.put_back(parts.read_buf);
    (end, stream)
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.half_close(false).keep_alive(true).max_buf_size(READ_BUFFER).max_header_size(MAX_HEAD);
    // Deadlines are ours, so hyper needs no timer.
    builder.header_read_timeout(None);
    builder
}

struct Driver<'a, H> {
    listening: &'a Listening<H>,
    progress: &'a Progress,
    draining: bool,
}

impl<H: Handler> Driver<'_, H> {
    fn poll<S>(
        &mut self,
        hyper: &mut Hyper<S, H>,
        shutdown: Pin<&mut impl Future<Output = ()>>,
        mut alarm: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<End>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if !self.draining && shutdown.poll(cx).is_ready() {
            self.draining = true;
            Pin::new(&mut *hyper).graceful_shutdown();
        }
        loop {
            match hyper.poll_without_shutdown(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(End::Done),
                Poll::Ready(Err(error)) => return Poll::Ready(self.broken(&error)),
                Poll::Pending => {}
            }
            if let Some(request) = self.progress.take_parked() {
                return Poll::Ready(End::Park(request));
            }
            match self.poll_deadline(alarm.as_mut(), cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(late) => {
                    if let Some(end) = self.late(late) {
                        return Poll::Ready(end);
                    }
                }
            }
        }
    }

    /// Ready when a deadline passed. The alarm is only moved when it would ring too late: for a busy connection
    /// it rings now and then for nothing, instead of being moved with each request.
    fn poll_deadline(&self, mut alarm: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Late> {
        loop {
            let Some(deadline) = self.progress.deadline(&self.listening.timeouts) else { return Poll::Pending };
            if deadline.at < alarm.deadline() {
                alarm.as_mut().reset(deadline.at);
            }
            std::task::ready!(alarm.as_mut().poll(cx));
            if Instant::now() >= deadline.at {
                return Poll::Ready(deadline.late);
            }
            alarm.as_mut().reset(deadline.at);
        }
    }

    /// What to do about a passed deadline; `None`: go on, its handler was told.
    fn late(&self, late: Late) -> Option<End> {
        if late == Late::Body && self.progress.tell_body_late() {
            return None;
        }
        trace!(?late, "a connection was cut at a deadline");
        match late {
            Late::Request => Some(End::Done),
            Late::Head | Late::Body | Late::Reading => {
                self.listening.metrics.cut_connections.inc();
                Some(End::Cut)
            }
        }
    }

    fn broken(&self, error: &hyper::Error) -> End {
        debug!(%error, "a connection broke");
        // hyper has answered a request that it can't read with 400 or 431; that reply must still go out whole.
        if error.is_parse() { End::Done } else { End::Cut }
    }
}

/// Waits for the slot and sends its reply. `None` when the connection is over.
async fn answer_parked<S, H>(
    mut stream: Watched<S>,
    request: ParkedRequest,
    listening: &Arc<Listening<H>>,
    progress: &Progress,
) -> Option<Watched<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let ParkedRequest { mut slot, pass, keep_alive } = request;
    let longest = listening.timeouts.max_poll + HOLD_GRACE;
    listening.metrics.parked.inc();
    let held = timeout(longest, hold(&mut stream, &mut slot)).await;
    listening.metrics.parked.dec();
    drop(slot);
    let Ok(Held::Reply(reply)) = held else { return None };
    let stays = keep_alive && !listening.shutdown.is_cancelled();
    let sent = Box::pin(wire::send(&mut stream, reply, stays, &listening.timeouts)).await;
    drop(pass);
    progress.reply_done();
    if let Err(error) = sent {
        debug!(%error, "the reply to a parked request was not taken");
        return None;
    }
    if !stays {
        close(stream).await;
        return None;
    }
    Some(stream)
}

/// Says goodbye: what is buffered is sent, then the end of TLS and of the stream.
async fn close<S: AsyncWrite + Unpin>(mut stream: Watched<S>) {
    if let Ok(Err(error)) = timeout(CLOSE, stream.shutdown()).await {
        trace!(%error, "a connection was not closed in form");
    }
}
