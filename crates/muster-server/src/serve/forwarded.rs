//! The client behind a reverse proxy.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use muster_listen::reply::Peer;

use crate::config::network::Network;

const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";

/// Replaces the address of a peer that is a trusted proxy by that of its client.
///
/// Each proxy appends the address from which it was asked. The list is read from its end, as far as the addresses are those of
/// trusted proxies: whatever precedes the first other address was written by a client.
pub(super) fn resolve(peer: &mut Peer, headers: &HeaderMap, trusted: &[Network]) {
    let is_trusted = |ip| trusted.iter().any(|network| network.contains(ip));
    let Some(address) = peer.address.as_mut().filter(|address| is_trusted(address.ip())) else { return };
    let lines = headers.get_all(FOR).iter().rev();
    for hop in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        // What precedes an unreadable address must not be believed, either.
        let Some(ip) = address_of(hop) else { break };
        address.set_ip(ip);
        if !is_trusted(ip) {
            break;
        }
    }
    peer.tls |= headers.get(PROTO).is_some_and(|scheme| scheme == "https");
}

/// Parses an address, which some proxies write with a port or in brackets.
fn address_of(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let ip: Option<IpAddr> = text.parse().ok().or_else(with_port).or_else(bare);
    ip.map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use muster_listen::reply::ListenerKind;

    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let trusted = ["127.0.0.1", "10.0.0.0/24"].map(|text| text.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let mut peer = Peer { address: Some(peer.parse().unwrap()), ..Peer::new(ListenerKind::Admin) };
        resolve(&mut peer, &headers, &trusted);
        peer.address.unwrap().ip().to_string()
    }

    #[test]
    fn the_last_address_that_a_trusted_proxy_added_is_the_client() {
        for (peer, lines, expected) in [
            ("127.0.0.1:1", &["192.0.2.1"][..], "192.0.2.1"),
            ("127.0.0.1:1", &["192.0.2.9, 192.0.2.1"], "192.0.2.1"),
            ("127.0.0.1:1", &["192.0.2.9,192.0.2.1 , 10.0.0.7"], "192.0.2.1"),
            ("127.0.0.1:1", &["192.0.2.1", "10.0.0.7"], "192.0.2.1"),
            ("127.0.0.1:1", &["nonsense, 10.0.0.7"], "10.0.0.7"),
            ("127.0.0.1:1", &["2001:db8::1"], "2001:db8::1"),
            ("127.0.0.1:1", &[], "127.0.0.1"),
            ("127.0.0.1:1", &["unknown"], "127.0.0.1"),
            ("127.0.0.1:1", &["6.6.6.6", "\u{e9}, 192.0.2.77"], "192.0.2.77"),
            ("127.0.0.1:1", &["6.6.6.6", "192.0.2.77\u{e9}"], "127.0.0.1"),
            ("127.0.0.1:1", &["192.0.2.77:5555"], "192.0.2.77"),
            ("127.0.0.1:1", &["[2001:db8::1]"], "2001:db8::1"),
            ("127.0.0.1:1", &["[2001:db8::1]:5555"], "2001:db8::1"),
            ("127.0.0.1:1", &["::ffff:192.0.2.1"], "192.0.2.1"),
            ("192.0.2.5:1", &["192.0.2.1"], "192.0.2.5"),
        ] {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_tells_that_the_client_used_tls() {
        for (peer, expected) in [("127.0.0.1:1", true), ("192.0.2.5:1", false)] {
            let headers = [(PROTO.parse().unwrap(), HeaderValue::from_static("https"))].into_iter().collect();
            let mut peer = Peer { address: Some(peer.parse().unwrap()), ..Peer::new(ListenerKind::Admin) };
            resolve(&mut peer, &headers, &["127.0.0.1".parse().unwrap()]);
            assert_eq!(peer.tls, expected);
        }
    }
}
