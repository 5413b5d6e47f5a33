//! Which hosts requests to the management listener may be addressed to.
//!
//! A page in somebody's browser can give its own name this host's address and then read what it likes from a listener on
//! a loopback address. The browser still sends the page's name as `Host`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use tokio::sync::watch;

use crate::tls::host::url_host;

/// Names that are ours.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    names: BTreeSet<String>,
    /// The fleet's URLs, which change while the server runs.
    urls: watch::Receiver<Vec<String>>,
}

impl Hosts {
    /// This host's own names, these, and the hosts of `urls`.
    pub fn new(names: impl IntoIterator<Item = String>, urls: watch::Receiver<Vec<String>>) -> Self {
        let own = ["localhost".to_owned()].into_iter();
        Self { names: own.chain(names).map(|name| plain(&name)).collect(), urls }
    }

    fn is_own(&self, host: &str) -> bool {
        let of_fleet = || self.urls.borrow().iter().filter_map(|url| url_host(url)).any(|own| plain(&own) == *host);
        self.names.contains(host) || is_address(host) || of_fleet()
    }

    /// The host of a request, if it is not one of ours. A request without a host, which HTTP/1.0 allows, comes from no
    /// browser.
    pub fn foreign(&self, request: &Parts) -> Option<String> {
        let header = || request.headers.get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
        let authority = request.uri.authority().cloned().or_else(header);
        let Some(authority) = authority else {
            let unreadable = request.headers.get(HOST)?;
            return Some(String::from_utf8_lossy(unreadable.as_bytes()).into_owned());
        };
        let host = plain(authority.host());
        (!self.is_own(&host)).then_some(host)
    }
}

/// An address is nobody's name: no page can claim it.
fn is_address(host: &str) -> bool {
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(uri: &str, host: Option<&str>) -> Option<String> {
        let urls = watch::Sender::new(vec!["https://Fleet.example:8220".to_owned()]);
        let hosts = Hosts::new(["web-1".to_owned()], urls.subscribe());
        let builder = http::Request::get(uri);
        let request = host.into_iter().fold(builder, |builder, host| builder.header(HOST, host)).body(()).unwrap();
        hosts.foreign(&request.into_parts().0)
    }

    #[test]
    fn own_names_and_addresses_are_accepted() {
        for host in [
            "localhost",
            "localhost:8230",
            "LOCALHOST.:8230",
            "fleet.example",
            "FLEET.EXAMPLE:443",
            "web-1:8230",
            "127.0.0.1:8230",
            "192.0.2.7",
            "[::1]:8230",
        ] {
            assert_eq!(foreign("/metrics", Some(host)), None, "{host}");
        }
        assert_eq!(foreign("/metrics", None), None);
    }

    #[test]
    fn other_names_are_rejected() {
        for host in
            ["evil.example", "localhost.evil.example:8230", "fleet.example.evil", "127.0.0.1.evil.example", "web-10"]
        {
            assert!(foreign("/metrics", Some(host)).is_some(), "{host}");
        }
        assert_eq!(foreign("/metrics", Some("a b")).as_deref(), Some("a b"));
        assert_eq!(foreign("/metrics", Some("")).as_deref(), Some(""));
        // The request line's host counts, not the header's (RFC 9112 3.2.2).
        assert!(foreign("http://evil.example/metrics", Some("localhost")).is_some());
        assert_eq!(foreign("http://localhost/metrics", Some("evil.example")), None);
    }
}
