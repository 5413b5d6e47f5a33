//! Behavior of load balancers and monitors, and limits for unauthenticated connections.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use crate::Timeouts;
use crate::reply::Answer;
use crate::testing::{Client, Server, Setup, echo, handler, self_signed_tls, timeouts, until};

const SHORT: Duration = Duration::from_millis(300);

/// Connections that may idle without credentials, on a small listener.
const IDLE: usize = 16;

/// Waits until a client that connected last was cut at its deadline of [`SHORT`], so that all earlier ones are past
/// theirs.
async fn deadline_passes(server: &Server, begin: &str) {
    let mut client = server.client().await;
    client.send(begin).await;
    assert_eq!(client.rest().await, "");
}

fn short_timeouts() -> Timeouts {
    Timeouts { read_header: SHORT, handshake: SHORT, ..timeouts() }
}

#[tokio::test]
async fn a_connection_may_be_silent_before_its_first_request() {
    let server = Setup { timeouts: short_timeouts(), ..Setup::default() }.start(echo());
    let mut spare = server.client().await;
    until("it is here", || server.connections.inside() == 1).await;
    deadline_passes(&server, "GET / HT").await;
    spare.get("/spare").await;
    assert_eq!(spare.receive().await.body, "/spare ");
}

#[tokio::test]
async fn a_connection_may_be_silent_before_its_tls_handshake() {
    let server = Setup { timeouts: short_timeouts(), tls: Some(self_signed_tls()), ..Setup::default() }.start(echo());
    let mut spare = server.client().await;
    until("it is here", || server.connections.inside() == 1).await;
    deadline_passes(&server, "\u{16}\u{3}\u{1}").await;
    // The connection is still open: plain HTTP gets the 400 that says to use TLS.
    spare.get("/").await;
    assert_eq!(spare.receive().await.status(), "400");
}

#[tokio::test]
async fn plain_http_on_a_tls_port_gets_400() {
    let server = Setup { tls: Some(self_signed_tls()), ..Setup::default() }.start(echo());
    for request in ["GET / HTTP/1.1\r\nhost: h\r\n\r\n", "POST /a HTTP/1.0\r\n\r\n"] {
        let mut client = server.client().await;
        client.send(request).await;
        let received = client.receive().await;
        assert_eq!(received.status(), "400", "{request}");
        assert!(received.body.contains("https://"), "{}", received.body);
        assert_eq!(client.rest().await, "");
    }
    assert_eq!(server.metrics.failed_handshakes.get(), 2);
}

#[tokio::test]
async fn a_port_check_is_not_counted_as_a_failed_handshake() {
    let server = Setup { tls: Some(self_signed_tls()), ..Setup::default() }.start(echo());
    let mut check = server.client().await;
    check.stream.shutdown().await.unwrap();
    assert_eq!(check.rest().await, "");
    until("it is gone", || server.connections.inside() == 0).await;
    assert_eq!((server.metrics.failed_handshakes.get(), server.metrics.cut_connections.get()), (0, 0));
}

#[tokio::test]
async fn a_proxy_protocol_header_is_rejected_with_this_reason() {
    let server = Setup::default().start(echo());
    let over_tls = Setup { tls: Some(self_signed_tls()), ..Setup::default() }.start(echo());
    for header in ["PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY UNKNOWN\r\n", "\r\n\r\n\0\r\nQUIT\n\u{21}\u{11}"] {
        let mut client = server.client().await;
        client.send(&format!("{header}GET / HTTP/1.1\r\nhost: h\r\n\r\n")).await;
        let received = client.receive().await;
        assert_eq!(received.status(), "400", "{header:?}");
        assert!(received.body.contains("PROXY protocol"), "{header:?}: {}", received.body);
        assert_eq!(client.rest().await, "");

        // No alert: whatever follows the header belongs to a client that expects TLS.
        let mut client = over_tls.client().await;
        client.send(header).await;
        assert_eq!(client.rest().await, "", "{header:?}");
    }
    assert_eq!(over_tls.metrics.failed_handshakes.get(), 3);
}

#[tokio::test]
async fn a_head_request_does_not_disturb_the_next_request() {
    let server = Setup::default().start(echo());
    let mut client = server.client().await;
    client.send("HEAD /check HTTP/1.1\r\nhost: h\r\n\r\n").await;
    client.get("/next").await;
    let text = client.receive_head().await;
    assert!(text.contains("content-length: 7\r\n"), "{text}");
    assert_eq!(client.receive().await.body, "/next ");
}

/// A client that has sent one unauthenticated request, and whether its connection stays open.
async fn after_one_request(server: &Server) -> (Client, bool) {
    let mut client = server.client().await;
    client.get("/status").await;
    let stays = !client.receive().await.head.contains("connection: close");
    (client, stays)
}

#[tokio::test]
async fn idle_unauthenticated_connections_are_limited() {
    let server = Setup { connections: 44, requests: 40, ..Setup::default() }.start(echo());
    let mut idle = Vec::new();
    for number in 0..60 {
        let (client, stays) = after_one_request(&server).await;
        assert_eq!(stays, number < IDLE, "connection {number}");
        if stays {
            idle.push(client);
        } else {
            assert_eq!(client.rest().await, "");
            until("the surplus is closed", || server.connections.inside() == IDLE).await;
        }
    }
    let mut agents = Vec::new();
    for number in 0..44 - IDLE {
        let mut agent = server.client().await;
        agent.get("/known").await;
        let received = agent.receive().await;
        assert!(!received.head.contains("connection: close"), "agent {number}");
        agents.push(agent);
    }
    assert_eq!(server.connections.inside(), 44);
    assert_eq!(server.metrics.refused_connections.get(), 0);
}

#[tokio::test]
async fn authentication_frees_the_unauthenticated_slot() {
    let server = Setup::default().start(echo());
    let mut client = server.client().await;
    client.get("/status").await;
    client.receive().await;
    assert_eq!(server.unauthenticated.idle(), 1);
    client.get("/known").await;
    client.receive().await;
    until("its slot is free", || server.unauthenticated.idle() == 0).await;
    client.get("/status").await;
    assert!(!client.receive().await.head.contains("connection: close"));
    assert_eq!((server.unauthenticated.idle(), server.connections.inside()), (0, 1));
}

#[tokio::test]
async fn a_held_request_frees_the_unauthenticated_slot() {
    let server = Setup::default().start(handler(|_| async { Answer::Park(Box::pin(std::future::pending())) }));
    let mut client = server.client().await;
    until("it takes a slot", || server.unauthenticated.idle() == 1).await;
    client.get("/known").await;
    until("its slot is free", || server.unauthenticated.idle() == 0).await;
    assert_eq!(server.connections.inside(), 1);
}

#[tokio::test]
async fn one_address_gets_at_most_half_of_the_connections_unauthenticated() {
    let server = Setup { connections: 8, ..Setup::default() }.start(echo());
    let silent = clients(4, &server).await;
    until("half is taken", || server.connections.inside() == 4).await;
    assert_eq!(server.client().await.rest().await, "");
    assert_eq!(server.metrics.refused_connections.get(), 1);
    drop(silent);
    until("they are gone", || server.connections.inside() == 0).await;
    assert!(after_one_request(&server).await.1);
}

async fn clients(count: usize, server: &Server) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(server.client().await);
    }
    clients
}

#[tokio::test]
async fn a_silent_connection_over_the_idle_limit_is_closed() {
    let server = Setup { timeouts: short_timeouts(), ..Setup::default() };
    let server = Setup { connections: 100, ..server }.start(echo());
    let mut patient = clients(IDLE, &server).await;
    until("they are here", || server.connections.inside() == IDLE).await;
    assert_eq!(server.client().await.rest().await, "");
    for client in &mut patient {
        client.get("/").await;
        client.receive().await;
    }
}

#[tokio::test]
async fn a_key_keeps_a_few_idle_connections_and_one_more_closes_the_oldest() {
    let server = Setup::default().start(echo());
    let mut idle = Vec::new();
    for number in 0..4 {
        let mut client = server.client().await;
        client.get(&format!("/known/key?{number}")).await;
        client.receive().await;
        idle.push(client);
    }
    // One of another key, and one that is not idle.
    let mut other = server.client().await;
    other.get("/known/other").await;
    other.receive().await;
    idle[0].send("POST /known/key HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n").await;
    until("its request is here", || server.requests.inside() == 1).await;
    let mut fifth = server.client().await;
    fifth.get("/known/key").await;
    fifth.receive().await;
    let mut sixth = server.client().await;
    sixth.get("/known/key").await;
    sixth.receive().await;
    assert_eq!(idle.remove(1).rest().await, "", "the oldest idle one is closed");
    idle[0].send("ok").await;
    assert_eq!(idle[0].receive().await.status(), "200", "a request under way goes on");
    other.get("/known/other").await;
    assert_eq!(other.receive().await.status(), "200");
}
