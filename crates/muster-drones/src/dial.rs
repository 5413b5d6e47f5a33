//! Connections, with local addresses spread over `127.0.1.x`, and one TLS configuration for all agents.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::CipherSuite;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Maximum time to connect.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Number of local addresses. Ports are unique per address, and each address has about 28,000 for outgoing connections.
const ADDRESSES: u32 = 250;

/// Connects to one server.
#[derive(Clone)]
pub struct Dialer {
    /// `host:port`, for the `Host` header.
    pub authority: String,
    address: SocketAddr,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Dialer {
    /// Resolves `url` and reads the CA certificate.
    ///
    /// # Errors
    /// If the URL is not `https://host:port`, does not resolve, or the file cannot be read.
    pub async fn new(url: &str, ca: &Path, resume: bool) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("invalid URL {url:?}"))?;
        anyhow::ensure!(uri.scheme_str() == Some("https"), "{url}: agents connect over https");
        let host = uri.host().with_context(|| format!("{url} has no host"))?.to_owned();
        let port = uri.port_u16().unwrap_or(443);
        // IPv6 addresses have brackets in URLs, but not in name resolution.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let mut found =
            tokio::net::lookup_host((bare, port)).await.with_context(|| format!("cannot resolve {host}"))?;
        let address = found.next().with_context(|| format!("{host} has no address"))?;
        let name = ServerName::try_from(bare.to_owned())?;
        let tls = TlsConnector::from(Arc::new(configuration(ca, resume)?));
        Ok(Self { authority: format!("{host}:{port}"), address, name, tls })
    }

    /// Opens a connection for the agent with this number.
    ///
    /// # Errors
    /// If connecting fails or takes too long.
    pub async fn dial(&self, number: u32) -> anyhow::Result<TlsStream<TcpStream>> {
        tokio::time::timeout(TIMEOUT, self.connect(number)).await.context("timeout while connecting")?
    }

    async fn connect(&self, number: u32) -> anyhow::Result<TlsStream<TcpStream>> {
        // Created explicitly, because the local address must be bound before connecting.
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // The kernel selects the port.
        if let Some(source) = source(self.address.ip(), number) {
            socket.bind(SocketAddr::new(source, 0)).with_context(|| format!("cannot bind {source}"))?;
        }
        let stream = socket.connect(self.address).await?;
        // Latencies must not include the delay of small writes.
        stream.set_nodelay(true)?;
        Ok(self.tls.connect(self.name.clone(), stream).await?)
    }
}

/// Returns the local address to connect from; `None` if the server is not on loopback, where only one address may
/// exist.
fn source(server: IpAddr, number: u32) -> Option<IpAddr> {
    let last = u8::try_from(1 + number % ADDRESSES).ok()?;
    (server.is_loopback() && server.is_ipv4()).then(|| Ipv4Addr::new(127, 0, 1, last).into())
}

/// Returns a TLS configuration that trusts the certificates in a file. Errors contain the file and the problem.
pub(crate) fn configuration(ca: &Path, resume: bool) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca).with_context(|| format!("cannot read {}", ca.display()))?;
    for certificate in certificates {
        let malformed = || format!("{}: malformed certificate", ca.display());
        roots.add(certificate.with_context(malformed)?).with_context(malformed)?;
    }
    anyhow::ensure!(!roots.is_empty(), "{} contains no PEM certificate; pass the server's ca.crt", ca.display());
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // Real agents are written in Go, whose TLS library prefers AES-128 on CPUs with instructions for AES.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions()?;
    let mut configuration = builder.with_root_certificates(roots).with_no_client_auth();
    // Real agents reconnect with a full handshake, because each process starts without session tickets.
    if !resume {
        configuration.resumption = rustls::client::Resumption::disabled();
    }
    Ok(configuration)
}

/// Raises the limit on open files to the hard limit.
///
/// # Errors
/// If the limit cannot be read or raised.
pub fn raise_open_files() -> anyhow::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_spread_on_loopback_only() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(source(loopback, 0), Some(IpAddr::from([127, 0, 1, 1])));
        assert_eq!(source(loopback, 249), Some(IpAddr::from([127, 0, 1, 250])));
        assert_eq!(source(loopback, 250), Some(IpAddr::from([127, 0, 1, 1])));
        assert_eq!(source(IpAddr::from([192, 0, 2, 1]), 7), None);
    }

    #[tokio::test]
    async fn plain_http_is_rejected() {
        let refused = Dialer::new("http://127.0.0.1:1", Path::new("/nowhere"), false).await.err().unwrap();
        assert!(refused.to_string().contains("https"), "{refused}");
    }
}
