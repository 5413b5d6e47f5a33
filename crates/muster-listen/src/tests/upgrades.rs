//! Protocol upgrades and client certificates.

use std::sync::Arc;

use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::{HeaderValue, Request};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};

use crate::Answer;
use crate::body::RequestBody;
use crate::testing::{Server, Setup, handler, handler_of_peers, reply, until, within};
use crate::tls::ServerTls;
use crate::upgrade::{Upgrade, Upgraded};

/// A certificate for `localhost` and its key.
struct Issued {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn issue() -> Issued {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Issued {
        certificate: issued.cert.der().clone(),
        key: PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap(),
    }
}

fn trusting(certificate: &CertificateDer<'static>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    roots
}

/// The server's TLS configuration, which accepts client certificates issued by `client` if given.
fn server_tls(own: &Issued, client: Option<&Issued>) -> Arc<ServerTls> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let roots = Arc::new(trusting(&client.certificate));
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).allow_unauthenticated();
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    ServerTls::new(builder.with_single_cert(vec![own.certificate.clone()], own.key.clone_key()).unwrap())
}

async fn connect(
    server: &Server,
    trusted: &Issued,
    own: Option<&Issued>,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(trusting(&trusted.certificate));
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_auth_cert(vec![own.certificate.clone()], own.key.clone_key()).unwrap(),
    };
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
}

/// Echoes each message.
async fn echo(upgraded: Upgraded) {
    use futures_util::{SinkExt as _, StreamExt as _};
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

fn accept(request: &Request<RequestBody>) -> Answer {
    let key = derive_accept_key(request.headers()[SEC_WEBSOCKET_KEY].as_bytes());
    let mut upgrade = Upgrade::new(HeaderValue::from_static("websocket"), echo);
    upgrade.reply.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, key.parse().unwrap());
    Answer::Upgrade(upgrade)
}

#[tokio::test]
async fn a_websocket_over_tls_echoes() {
    use futures_util::{SinkExt as _, StreamExt as _};
    let own = issue();
    let setup = Setup { tls: Some(server_tls(&own, None)), ..Setup::default() };
    let server = setup.start(handler(|request| async move { accept(&request) }));
    let stream = connect(&server, &own, None).await;
    let (mut socket, response) = within(client_async("wss://localhost/v1/opamp", stream)).await.unwrap();
    assert_eq!(response.status(), 101);
    let large = "x".repeat(200_000);
    for text in ["hello", "", &large] {
        socket.send(tungstenite::Message::text(text)).await.unwrap();
        assert_eq!(within(socket.next()).await.unwrap().unwrap().to_text().unwrap(), text);
    }
    assert_eq!(server.requests.inside(), 1, "it keeps its place");
    socket.close(None).await.unwrap();
    drop(socket);
    until("its places are free", || server.requests.inside() == 0 && server.connections.inside() == 0).await;
}

/// The server reads the first frame together with the request, and hands it over with the stream.
#[tokio::test]
async fn a_frame_that_is_sent_with_the_request_reaches_the_websocket_over_tls() {
    let own = issue();
    let setup = Setup { tls: Some(server_tls(&own, None)), ..Setup::default() };
    let server = setup.start(handler(|request| async move { accept(&request) }));
    let mut stream = connect(&server, &own, None).await;
    let request = "GET /v1/opamp HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // A text frame whose mask is zero (RFC 6455 §5.2), in the TLS record of the request.
    let frame = [&[0x81, 0x85, 0, 0, 0, 0][..], b"early"].concat();
    stream.write_all(&[request.as_bytes(), &frame].concat()).await.unwrap();
    stream.flush().await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"\x81\x05early") {
        assert_ne!(within(stream.read_buf(&mut received)).await.unwrap(), 0, "{}", received.escape_ascii());
    }
    assert!(received.starts_with(b"HTTP/1.1 101 "), "{}", received.escape_ascii());
}

#[tokio::test]
async fn bytes_after_the_request_reach_the_new_protocol() {
    let server = Setup::default().start(handler(|_| async {
        Answer::Upgrade(Upgrade::new(HeaderValue::from_static("echo"), |upgraded| async {
            let (mut reads, mut writes) = tokio::io::split(upgraded);
            tokio::io::copy(&mut reads, &mut writes).await.unwrap();
            writes.shutdown().await.unwrap();
        }))
    }));
    let mut client = server.client().await;
    client.send("GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly").await;
    let head = client.receive_head().await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("connection: upgrade"), "{head}");
    client.send(" and late").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "early and late");
}

#[tokio::test]
async fn a_request_with_an_unread_body_is_not_upgraded() {
    let server = Setup::default()
        .start(handler(|_| async { Answer::Upgrade(Upgrade::new(HeaderValue::from_static("echo"), |_| async {})) }));
    let mut client = server.client().await;
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn the_peer_has_the_client_certificate_chain() {
    let (own, client) = (issue(), issue());
    let setup = Setup { tls: Some(server_tls(&own, Some(&client))), ..Setup::default() };
    let server = setup.start(handler_of_peers(|peer| {
        let chain = peer.certificates.as_deref().unwrap_or_default();
        reply(chain.iter().map(|one| format!("{:?}", one.as_ref())).collect::<Vec<_>>().join(" "))
    }));
    for (shown, expected) in [(None, String::new()), (Some(&client), format!("{:?}", client.certificate.as_ref()))] {
        let mut stream = connect(&server, &own, shown).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        within(stream.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text.split_once("\r\n\r\n").unwrap().1, expected);
    }
}
