//! URLs of servers, and the selection of the next server.

use std::fmt;
use std::time::Duration;

use http::Uri;
use tokio::time::Instant;

/// Time for which an unreachable server is avoided.
const AVOID: Duration = Duration::from_secs(300);
/// Default port of agent listeners.
const DEFAULT_PORT: u16 = 8220;

/// URL of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Whether to use TLS.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Prefix of every path, without a trailing slash.
    pub prefix: String,
}

/// An invalid server URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid server URL {url:?}: {reason}")]
pub struct BadServer {
    url: String,
    reason: &'static str,
}

impl Server {
    /// Parses `https://name:8220/prefix`. The default scheme is `https`, the default port 8220.
    pub fn parse(url: &str) -> Result<Self, BadServer> {
        Self::parse_with_port(url, DEFAULT_PORT)
    }

    /// Like [`Self::parse`], for servers with another default port.
    pub fn parse_with_port(url: &str, default: u16) -> Result<Self, BadServer> {
        let bad = |reason| BadServer { url: url.chars().take(200).collect(), reason };
        // The parser would interpret `fleet:8220` as a scheme and a path, so that the scheme is added first.
        let whole = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let uri: Uri = whole.parse().map_err(|_| bad("not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("the scheme must be https or http")),
        };
        let authority = uri.authority().ok_or_else(|| bad("no host"))?;
        // Credentials in a URL would appear in logs and in the stored enrollment.
        if authority.as_str().contains('@') {
            return Err(bad("credentials are not allowed"));
        }
        // The URL parser treats a port that is not a number as absent.
        let port = match &authority.as_str()[authority.host().len()..] {
            "" => default,
            rest => {
                let port = rest.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port != 0);
                port.ok_or_else(|| bad("the port is not a number from 1 to 65535"))?
            }
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("no host"));
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { tls, host, port, prefix })
    }

    /// Returns whether the host is a loopback address or `localhost`.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Returns `name:port`, with brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.prefix)
    }
}

/// The servers of a fleet, with the times at which they were last unreachable.
#[derive(Clone, Debug)]
pub struct Servers {
    list: Vec<(Server, Option<Instant>)>,
}

impl Servers {
    /// Creates a list of servers, in order of preference.
    pub fn new(servers: Vec<Server>) -> Self {
        Self { list: servers.into_iter().map(|server| (server, None)).collect() }
    }

    /// Returns the first server that was not unreachable recently. If all were, returns the one whose failure is
    /// oldest.
    pub fn pick(&self, now: Instant) -> Option<Server> {
        let good = |failed: &Option<Instant>| failed.is_none_or(|at| now.duration_since(at) >= AVOID);
        let first = self.list.iter().find(|(_, failed)| good(failed));
        // If all are unreachable, the server with the oldest failure had the most time to recover.
        first.or_else(|| self.list.iter().min_by_key(|(_, failed)| *failed)).map(|(server, _)| server.clone())
    }

    /// Records whether a server was reachable.
    pub fn note(&mut self, server: &Server, reached: bool, now: Instant) {
        for (known, failed) in &mut self.list {
            if known == server {
                *failed = (!reached).then_some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_get_defaults() {
        let server = Server::parse("fleet.example").unwrap();
        assert_eq!(server.to_string(), "https://fleet.example:8220");
        let server = Server::parse("http://[::1]:9/x/").unwrap();
        assert_eq!((server.to_string().as_str(), server.is_loopback()), ("http://[::1]:9/x", true));
        for bad in ["ftp://x", "https://u:p@x", "https://", "", "https://fleet:1x", "fleet:", "fleet:0", "fleet:99999"]
        {
            assert!(Server::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_server_is_avoided_for_five_minutes() {
        let (a, b) = (Server::parse("a").unwrap(), Server::parse("b").unwrap());
        let mut servers = Servers::new(vec![a.clone(), b.clone()]);
        let start = Instant::now();
        servers.note(&a, false, start);
        assert_eq!(servers.pick(start).unwrap(), b);
        servers.note(&b, false, start + Duration::from_secs(1));
        assert_eq!(servers.pick(start + Duration::from_secs(2)).unwrap(), a);
        assert_eq!(servers.pick(start + Duration::from_secs(400)).unwrap(), a);
    }
}
