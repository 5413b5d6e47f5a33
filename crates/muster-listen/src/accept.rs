//! The accept loops, with connection limits, recovery when file descriptors run out, shutdown and drain.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, error, warn};

use super::concurrency_limit::Pass;
use super::plain::Plain;
use super::proxy_protocol;
use super::refusal::Refusal;
use super::reserve::{Lent, Reserve, is_exhausted};
use super::tls_stream::TlsStream;
use super::unauthenticated::UnauthenticatedSlot;
use super::{Listening, Serve, connection, socket};
use crate::reply::Peer;
use crate::tls::ServerTls;

/// First and longest pause after a failed accept. The pause doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Outcome of draining a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were open when the listener stopped.
    pub open: usize,
    /// Those of them that were closed at the end of the grace period.
    pub cut: usize,
}

/// Accepts on a TCP port until shutdown, then drains.
pub async fn run<H: Serve>(listener: TcpListener, listening: Arc<Listening<H>>) -> Drained {
    let mut tasks = JoinSet::new();
    let mut shortage = Shortage::new();
    loop {
        tokio::select! {
            // Shutdown is polled first: under a steady stream of new connections it could otherwise be picked late.
            biased;
            () = listening.shutdown.cancelled() => break,
            // A JoinSet keeps the result of each finished task until it is joined. Without this arm it would grow with
            // every connection that was ever accepted.
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => note_end(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    shortage.over();
                    let tls = listening.tls.is_some();
                    let peer = Peer { address: Some(address), tls, ..Peer::new(listening.kind) };
                    admit(&mut tasks, &listening, peer, |listening, peer, place| {
                        serve_tcp(stream, listening, peer, place)
                    });
                }
                Err(error) => shortage.handle(&error, || listener.accept_now()).await,
            },
        }
    }
    // The listener is closed before the drain, so that the kernel refuses new clients and they connect to another node.
    drop(listener);
    drain(tasks, listening.timeouts.drain).await
}

/// Admin connections that can still be accepted when the process has no file descriptors left.
const ADMIN_RESERVE: usize = 4;

/// Accepts on the Unix socket until shutdown, then drains. Only root and the server's own user are admitted. When
/// agents use all file descriptors, the socket can still accept a few connections with descriptors from a reserve, so
/// that an administrator can solve the problem.
pub async fn run_unix<H: Serve>(listener: UnixListener, listening: Arc<Listening<H>>) -> Drained {
    let mut tasks = JoinSet::new();
    let mut shortage = Shortage::new();
    let reserve = Reserve::new(ADMIN_RESERVE);
    loop {
        tokio::select! {
            biased;
            () = listening.shutdown.cancelled() => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => note_end(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    shortage.over();
                    admit_administrator(&mut tasks, &listening, stream, None);
                }
                Err(error) => match take_by_reserve(&error, &listener, &reserve) {
                    Some((stream, lent)) => admit_administrator(&mut tasks, &listening, stream, Some(lent)),
                    None => shortage.handle(&error, || listener.accept_now()).await,
                },
            },
        }
    }
    // The listener is closed before the drain, so that the kernel refuses new clients and they connect to another node.
    drop(listener);
    drain(tasks, listening.timeouts.drain).await
}

/// Accepts a pending connection with a descriptor from the reserve.
fn take_by_reserve(error: &io::Error, listener: &UnixListener, reserve: &Arc<Reserve>) -> Option<(UnixStream, Lent)> {
    if !is_exhausted(error) {
        return None;
    }
    let lent = reserve.lend()?;
    // Accepted directly: tokio's accept would wait for a new readiness event, and another thread may take the
    // descriptor that was just freed. If it does, `?` drops `lent`, which refills the reserve.
    let (socket, _) = socket2::SockRef::from(listener).accept().ok()?;
    socket.set_nonblocking(true).ok()?;
    let stream = UnixStream::from_std(socket.into()).ok()?;
    warn!(%error, "out of file descriptors; accepted an admin connection with a reserved descriptor");
    Some((stream, lent))
}

fn admit_administrator<H: Serve>(
    tasks: &mut JoinSet<()>,
    listening: &Arc<Listening<H>>,
    stream: UnixStream,
    lent: Option<Lent>,
) {
    let Some(uid) = administrator(&stream) else { return };
    let peer = Peer { uid: Some(uid), ..Peer::new(listening.kind) };
    // The kernel guarantees the uid of the peer, so that no credentials are needed.
    peer.set_authenticated();
    admit(tasks, listening, peer, |listening, peer, place| async move {
        H::serve(stream, listening, peer, place).await;
        // The descriptor of the connection is closed now, so that the reserve can be refilled.
        drop(lent);
    });
}

/// A connection's slots in the listener's limits, released on drop.
#[derive(Debug)]
pub struct Place {
    _pass: Pass,
    /// The slot among unauthenticated connections, until a request carries valid credentials.
    // Boxed, so that the task of an authenticated connection has no space for it.
    pub(super) unauthenticated: Option<Box<UnauthenticatedSlot>>,
}

impl Place {
    /// Takes the slots for a connection from `peer`, or returns `None` when a limit is reached and no other connection
    /// can be closed.
    pub fn take<H>(listening: &Listening<H>, peer: &Peer) -> Option<Self> {
        let unauthenticated =
            if peer.is_authenticated() { None } else { Some(Box::new(listening.unauthenticated.admit(peer.address)?)) };
        let pass = listening.connections.enter().or_else(|| {
            let has_room = listening.unauthenticated.make_room(peer.address);
            has_room.then(|| listening.connections.enter_in_exchange())
        })?;
        let mut place = Self { _pass: pass, unauthenticated };
        // Only now, because the connection could otherwise be chosen to make room for itself.
        place.waits();
        Some(place)
    }

    /// Records that the connection is not processing a request. If it is unauthenticated, another one may take its place.
    pub(super) fn waits(&mut self) {
        if let Some(slot) = &mut self.unauthenticated {
            slot.waits();
        }
    }

    /// Records that the connection has sent a request. Returns false if another one has already taken its place.
    #[must_use]
    pub(super) fn keep(&mut self) -> bool {
        self.unauthenticated.as_mut().is_none_or(|slot| slot.keep_place())
    }

    /// Ready if another connection has taken the place of this one, which must close.
    pub(super) fn poll_displaced(&self, cx: &Context<'_>) -> Poll<()> {
        self.unauthenticated.as_ref().map_or(Poll::Pending, |slot| slot.poll_displaced(cx))
    }

    /// Waits until another connection takes the place of this one.
    pub(super) async fn displaced(&self) {
        poll_fn(|cx| self.poll_displaced(cx)).await;
    }

    /// Returns whether the connection may stay open between requests.
    pub fn may_idle(&self) -> bool {
        self.unauthenticated.as_ref().is_none_or(|slot| slot.may_idle())
    }
}

/// Spawns the connection's task, or drops the connection when a limit is reached.
fn admit<H, F, T>(tasks: &mut JoinSet<()>, listening: &Arc<Listening<H>>, peer: Peer, task: F)
where
    H: Serve,
    F: FnOnce(Arc<Listening<H>>, Peer, Place) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    match Place::take(listening, &peer) {
        Some(place) => {
            listening.metrics.accepted.inc();
            tasks.spawn(task(Arc::clone(listening), peer, place));
        }
        // The connection is closed without a response. A response would require a TLS handshake, which is the work that
        // the limit prevents.
        None => {
            listening.metrics.refused_connections.inc();
            listening.handler.note(&Refusal::TooManyConnections, &peer);
        }
    }
}

/// Returns the peer's uid if it may use the admin socket.
fn administrator(stream: &UnixStream) -> Option<u32> {
    let uid = stream
        .peer_cred()
        .inspect_err(|error| warn!(%error, "failed to get the credentials of the peer of the admin socket"))
        .ok()?
        .uid();
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        return Some(uid);
    }
    warn!(uid, "admin connection rejected: the user is neither root nor the server's user");
    None
}

pub(super) async fn serve_tcp<H: Serve>(stream: TcpStream, listening: Arc<Listening<H>>, mut peer: Peer, place: Place) {
    // Setting socket options fails if the peer has reset the connection while it was in the accept queue.
    if let Err(error) = socket::prepare(&stream) {
        return debug!(%error, "the peer closed the connection immediately");
    }
    let Some(tls) = listening.tls.clone() else {
        return H::serve(Plain(stream), listening, peer, place).await;
    };
    // Boxed, so that the state of the handshake is freed before the connection is served. Otherwise, it would be part
    // of the task of every parked connection.
    let begun = Box::pin(async {
        tokio::select! {
            begun = begin_tls(stream, tls, &listening, &place) => begun,
            () = place.displaced() => Begun::Displaced,
        }
    });
    match begun.await {
        Begun::Tls(stream) => {
            peer.certificates = stream.peer_certificates().map(Into::into);
            H::serve(stream, listening, peer, place).await;
        }
        Begun::PlainHttp(stream) => {
            listening.metrics.failed_handshakes.inc();
            peer.tls = false;
            let reply = listening.handler.refuse(&Refusal::PlainHttp, &peer);
            Box::pin(connection::reject(stream, reply, &place)).await;
        }
        // The client behind the load balancer expects TLS, and could not read a response.
        Begun::ProxyProtocol => {
            listening.metrics.failed_handshakes.inc();
            listening.handler.note(&Refusal::ProxyProtocol, &peer);
        }
        Begun::Failed(reason) => {
            listening.metrics.failed_handshakes.inc();
            listening.handler.note(&Refusal::Handshake(reason), &peer);
        }
        Begun::Displaced => listening.note_displaced(&peer),
        Begun::Nothing => {}
    }
}

/// How a connection to a TLS port began.
enum Begun {
    /// The handshake succeeded. Boxed, because the state of an async function has space for every value that is moved
    /// across an await.
    Tls(Box<TlsStream<Plain>>),
    /// The client sent plain HTTP, which is still unread.
    PlainHttp(Plain),
    /// A load balancer sent a PROXY protocol header.
    ProxyProtocol,
    /// The handshake failed, for this reason.
    Failed(String),
    /// Another connection has taken the place of this one.
    Displaced,
    /// The client closed the connection or sent nothing.
    Nothing,
}

/// Performs the TLS handshake. Before it, a client may be idle for as long as before its first request, because some
/// load balancers open connections in advance.
async fn begin_tls<H>(stream: TcpStream, tls: Arc<ServerTls>, listening: &Listening<H>, place: &Place) -> Begun {
    let timeouts = &listening.timeouts;
    let silence = if place.may_idle() { timeouts.idle } else { timeouts.handshake };
    let mut first = [0; proxy_protocol::SIGNATURE];
    // The bytes are peeked instead of read, because they belong to the handshake.
    match timeout(silence, stream.peek(&mut first)).await {
        Ok(Ok(length)) if proxy_protocol::is_header(&first[..length]) => return Begun::ProxyProtocol,
        // A TLS handshake begins with the byte 22. A letter is the beginning of an HTTP method: the client uses an
        // http:// URL, and gets a plain 400 that states this. A TLS alert would be unreadable to it.
        Ok(Ok(1..)) if first[0].is_ascii_alphabetic() => return Begun::PlainHttp(Plain(stream)),
        Ok(Ok(1..)) => {}
        // The connection was closed or is silent. This is a port check by a load balancer or a monitor, and not counted
        // as a failed handshake, because the metric would otherwise rise steadily behind every load balancer.
        _ => return Begun::Nothing,
    }
    match timeout(timeouts.handshake, TlsStream::accept(Plain(stream), tls.current())).await {
        Ok(Ok(stream)) => Begun::Tls(Box::new(stream)),
        Ok(Err(error)) => Begun::Failed(error.to_string()),
        Err(_) => Begun::Failed("timed out".into()),
    }
}

fn note_end(ended: Result<(), tokio::task::JoinError>) {
    // The only other kind of join error is cancellation, which the drain itself causes.
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "the task of a connection panicked");
    }
}

/// Waits at most `grace` for connections to end, then closes the rest.
async fn drain(mut tasks: JoinSet<()>, grace: Duration) -> Drained {
    let open = tasks.len();
    // A deadline instead of a timeout for each connection, so that the total time is limited.
    let end = Instant::now() + grace;
    while !tasks.is_empty() {
        match timeout_at(end, tasks.join_next()).await {
            Ok(Some(ended)) => note_end(ended),
            Ok(None) | Err(_) => break,
        }
    }
    let cut = tasks.len();
    // Aborts the remaining tasks and waits for them, so that none outlives the store.
    tasks.shutdown().await;
    Drained { open, cut }
}

/// Accepting without waiting.
trait AcceptNow {
    /// Accepts a pending connection, if there is one, and closes it. Returns whether there was one.
    fn accept_now(&self) -> bool;
}

impl AcceptNow for TcpListener {
    fn accept_now(&self) -> bool {
        socket2::SockRef::from(self).accept().is_ok()
    }
}

impl AcceptNow for UnixListener {
    fn accept_now(&self) -> bool {
        socket2::SockRef::from(self).accept().is_ok()
    }
}

/// Handles failed accepts. Keeps one file descriptor in reserve. Without it, a pending connection could not even be
/// closed, the listener would stay readable, and the loop would spin.
struct Shortage {
    reserve: Option<File>,
    pause: Duration,
}

impl Shortage {
    fn new() -> Self {
        Self { reserve: open_reserve(), pause: FIRST_PAUSE }
    }

    fn over(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    async fn handle(&mut self, error: &io::Error, accept: impl FnOnce() -> bool) {
        use nix::errno::Errno;
        let code = error.raw_os_error().map(Errno::from_raw);
        match code {
            // These errors concern only this client. With a pause, any client could delay the next ones.
            Some(Errno::ECONNABORTED | Errno::ECONNRESET | Errno::EINTR | Errno::EPROTO) => return,
            Some(Errno::EMFILE | Errno::ENFILE) => {
                // With the freed descriptor, one client can be accepted and closed. It retries, instead of waiting in
                // the accept queue.
                drop(self.reserve.take());
                let turned_away = accept();
                self.reserve = open_reserve();
                warn!(%error, turned_away, "out of file descriptors; raise the limit on open files, or reduce limits.max_connections");
            }
            _ => warn!(%error, "accepting a connection failed"),
        }
        // Most causes, such as a lack of memory, do not end immediately, and retrying would use a whole core.
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
