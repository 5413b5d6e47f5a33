//! Regular requests, limits and shutdown.

use std::time::Duration;

use crate::Answer;
use crate::testing::{Setup, echo, handler, reply, timeouts, until, within};

#[tokio::test]
async fn requests_follow_each_other_on_a_connection() {
    let server = Setup::default().start(echo());
    let mut client = server.client().await;
    client.get("/a").await;
    assert_eq!(client.receive().await.body, "/a ");
    client.send("POST /b HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nxyzGET /c HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(client.receive().await.body, "/b xyz");
    assert_eq!(client.receive().await.body, "/c ");
}

#[tokio::test]
async fn chunked_bodies_follow_each_other() {
    let server = Setup::default().start(echo());
    let mut client = server.client().await;
    for _ in 0..3 {
        client.send("POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n").await;
        assert_eq!(client.receive().await.body, "/a xyz");
    }
}

#[tokio::test]
async fn ea17_requests_over_the_limit_get_429_and_keep_the_connection() {
    let server = Setup { requests: 1, ..Setup::default() }.start(handler(|request| async move {
        if request.uri().path() == "/wait" {
            return Answer::Park(Box::pin(std::future::pending()));
        }
        Answer::Reply(reply("ok"))
    }));
    let mut first = server.client().await;
    first.get("/wait").await;
    until("the first is inside", || server.requests.inside() == 1).await;
    let mut second = server.client().await;
    second.get("/").await;
    let refused = second.receive().await;
    assert_eq!((refused.status(), refused.body.as_str()), ("429", "Server capacity exceeded."));
    drop(first);
    until("the first is gone", || server.requests.inside() == 0).await;
    second.get("/").await;
    assert_eq!(second.receive().await.status(), "200");
}

#[tokio::test]
async fn ea17_connections_over_the_limit_are_closed() {
    let server = Setup { connections: 1, ..Setup::default() }.start(echo());
    let mut first = server.client().await;
    first.get("/").await;
    first.receive().await;
    let second = server.client().await;
    assert_eq!(second.rest().await, "");
    assert_eq!(server.metrics.refused_connections.get(), 1);
    drop(first);
    until("the first is gone", || server.connections.inside() == 0).await;
    let mut third = server.client().await;
    third.get("/").await;
    assert_eq!(third.receive().await.status(), "200");
}

#[tokio::test]
async fn shutdown_completes_running_requests_and_closes_idle_connections() {
    let server = Setup::default().start(handler(|_| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Answer::Reply(reply("done"))
    }));
    let mut running = server.client().await;
    running.get("/").await;
    let idle = server.client().await;
    until("one runs", || server.requests.inside() == 1).await;
    until("both are here", || server.connections.inside() == 2).await;
    let address = server.address;
    let drained = within(server.stop()).await;
    assert_eq!((drained.open, drained.cut), (2, 0));
    assert_eq!(running.receive().await.body, "done");
    assert_eq!(idle.rest().await, "");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "new connections are refused");
}

#[tokio::test]
async fn shutdown_cuts_requests_after_the_grace_period() {
    let short = Duration::from_millis(100);
    let setup = Setup { timeouts: crate::Timeouts { drain: short, ..timeouts() }, ..Setup::default() };
    let server = setup.start(handler(|_| std::future::pending()));
    let mut client = server.client().await;
    client.get("/").await;
    until("it runs", || server.requests.inside() == 1).await;
    let drained = server.stop().await;
    assert_eq!((drained.open, drained.cut), (1, 1));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_panicking_handler_closes_only_its_own_connection() {
    let server = Setup::default().start(handler(|request| async move {
        assert_ne!(request.uri().path(), "/panic", "panics on purpose");
        Answer::Reply(reply("ok"))
    }));
    let mut bad = server.client().await;
    bad.get("/panic").await;
    assert_eq!(bad.rest().await, "");
    until("its places are free", || server.requests.inside() == 0 && server.connections.inside() == 0).await;
    let mut good = server.client().await;
    good.get("/").await;
    assert_eq!(good.receive().await.body, "ok");
}

#[tokio::test]
async fn expect_continue_is_answered_with_100() {
    let server = Setup::default().start(echo());
    let mut client = server.client().await;
    client.send("POST /a HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n").await;
    assert_eq!(client.receive().await.status(), "100");
    client.send("xyz").await;
    assert_eq!(client.receive().await.body, "/a xyz");
    client.get("/b").await;
    assert_eq!(client.receive().await.body, "/b ");
}

#[tokio::test]
async fn expect_continue_with_a_final_response_closes_the_connection() {
    let server = Setup::default().start(handler(|_| async { Answer::Reply(reply("no")) }));
    let mut client = server.client().await;
    client.send("POST /a HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n").await;
    let received = client.receive().await;
    assert_eq!((received.status(), received.head.contains("connection: close")), ("200", true));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn head_gets_the_content_length_without_a_body() {
    let server = Setup::default().start(echo());
    let mut client = server.client().await;
    client.send("HEAD /a HTTP/1.1\r\nhost: h\r\n\r\nHEAD /bc HTTP/1.0\r\n\r\n").await;
    let text = client.rest().await;
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    assert!(text.contains("content-length: 3\r\n") && text.contains("content-length: 4\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn an_unread_body_does_not_disturb_the_next_request() {
    let server = Setup::default().start(handler(|request| async move {
        let path = request.uri().path().to_owned();
        Answer::Reply(reply(path))
    }));
    let mut client = server.client().await;
    client.send("POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 30000\r\n\r\nbegin").await;
    assert_eq!(client.receive().await.body, "/a");
    client.send(&"x".repeat(29_995)).await;
    client.get("/b").await;
    assert_eq!(client.receive().await.body, "/b");
    client.send("POST /c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let received = client.receive().await;
    assert!(received.body == "/c" && received.head.contains("connection: close"), "{received:?}");
}

#[tokio::test]
async fn large_bodies_are_received_and_sent_completely() {
    let server = Setup::default().start(echo());
    let mut client = server.client().await;
    let body = "0123456789".repeat(100_000);
    let sent = format!("POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for _ in 0..2 {
        client.send(&sent).await;
        assert_eq!(client.receive().await.body, format!("/a {body}"));
    }
}
