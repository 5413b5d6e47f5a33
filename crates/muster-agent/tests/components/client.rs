//! A client of the component protocol that breaks its rules.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camino::Utf8Path;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use muster_agent::entropy::System;
use muster_agent::model::Component;
use muster_agent::protocol::certificates::Credentials;
use muster_agent::protocol::line::Line;
use muster_agent::protocol::messages::{ActionResponse, AgentInfo, CheckinObserved, StartUpInfo};
use muster_agent::protocol::server::Hub;
use muster_agent::protocol::session::Session;
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::UnixStream;

const CHECK_IN: &str = "/proto.ElasticAgent/CheckinV2";
const ACTIONS: &str = "/proto.ElasticAgent/Actions";

struct Endpoint {
    _directory: tempfile::TempDir,
    hub: Hub,
    info: StartUpInfo,
}

fn line() -> Arc<Line> {
    let component = Component {
        id: "fake-default".into(),
        kind: "fake".into(),
        units: Vec::new(),
        work: Err("a client of the test".into()),
        features: serde_json::json!({}),
        limits: serde_json::json!({}),
    };
    let session = Session::new(Arc::new(component), AgentInfo::default());
    Arc::new(Line::new(Credentials::generate(&System).unwrap(), session))
}

async fn endpoint() -> Endpoint {
    let directory = tempfile::tempdir().unwrap();
    let socket = Utf8Path::from_path(directory.path()).unwrap().join("components.sock");
    let hub = Hub::listen(&socket).await.unwrap();
    let line = line();
    hub.add(&line);
    let info = line.credentials.start_up(hub.address(), AgentInfo::default());
    Endpoint { _directory: directory, hub, info }
}

type Body = StreamBody<std::pin::Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;
type Connection = hyper::client::conn::http2::SendRequest<Body>;

/// Connects with the certificate of `own` to the component with the server name of `to`.
async fn connect(to: &StartUpInfo, own: &StartUpInfo) -> Option<Connection> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&to.ca_cert).unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_slice(&own.peer_cert).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&own.peer_key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = UnixStream::connect(to.addr.strip_prefix("unix://").unwrap()).await.unwrap();
    let name = ServerName::try_from(to.server_name.clone()).unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

fn frame(message: &impl Message) -> Bytes {
    let encoded = message.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(encoded.len()).unwrap().to_be_bytes());
    bytes.extend(encoded);
    bytes.into()
}

/// Opens a stream whose request never ends. Returns the status, or `None` if the stream was accepted.
async fn open(connection: &mut Connection, path: &str, first: Option<Bytes>) -> Option<String> {
    let first = stream::iter(first.map(|bytes| Ok(Frame::data(bytes))));
    let body: Body = StreamBody::new(Box::pin(first.chain(stream::pending())));
    let request = http::Request::post(format!("https://agent{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let response = tokio::time::timeout(Duration::from_secs(20), connection.send_request(request)).await.unwrap();
    let response = response.unwrap();
    let status = response.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
    // Dropping the response would close an accepted stream.
    if status.is_none() {
        std::mem::forget(response);
    }
    status
}

fn check_in(token: &str) -> Option<Bytes> {
    Some(frame(&CheckinObserved { token: token.into(), ..CheckinObserved::default() }))
}

#[tokio::test]
async fn ag70_streams_that_break_the_rules_are_refused() {
    let endpoint = endpoint().await;
    let info = &endpoint.info;
    let mut connection = connect(info, info).await.unwrap();
    assert_eq!(open(&mut connection, CHECK_IN, check_in("wrong")).await.as_deref(), Some("7"), "PermissionDenied");
    assert_eq!(open(&mut connection, CHECK_IN, check_in(&info.token)).await, None);
    assert_eq!(open(&mut connection, CHECK_IN, check_in(&info.token)).await.as_deref(), Some("6"), "AlreadyExists");
    let hello =
        |id: &str| Some(frame(&ActionResponse { token: info.token.clone(), id: id.into(), ..Default::default() }));
    assert_eq!(open(&mut connection, ACTIONS, hello("other")).await.as_deref(), Some("3"), "InvalidArgument");
    assert_eq!(open(&mut connection, ACTIONS, hello("init")).await, None);
    let old = open(&mut connection, "/proto.ElasticAgent/Checkin", check_in(&info.token)).await;
    assert_eq!(old.as_deref(), Some("14"), "Unavailable");
    assert_eq!(open(&mut connection, "/proto.ElasticAgent/None", None).await.as_deref(), Some("12"), "Unimplemented");
    let begun = std::time::Instant::now();
    assert_eq!(open(&mut connection, CHECK_IN, None).await.as_deref(), Some("4"), "DeadlineExceeded");
    assert!(begun.elapsed() >= Duration::from_secs(5));
}

#[tokio::test]
async fn ag70_only_the_certificate_of_the_component_itself_is_accepted() {
    let endpoint = endpoint().await;
    let other = line();
    endpoint.hub.add(&other);
    let other = other.credentials.start_up(endpoint.hub.address(), AgentInfo::default());
    let usable = async |to: &StartUpInfo, own: &StartUpInfo| match connect(to, own).await {
        // With TLS 1.3, a client learns after the handshake that its certificate was rejected.
        Some(mut connection) => {
            tokio::time::timeout(Duration::from_secs(5), connection.ready()).await.unwrap().is_ok() && {
                let body: Body = StreamBody::new(Box::pin(stream::empty()));
                connection.send_request(http::Request::post("https://agent/x").body(body).unwrap()).await.is_ok()
            }
        }
        None => false,
    };
    assert!(usable(&endpoint.info, &endpoint.info).await && usable(&other, &other).await);
    assert!(!usable(&endpoint.info, &other).await && !usable(&other, &endpoint.info).await);
    let nobody = StartUpInfo { server_name: "nobody".into(), ..endpoint.info.clone() };
    assert!(!usable(&nobody, &endpoint.info).await);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_by_its_length() {
    let endpoint = endpoint().await;
    let mut connection = connect(&endpoint.info, &endpoint.info).await.unwrap();
    // The length says 4 GiB, and no more follows: nothing may be allocated for it.
    let huge = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(open(&mut connection, CHECK_IN, Some(huge)).await.as_deref(), Some("11"), "OutOfRange");
}
