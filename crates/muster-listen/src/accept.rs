//! The accept loops: within the limit of connections, through shortages of files, until shutdown; then the drain.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, warn};

use super::gate::Pass;
use super::plain::Plain;
use super::{Handler, Listening, connection, socket};
use crate::reply::Peer;

/// Plain bytes and TLS records that rustls may hold for one client.
const TLS_BUFFER: usize = 32 * 1024;
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
pub async fn run<H: Handler>(listener: TcpListener, listening: Arc<Listening<H>>) -> Drained {
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
                    let peer = Peer {
                        address: Some(address),
                        tls: listening.tls.is_some(),
                        listener: listening.kind,
                        uid: None,
                    };
                    admit(&mut tasks, &listening, |listening, pass| serve_tcp(stream, listening, peer, pass));
                }
                Err(error) => shortage.handle(&error, || listener.accept_now()).await,
            },
        }
    }
    drop(listener);
    drain(tasks, listening.timeouts.drain).await
}

/// Accepts on the Unix socket until shutdown, then drains. Root and our own user only.
pub async fn run_unix<H: Handler>(listener: UnixListener, listening: Arc<Listening<H>>) -> Drained {
    let mut tasks = JoinSet::new();
    let mut shortage = Shortage::new();
    loop {
        tokio::select! {
            biased;
            () = listening.shutdown.cancelled() => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => note_end(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    shortage.over();
                    let Some(uid) = administrator(&stream) else { continue };
                    let peer = Peer { address: None, tls: false, listener: listening.kind, uid: Some(uid) };
                    admit(&mut tasks, &listening, |listening, pass| async move {
                        connection::serve(stream, listening, peer).await;
                        drop(pass);
                    });
                }
                Err(error) => shortage.handle(&error, || listener.accept_now()).await,
            },
        }
    }
    drop(listener);
    drain(tasks, listening.timeouts.drain).await
}

/// Spawns the connection's task, or drops the connection when there are too many.
fn admit<H, F, T>(tasks: &mut JoinSet<()>, listening: &Arc<Listening<H>>, task: F)
where
    F: FnOnce(Arc<Listening<H>>, Pass) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    match listening.connections.enter() {
        Some(pass) => {
            listening.metrics.accepted.inc();
            tasks.spawn(task(Arc::clone(listening), pass));
        }
        None => {
            listening.metrics.refused_connections.inc();
        }
    }
}

/// The user at the other end, if it may use the socket.
fn administrator(stream: &UnixStream) -> Option<u32> {
    let uid = stream.peer_cred().inspect_err(|error| warn!(%error, "a peer has no credentials")).ok()?.uid();
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        return Some(uid);
    }
    warn!(uid, "a user that is no administrator was refused on the admin socket");
    None
}

pub(super) async fn serve_tcp<H: Handler>(stream: TcpStream, listening: Arc<Listening<H>>, peer: Peer, pass: Pass) {
    if let Err(error) = socket::prepare(&stream) {
        return debug!(%error, "a connection was gone at once");
    }
    let stream = Plain(stream);
    match listening.tls.as_ref().map(|tls| TlsAcceptor::from(tls.current())) {
        None => connection::serve(stream, listening, peer).await,
        Some(acceptor) => {
            // Boxed, so that the space of the handshake is free afterwards.
            let handshake = Box::pin(shake_hands(acceptor, stream, &listening)).await;
            if let Some(stream) = handshake {
                connection::serve(stream, listening, peer).await;
            }
        }
    }
    drop(pass);
}

/// The stream is boxed: the state of an async function has a place for every value that it hands on.
async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin, H>(
    acceptor: TlsAcceptor,
    stream: S,
    listening: &Listening<H>,
) -> Option<Box<tokio_rustls::server::TlsStream<S>>> {
    let handshake = acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(TLS_BUFFER)));
    match timeout(listening.timeouts.handshake, handshake).await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            listening.metrics.failed_handshakes.inc();
            debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            listening.metrics.failed_handshakes.inc();
            debug!("a TLS handshake was not finished in time");
            None
        }
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
                warn!(%error, turned_away, "no more files can be opened: raise the limit, or lower limits.max_connections");
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
