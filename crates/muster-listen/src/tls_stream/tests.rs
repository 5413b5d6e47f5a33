//! The stream against rustls' own client, over pipes that hold a few bytes.

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

use super::*;

type Client = tokio_rustls::client::TlsStream<DuplexStream>;

/// Configurations of both sides that know each other.
fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    // They come behind the handshake, when a client over a narrow pipe reads no more.
    server.send_tls13_tickets = 0;
    let mut roots = RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// Both ends of a connection whose pipe holds `room` bytes.
async fn connected(version: &'static SupportedProtocolVersion, room: usize) -> (TlsStream<DuplexStream>, Client) {
    let (server, client) = configs(version);
    let (near, far) = duplex(room);
    let name = ServerName::try_from("localhost").unwrap();
    let connect = TlsConnector::from(client).connect(name, far);
    let (server, client) = tokio::join!(TlsStream::accept(near, server), connect);
    (server.unwrap(), client.unwrap())
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[tokio::test]
async fn bytes_pass_completely_in_both_directions_through_a_small_pipe() {
    for version in [&version::TLS12, &version::TLS13] {
        for room in [7, 20_000, 1_000_000] {
            let (server, client) = connected(version, room).await;
            let (mut read, mut write) = tokio::io::split(server);
            let echo = tokio::spawn(async move {
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let (mut back, mut out) = tokio::io::split(client);
            let sent = noise(150_000);
            let text = sent.clone();
            let send = tokio::spawn(async move {
                out.write_all(&text).await.unwrap();
                out.shutdown().await.unwrap();
            });
            let mut received = Vec::new();
            back.read_to_end(&mut received).await.unwrap();
            assert!(received == sent, "{version:?}, {room} bytes of room, {} came", received.len());
            send.await.unwrap();
            echo.await.unwrap();
        }
    }
}

#[tokio::test]
async fn pieces_are_written_in_order_and_plaintext_is_read_in_small_parts() {
    let (mut server, mut client) = connected(&version::TLS13, 1_000_000).await;
    let (one, two) = (noise(10_000), noise(50_000));
    let pieces = [IoSlice::new(&one), IoSlice::new(&[]), IoSlice::new(&two)];
    let written = server.write_vectored(&pieces).await.unwrap();
    assert_eq!(written, WRITE, "no more than is bounded");
    server.flush().await.unwrap();
    let mut received = vec![0; written];
    client.read_exact(&mut received).await.unwrap();
    assert!(received == [&one[..], &two[..written - one.len()]].concat());

    client.write_all(&one).await.unwrap();
    let mut parts = Vec::new();
    while parts.len() < one.len() {
        let mut part = [0; 999];
        let length = server.read(&mut part).await.unwrap();
        parts.extend_from_slice(&part[..length]);
    }
    assert!(parts == one);
}

#[tokio::test]
async fn a_waiting_connection_has_no_buffers() {
    let (mut server, mut client) = connected(&version::TLS13, 1_000_000).await;
    client.write_all(&noise(40_000)).await.unwrap();
    server.read_exact(&mut vec![0; 40_000]).await.unwrap();
    server.write_all(&noise(40_000)).await.unwrap();
    server.flush().await.unwrap();
    let idle = poll_fn(|cx| {
        let mut space = [0; 64];
        Poll::Ready(Pin::new(&mut server).poll_read(cx, &mut ReadBuf::new(&mut space)).is_pending())
    });
    assert!(idle.await);
    let Buffers { text, records, .. } = &server.buffers;
    assert_eq!((server.unfinished.capacity(), text.capacity(), records.capacity()), (0, 0, 0));
}

#[tokio::test]
async fn a_clean_close_differs_from_a_truncation() {
    let (mut server, mut client) = connected(&version::TLS13, 1_000_000).await;
    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"last");
    // The other direction stays open until it is closed too.
    server.write_all(b"reply").await.unwrap();
    server.shutdown().await.unwrap();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"lastreply");

    let (mut server, client) = connected(&version::TLS13, 1_000_000).await;
    drop(client);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn keys_are_updated_on_the_clients_request() {
    let (mut server, mut client) = connected(&version::TLS13, 1_000_000).await;
    for round in 0..3_u8 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&[round; 100]).await.unwrap();
        client.flush().await.unwrap();
        let mut received = [0; 100];
        server.read_exact(&mut received).await.unwrap();
        server.write_all(&received).await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(received, [round; 100]);
    }
}

#[tokio::test]
async fn input_that_is_not_tls_gets_an_alert() {
    for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 255, 255, 1], &[22, 3, 1, 0, 4, 1, 0, 0, 0]] {
        let (server, _) = configs(&version::TLS13);
        let (near, mut far) = duplex(1_000_000);
        far.write_all(rubbish).await.unwrap();
        let error = TlsStream::accept(near, server).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        let mut alert = Vec::new();
        far.read_to_end(&mut alert).await.unwrap();
        assert_eq!((alert[0], alert.len(), alert[5]), (21, 7, 2), "a fatal alert, once: {alert:?}");
    }
}

#[tokio::test]
async fn a_tampered_record_ends_the_connection() {
    let (server, client) = connected(&version::TLS13, 1_000_000).await;
    let TlsStream { stream, session, .. } = server;
    let (mut mid, far) = duplex(1_000_000);
    let mut server =
        TlsStream { stream: far, session, unfinished: Vec::new(), buffers: Buffers::default(), state: State::Open };
    let mut client = client;
    client.write_all(b"pay me").await.unwrap();
    client.flush().await.unwrap();
    let mut stream = stream;
    let mut record = vec![0; 5 + 6 + 17];
    stream.read_exact(&mut record).await.unwrap();
    record[7] ^= 1;
    mid.write_all(&record).await.unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0, "nothing is read after it");
    assert!(server.write(b"x").await.is_err());
}
