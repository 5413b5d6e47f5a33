//! A connection, fed with whatever bytes come: heads, bodies, chunks, and what follows them.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use muster_listen::Timeouts;
use muster_listen::accept::Place;
use muster_listen::body::RequestBody;
use muster_listen::concurrency_limit::ConcurrencyLimit;
use muster_listen::metrics::ConnectionMetrics;
use muster_listen::refusal::Refusal;
use muster_listen::reply::{ListenerKind, Peer, Reply};
use muster_listen::unauthenticated::UnauthenticatedLimit;
use muster_listen::{Answer, Handler, Listening, Work, connection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// Bytes that may be under way.
const UNDER_WAY: usize = 4096;
const LONG: Duration = Duration::from_secs(60);

static METRICS: LazyLock<Arc<ConnectionMetrics>> = LazyLock::new(|| Arc::new(ConnectionMetrics::default()));

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime without threads");
}

/// However the bytes of a connection come, the handler sees the same requests with the same bodies.
pub fn http_connection(data: &[u8]) {
    let both = async { (requests(data, usize::MAX).await, requests(data, 7).await) };
    let (whole, pieces) = RUNTIME.with(|runtime| runtime.block_on(both));
    assert_eq!(whole, pieces, "the same bytes are the same requests");
}

/// What a handler saw of the bytes when they came `step` at a time.
async fn requests(data: &[u8], step: usize) -> Vec<String> {
    let seen = Seen::default();
    let listening = Arc::new(listening(seen.clone()));
    let (ours, theirs) = duplex(UNDER_WAY);
    let peer = Peer::new(ListenerKind::Agent);
    let place = Place::take(&listening, &peer).expect("nobody else is there");
    let (mut reads, mut writes) = tokio::io::split(ours);
    let send = async move {
        for part in data.chunks(step.min(data.len().max(1))) {
            if writes.write_all(part).await.is_err() {
                return;
            }
        }
        // The other side may have ended the connection before.
        let _ = writes.shutdown().await;
    };
    let receive = async move {
        let mut replies = Vec::new();
        let _ = reads.read_to_end(&mut replies).await;
    };
    tokio::join!(connection::serve(theirs, listening, peer, place), send, receive);
    let seen = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
    seen.clone()
}

/// A handler that notes what it sees.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Handler for Seen {
    fn refuse(&self, refusal: &Refusal, _: &Peer) -> Reply {
        Reply::new(Bytes::from(refusal.to_string()).into())
    }

    fn handle(&self, request: Request<RequestBody>, _: Peer) -> Work {
        let seen = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes);
            let line = format!("{} {} {:?} {:?}", head.method, head.uri, head.headers, body.ok());
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            Answer::Reply(Reply::default())
        })
    }
}

fn listening(handler: Seen) -> Listening<Seen> {
    let timeouts = Timeouts {
        hold: LONG,
        handshake: LONG,
        read_header: LONG,
        read: LONG,
        write: LONG,
        write_stall: LONG,
        idle: LONG,
        drain: LONG,
    };
    Listening {
        kind: ListenerKind::Agent,
        handler,
        tls: None,
        timeouts,
        requests: ConcurrencyLimit::new(10),
        connections: ConcurrencyLimit::new(10),
        unauthenticated: UnauthenticatedLimit::new(1),
        idle: Arc::default(),
        metrics: Arc::clone(&METRICS),
        shutdown: CancellationToken::new(),
    }
}
