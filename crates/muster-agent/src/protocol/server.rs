//! Accepts the connections of components: TLS by the name of the component, then HTTP/2.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camino::Utf8Path;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;

use super::line::Line;
use super::service::handle;

/// Maximum number of connections.
const CONNECTIONS_MAX: usize = 512;
/// Maximum time for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Maximum number of streams of a connection. A component needs two.
const STREAMS_MAX: u32 = 8;
/// Maximum length of the path of a Unix socket. Linux allows 108 bytes with the final zero.
const SOCKET_PATH_MAX: usize = 100;
/// Interval at which a silent connection is tested.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// The components that may connect.
#[derive(Clone)]
pub struct Hub {
    lines: Arc<Mutex<HashMap<String, Arc<Line>>>>,
    places: Arc<Semaphore>,
    address: Arc<str>,
}

impl Hub {
    /// Listens at a Unix socket, or at a port of the loopback interface if the path is too long for a socket.
    pub async fn listen(socket: &Utf8Path) -> std::io::Result<Self> {
        let new = |address: String| Self {
            lines: Arc::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            address: address.into(),
        };
        if socket.as_str().len() > SOCKET_PATH_MAX {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let hub = new(listener.local_addr()?.to_string());
            tokio::spawn(hub.clone().serve_tcp(listener));
            return Ok(hub);
        }
        remove_stale(socket)?;
        let listener = UnixListener::bind(socket)?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
        let hub = new(format!("unix://{socket}"));
        tokio::spawn(hub.clone().serve_unix(listener));
        Ok(hub)
    }

    /// Returns the address for components.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Lets a component connect.
    pub fn add(&self, line: &Arc<Line>) {
        self.lock().insert(line.credentials.server_name.clone(), line.clone());
    }

    /// Lets a component no longer connect.
    pub fn remove(&self, line: &Line) {
        self.lock().remove(&line.credentials.server_name);
    }

    async fn serve_unix(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.start(stream),
                Err(error) => refused(&error).await,
            }
        }
    }

    async fn serve_tcp(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.start(stream),
                Err(error) => refused(&error).await,
            }
        }
    }

    fn start(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        // Over the limit, the connection is closed at once, which the component sees.
        let Ok(place) = self.places.clone().try_acquire_owned() else { return };
        let hub = self.clone();
        tokio::spawn(async move {
            hub.connection(stream).await;
            drop(place);
        });
    }

    async fn connection(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let handshake = async {
            let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.ok()?;
            // The name selects the component, whose endpoint accepts only its own certificate.
            let line = self.lock().get(hello.client_hello().server_name()?).cloned()?;
            let tls = line.credentials.tls.clone();
            match hello.into_stream(tls).await {
                Ok(stream) => Some((line, stream)),
                Err(error) => {
                    tracing::warn!(%error, "rejected the connection of a component");
                    None
                }
            }
        };
        let Ok(Some((line, stream))) = tokio::time::timeout(HANDSHAKE, handshake).await else { return };
        let service = service_fn(move |request| handle(line.clone(), request));
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
        http.keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "the connection of a component ended");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a socket that was left behind by an agent that was killed. The caller holds the lock of the daemon.
pub(super) fn remove_stale(socket: &Utf8Path) -> std::io::Result<()> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Waits after a failed `accept`, which otherwise could fail again immediately.
pub(super) async fn refused(error: &std::io::Error) {
    tracing::warn!(%error, "failed to accept the connection of a component");
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ag36_ag151_agents_of_one_host_never_compete_for_a_port() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| Utf8Path::from_path(directory.path()).unwrap().join(name);
        let hub = Hub::listen(&path("s")).await.unwrap();
        assert!(hub.address().starts_with("unix://"), "usually no port at all: {}", hub.address());
        let long = path(&"x".repeat(SOCKET_PATH_MAX));
        let (first, second) = (Hub::listen(&long).await.unwrap(), Hub::listen(&long).await.unwrap());
        assert_ne!(first.address(), second.address());
        for hub in [first, second] {
            tokio::net::TcpStream::connect(hub.address()).await.unwrap();
        }
    }
}
