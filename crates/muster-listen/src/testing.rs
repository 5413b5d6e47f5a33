//! A listener whose handler is a closure, and a client that sends and receives raw bytes (feature `testing`).
#![allow(missing_docs, clippy::unwrap_used, reason = "for tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Timeouts;
use crate::accept::{self, Drained};
use crate::body::RequestBody;
use crate::concurrency_limit::ConcurrencyLimit;
use crate::metrics::ConnectionMetrics;
use crate::refusal::Refusal;
use crate::reply::{ListenerKind, Peer, Reply, ReplyBody};
use crate::tls::ServerTls;
use crate::unauthenticated::UnauthenticatedLimit;
use crate::{Answer, Handler, Listening, Serve, Work, socket};

/// Timeout of each wait in a test: long enough for a loaded machine, short enough to fail soon.
pub const PATIENCE: Duration = Duration::from_secs(20);

type Closure = dyn Fn(Request<RequestBody>, Peer) -> Work + Send + Sync;

pub struct TestHandler(Box<Closure>);

impl Handler for TestHandler {
    fn refuse(&self, refusal: &Refusal, _: &Peer) -> Reply {
        let mut reply = reply(refusal.to_string());
        *reply.status_mut() = refusal.status();
        reply
    }

    /// A request to a path that begins with `/known` counts as one with valid credentials, below `/known/` with those
    /// of a key of that name.
    fn handle(&self, request: Request<RequestBody>, peer: Peer) -> Work {
        if request.uri().path().starts_with("/known") {
            peer.set_authenticated();
            peer.set_key(|| request.uri().path().strip_prefix("/known/").map(Arc::from));
        }
        (self.0)(request, peer)
    }
}

/// A handler that calls an async closure.
pub fn handler<F>(work: impl Fn(Request<RequestBody>) -> F + Send + Sync + 'static) -> TestHandler
where
    F: Future<Output = Answer> + Send + 'static,
{
    TestHandler(Box::new(move |request, _| Box::pin(work(request))))
}

/// A handler that builds its response from the peer.
pub fn handler_of_peers(answer: impl Fn(&Peer) -> Reply + Send + Sync + 'static) -> TestHandler {
    TestHandler(Box::new(move |_, peer| {
        let reply = answer(&peer);
        Box::pin(async { Answer::Reply(reply) })
    }))
}

/// Responds with the path and the body, or with 408 if the body is late or broken.
pub fn echo() -> TestHandler {
    handler(|request: Request<RequestBody>| async {
        let path = request.uri().path().to_owned();
        Answer::Reply(match request.into_body().collect().await {
            Ok(body) => reply(format!("{path} {}", String::from_utf8_lossy(&body.to_bytes()))),
            Err(_) => {
                let mut reply = reply("late");
                *reply.status_mut() = http::StatusCode::REQUEST_TIMEOUT;
                reply
            }
        })
    })
}

pub fn reply(text: impl Into<String>) -> Reply {
    Reply::new(ReplyBody::pieces([text.into().into()]))
}

pub fn timeouts() -> Timeouts {
    let long = Duration::from_secs(60);
    Timeouts {
        handshake: long,
        read_header: long,
        read: long,
        write: long,
        write_stall: long,
        idle: long,
        hold: long,
        drain: long,
    }
}

/// TLS with a self-signed certificate for `localhost`.
pub fn self_signed_tls() -> Arc<ServerTls> {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    ServerTls::new(config)
}

pub struct Server {
    pub address: SocketAddr,
    pub metrics: Arc<ConnectionMetrics>,
    pub requests: Arc<ConcurrencyLimit>,
    pub connections: Arc<ConcurrencyLimit>,
    pub unauthenticated: Arc<UnauthenticatedLimit>,
    pub shutdown: CancellationToken,
    task: JoinHandle<Drained>,
}

/// Options of a test server.
pub struct Setup {
    pub timeouts: Timeouts,
    pub requests: usize,
    pub connections: usize,
    pub tls: Option<Arc<ServerTls>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { timeouts: timeouts(), requests: 1000, connections: 1000, tls: None }
    }
}

impl Setup {
    pub fn listening<H: Serve>(self, handler: H) -> Listening<H> {
        Listening {
            kind: ListenerKind::Agent,
            handler,
            tls: self.tls,
            timeouts: self.timeouts,
            requests: ConcurrencyLimit::new(self.requests),
            connections: ConcurrencyLimit::new(self.connections),
            unauthenticated: UnauthenticatedLimit::new(self.connections),
            idle: Arc::default(),
            metrics: Arc::new(ConnectionMetrics::default()),
            shutdown: CancellationToken::new(),
        }
    }

    pub fn start<H: Serve>(self, handler: H) -> Server {
        let listener = socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let listening = Arc::new(self.listening(handler));
        Server {
            address,
            metrics: Arc::clone(&listening.metrics),
            requests: Arc::clone(&listening.requests),
            connections: Arc::clone(&listening.connections),
            unauthenticated: Arc::clone(&listening.unauthenticated),
            shutdown: listening.shutdown.clone(),
            task: tokio::spawn(accept::run(listener, listening)),
        }
    }
}

impl Server {
    pub async fn client(&self) -> Client {
        Client::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// Stops the server and waits for its drain.
    pub async fn stop(self) -> Drained {
        self.shutdown.cancel();
        within(self.task).await.unwrap()
    }
}

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("timed out")
}

/// Waits until `state` holds.
pub async fn until(what: &str, state: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !state() {
        assert!(tokio::time::Instant::now() < end, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A received response: its head and its body.
#[derive(Debug)]
pub struct Received {
    pub head: String,
    pub body: String,
}

impl Received {
    pub fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, text: &str) {
        within(self.stream.write_all(text.as_bytes())).await.unwrap();
    }

    pub async fn get(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")).await;
    }

    /// Reads one response with a `content-length`.
    pub async fn receive(&mut self) -> Received {
        loop {
            if let Some(reply) = self.take_reply() {
                return reply;
            }
            let mut part = [0; 4096];
            let count = within(self.stream.read(&mut part)).await.unwrap();
            assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&self.buffer));
            self.buffer.extend_from_slice(&part[..count]);
        }
    }

    /// Reads the head of a response to HEAD.
    pub async fn receive_head(&mut self) -> String {
        while !self.buffer.windows(4).any(|end| end == b"\r\n\r\n") {
            let count = within(self.stream.read_buf(&mut self.buffer)).await.unwrap();
            assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&self.buffer));
        }
        let end = self.buffer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        String::from_utf8(self.buffer.drain(..end).collect()).unwrap()
    }

    fn take_reply(&mut self) -> Option<Received> {
        let text = String::from_utf8_lossy(&self.buffer).into_owned();
        let (head, rest) = text.split_once("\r\n\r\n")?;
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
        let body = rest.get(..length)?.to_owned();
        self.buffer.drain(..head.len() + 4 + length);
        Some(Received { head: head.to_owned(), body })
    }

    /// Reads until the server closes the connection; returns everything that was received.
    pub async fn rest(mut self) -> String {
        let mut rest = std::mem::take(&mut self.buffer);
        // A reset counts as a close too.
        let _ = within(self.stream.read_to_end(&mut rest)).await;
        String::from_utf8_lossy(&rest).into_owned()
    }
}
