//! HTTP/1.1 over TCP or TLS with hyper. Keeps a few idle connections for reuse.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::proxy::Tunnel;
use super::tls_fault::handshake_fault;
use super::{REPLY_MAX, Request, Response, Server, TlsFault, Transport, TransportError, gzip};
use muster_core::error_chain::{SharedError, chain};
use nix::sys::socket::{setsockopt, sockopt};

/// Maximum number of idle connections: one for the long poll, one for other requests.
const IDLE_MAX: usize = 2;
/// Maximum time to establish a TCP connection and perform the TLS handshake.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// If an idle connection fails within this time, it was stale. A later failure concerns the request itself.
const STALE: std::time::Duration = std::time::Duration::from_secs(2);

/// Seconds without traffic after which the kernel asks the other side whether it is there, between two such probes, and their
/// number: a dead connection is noticed after 30 s.
const SILENT_AFTER: u32 = 15;
const PROBE_EVERY: u32 = 5;
const PROBES: u32 = 3;
/// What a connection that ends during the handshake means.
const INTERRUPTED: &str = "the connection was closed during the TLS handshake, as by a load balancer without a server, or by a \
    server without TLS";

/// A connection on which requests can be sent.
pub(crate) type Connection = SendRequest<Full<Bytes>>;

/// The network transport of the running agent.
pub struct Http1 {
    tls: Arc<ClientConfig>,
    proxy: Option<Tunnel>,
    headers: HeaderMap,
    idle: Mutex<Vec<(Server, Connection)>>,
}

impl Http1 {
    /// Creates a transport with this TLS configuration.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls, proxy: None, headers: HeaderMap::new(), idle: Mutex::new(Vec::new()) }
    }

    /// Connects to servers of other hosts through a proxy.
    #[must_use]
    pub fn through(mut self, proxy: Option<Tunnel>) -> Self {
        self.proxy = proxy;
        self
    }

    /// Adds these headers to every request.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    fn take_idle(&self, server: &Server) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Servers close idle connections after a while. Most closed connections are detected here.
        idle.retain(|(_, connection)| !connection.is_closed());
        let place = idle.iter().position(|(known, connection)| known == server && connection.is_ready())?;
        Some(idle.swap_remove(place).1)
    }

    fn keep_idle(&self, server: &Server, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !connection.is_closed() {
            idle.push((server.clone(), connection));
        }
    }

    /// Connects to a server, and verifies it.
    pub(crate) async fn connect(&self, server: &Server) -> Result<Connection, TransportError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_now(server)).await {
            Ok(connected) => connected,
            Err(_) => Err(refused(server, format!("no connection within {CONNECT_TIMEOUT:?}"))),
        }
    }

    async fn connect_now(&self, server: &Server) -> Result<Connection, TransportError> {
        let stream = match self.proxy.as_ref().filter(|proxy| proxy.serves(server)) {
            Some(proxy) => proxy.connect(server).await.map_err(|error| refused(server, error))?,
            None => {
                TcpStream::connect((server.host.as_str(), server.port)).await.map_err(|error| refused(server, error))?
            }
        };
        // A request is a single write, and must not wait for the TCP ack of an earlier one.
        let _ = stream.set_nodelay(true);
        notice_silence(&stream);
        if !server.tls {
            return shake_hands(stream).await.map_err(|error| refused(server, error));
        }
        let failed = |(fault, reason)| TransportError::Tls { server: server.to_string(), fault, reason };
        let name = ServerName::try_from(server.host.clone())
            .map_err(|error| failed((TlsFault::Name, chain(&error).to_string())))?;
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        let stream = connector.connect(name, stream).await.map_err(|error| match handshake_fault(&error) {
            Some(fault) => failed(fault),
            // As by a load balancer while its server restarts: it must be retried and probed for.
            None => refused(server, SharedError::during(INTERRUPTED, error)),
        })?;
        shake_hands(stream).await.map_err(|error| refused(server, error))
    }

    async fn exchange(&self, server: &Server, request: &Request) -> Result<Response, TransportError> {
        if let Some(connection) = self.take_idle(server) {
            let begun = Instant::now();
            match self.exchange_on(connection, server, request).await {
                // The server has closed the idle connection: retry on a new one. This does not apply after a long time:
                // a poll that was held and then cut must be reported as such.
                Err(TransportError::Broken(_)) if begun.elapsed() < STALE => {}
                other => return other,
            }
        }
        let connection = self.connect(server).await?;
        self.exchange_on(connection, server, request).await
    }

    async fn exchange_on(
        &self,
        mut connection: Connection,
        server: &Server,
        request: &Request,
    ) -> Result<Response, TransportError> {
        request.reached.mark();
        let reply = connection.send_request(self.outgoing(server, request)?).await.map_err(lost)?;
        let (head, body) = reply.into_parts();
        // The limit applies while reading, so that a server cannot make the agent buffer more than it would accept.
        let body = Limited::new(body, REPLY_MAX).collect().await.map_err(too_large_or_broken)?;
        self.keep_idle(server, connection);
        let body = decoded(&head.headers, body.to_bytes())?;
        Ok(Response { status: head.status.as_u16(), headers: head.headers, body })
    }

    fn outgoing(&self, server: &Server, request: &Request) -> Result<http::Request<Full<Bytes>>, TransportError> {
        let unusable =
            |error: http::Error| TransportError::Broken(SharedError::during("cannot write the request", error));
        let host = HeaderValue::from_str(&server.authority()).map_err(|error| unusable(error.into()))?;
        let mut built = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{}{}", server.prefix, request.path))
            .body(Full::new(request.body.clone()))
            .map_err(unusable)?;
        *built.headers_mut() = self.headers.clone();
        built.headers_mut().extend(request.headers.clone());
        built.headers_mut().insert(HOST, host);
        if !request.body.is_empty() {
            built.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(request.body.len()));
        }
        Ok(built)
    }
}

#[async_trait]
impl Transport for Http1 {
    async fn send(&self, server: &Server, request: Request) -> Result<Response, TransportError> {
        let timeout = request.timeout;
        match tokio::time::timeout(timeout, self.exchange(server, &request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(TransportError::Timeout(timeout)),
        }
    }
}

/// Begins HTTP/1.1 on a stream.
pub(crate) async fn shake_hands<S>(stream: S) -> Result<Connection, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http1::Builder::new().max_buf_size(64 << 10).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = made?;
    // The task ends when the sender is dropped or the server closes the connection. The request itself gets the errors.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %chain(&error), "connection ended");
        }
    });
    Ok(sender)
}

/// Makes the kernel notice that the other side is gone without a word, as after a power loss or behind a firewall that has
/// forgotten the connection. Otherwise, a held check-in would fail only at its own timeout.
fn notice_silence(stream: &TcpStream) {
    // Errors are ignored: without these options, the connection works.
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &SILENT_AFTER);
    let _ = setsockopt(stream, sockopt::TcpKeepInterval, &PROBE_EVERY);
    let _ = setsockopt(stream, sockopt::TcpKeepCount, &PROBES);
    // The same for a request that is not acknowledged.
    let _ = setsockopt(stream, sockopt::TcpUserTimeout, &((SILENT_AFTER + PROBE_EVERY * PROBES) * 1000));
}

/// Describes a lost connection. The words of the TLS library are for developers.
fn lost(error: hyper::Error) -> TransportError {
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match cause.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::UnexpectedEof) => TransportError::Broken("the server closed the connection".into()),
        Some(std::io::ErrorKind::TimedOut) => TransportError::Broken("the other side does not respond any more".into()),
        _ => TransportError::Broken(error.into()),
    }
}

fn decoded(headers: &HeaderMap, body: Bytes) -> Result<Bytes, TransportError> {
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        Some(b"gzip") => match gzip::decompress(&body, REPLY_MAX) {
            Ok(Some(plain)) => Ok(plain.into()),
            Ok(None) => Err(TransportError::TooLarge),
            Err(error) => Err(TransportError::Broken(SharedError::during("not gzip", error))),
        },
        Some(b"identity") | None => Ok(body),
        Some(other) => {
            let what = format!("unsupported content encoding {:?}", String::from_utf8_lossy(other));
            Err(TransportError::Broken(what.into()))
        }
    }
}

fn too_large_or_broken(error: Box<dyn std::error::Error + Send + Sync>) -> TransportError {
    if error.is::<http_body_util::LengthLimitError>() {
        TransportError::TooLarge
    } else {
        TransportError::Broken(error.into())
    }
}

fn refused(server: &Server, source: impl Into<SharedError>) -> TransportError {
    TransportError::Connect { server: server.to_string(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::Reached;
    use crate::state::enrollment::Trust;

    /// A server that answers the first request on its first connection, holds the second one for `hold`, and closes.
    async fn server(hold: Duration) -> (Server, tokio::task::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let requests = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            tokio::time::sleep(hold).await;
            drop(stream);
            let (mut stream, _) = match tokio::time::timeout(Duration::from_secs(1), listener.accept()).await {
                Ok(accepted) => accepted.unwrap(),
                Err(_) => return 2,
            };
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            3
        });
        (server, requests)
    }

    fn request() -> Request {
        Request {
            method: http::Method::POST,
            path: "/".into(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"{}"),
            timeout: Duration::from_secs(30),
            reached: Reached::default(),
        }
    }

    #[tokio::test]
    async fn ag176_a_connection_that_ends_during_the_handshake_is_no_matter_of_trust() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
        // It reads the first message, so that it ends the connection without a reset.
        tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        });
        let config = crate::net::tls::client_config(&Trust { ca_sha256: vec!["00".repeat(32)], ..Trust::default() });
        let error = Http1::new(config.unwrap()).send(&server, request()).await.unwrap_err();
        assert!(matches!(error, TransportError::Connect { .. }), "{error:?}");
        assert!(chain(&error).to_string().contains("load balancer without a server"), "{}", chain(&error));
    }

    #[tokio::test]
    async fn ag57_a_silent_connection_is_noticed_by_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        notice_silence(&stream);
        use nix::sys::socket::getsockopt;
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
        let idle = getsockopt(&stream, sockopt::TcpKeepIdle).unwrap();
        let probes = (
            getsockopt(&stream, sockopt::TcpKeepInterval).unwrap(),
            getsockopt(&stream, sockopt::TcpKeepCount).unwrap(),
        );
        assert_eq!((idle, probes), (15, (5, 3)));
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout).unwrap(), 30_000);
    }

    #[tokio::test]
    async fn a_stale_connection_is_retried_and_a_cut_poll_is_not() {
        let transport = Http1::new(crate::net::tls::client_config(&Trust::default()).unwrap());
        let (stale, requests) = server(Duration::ZERO).await;
        transport.send(&stale, request()).await.unwrap();
        transport.send(&stale, request()).await.unwrap();
        assert_eq!(requests.await.unwrap(), 3);
        let (held, requests) = server(STALE + Duration::from_millis(100)).await;
        transport.send(&held, request()).await.unwrap();
        let poll = request();
        let error = transport.send(&held, poll.clone()).await.unwrap_err();
        assert!(matches!(error, TransportError::Broken(_)), "{error}");
        assert!(poll.reached.held().unwrap() >= STALE);
        assert_eq!(requests.await.unwrap(), 2, "the cut poll is reported, not repeated");
    }
}
