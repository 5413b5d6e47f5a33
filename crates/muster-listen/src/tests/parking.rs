//! Parked requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use http::Request;
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

use crate::Answer;
use crate::accept::{Place, serve_tcp};
use crate::body::RequestBody;
use crate::reply::{ListenerKind, Peer, Reply, ReplyBody};
use crate::testing::{Client, Server, Setup, TestHandler, handler, reply, until};

type Slots = Arc<Mutex<Vec<oneshot::Sender<Reply>>>>;

/// Parks requests to `/park` after reading their body, and to `/unread` without reading it. Answers `/now` immediately.
fn parking(slots: Slots) -> TestHandler {
    handler(move |request: Request<RequestBody>| {
        let slots = Arc::clone(&slots);
        async move {
            let path = request.uri().path().to_owned();
            if path != "/unread" && request.into_body().collect().await.is_err() {
                return Answer::Reply(reply("broken"));
            }
            if path == "/now" {
                return Answer::Reply(reply("now"));
            }
            let (sender, receiver) = oneshot::channel();
            slots.lock().unwrap().push(sender);
            Answer::Park(Box::pin(async { receiver.await.unwrap_or_else(|_| reply("dropped")) }))
        }
    })
}

async fn parked(request: &str) -> (Server, Slots, Client) {
    let slots = Slots::default();
    let server = Setup::default().start(parking(Arc::clone(&slots)));
    let mut client = server.client().await;
    client.send(request).await;
    until("a slot waits", || slots.lock().unwrap().len() == 1).await;
    (server, slots, client)
}

const PARK: &str = "POST /park HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc";

fn answer(slots: &Slots, text: &str) {
    assert!(slots.lock().unwrap().pop().unwrap().send(reply(text)).is_ok(), "the slot was gone");
}

#[tokio::test]
async fn a_parked_request_gets_a_response_and_the_connection_stays_open() {
    let (server, slots, mut client) = parked(PARK).await;
    for round in ["first", "second", "third"] {
        until("it is counted", || server.metrics.parked.get() == 1).await;
        answer(&slots, round);
        let received = client.receive().await;
        assert_eq!((received.status(), received.body.as_str()), ("200", round));
        assert!(received.head.contains("\r\ndate: ") && !received.head.contains("connection"), "{}", received.head);
        client.get("/now").await;
        assert_eq!(client.receive().await.body, "now");
        client.send(PARK).await;
        until("a slot waits", || slots.lock().unwrap().len() == 1).await;
    }
    drop(client);
    until("the place is free", || server.requests.inside() == 0).await;
}

#[tokio::test]
async fn chunked_requests_are_parked_too() {
    let (server, slots, mut client) =
        parked("POST /park HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    until("it is parked", || server.metrics.parked.get() == 1).await;
    answer(&slots, "ok");
    assert_eq!(client.receive().await.body, "ok");
    client.get("/now").await;
    assert_eq!(client.receive().await.body, "now");
}

#[tokio::test]
async fn pipelined_requests_are_answered_after_the_parked_one() {
    let (server, slots, mut client) = parked(&format!("{PARK}GET /now HTTP/1.1\r\nhost: h\r\n\r\n")).await;
    until("it is parked", || server.metrics.parked.get() == 1).await;
    client.send("GET /now HTTP/1.1\r\nhost: h\r\n\r\n").await;
    answer(&slots, "parked");
    for expected in ["parked", "now", "now"] {
        assert_eq!(client.receive().await.body, expected);
    }
}

#[tokio::test]
async fn a_request_parked_with_an_unread_body_gets_a_response_and_a_close() {
    let (server, slots, mut client) = parked("POST /unread HTTP/1.1\r\nhost: h\r\ncontent-length: 30\r\n\r\nabc").await;
    until("it is parked", || server.metrics.parked.get() == 1).await;
    answer(&slots, "ok");
    let received = client.receive().await;
    assert_eq!(received.body, "ok");
    assert!(received.head.contains("connection: close"), "it is unknown where the next request begins");
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_disconnect_frees_the_slot() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let witness = Arc::clone(&dropped);
    let server = Setup::default().start(handler(move |_| {
        let witness = Dropped(Arc::clone(&witness));
        async move {
            Answer::Park(Box::pin(async move {
                let _witness = witness;
                std::future::pending().await
            }))
        }
    }));
    let mut client = server.client().await;
    client.get("/park").await;
    until("it is parked", || server.metrics.parked.get() == 1).await;
    assert!(!dropped.load(Ordering::SeqCst));
    drop(client);
    until("the slot is gone", || dropped.load(Ordering::SeqCst)).await;
    until("its places are free", || server.requests.inside() == 0 && server.connections.inside() == 0).await;
}

#[tokio::test]
async fn connection_close_takes_effect_after_the_parked_response() {
    for head in ["GET /park HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", "GET /park HTTP/1.0\r\n\r\n"] {
        let (_server, slots, client) = parked(head).await;
        answer(&slots, "bye");
        let text = client.rest().await;
        assert!(text.contains("connection: close\r\n") && text.ends_with("bye"), "{text}");
    }
}

/// As a draining server does.
#[tokio::test]
async fn a_parked_response_that_says_close_ends_the_connection() {
    let (_server, slots, client) = parked(PARK).await;
    let mut last = reply("elsewhere");
    last.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    assert!(slots.lock().unwrap().pop().unwrap().send(last).is_ok(), "the slot was gone");
    let text = client.rest().await;
    assert!(text.contains("connection: close\r\n") && text.ends_with("elsewhere"), "{text}");
}

#[tokio::test]
async fn ea87_parked_polls_are_answered_on_shutdown() {
    let (server, slots, client) = parked(PARK).await;
    until("it is parked", || server.metrics.parked.get() == 1).await;
    let stopping = server.shutdown.clone();
    let stopped = tokio::spawn(server.stop());
    stopping.cancelled().await;
    answer(&slots, "{}");
    let text = client.rest().await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("connection: close") && text.ends_with("{}"));
    assert_eq!(stopped.await.unwrap().cut, 0);
}

#[tokio::test]
async fn a_parked_response_of_many_pieces_is_complete_and_framed_by_the_server() {
    let (_server, slots, mut client) = parked(PARK).await;
    let piece = "0123456789".repeat(10_000);
    let pieces = (0..30).map(|_| piece.clone().into());
    let mut reply = Reply::new(ReplyBody::pieces(pieces));
    reply.headers_mut().insert("content-length", "5".parse().unwrap());
    reply.headers_mut().insert("x-kept", "yes".parse().unwrap());
    assert!(slots.lock().unwrap().pop().unwrap().send(reply).is_ok());
    let received = client.receive().await;
    assert_eq!(received.body, piece.repeat(30));
    assert!(received.head.contains("x-kept: yes"), "{}", received.head);
    assert_eq!(received.head.matches("content-length").count(), 1);
}

#[tokio::test]
async fn pipelined_bytes_over_the_limit_disconnect_a_parked_client() {
    let (server, slots, mut client) = parked(PARK).await;
    until("it is parked", || server.metrics.parked.get() == 1).await;
    let padding = "p".repeat(3000);
    let ahead = format!("GET /now HTTP/1.1\r\nhost: h\r\nx: {padding}\r\n\r\n");
    for _ in 0..4 {
        client.send(&ahead).await;
    }
    client.send(PARK).await;
    answer(&slots, "first");
    assert_eq!(client.receive().await.body, "first");
    for _ in 0..4 {
        assert_eq!(client.receive().await.body, "now");
    }
    until("the second waits", || server.metrics.parked.get() == 1).await;
    client.send(&ahead.repeat(6)).await;
    assert_eq!(client.rest().await, "");
    until("its places are free", || server.requests.inside() == 0 && server.connections.inside() == 0).await;
    assert_eq!(server.metrics.cut_connections.get(), 1);
}

#[tokio::test]
async fn a_disconnect_after_pipelined_bytes_frees_the_slots() {
    for ahead in [100, 15_000, 40_000] {
        let (server, _slots, mut client) = parked(PARK).await;
        until("it is parked", || server.metrics.parked.get() == 1).await;
        client.send(&"x".repeat(ahead)).await;
        drop(client);
        until("its places are free", || server.requests.inside() == 0 && server.connections.inside() == 0).await;
    }
}

#[tokio::test]
async fn a_half_closed_client_gets_its_parked_response() {
    let (server, slots, mut client) = parked(PARK).await;
    until("it is parked", || server.metrics.parked.get() == 1).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.receive().await.status(), "100", "the server probes whether the client is still there");
    answer(&slots, "late but there");
    assert_eq!(client.receive().await.body, "late but there");
    assert_eq!(client.rest().await, "");
    until("its places are free", || server.requests.inside() == 0 && server.connections.inside() == 0).await;
}

#[tokio::test]
async fn a_half_closed_http_1_0_client_is_disconnected() {
    let (server, _slots, mut client) = parked("GET /park HTTP/1.0\r\n\r\n").await;
    until("it is parked", || server.metrics.parked.get() == 1).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "");
    until("its places are free", || server.requests.inside() == 0 && server.connections.inside() == 0).await;
}

#[tokio::test]
async fn pipelined_parked_requests_lose_no_bytes() {
    let (_server, slots, mut client) = parked(&PARK.repeat(40)).await;
    for round in 0..40 {
        until("a slot waits", || slots.lock().unwrap().len() == 1).await;
        answer(&slots, &format!("reply {round}"));
        assert_eq!(client.receive().await.body, format!("reply {round}"));
    }
}

#[tokio::test]
async fn the_task_of_a_connection_is_small() {
    let listening = Arc::new(Setup::default().listening(parking(Slots::default())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let peer = Peer { address: Some(address), tls: true, ..Peer::new(ListenerKind::Agent) };
    let place = Place::take(&listening, &peer).unwrap();
    let task = serve_tcp(stream, listening, peer, place);
    let size = size_of_val(&task);
    assert!(size <= 1536, "{size} bytes");
}
