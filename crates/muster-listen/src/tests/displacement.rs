//! New connections take the places of unauthenticated ones that are not processing a request.

use super::web::Pages;
use crate::testing::{Client, Server, Setup, echo, self_signed_tls, until, within};
use crate::web::OnHyper;

/// A client from an address of its own.
async fn client_from(address: &str, server: &Server) -> Client {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    Client::new(within(socket.connect(server.address)).await.unwrap())
}

/// Opens connections from three addresses that fill `server`, each with what `begin` sends.
async fn fill(server: &Server, connections: usize, begin: &str) -> Vec<Client> {
    let mut silent = Vec::new();
    for number in 0..connections {
        let mut client = client_from(&format!("127.0.0.{}", 3 + number % 3), server).await;
        client.send(begin).await;
        silent.push(client);
    }
    until("all places are taken", || server.connections.inside() == connections).await;
    silent
}

/// Silent connections from three addresses must not keep others out, whatever part of a request they have sent.
async fn are_displaced(setup: impl Fn() -> Setup, begin: &str) {
    let server = Setup { connections: 30, ..setup() }.start(echo());
    let silent = fill(&server, 30, begin).await;
    for number in 0..10_u64 {
        let mut agent = client_from("127.0.0.9", &server).await;
        agent.get("/known").await;
        assert_eq!(agent.receive().await.status(), "200", "{begin:?}, {number}");
        assert_eq!(server.metrics.displaced_connections.get(), number + 1);
        until("the displaced one is closed", || server.connections.inside() == 30).await;
        drop(agent);
        until("the agent is gone", || server.connections.inside() == 29).await;
        let mut another = client_from("127.0.0.4", &server).await;
        another.send(begin).await;
        until("its place is taken again", || server.connections.inside() == 30).await;
        std::mem::forget(another);
    }
    assert_eq!(server.metrics.refused_connections.get(), 0);
    drop(silent);
}

#[tokio::test]
async fn silent_connections_are_closed_to_make_room() {
    are_displaced(Setup::default, "").await;
    are_displaced(Setup::default, "GET / HTT").await;
}

#[tokio::test]
async fn silent_connections_of_a_management_listener_are_closed_to_make_room() {
    let server = Setup { connections: 30, ..Setup::default() }.start(OnHyper(Pages::default()));
    let _silent = fill(&server, 30, "GET / HTT").await;
    let mut client = client_from("127.0.0.9", &server).await;
    client.get("/").await;
    assert_eq!(client.receive().await.status(), "200");
    assert_eq!(server.metrics.displaced_connections.get(), 1);
}

#[tokio::test]
async fn silent_connections_before_the_handshake_are_closed_to_make_room() {
    let server = Setup { connections: 30, tls: Some(self_signed_tls()), ..Setup::default() }.start(echo());
    for begin in ["", "\u{16}\u{3}\u{1}"] {
        let silent = fill(&server, 30, begin).await;
        let mut client = client_from("127.0.0.9", &server).await;
        client.get("/").await;
        assert_eq!(client.receive().await.status(), "400", "plain HTTP to a TLS port");
        drop((silent, client));
        until("all are gone", || server.connections.inside() == 0).await;
    }
    assert_eq!(server.metrics.displaced_connections.get(), 2);
}

#[tokio::test]
async fn running_and_authenticated_connections_are_not_displaced() {
    let server = Setup { connections: 2, ..Setup::default() }.start(echo());
    let mut agent = client_from("127.0.0.3", &server).await;
    agent.get("/known").await;
    agent.receive().await;
    let mut slow = client_from("127.0.0.4", &server).await;
    slow.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n").await;
    until("its request runs", || server.requests.inside() == 1).await;
    assert_eq!(client_from("127.0.0.9", &server).await.rest().await, "");
    slow.send("ok").await;
    assert_eq!(slow.receive().await.status(), "200");
    agent.get("/known").await;
    assert_eq!(agent.receive().await.status(), "200");
    // Between unauthenticated requests, a connection can be displaced.
    let mut client = client_from("127.0.0.9", &server).await;
    client.get("/").await;
    assert_eq!(client.receive().await.status(), "200");
    assert_eq!(slow.rest().await, "");
}
