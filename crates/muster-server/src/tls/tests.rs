//! Tests of certificates, with real handshakes.

mod brought;
pub mod clients;
mod files;
mod times;

use std::sync::Arc;

use camino::Utf8PathBuf;
use muster_core::time::{Clock, Timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use muster_fleet::system::{SystemClock, SystemEntropy};
use muster_listen::testing::{Setup, echo};

pub fn data() -> (tempfile::TempDir, Arc<DataDir>) {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(directory.path().join("data")).unwrap();
    let data = DataDir::open(&path).unwrap();
    data.master_key(&SystemEntropy::default()).unwrap();
    (directory, Arc::new(data))
}

/// TLS with a CA of its own.
pub fn own_tls() -> (tempfile::TempDir, Arc<Tls>) {
    let (keep, data) = data();
    (keep, Tls::open(TlsConfig::default(), authority(), urls(&[]), data, Arc::new(SystemClock)).unwrap())
}

/// A CA made now.
pub fn authority() -> Option<Authority> {
    Some(Authority::generate(SystemClock.now()).unwrap())
}

/// URLs that stay.
pub fn urls(urls: &[&str]) -> watch::Receiver<Vec<String>> {
    watch::Sender::new(urls.iter().map(|url| (*url).to_owned()).collect()).subscribe()
}

#[derive(Debug)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

fn now_clock() -> Arc<TestClock> {
    Arc::new(TestClock(AtomicI64::new(SystemClock.now().as_micros())))
}

fn client(ca: &str, alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(address: std::net::SocketAddr, ca: &str, name: &str) -> std::io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    client(ca, &[b"http/1.1"]).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

async fn ask(stream: &mut Stream) -> String {
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut buffer = [0; 1024];
    let count = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

fn leaf(stream: &Stream) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn ea1_agents_are_served_over_tls_with_the_own_ca_and_http_1_1() {
    let (_keep, tls) = own_tls();
    let ca = tls.authority().unwrap().pem().to_owned();
    let server = Setup { tls: Some(Arc::clone(tls.live())), ..Setup::default() }.start(echo());
    for name in ["localhost", "127.0.0.1"] {
        let mut stream = connect(server.address, &ca, name).await.unwrap();
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap().len(), 2, "the CA goes with the chain");
    }
    assert!(connect(server.address, &ca, "elsewhere.example").await.is_err());
}

#[tokio::test]
async fn sessions_are_resumed_by_ticket() {
    let (_keep, tls) = own_tls();
    let connector = client(tls.authority().unwrap().pem(), &[]);
    let server = Setup { tls: Some(Arc::clone(tls.live())), ..Setup::default() }.start(echo());
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        ask(&mut stream).await;
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]);
}

#[test]
fn ag95_a_generated_certificate_covers_the_host_and_has_a_serial_number_of_its_own() {
    let (_keep, data) = data();
    let authority = authority().unwrap();
    let issue = |names: &[&str]| {
        let mut covered = host::certificate_names(&[]);
        covered.extend(names.iter().map(|name| (*name).to_owned()));
        assert!(authority.ensure_server(&data, &covered, SystemClock.now()).unwrap());
        let pem = fs_err::read(data.join("server.crt")).unwrap();
        let der = CertificateDer::from_pem_slice(&pem).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        (authority::subject_names(&certificate), certificate.raw_serial().to_vec())
    };
    let ((names, first), (_, second)) = (issue(&[]), issue(&["another.example"]));
    for name in ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().chain(host::name()) {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    assert!(first.len() >= 16 && second.len() >= 16 && first != second, "{first:?} {second:?}");
}

#[test]
fn a_new_external_host_or_a_mismatched_key_causes_a_new_certificate() {
    let (_keep, data) = data();
    let kept = authority().unwrap().to_kept().unwrap();
    let open = |hosts: &[&str]| {
        let authority = Some(Authority::from_kept(&kept).unwrap());
        Tls::open(TlsConfig::default(), authority, urls(hosts), Arc::clone(&data), Arc::new(SystemClock)).unwrap();
        fs_err::read(data.join("server.crt")).unwrap()
    };
    let first = open(&[]);
    let second = open(&["https://fleet.example:8220"]);
    assert_ne!(first, second);
    assert_eq!(open(&[]), second, "a name too many is no reason");
    data.write_secret("server.key", rcgen::KeyPair::generate().unwrap().serialize_pem().as_bytes()).unwrap();
    assert_ne!(open(&[]), second);
}

#[tokio::test]
async fn the_certificate_is_renewed_before_it_expires_and_connections_stay_open() {
    let (_keep, data) = data();
    let clock = now_clock();
    let tls =
        Tls::open(TlsConfig::default(), authority(), urls(&[]), data, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let ca = tls.authority().unwrap().pem().to_owned();
    let server = Setup { tls: Some(Arc::clone(tls.live())), ..Setup::default() }.start(echo());
    let mut old = connect(server.address, &ca, "localhost").await.unwrap();
    assert!(!tls.renew().unwrap());
    // Back to the year before, as if the certificate had been made then.
    clock.0.fetch_add(250 * 86_400_000_000, Ordering::SeqCst);
    assert!(tls.renew().unwrap());
    assert!(ask(&mut old).await.starts_with("HTTP/1.1 200"));
    assert!(!tls.renew().unwrap());
    assert_ne!(fs_err::read(tls.data.join("server.crt")).unwrap(), leaf(&old));
}

#[tokio::test]
async fn a_changed_certificate_is_loaded_and_an_invalid_one_is_not() {
    let (keep, data) = data();
    let path = |name: &str| Utf8PathBuf::from_path_buf(keep.path().join(name)).unwrap();
    let custom = (path("own.crt"), path("own.key"));
    let write = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs_err::write(&custom.0, made.cert.pem()).unwrap();
        fs_err::write(&custom.1, made.signing_key.serialize_pem()).unwrap();
        made.cert.pem()
    };
    let first = write();
    let config = TlsConfig { custom: Some(custom.clone()), ..TlsConfig::default() };
    let tls = Tls::open(config, None, urls(&[]), data, Arc::new(SystemClock)).unwrap();
    assert!(tls.authority().is_none());
    let server = Setup { tls: Some(Arc::clone(tls.live())), ..Setup::default() }.start(echo());
    let mut old = connect(server.address, &first, "localhost").await.unwrap();

    fs_err::write(&custom.0, "no certificate").unwrap();
    assert!(tls.reload().is_err());
    let other_key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    fs_err::write(&custom.0, &first).unwrap();
    fs_err::write(&custom.1, other_key).unwrap();
    assert!(tls.reload().is_err(), "a key that does not belong to it");
    connect(server.address, &first, "localhost").await.unwrap();

    let second = write();
    tls.reload().unwrap();
    connect(server.address, &second, "localhost").await.unwrap();
    assert!(connect(server.address, &first, "localhost").await.is_err());
    assert!(ask(&mut old).await.starts_with("HTTP/1.1 200"), "open connections go on");
}
