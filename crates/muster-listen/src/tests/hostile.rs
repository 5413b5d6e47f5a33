//! Broken and malicious clients.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::Answer;
use crate::Timeouts;
use crate::testing::Client;
use crate::testing::{Setup, echo, handler, reply, timeouts, until, within};

const SHORT: Duration = Duration::from_millis(300);

fn with(change: impl FnOnce(&mut Timeouts)) -> Setup {
    let mut setup = Setup { timeouts: timeouts(), ..Setup::default() };
    change(&mut setup.timeouts);
    setup
}

/// Sends one byte at a time until the server closes the connection.
async fn drip(client: &mut Client, text: &str) {
    for byte in text.bytes().cycle() {
        if client.stream.write_all(&[byte]).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_slow_head_is_cut_at_its_deadline() {
    let server = with(|timeouts| timeouts.read_header = SHORT).start(echo());
    let mut client = server.client().await;
    let began = Instant::now();
    within(drip(&mut client, "X")).await;
    assert!(began.elapsed() >= SHORT);
    until("it is counted", || server.metrics.cut_connections.get() == 1).await;
}

#[tokio::test]
async fn a_slow_second_head_is_cut_at_its_deadline() {
    let server = with(|timeouts| timeouts.read_header = SHORT).start(echo());
    let mut client = server.client().await;
    client.get("/").await;
    client.receive().await;
    within(drip(&mut client, "X")).await;
    until("it is counted", || server.metrics.cut_connections.get() == 1).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_its_deadline() {
    let server = with(|timeouts| timeouts.idle = SHORT).start(echo());
    let mut client = server.client().await;
    client.get("/").await;
    client.receive().await;
    assert_eq!(client.rest().await, "");
    assert_eq!(server.metrics.cut_connections.get(), 0);
}

#[tokio::test]
async fn a_late_body_gets_408_and_the_connection_is_closed() {
    let server = with(|timeouts| timeouts.read = SHORT).start(echo());
    let mut client = server.client().await;
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nabc").await;
    let received = client.receive().await;
    assert_eq!((received.status(), received.body.as_str()), ("408", "late"));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_late_body_that_the_handler_ignores_is_cut() {
    let server = with(|timeouts| timeouts.read = SHORT).start(handler(|request| async move {
        let _unread = request;
        std::future::pending().await
    }));
    let mut client = server.client().await;
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nabc").await;
    assert_eq!(client.rest().await, "");
    until("it is counted", || server.metrics.cut_connections.get() == 1).await;
}

fn large() -> String {
    "x".repeat(64 << 20)
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut() {
    let setup = with(|timeouts| timeouts.write_stall = SHORT);
    let server = setup.start(handler(|_| async { Answer::Reply(reply(large())) }));
    let mut client = server.client().await;
    client.get("/").await;
    until("it is cut", || server.metrics.cut_connections.get() == 1).await;
    until("its places are free", || server.requests.inside() == 0 && server.connections.inside() == 0).await;
}

#[tokio::test]
async fn a_client_that_never_reads_a_parked_response_is_cut() {
    let setup = with(|timeouts| timeouts.write_stall = SHORT);
    let server = setup.start(handler(|_| async { Answer::Park(Box::pin(async { reply(large()) })) }));
    let mut client = server.client().await;
    client.get("/").await;
    until("it runs", || server.requests.inside() == 1).await;
    until("its places are free", || server.requests.inside() == 0 && server.connections.inside() == 0).await;
}

#[tokio::test]
async fn an_incomplete_tls_handshake_is_cut() {
    let tls = crate::testing::self_signed_tls();
    let mut setup = with(|timeouts| timeouts.handshake = SHORT);
    setup.tls = Some(tls);
    let server = setup.start(echo());
    let mut client = server.client().await;
    client.send("\u{16}\u{3}\u{1}").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(server.metrics.failed_handshakes.get(), 1);
    let mut plain = server.client().await;
    plain.get("/").await;
    plain.rest().await;
    until("plain HTTP is refused", || server.metrics.failed_handshakes.get() == 2).await;
}

#[tokio::test]
async fn d23_conflicting_or_invalid_lengths_are_rejected() {
    let server = Setup::default().start(echo());
    for head in [
        "content-length: 3\r\ncontent-length: 4",
        "content-length: 3, 4",
        "content-length: -1",
        "content-length: 99999999999999999999999999",
        "content-length: 0x10",
        "content-length: 3\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 3",
        "transfer-encoding: gzip",
    ] {
        let mut client = server.client().await;
        client.send(&format!("POST / HTTP/1.1\r\nhost: h\r\n{head}\r\n\r\n0\r\n\r\n")).await;
        let text = client.rest().await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{head}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{head}: {text}");
    }
}

#[tokio::test]
async fn oversized_heads_are_rejected() {
    let server = Setup::default().start(echo());
    let mut client = server.client().await;
    client.send(&format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "y".repeat(7000))).await;
    assert_eq!(client.receive().await.status(), "200");
    let mut client = server.client().await;
    client.send(&format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "y".repeat(9000))).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 431 "));
    let mut client = server.client().await;
    client.send(&format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "y".repeat(9000))).await;
    let text = client.rest().await;
    assert!(text.starts_with("HTTP/1.1 431 ") || text.starts_with("HTTP/1.1 414 "), "{text}");
}

#[tokio::test]
async fn malformed_heads_are_rejected() {
    let server = Setup::default().start(echo());
    for text in ["\u{0}\u{1}\u{2}\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n", "GET /\u{1b}[31m HTTP/1.1\r\n\r\n"]
    {
        let mut client = server.client().await;
        client.send(text).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{text:?}: {answer}");
    }
}
