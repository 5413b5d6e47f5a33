//! The accept loops: within the limit of connections, through shortages of files, until shutdown; then the drain.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, error, warn};

use super::gate::Pass;
use super::plain::Plain;
use super::refusal::Refusal;
use super::reserve::{Lent, Reserve, is_exhausted};
use super::strangers::Stranger;
use super::tls_stream::TlsStream;
use super::{Listening, Serve, connection, socket};
use crate::reply::Peer;
use crate::tls::ServerTls;

/// Pauses after a failed accept.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How a listener ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were open when it stopped.
    pub open: usize,
    /// Those of them that were cut at the end of the grace period.
    pub cut: usize,
}

/// Accepts on a TCP port until shutdown, then drains.
pub async fn run<H: Serve>(listener: TcpListener, listening: Arc<Listening<H>>) -> Drained {
    let mut tasks = JoinSet::new();
    let mut shortage = Shortage::new();
    loop {
        tokio::select! {
            biased;
            () = listening.shutdown.cancelled() => break,
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
    drop(listener);
    drain(tasks, listening.timeouts.drain).await
}

/// Administrators that are served when no more files can be opened.
const ADMIN_RESERVE: usize = 4;

/// Accepts on the Unix socket until shutdown, then drains. Root and our own user only. When agents hold every file that
/// may be opened, the socket still takes a few connections: who has to mend that must not be locked out.
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
    drop(listener);
    drain(tasks, listening.timeouts.drain).await
}

/// Takes a waiting connection with a file of the reserve.
fn take_by_reserve(error: &io::Error, listener: &UnixListener, reserve: &Arc<Reserve>) -> Option<(UnixStream, Lent)> {
    if !is_exhausted(error) {
        return None;
    }
    let lent = reserve.lend()?;
    let (socket, _) = socket2::SockRef::from(listener).accept().ok()?;
    socket.set_nonblocking(true).ok()?;
    let stream = UnixStream::from_std(socket.into()).ok()?;
    warn!(%error, "out of file descriptors: serving the admin socket from the reserve");
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
    // The kernel has told who it is.
    peer.set_authenticated();
    admit(tasks, listening, peer, |listening, peer, place| async move {
        H::serve(stream, listening, peer, place).await;
        drop(lent);
    });
}

/// What a connection holds of the listener's places.
#[derive(Debug)]
pub struct Place {
    _pass: Pass,
    /// Its place among the unauthenticated, until it authenticates.
    pub(super) stranger: Option<Stranger>,
}

impl Place {
    /// A place for a connection from `peer`, if there is one.
    pub fn take<H>(listening: &Listening<H>, peer: &Peer) -> Option<Self> {
        let pass = listening.connections.enter()?;
        let stranger = if peer.is_authenticated() { None } else { Some(listening.strangers.admit(peer.address)?) };
        Some(Self { _pass: pass, stranger })
    }

    /// Whether the connection may stay open without a request.
    pub fn may_idle(&self) -> bool {
        self.stranger.as_ref().is_none_or(Stranger::may_idle)
    }
}

/// Spawns the connection's task, or drops the connection when there are too many.
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
        None => {
            listening.metrics.refused_connections.inc();
            listening.handler.note(&Refusal::TooManyConnections, &peer);
        }
    }
}

/// The user at the other end, if it may use the socket.
fn administrator(stream: &UnixStream) -> Option<u32> {
    let uid = stream.peer_cred().inspect_err(|error| warn!(%error, "a peer has no credentials")).ok()?.uid();
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        return Some(uid);
    }
    warn!(uid, "rejected a user who is not an administrator on the admin socket");
    None
}

pub(super) async fn serve_tcp<H: Serve>(stream: TcpStream, listening: Arc<Listening<H>>, mut peer: Peer, place: Place) {
    if let Err(error) = socket::prepare(&stream) {
        return debug!(%error, "the peer closed the connection immediately");
    }
    let Some(tls) = listening.tls.clone() else {
        return H::serve(Plain(stream), listening, peer, place).await;
    };
    // Boxed, so that the space of the handshake is free afterwards.
    match Box::pin(begin_tls(stream, tls, &listening, &place)).await {
        Begun::Tls(stream) => {
            peer.certificates = stream.peer_certificates().map(Into::into);
            H::serve(stream, listening, peer, place).await;
        }
        Begun::PlainHttp(stream) => {
            listening.metrics.failed_handshakes.inc();
            peer.tls = false;
            let reply = listening.handler.refuse(&Refusal::PlainHttp, &peer);
            Box::pin(connection::turn_away(stream, reply)).await;
        }
        Begun::Failed(reason) => {
            listening.metrics.failed_handshakes.inc();
            listening.handler.note(&Refusal::Handshake(reason), &peer);
        }
        Begun::Nothing => {}
    }
}

/// How a connection to a TLS port began.
enum Begun {
    /// Boxed: the state of an async function has a place for every value that it hands on.
    Tls(Box<TlsStream<Plain>>),
    /// With a request in plain HTTP, which is still unread.
    PlainHttp(Plain),
    /// With a handshake that failed.
    Failed(String),
    /// Not at all.
    Nothing,
}

/// The handshake. A client may be silent before it as it may before its first request: some load balancers open
/// connections ahead of need.
async fn begin_tls<H>(stream: TcpStream, tls: Arc<ServerTls>, listening: &Listening<H>, place: &Place) -> Begun {
    let timeouts = &listening.timeouts;
    let silence = if place.may_idle() { timeouts.idle } else { timeouts.handshake };
    let mut first = [0];
    match timeout(silence, stream.peek(&mut first)).await {
        // A handshake record begins with 22. A letter is the begin of a method: that client asks for http://.
        Ok(Ok(1)) if first[0].is_ascii_alphabetic() => return Begun::PlainHttp(Plain(stream)),
        Ok(Ok(1)) => {}
        // Closed or silent: a port check by a load balancer or a monitor, and no failed handshake.
        _ => return Begun::Nothing,
    }
    match timeout(timeouts.handshake, TlsStream::accept(Plain(stream), tls.current())).await {
        Ok(Ok(stream)) => Begun::Tls(Box::new(stream)),
        Ok(Err(error)) => Begun::Failed(error.to_string()),
        Err(_) => Begun::Failed("timed out".into()),
    }
}

fn note_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "the task of a connection panicked");
    }
}

/// Waits for connections to end, no longer than `grace`, then cuts the rest.
async fn drain(mut tasks: JoinSet<()>, grace: Duration) -> Drained {
    let open = tasks.len();
    let end = Instant::now() + grace;
    while !tasks.is_empty() {
        match timeout_at(end, tasks.join_next()).await {
            Ok(Some(ended)) => note_end(ended),
            Ok(None) | Err(_) => break,
        }
    }
    let cut = tasks.len();
    tasks.shutdown().await;
    Drained { open, cut }
}

/// Accepting without waiting.
trait AcceptNow {
    /// Takes a waiting connection, if there is one, and closes it.
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

/// What to do when accepting fails. A file is kept in reserve: without a file to spare, a waiting client could not
/// even be told goodbye, and the loop would spin.
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
            // The client is to blame; the next one is not.
            Some(Errno::ECONNABORTED | Errno::ECONNRESET | Errno::EINTR | Errno::EPROTO) => return,
            Some(Errno::EMFILE | Errno::ENFILE) => {
                drop(self.reserve.take());
                let turned_away = accept();
                self.reserve = open_reserve();
                warn!(%error, turned_away, "out of file descriptors: raise the limit, or lower limits.max_connections");
            }
            _ => warn!(%error, "accepting a connection failed"),
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
