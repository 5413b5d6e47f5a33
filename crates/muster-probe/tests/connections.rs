//! Tests of connections against servers in this process: what passes, what fails, and why.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_core::connection_test::{Expected, Failure, Ssl, StepName, Target, Tested, Via};
use muster_fleet::connection_tests::Prober as _;
use muster_fleet::outgoing::LocalTargets;
use muster_probe::Probes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const STATUS: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 43\r\n\r\n{\"name\":\"fleet-server\",\"status\":\"HEALTHY\" }";
const PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 20\r\n\r\n<html>banner</html> ";
const MISSING: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

fn target(url: String, expected: Expected) -> Target {
    Target { url, expected, ssl: Ssl::default(), via: None, basic: None, headers: Vec::new(), is_own: false }
}

fn server(port: u16) -> Target {
    target(format!("http://127.0.0.1:{port}"), Expected::FleetServer)
}

async fn test(target: &Target) -> Tested {
    Probes::new(LocalTargets::Permitted).with_timeout(Duration::from_secs(3)).probe(target).await
}

/// The step that failed, after those that passed.
#[track_caller]
fn failure(tested: &Tested) -> (StepName, &Failure) {
    let (last, passed) = tested.steps.split_last().unwrap();
    assert!(passed.iter().all(|step| step.outcome.is_ok()) && !tested.is_usable(), "{tested:?}");
    (last.name, last.outcome.as_ref().unwrap_err())
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let (mut stream, mut head) = (BufReader::with_capacity(1, stream), String::new());
    while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap_or(0) > 0 {}
    head
}

/// Requests that a server got.
type Heads = Arc<Mutex<Vec<String>>>;

async fn respond(mut stream: impl AsyncRead + AsyncWrite + Unpin, response: &str, heads: &Heads) {
    let head = head(&mut stream).await;
    heads.lock().unwrap().push(head);
    // The other side may have closed the connection, because it has seen enough.
    let _ = stream.write_all(response.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// A server that responds to each request with `response`; returns its port and the requests.
async fn serving(response: &'static str) -> (u16, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, heads) = (listener.local_addr().unwrap().port(), Heads::default());
    let got = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            respond(stream, response, &got).await;
        }
    });
    (port, heads)
}

/// An authority, and an acceptor whose certificate it signed for `name`.
fn tls(name: &str) -> (String, TlsAcceptor) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.into()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    (pem, TlsAcceptor::from(Arc::new(config)))
}

/// A server with TLS, whose certificate is for `name`; returns its port and its CA.
async fn serving_tls(name: &str) -> (u16, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, (pem, acceptor)) = (listener.local_addr().unwrap().port(), tls(name));
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            if let Ok(stream) = acceptor.accept(stream).await {
                respond(stream, STATUS, &Heads::default()).await;
            }
        }
    });
    (port, pem)
}

/// A proxy that connects to anything, or responds with `refusal`; returns its port and the requests.
async fn proxy(refusal: Option<&'static str>) -> (u16, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, heads) = (listener.local_addr().unwrap().port(), Heads::default());
    let got = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let mut stream = listener.accept().await.unwrap().0;
            let head = head(&mut stream).await;
            got.lock().unwrap().push(head.clone());
            if let Some(refusal) = refusal {
                stream.write_all(refusal.as_bytes()).await.unwrap();
                continue;
            }
            let port: u16 = head.split([' ', ':']).nth(2).unwrap().parse().unwrap();
            let mut to = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut to).await;
        }
    });
    (port, heads)
}

async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_fleet_server_passes_every_step_and_says_who_it_is() {
    let (port, heads) = serving(STATUS).await;
    let tested = test(&server(port)).await;
    assert!(tested.is_usable(), "{tested:?}");
    assert_eq!(tested.url, format!("http://127.0.0.1:{port}"));
    let steps: Vec<&str> = tested.steps.iter().map(|step| step.name.word()).collect();
    assert_eq!(steps, ["resolve", "connect", "response"]);
    assert_eq!(tested.steps[2].outcome.as_deref(), Ok("fleet-server reports HEALTHY"));
    assert!(heads.lock().unwrap()[0].starts_with("GET /api/status HTTP/1.1\r\n"));
}

#[tokio::test]
async fn each_failure_names_its_step_its_reason_and_a_remedy() {
    let tested = test(&server(closed_port().await)).await;
    let (step, failure_of) = failure(&tested);
    assert!(step == StepName::Connect && failure_of.remedy.contains("whether the service runs"), "{tested:?}");

    let tested = test(&target("http://name.invalid:1".into(), Expected::FleetServer)).await;
    assert_eq!(failure(&tested).0, StepName::Resolve, "{tested:?}");

    let tested = test(&server(serving(PAGE).await.0)).await;
    let (step, html) = failure(&tested);
    assert!(step == StepName::Response && html.reason.contains("200 with text/html"), "{tested:?}");
    assert!(!format!("{tested:?}").contains("banner"), "nothing of the body is returned");

    let tested = test(&server(serving("SSH-2.0-OpenSSH_9.9\r\n").await.0)).await;
    let (step, other) = failure(&tested);
    assert!(step == StepName::Response && other.remedy.contains("https://"), "{tested:?}");
    assert!(!format!("{tested:?}").contains("OpenSSH"), "{tested:?}");

    let tested = test(&target("ftp://127.0.0.1".into(), Expected::FleetServer)).await;
    assert_eq!(failure(&tested).0, StepName::Settings, "{tested:?}");
}

#[tokio::test]
async fn a_server_that_hangs_or_never_ends_its_response_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Probes::new(LocalTargets::Permitted).with_timeout(Duration::from_millis(200));
    let tested = silent.probe(&server(listener.local_addr().unwrap().port())).await;
    let (step, late) = failure(&tested);
    assert!(step == StepName::Response && late.reason.contains("no result within"), "{tested:?}");

    let endless = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = endless.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut stream = endless.accept().await.unwrap().0;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n").await;
        while stream.write_all(&[b' '; 4096]).await.is_ok() {}
    });
    let tested = test(&server(port)).await;
    assert_eq!(failure(&tested).0, StepName::Response, "the body is read up to its limit: {tested:?}");
}

#[tokio::test]
async fn a_certificate_must_be_of_the_given_ca_and_for_the_name() {
    let (port, ca) = serving_tls("localhost").await;
    let with = |ca: &str, name: &str| Target {
        ssl: Ssl { authorities: vec![ca.to_owned()], ..Ssl::default() },
        ..target(format!("https://{name}:{port}"), Expected::FleetServer)
    };
    let tested = test(&with(&ca, "localhost")).await;
    assert!(tested.is_usable(), "{tested:?}");
    let tested = test(&with(&tls("localhost").0, "localhost")).await;
    let (step, wrong) = failure(&tested);
    assert!(step == StepName::Tls && wrong.remedy.starts_with("set the CA certificate"), "{tested:?}");
    let tested = test(&with(&ca, "127.0.0.1")).await;
    let (step, wrong) = failure(&tested);
    assert!(step == StepName::Tls && wrong.remedy.contains("a name that the certificate contains"), "{tested:?}");
    let tested = test(&with("/etc/ca.pem", "localhost")).await;
    assert_eq!(failure(&tested).0, StepName::Settings, "{tested:?}");
    let (plain, _) = serving(STATUS).await;
    let tested = test(&target(format!("https://127.0.0.1:{plain}"), Expected::FleetServer)).await;
    assert_eq!(failure(&tested).0, StepName::Tls, "{tested:?}");
}

#[tokio::test]
async fn a_proxy_is_used_with_its_credentials_and_its_refusal_is_reported() {
    let (fleet, ca) = serving_tls("localhost").await;
    let (open, heads) = proxy(None).await;
    let headers = vec![("X-Site".to_owned(), "7".to_owned())];
    let through = |port: u16| Target {
        ssl: Ssl { authorities: vec![ca.clone()], ..Ssl::default() },
        via: Some(Via { url: format!("http://us%40er:pw@127.0.0.1:{port}"), headers: headers.clone() }),
        ..target(format!("https://localhost:{fleet}"), Expected::FleetServer)
    };
    let tested = test(&through(open)).await;
    assert!(tested.is_usable(), "{tested:?}");
    let steps: Vec<&str> = tested.steps.iter().map(|step| step.name.word()).collect();
    assert_eq!(steps, ["resolve", "connect", "proxy", "tls", "response"]);
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with(&format!("CONNECT localhost:{fleet} HTTP/1.1\r\n")), "{head}");
    assert!(head.contains("proxy-authorization: Basic dXNAZXI6cHc=\r\n"), "{head}");
    assert!(head.contains("x-site: 7\r\n"), "{head}");

    for (refusal, remedy) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "user name"),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "permit this destination"),
    ] {
        let tested = test(&through(proxy(Some(refusal)).await.0)).await;
        let (step, refused) = failure(&tested);
        assert!(step == StepName::Proxy && refused.remedy.contains(remedy), "{tested:?}");
        assert!(!format!("{tested:?}").contains("pw@"), "no password is shown: {tested:?}");
    }
    // The test of a proxy ends when it has connected; its own address is what was tested.
    let tunnel = Target { expected: Expected::Tunnel, ..through(open) };
    let tested = test(&tunnel).await;
    assert!(tested.is_usable() && tested.url == format!("http://127.0.0.1:{open}"), "{tested:?}");
}

#[tokio::test]
async fn a_request_without_tls_is_forwarded_by_the_proxy() {
    let (port, heads) = serving(STATUS).await;
    let target = Target {
        via: Some(Via { url: format!("http://127.0.0.1:{port}"), headers: Vec::new() }),
        ..target("http://fleet.example:8220/base/".into(), Expected::FleetServer)
    };
    assert!(test(&target).await.is_usable());
    assert!(heads.lock().unwrap()[0].starts_with("GET http://fleet.example:8220/base/api/status HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_download_source_must_have_packages() {
    let source = |port: u16| Target {
        basic: Some(("u".into(), "p".into())),
        ..target(format!("http://127.0.0.1:{port}/downloads/"), Expected::Packages)
    };
    let (port, heads) = serving(MISSING).await;
    let tested = test(&source(port)).await;
    let (step, missing) = failure(&tested);
    assert!(step == StepName::Response && missing.reason.contains("(404)"), "{tested:?}");
    let heads = heads.lock().unwrap().clone();
    assert!(
        heads.len() == 3 && heads[0].starts_with("HEAD /downloads/beats/elastic-agent/elastic-agent-"),
        "{heads:?}"
    );
    assert!(heads.iter().all(|head| head.contains("authorization: Basic dTpw\r\n")), "{heads:?}");
    let tested = test(&source(serving(PAGE).await.0)).await;
    assert!(failure(&tested).1.reason.contains("a web page"), "{tested:?}");
    let archive = "HTTP/1.1 200 OK\r\ncontent-type: application/gzip\r\ncontent-length: 700000000\r\n\r\n";
    assert!(test(&source(serving(archive).await.0)).await.is_usable());
}

#[tokio::test]
async fn addresses_of_the_servers_own_host_are_refused_unless_permitted() {
    let (port, heads) = serving(STATUS).await;
    let via = |url: String| Some(Via { url, headers: Vec::new() });
    let metadata = "http://169.254.169.254/".to_owned();
    for target in [
        server(port),
        target(format!("http://localhost:{port}"), Expected::FleetServer),
        target(metadata.clone(), Expected::Packages),
        // Also through a proxy that would be permitted, and through one that is not.
        Target { via: via("http://192.0.2.1:3128".into()), ..target(metadata, Expected::FleetServer) },
        Target {
            via: via(format!("http://127.0.0.1:{port}")),
            ..target("http://192.0.2.1".into(), Expected::FleetServer)
        },
    ] {
        let tested = Probes::new(LocalTargets::Refused).probe(&target).await;
        assert!(failure(&tested).1.reason.contains("outgoing.allow_local_targets"), "{tested:?}");
    }
    assert!(heads.lock().unwrap().is_empty());
    let own = Target { is_own: true, ..server(port) };
    assert!(Probes::new(LocalTargets::Refused).probe(&own).await.is_usable(), "a URL of the fleet itself");
}

#[tokio::test]
async fn the_ca_of_the_fleet_is_trusted_at_its_own_urls_only() {
    let (port, ca) = serving_tls("localhost").await;
    let there = target(format!("https://localhost:{port}"), Expected::FleetServer);
    let probes = Probes::new(LocalTargets::Permitted).with_own_ca(Some(ca));
    let tested = probes.probe(&there).await;
    let (step, untrusted) = failure(&tested);
    assert!(step == StepName::Tls && untrusted.remedy.contains("CA certificate"), "{tested:?}");
    let own = Target { is_own: true, ..there };
    let tested = probes.probe(&own).await;
    assert!(tested.is_usable(), "{tested:?}");
    // Settings with other CAs replace it, for agents as well.
    let ssl = Ssl { authorities: vec![tls("localhost").0], ..Ssl::default() };
    assert!(!probes.probe(&Target { ssl, ..own }).await.is_usable());
}
