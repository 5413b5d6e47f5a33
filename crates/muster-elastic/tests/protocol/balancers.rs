//! What load balancers, proxies and monitors send, as bytes on a connection to the agents' listener.

use http::Request;
use muster_elastic::AgentApi;
use muster_fleet::health::ServerState;
use muster_listen::body::RequestBody;
use muster_listen::refusal::Refusal;
use muster_listen::reply::{Peer, Reply};
use muster_listen::testing::{Client, Setup, self_signed_tls};
use muster_listen::{Handler, Work};
use serde_json::json;

use crate::setting::{Enrolled, Server, online};

/// The adapter behind a listener, without the server's counters.
struct Served(AgentApi);

impl Handler for Served {
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Reply {
        self.0.refuse(refusal, peer)
    }

    fn note(&self, refusal: &Refusal, peer: &Peer) {
        self.0.note(refusal, peer);
    }

    fn handle(&self, request: Request<RequestBody>, peer: Peer) -> Work {
        let work = self.0.handle(request, peer);
        Box::pin(async move { work.await.answer })
    }
}

/// Where a row's bytes go.
#[derive(Clone, Copy, PartialEq)]
enum Port {
    Plain,
    Tls,
    /// A server that has not finished its start.
    Starting,
}

/// What a client sends, and what the response's head must have.
struct Row {
    what: &'static str,
    port: Port,
    sent: Vec<u8>,
    /// Status, and lines of the head in lower case.
    status: u16,
    lines: &'static [&'static str],
    /// A part of the body; `""`: the response has none.
    body: &'static str,
}

fn row(what: &'static str, sent: impl Into<Vec<u8>>, status: u16, lines: &'static [&'static str]) -> Row {
    Row { what, port: Port::Plain, sent: sent.into(), status, lines, body: "" }
}

fn check_in(agent: &Enrolled, codings: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: fleet.example\r\nAuthorization: ApiKey {}\r\nUser-Agent: Elastic Agent v9.5.2\r\n\
         {codings}Content-Length: {}\r\n\r\n",
        agent.path("checkin"),
        agent.token,
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn rows(agent: &Enrolled) -> Vec<Row> {
    let zipped = muster_listen::gzip::deflate(online().to_string().as_bytes());
    let twice = muster_listen::gzip::deflate(&zipped);
    vec![
        row("a check of HTTP/1.0 without a host", "HEAD /api/status HTTP/1.0\r\n\r\n", 200, &["connection: close"]),
        row("HAProxy's default check", "OPTIONS /api/status HTTP/1.0\r\n\r\n", 405, &["allow: get, head"]),
        Row {
            body: "HEALTHY",
            ..row(
                "the absolute form that proxies send",
                "GET http://fleet.example:8220/api/status HTTP/1.1\r\nHost: fleet.example:8220\r\n\r\n",
                200,
                &["content-type: application/json"],
            )
        },
        row(
            "a check with a query that closes",
            "HEAD /api/status?probe=42 HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n",
            200,
            &["connection: close", "content-type: application/json"],
        ),
        Row {
            port: Port::Starting,
            ..row("a check of a server that starts", "HEAD /api/status HTTP/1.1\r\nHost: lb\r\n\r\n", 503, &[])
        },
        Row {
            body: "actions",
            ..row("x-gzip with spaces around", check_in(agent, "Content-Encoding: \t X-gzip \r\n", &zipped), 200, &[])
        },
        Row {
            body: "UnsupportedMediaType",
            ..row(
                "a coding of another kind",
                check_in(agent, "Content-Encoding: Compress\r\n", &zipped),
                415,
                &["accept-encoding: gzip"],
            )
        },
        Row {
            body: "UnsupportedMediaType",
            ..row(
                "two codings on two lines",
                check_in(agent, "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", &twice),
                415,
                &["accept-encoding: gzip"],
            )
        },
        Row {
            port: Port::Tls,
            body: "https://",
            ..row(
                "a plain check of the TLS port",
                "OPTIONS * HTTP/1.0\r\nUser-Agent: probe\r\n\r\n",
                400,
                &["connection: close"],
            )
        },
        row(
            "TRACE to a path that takes POST",
            "TRACE /api/fleet/agents/enroll HTTP/1.1\r\nHost: lb\r\n\r\n",
            405,
            &["allow: post"],
        ),
    ]
}

async fn answer(server: &Server, row: &Row) -> (String, String) {
    let tls = (row.port == Port::Tls).then(self_signed_tls);
    let api = AgentApi::new(std::sync::Arc::clone(&server.fleet), server.options.clone());
    let listening = Setup { tls, ..Setup::default() }.start(Served(api));
    let mut client: Client = listening.client().await;
    tokio::io::AsyncWriteExt::write_all(&mut client.stream, &row.sent).await.expect("sent");
    // Nothing follows a response to HEAD: its length is that of the response to GET.
    let got = if row.sent.starts_with(b"HEAD") {
        (client.receive_head().await, String::new())
    } else {
        let received = client.receive().await;
        (received.head, received.body)
    };
    drop(client);
    listening.stop().await;
    got
}

#[tokio::test]
async fn what_load_balancers_send_gets_the_response_that_they_expect() {
    let server = Server::start().await;
    let starting = Server::with(|options| options.health.set(ServerState::Starting), |_| {}).await;
    let policy = server.policy_with("p", json!({"id": "p", "revision": 1})).await;
    let token = server.enrollment_key("k", Some(&policy)).await;
    // Each check-in of it gets the policy at once.
    let agent = server.enroll_with(&token, &json!({"type": "PERMANENT"})).await;
    let mut failures = Vec::new();
    for row in rows(&agent) {
        let (head, body) = answer(if row.port == Port::Starting { &starting } else { &server }, &row).await;
        let lines = head.to_lowercase();
        let status = head.split(' ').nth(1) == Some(row.status.to_string().as_str());
        let has_lines = row.lines.iter().all(|line| lines.contains(line));
        let has_body = if row.body.is_empty() { body.is_empty() } else { body.contains(row.body) };
        if !(status && has_lines && has_body) {
            failures.push(format!("{}: {head}\n{body}", row.what));
        }
    }
    assert!(failures.is_empty(), "{} rows: {failures:#?}", failures.len());
}

#[tokio::test]
async fn idle_connections_of_one_key_have_a_bound_and_the_one_that_is_closed_is_a_refusal() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let api = AgentApi::new(std::sync::Arc::clone(&server.fleet), server.options.clone());
    let listening = Setup::default().start(Served(api));
    let body = json!({"events": []}).to_string();
    let acks = format!(
        "POST {} HTTP/1.1\r\nHost: fleet.example\r\nAuthorization: ApiKey {}\r\nContent-Length: {}\r\n\r\n{body}",
        agent.path("acks"),
        agent.token,
        body.len()
    );
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = listening.client().await;
        client.send(&acks).await;
        assert_eq!(client.receive().await.status(), "200");
        clients.push(client);
    }
    assert_eq!(clients.remove(0).rest().await, "");
    let row = server.fleet.refusals().latest().remove(0);
    let key = muster_core::credential::ApiKey::parse(&agent.token).expect("a key").id;
    assert_eq!((row.refused.reason, row.refused.key.as_deref(), row.count), ("TooManyIdle", Some(key.as_str()), 1));
    for client in &mut clients {
        client.send(&acks).await;
        assert_eq!(client.receive().await.status(), "200");
    }
}

#[tokio::test]
async fn a_client_that_floods_its_held_poll_is_disconnected_and_that_is_a_refusal() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let api = AgentApi::new(std::sync::Arc::clone(&server.fleet), server.options.clone());
    let listening = Setup::default().start(Served(api));
    let mut client = listening.client().await;
    let ask = check_in(&agent, "", online().to_string().as_bytes());
    client.send(&String::from_utf8(ask).expect("text")).await;
    muster_listen::testing::until("it is held", || server.fleet.registry().parked() == 1).await;
    client.send(&"x".repeat(17 * 1024)).await;
    assert_eq!(client.rest().await, "");
    let refused = server.fleet.refusals().latest().remove(0).refused;
    assert_eq!((refused.reason, refused.status, refused.key.is_some()), ("SentAhead", 0, true));
}
