//! The connection of a test, step by step: name, TCP, proxy, TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_core::connection_test::{Cause, Expected, StepName, Via};
use muster_fleet::outgoing::LocalTargets;
use reqwest::Url;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::fault::{Fault, Trail, of_io, unresolved};
use crate::{authority, host, port, tunnel};

/// Maximum time to connect to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum addresses of a name that are tried.
const ADDRESSES: usize = 3;

/// A connection, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The way to a target.
pub(crate) struct Route<'a> {
    pub(crate) local: LocalTargets,
    pub(crate) url: &'a Url,
    /// The proxy, with its parsed URL.
    pub(crate) via: Option<(&'a Url, &'a Via)>,
    pub(crate) tls: &'a Arc<ClientConfig>,
}

impl Route<'_> {
    /// Whether the proxy gets the request itself, instead of a tunnel.
    pub(crate) fn is_forwarded(&self, expected: Expected) -> bool {
        self.via.is_some() && self.url.scheme() == "http" && expected != Expected::Tunnel
    }

    /// Connects to the target.
    pub(crate) async fn open(&self, expected: Expected, trail: &mut Trail) -> Result<Box<dyn Stream>, Fault> {
        let first = self.via.map_or(self.url, |(url, _)| url);
        let tcp = self.connect(first, trail).await?;
        let mut stream: Box<dyn Stream> = Box::new(tcp);
        if let Some((proxy, via)) = self.via {
            trail.at(StepName::Proxy);
            if proxy.scheme() == "https" {
                stream = self.encrypted(stream, proxy).await?;
            }
            if self.is_forwarded(expected) {
                // Whether it forwards the request is seen from the response.
                return Ok(stream);
            }
            tunnel::open(&mut stream, self.url, proxy, &via.headers).await?;
            trail.passed(format!("{} connects to {}", host(proxy), authority(self.url)));
        }
        if self.url.scheme() == "https" && expected != Expected::Tunnel {
            trail.at(StepName::Tls);
            stream = self.encrypted(stream, self.url).await?;
            trail.passed(format!("the certificate of {} is trusted", host(self.url)));
        }
        Ok(stream)
    }

    async fn connect(&self, to: &Url, trail: &mut Trail) -> Result<TcpStream, Fault> {
        trail.at(StepName::Resolve);
        let mut addresses = self.local.resolve(host(to), port(to)).await.map_err(unresolved)?;
        addresses.truncate(ADDRESSES);
        let listed: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
        trail.passed(format!("{} is {}", host(to), listed.join(", ")));
        trail.at(StepName::Connect);
        let mut last = Fault::of(Cause::Other, "no address");
        for address in addresses {
            match reach(address).await {
                Ok(stream) => {
                    trail.passed(format!("{address} accepts connections"));
                    return Ok(stream);
                }
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    async fn encrypted(&self, stream: Box<dyn Stream>, to: &Url) -> Result<Box<dyn Stream>, Fault> {
        let name = host(to).trim_start_matches('[').trim_end_matches(']').to_owned();
        let name =
            ServerName::try_from(name).map_err(|error| Fault::of(Cause::Settings, format!("{}: {error}", host(to))))?;
        let connected = TlsConnector::from(Arc::clone(self.tls)).connect(name, stream).await;
        Ok(Box::new(connected.map_err(|error| of_io(&error))?))
    }
}

async fn reach(address: SocketAddr) -> Result<TcpStream, Fault> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(match of_io(&error) {
            Fault::Cause(cause, reason) => Fault::of(cause, format!("{address}: {reason}")),
            judged @ Fault::Judged(_) => judged,
        }),
        Err(_) => {
            Err(Fault::of(Cause::Late, format!("{address}: no answer within {} seconds", CONNECT_TIMEOUT.as_secs())))
        }
    }
}
