//! The connection of an agent: HTTP/1.1 over TLS, opened when needed, and driven by the task of the agent.

use std::borrow::Cow;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::dial::Dialer;
use crate::gzip;
use crate::tally::Tally;
use crate::wire;

/// Timeout of a request, as in real agents.
const TIMEOUT: Duration = Duration::from_secs(600);

type Sender = SendRequest<Full<Bytes>>;
type Wire = Connection<TokioIo<TlsStream<TcpStream>>, Full<Bytes>>;

/// State that all agents of a share use.
pub struct Shared {
    /// Connects to the server.
    pub dialer: Dialer,
    /// Counters and latencies.
    pub tally: Tally,
    /// `User-Agent`.
    pub user_agent: HeaderValue,
    /// Version in request bodies.
    pub version: String,
}

/// One request.
pub struct Ask<'a> {
    /// Method.
    pub method: Method,
    /// Path, with the trailing `?` that real agents send.
    pub path: &'a str,
    /// `ApiKey …`; `None` for programs of fleetd, whose keys are in the body.
    pub authorization: Option<&'a HeaderValue>,
    /// Body.
    pub body: Bytes,
    /// Whether the body is gzip.
    pub packed: bool,
    /// `X-Chunk-Sha2` of an upload's chunk.
    pub chunk_sha2: Option<String>,
}

/// A response as received.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Bytes,
    /// Whether the body is gzip.
    pub packed: bool,
}

impl Answer {
    /// Returns the body, decompressed.
    ///
    /// # Errors
    /// If the body is malformed gzip, or too large.
    pub fn text(&self) -> anyhow::Result<Cow<'_, [u8]>> {
        if self.packed { Ok(gzip::unpack(&self.body)?.into()) } else { Ok((&*self.body).into()) }
    }
}

/// A connection that may not be open yet.
pub struct Session {
    shared: Arc<Shared>,
    number: u32,
    open: Option<(Sender, Wire)>,
}

impl Session {
    /// Creates a session that connects at the first use.
    #[must_use]
    pub fn new(shared: Arc<Shared>, number: u32) -> Self {
        Self { shared, number, open: None }
    }

    /// Closes the connection, including a request that is held on it.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Opens the connection, if it is not open.
    ///
    /// # Errors
    /// If connecting fails.
    pub async fn connect(&mut self) -> anyhow::Result<()> {
        if self.open.is_none() {
            let began = Instant::now();
            let stream = self.shared.dialer.dial(self.number).await?;
            let handshake =
                // A small buffer, because there are thousands of connections. Real agents send headers in title case.
                Builder::new().max_buf_size(16 << 10).title_case_headers(true).handshake(TokioIo::new(stream));
            self.open = Some(handshake.await?);
            self.shared.tally.connected(began.elapsed());
        }
        Ok(())
    }

    /// Sends a request and reads the response. If the idle connection was closed, retries on a new one, as Go's client
    /// does.
    ///
    /// # Errors
    /// If the server cannot be reached or the connection is lost.
    pub async fn ask(&mut self, ask: &Ask<'_>) -> anyhow::Result<Answer> {
        let kept = self.open.is_some();
        match self.ask_once(ask).await {
            // A request on a new connection is not retried: the server may have processed it.
            Err(error) if kept && was_closed(&error) => self.ask_once(ask).await,
            outcome => outcome,
        }
    }

    async fn ask_once(&mut self, ask: &Ask<'_>) -> anyhow::Result<Answer> {
        self.connect().await?;
        let request = self.request(ask)?;
        let (sender, wire) = self.open.as_mut().context("the connection is open")?;
        // The timeout includes the whole response, as in Go's client.
        let exchange = drive(wire, exchange(sender, request));
        let outcome = match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("no response within {} s", TIMEOUT.as_secs())),
        };
        // After a failure, the state of the connection is unknown.
        if !matches!(&outcome, Ok((_, true))) {
            self.open = None;
        }
        outcome.map(|(answer, _)| answer)
    }

    fn request(&self, ask: &Ask<'_>) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(ask.path)
            .header("host", &self.shared.dialer.authority)
            .header("user-agent", &self.shared.user_agent)
            .header("accept", "application/json")
            .header("content-type", "application/json");
        if let Some(authorization) = ask.authorization {
            // The headers of real agents (EA §1.5).
            request = request
                .header("authorization", authorization)
                .header("elastic-api-version", muster_protocol::elastic::API_VERSION)
                .header("kbn-xsrf", "1")
                .header(muster_protocol::elastic::REQUEST_ID_HEADER, wire::request_id())
                .header(ACCEPT_ENCODING, "gzip");
        }
        if ask.packed {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        if let Some(hash) = &ask.chunk_sha2 {
            request = request.header(muster_protocol::elastic::CHUNK_SHA2_HEADER, hash);
        }
        Ok(request.body(Full::new(ask.body.clone()))?)
    }
}

/// Sends a request and reads the whole response; also returns whether the connection can be reused.
async fn exchange(sender: &mut Sender, request: Request<Full<Bytes>>) -> anyhow::Result<(Answer, bool)> {
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    // The server announces that it closes the connection, for example on shutdown.
    let keep = response.headers().get(http::header::CONNECTION).is_none_or(|value| value != "close");
    Ok((read(response).await?, keep))
}

async fn read(response: Response<Incoming>) -> anyhow::Result<Answer> {
    let status = response.status().as_u16();
    let packed = response.headers().get(CONTENT_ENCODING).is_some_and(|value| value == "gzip");
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { status, body, packed })
}

/// Runs an exchange and its connection in one task, because a second task would double the memory of an agent.
async fn drive<T>(wire: &mut Wire, exchange: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut exchange = pin!(exchange);
    let mut over = false;
    std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(outcome) = exchange.as_mut().poll(cx) {
                return Poll::Ready(outcome);
            }
            if over {
                return Poll::Ready(Err(NeverSent.into()));
            }
            match Pin::new(&mut *wire).poll(cx) {
                // The exchange may not have processed the last bytes of the connection: poll it once more.
                Poll::Ready(_) => over = true,
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// The connection ended while the request still waited for it: the exchange would have an error otherwise.
#[derive(Debug)]
struct NeverSent;

impl std::error::Error for NeverSent {}

impl std::fmt::Display for NeverSent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection ended")
    }
}

/// Returns whether the server closed an idle connection before it read the request.
fn was_closed(error: &anyhow::Error) -> bool {
    if error.is::<NeverSent>() {
        return true;
    }
    let Some(error) = error.downcast_ref::<hyper::Error>() else { return false };
    error.is_canceled() || error.is_closed() || error.is_incomplete_message()
}
