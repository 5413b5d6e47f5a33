//! Connecting: local addresses spread over `127.0.1.x`, one TLS configuration for all.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long a connection may take to come up.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Local addresses in use: a port is unique per local address only, and one address has some 28,000.
const ADDRESSES: u32 = 250;

/// Where the server is and how to get there.
#[derive(Clone)]
pub struct Dialer {
    /// `host:port`, as the `Host` header says it.
    pub authority: String,
    address: SocketAddr,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Dialer {
    /// Resolves `url` and reads the CA.
    ///
    /// # Errors
    /// When the URL is not `https://host:port`, does not resolve, or the CA can't be read.
    pub async fn new(url: &str, ca: &Path, resume: bool) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        anyhow::ensure!(uri.scheme_str() == Some("https"), "{url}: agents come over https");
        let host = uri.host().with_context(|| format!("{url} names no host"))?.to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let mut found =
            tokio::net::lookup_host((bare, port)).await.with_context(|| format!("cannot resolve {host}"))?;
        let address = found.next().with_context(|| format!("{host} has no address"))?;
        let name = ServerName::try_from(bare.to_owned())?;
        let tls = TlsConnector::from(Arc::new(configuration(ca, resume)?));
        Ok(Self { authority: format!("{host}:{port}"), address, name, tls })
    }

    /// A fresh connection for the agent with this number.
    ///
    /// # Errors
    /// When it does not come up in time.
    pub async fn dial(&self, number: u32) -> anyhow::Result<TlsStream<TcpStream>> {
        tokio::time::timeout(TIMEOUT, self.connect(number)).await.context("connecting took too long")?
    }

    async fn connect(&self, number: u32) -> anyhow::Result<TlsStream<TcpStream>> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source(self.address.ip(), number) {
            socket.bind(SocketAddr::new(source, 0)).with_context(|| format!("cannot bind {source}"))?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(self.tls.connect(self.name.clone(), stream).await?)
    }
}

/// The local address to come from: only on loopback is there more than one for certain.
fn source(server: IpAddr, number: u32) -> Option<IpAddr> {
    let last = u8::try_from(1 + number % ADDRESSES).ok()?;
    (server.is_loopback() && server.is_ipv4()).then(|| Ipv4Addr::new(127, 0, 1, last).into())
}

/// What drones trust; an error names the file and what is wrong with it.
pub(crate) fn configuration(ca: &Path, resume: bool) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca).with_context(|| format!("cannot read {}", ca.display()))?;
    for certificate in certificates {
        let damaged = || format!("{}: a certificate in it is damaged", ca.display());
        roots.add(certificate.with_context(damaged)?).with_context(damaged)?;
    }
    anyhow::ensure!(!roots.is_empty(), "{} holds no certificate (PEM); give the server's ca.crt", ca.display());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut configuration = builder.with_root_certificates(roots).with_no_client_auth();
    if !resume {
        configuration.resumption = rustls::client::Resumption::disabled();
    }
    Ok(configuration)
}

/// Lets this process open as many files as it may.
///
/// # Errors
/// When the limit can't be read or raised to the hard one.
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
    async fn plain_http_is_refused() {
        let refused = Dialer::new("http://127.0.0.1:1", Path::new("/nowhere"), false).await.err().unwrap();
        assert!(refused.to_string().contains("https"), "{refused}");
    }
}
