//! Names and addresses at which agents can reach this host.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// Maximum number of addresses in a certificate. Hosts with many containers can have thousands.
const MAX_ADDRESSES: usize = 64;

/// Returns the name of this host, if it is a valid DNS name.
pub fn name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    is_dns_name(&name).then_some(name)
}

/// Returns the names that the server's own certificate must cover: the names and addresses of this host, and the hosts
/// of the external URLs.
pub fn certificate_names(external_urls: &[String]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["localhost".to_owned()].into();
    names.extend(name());
    names.extend(external_urls.iter().filter_map(|url| url_host(url)));
    names.extend(addresses().into_iter().map(|address| address.to_string()));
    names
}

/// Returns the host of `https://HOST:PORT`; an IPv6 address without its brackets.
pub fn url_host(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn is_dns_name(name: &str) -> bool {
    let part = |label: &str| {
        !label.is_empty() && label.len() < 64 && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    name.len() < 254 && name.split('.').all(part)
}

fn addresses() -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    for address in interfaces.filter_map(|interface| interface.address.as_ref().and_then(ip)) {
        if found.len() < MAX_ADDRESSES && !found.contains(&address) && is_reachable(address) {
            found.push(address);
        }
    }
    found
}

fn ip(storage: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// Returns whether agents can use the address. Link-local addresses require a zone, which the URLs of agents do not
/// contain.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_urls_and_loopback_are_named() {
        let names = certificate_names(&["https://fleet.example:8220".into(), "https://[2001:db8::1]:8220".into()]);
        for name in ["localhost", "127.0.0.1", "::1", "fleet.example", "2001:db8::1"] {
            assert!(names.contains(name), "{name} is missing in {names:?}");
        }
    }

    #[test]
    fn invalid_host_names_are_omitted() {
        assert!(is_dns_name("web-1.example"));
        assert!(!is_dns_name("") && !is_dns_name("a..b") && !is_dns_name("a b") && !is_dns_name(&"x".repeat(300)));
    }
}
