//! Measures the connection layer alone, with a handler that does nothing:
//!
//! * `listen_load serve ADDRESS DIRECTORY [plain]`: `GET /` answers at once, `POST /` is parked for ever;
//! * `listen_load ask ADDRESS DIRECTORY CONNECTIONS SECONDS`: keep-alive requests, how many a second;
//! * `listen_load hold ADDRESS DIRECTORY CONNECTIONS`: parked requests, held until the process ends.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use muster_core::time::Clock;
use muster_fleet::system::SystemClock;
use muster_listen::body::RequestBody;
use muster_listen::concurrency_limit::ConcurrencyLimit;
use muster_listen::metrics::ConnectionMetrics;
use muster_listen::refusal::Refusal;
use muster_listen::reply::{ListenerKind, Peer, Reply};
use muster_listen::unauthenticated::UnauthenticatedLimit;
use muster_listen::{Answer, Handler, Listening, Work, accept, socket};
use muster_server::config::{Layers, TlsConfig, load};
use muster_server::data_dir::DataDir;
use muster_server::tls::Tls;
use muster_server::tls::authority::Authority;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

struct Tiny;

impl Handler for Tiny {
    fn refuse(&self, refusal: &Refusal, _: &Peer) -> Reply {
        let mut reply = Reply::new(Bytes::from(refusal.to_string()).into());
        *reply.status_mut() = refusal.status();
        reply
    }

    fn handle(&self, request: Request<RequestBody>, peer: Peer) -> Work {
        // Without credentials only a few connections would stay open.
        peer.set_authenticated();
        Box::pin(async {
            let parks = request.method() == Method::POST;
            let body = request.into_body().collect().await.map(|body| body.to_bytes().len());
            if parks && body.is_ok() {
                return Answer::Park(Box::pin(std::future::pending()));
            }
            Answer::Reply(Reply::new(Bytes::from_static(b"{\"ok\":true}").into()))
        })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    socket::raise_open_files();
    match words.as_slice() {
        ["serve", address, directory] => serve(address.parse()?, directory, true).await,
        ["serve", address, directory, "plain"] => serve(address.parse()?, directory, false).await,
        ["ask", address, directory, connections, seconds] => {
            ask(address.parse()?, directory, connections.parse()?, Duration::from_secs(seconds.parse()?)).await
        }
        ["hold", address, directory, connections] => hold(address.parse()?, directory, connections.parse()?).await,
        _ => Err("see the top of the file".into()),
    }
}

async fn serve(address: SocketAddr, directory: &str, secure: bool) -> Result<()> {
    let config = load(&Layers { root: true, ..Layers::default() })?.config;
    let data = Arc::new(DataDir::open(directory.into())?);
    let authority = Authority::generate(SystemClock.now())?;
    let urls = watch::Sender::new(Vec::new()).subscribe();
    let tls = Tls::open(TlsConfig::default(), Some(authority), urls, data, Arc::new(SystemClock))?;
    let listening = Listening {
        kind: ListenerKind::Agent,
        handler: Tiny,
        tls: secure.then(|| Arc::clone(tls.live())),
        timeouts: config.timeouts,
        requests: ConcurrencyLimit::new(1_000_000),
        connections: ConcurrencyLimit::new(1_000_000),
        unauthenticated: UnauthenticatedLimit::new(2_000_000),
        idle: Arc::default(),
        metrics: Arc::new(ConnectionMetrics::default()),
        shutdown: CancellationToken::new(),
    };
    accept::run(socket::bind(address)?, Arc::new(listening)).await;
    Ok(())
}

fn connector(directory: &str) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(format!("{directory}/ca.crt"))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(address: SocketAddr, connector: &TlsConnector) -> Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(connector.connect(ServerName::try_from("127.0.0.1")?, stream).await?)
}

async fn ask(address: SocketAddr, directory: &str, connections: usize, time: Duration) -> Result<()> {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\nuser-agent: elastic agent 9.5.2\r\naccept: */*\r\n\r\n";
    let connector = connector(directory)?;
    let count = Arc::new(AtomicU64::new(0));
    for _ in 0..connections {
        let mut stream = connect(address, &connector).await?;
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while stream.write_all(REQUEST).await.is_ok() && stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = count.load(Ordering::Relaxed);
    tokio::time::sleep(time).await;
    let requests = count.load(Ordering::Relaxed) - before;
    println!("{:.0} requests a second", requests as f64 / time.as_secs_f64());
    Ok(())
}

async fn hold(address: SocketAddr, directory: &str, connections: usize) -> Result<()> {
    let connector = connector(directory)?;
    let body = "x".repeat(2048);
    let request = format!(
        "POST / HTTP/1.1\r\nhost: h\r\nuser-agent: elastic agent 9.5.2\r\nauthorization: ApiKey {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        "k".repeat(80),
        body.len()
    );
    let mut held = Vec::new();
    for _ in 0..connections {
        let mut stream = connect(address, &connector).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await?;
        if stream.read(&mut [0; 2048]).await? == 0 {
            return Err("the server hung up".into());
        }
        stream.write_all(request.as_bytes()).await?;
        held.push(stream);
    }
    println!("{connections} held");
    std::future::pending::<()>().await;
    Ok(())
}
