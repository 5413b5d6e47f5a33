//! Management listeners: hyper behind our accept loop, limits and deadlines.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::Timeouts;
use crate::refusal::Refusal;
use crate::reply::{Peer, Reply, ReplyBody};
use crate::testing::{Server, Setup, reply, timeouts, until, within};
use crate::web::{OnHyper, Web, WebBody, WebWork};

const SHORT: Duration = Duration::from_millis(300);

/// Responds with the path and the body. `/slow` waits for a notification, `/upgrade` echoes all bytes after the upgrade.
#[derive(Default)]
pub(super) struct Pages {
    go: Arc<Notify>,
}

impl Web for Pages {
    type Body = ReplyBody;

    fn refuse(&self, refusal: &Refusal, _: &Peer) -> Reply {
        let mut reply = reply(refusal.to_string());
        *reply.status_mut() = refusal.status();
        reply
    }

    fn handle(&self, mut request: Request<WebBody>, peer: Peer) -> WebWork<ReplyBody> {
        let go = Arc::clone(&self.go);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            match path.as_str() {
                "/slow" => go.notified().await,
                "/large" => return reply("x".repeat(64 << 20)),
                "/known" => peer.set_authenticated(),
                "/upgrade" => {
                    tokio::spawn(echo(hyper::upgrade::on(&mut request)));
                    let mut response = Response::new(ReplyBody::empty());
                    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
                    response.headers_mut().insert("upgrade", "echo".parse().unwrap());
                    return response;
                }
                _ => {}
            }
            match request.into_body().collect().await {
                Ok(body) => reply(format!("{path} {}", String::from_utf8_lossy(&body.to_bytes()))),
                Err(error) => {
                    let mut reply = reply(error.to_string());
                    *reply.status_mut() = StatusCode::REQUEST_TIMEOUT;
                    reply
                }
            }
        })
    }
}

async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let (mut reads, mut writes) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
    tokio::io::copy(&mut reads, &mut writes).await.unwrap();
    writes.shutdown().await.unwrap();
}

fn serve(setup: Setup) -> (Server, Arc<Notify>) {
    let pages = Pages::default();
    let go = Arc::clone(&pages.go);
    (setup.start(OnHyper(pages)), go)
}

fn with(change: impl FnOnce(&mut Timeouts)) -> Setup {
    let mut setup = Setup { timeouts: timeouts(), ..Setup::default() };
    change(&mut setup.timeouts);
    setup
}

#[tokio::test]
async fn requests_of_any_framing_can_follow_each_other() {
    let (server, _) = serve(Setup::default());
    let mut client = server.client().await;
    client.get("/a").await;
    assert_eq!(client.receive().await.body, "/a ");
    client.send("POST /b HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nxyzGET /c HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(client.receive().await.body, "/b xyz");
    assert_eq!(client.receive().await.body, "/c ");
    for _ in 0..2 {
        client.send("POST /d HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nxy").await;
        client.send("z\r\n2;ext\r\n12\r\n0\r\n\r\n").await;
        assert_eq!(client.receive().await.body, "/d xyz12");
    }
    let body = "0123456789".repeat(100_000);
    client.send(&format!("POST /e HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(client.receive().await.body, format!("/e {body}"));
    assert_eq!(server.requests.inside(), 0);
}

#[tokio::test]
async fn malformed_requests_are_rejected_in_the_api_format() {
    let (server, _) = serve(Setup::default());
    for (text, status, words) in [
        ("GET / HTTP/1.1\nhost: h\n\n", "400", "bare LF"),
        ("GET / HTTP/1.1\r\n\r\n", "400", "Host"),
        ("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", "400", "duplicate"),
        ("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", "400", "both"),
        ("\0\u{1}\r\n\r\n", "400", "not HTTP"),
        (&format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "y".repeat(9000)), "431", "8192"),
    ] {
        let mut client = server.client().await;
        client.send(text).await;
        let received = client.receive().await;
        assert_eq!(received.status(), status, "{text}");
        assert!(received.body.contains(words), "{text}: {}", received.body);
        assert_eq!(client.rest().await, "", "{text}");
    }
    let mut client = server.client().await;
    client.send("GET /a HTTP/1.1\r\nhost: h\r\n\r\nnonsense\r\n\r\n").await;
    assert_eq!(client.receive().await.body, "/a ", "the valid request before it is answered");
    assert_eq!(client.receive().await.status(), "400");
    let mut client = server.client().await;
    client.send("POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n").await;
    assert_ne!(client.receive().await.status(), "200");
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed_at_their_deadlines() {
    let (server, _) = serve(with(|timeouts| timeouts.read_header = SHORT));
    let mut spare = server.client().await;
    until("it is here", || server.connections.inside() == 1).await;
    let mut slow = server.client().await;
    slow.send("GET / HT").await;
    assert_eq!(slow.rest().await, "");
    assert_eq!(server.metrics.cut_connections.get(), 1);
    spare.get("/spare").await;
    assert_eq!(spare.receive().await.body, "/spare ");

    let (server, _) = serve(with(|timeouts| timeouts.idle = SHORT));
    let mut client = server.client().await;
    client.get("/a").await;
    client.receive().await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn the_idle_timeout_does_not_apply_to_a_running_request_of_a_half_closed_client() {
    let (server, go) = serve(with(|timeouts| (timeouts.idle, timeouts.read_header) = (SHORT, SHORT)));
    let mut client = server.client().await;
    client.get("/slow").await;
    until("it runs", || server.requests.inside() == 1).await;
    client.stream.shutdown().await.unwrap();
    let mut other = server.client().await;
    other.get("/a").await;
    other.receive().await;
    assert_eq!(other.rest().await, "", "a whole idle time passes");
    go.notify_one();
    assert_eq!(client.receive().await.body, "/slow ");
}

#[tokio::test]
async fn a_late_body_gets_408() {
    let (server, _) = serve(with(|timeouts| timeouts.read = SHORT));
    let mut client = server.client().await;
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nabc").await;
    let received = client.receive().await;
    assert_eq!((received.status(), received.body.as_str()), ("408", "timeout on request"));
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut() {
    let (server, _) = serve(with(|timeouts| timeouts.write_stall = SHORT));
    let mut client = server.client().await;
    client.get("/large").await;
    until("it is cut", || server.metrics.cut_connections.get() == 1).await;
    until("its places are free", || server.requests.inside() == 0 && server.connections.inside() == 0).await;
}

#[tokio::test]
async fn requests_over_the_limit_get_429_and_keep_the_connection() {
    let (server, go) = serve(Setup { requests: 1, ..Setup::default() });
    let mut first = server.client().await;
    first.get("/slow").await;
    until("the first runs", || server.requests.inside() == 1).await;
    let mut second = server.client().await;
    second.get("/a").await;
    assert_eq!(second.receive().await.status(), "429");
    go.notify_one();
    first.receive().await;
    until("the first is over", || server.requests.inside() == 0).await;
    second.get("/a").await;
    assert_eq!(second.receive().await.status(), "200");
}

#[tokio::test]
async fn shutdown_completes_running_requests_and_closes_idle_connections() {
    let (server, go) = serve(Setup::default());
    let mut running = server.client().await;
    running.get("/slow").await;
    let mut idle = server.client().await;
    idle.get("/a").await;
    idle.receive().await;
    until("one runs", || server.requests.inside() == 1).await;
    let stopping = server.shutdown.clone();
    let stopped = tokio::spawn(server.stop());
    stopping.cancelled().await;
    assert_eq!(idle.rest().await, "");
    go.notify_one();
    assert_eq!(running.receive().await.body, "/slow ");
    let drained = within(stopped).await.unwrap();
    assert_eq!((drained.open, drained.cut), (2, 0));
}

#[tokio::test]
async fn unauthenticated_connections_over_the_idle_limit_are_closed_after_the_response() {
    let (server, _) = serve(Setup { connections: 100, ..Setup::default() });
    let mut patient = Vec::new();
    for _ in 0..16 {
        patient.push(server.client().await);
    }
    until("they are here", || server.connections.inside() == 16).await;
    let mut surplus = server.client().await;
    surplus.get("/a").await;
    assert!(surplus.receive().await.head.contains("connection: close"));
    assert_eq!(surplus.rest().await, "");
    let mut known = server.client().await;
    for _ in 0..2 {
        known.get("/known").await;
        assert!(!known.receive().await.head.contains("connection: close"));
    }
}

#[tokio::test]
async fn bytes_of_an_upgraded_connection_pass_unchecked() {
    let (server, _) = serve(with(|timeouts| (timeouts.idle, timeouts.read_header) = (SHORT, SHORT)));
    let mut client = server.client().await;
    client.send("GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    assert!(client.receive_head().await.starts_with("HTTP/1.1 101 "));
    client.send("no HTTP\n\n\0").await;
    let mut echoed = [0; 10];
    within(client.stream.read_exact(&mut echoed)).await.unwrap();
    assert_eq!(&echoed, b"no HTTP\n\n\0");
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "");
}
