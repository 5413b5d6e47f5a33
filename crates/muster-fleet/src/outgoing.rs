//! Which addresses the server may connect to for its users: for alerts, and to issue the keys of outputs.
//!
//! Whoever may create a receiver or an output could otherwise reach services of the server's own host, or the metadata service
//! of a cloud, which hands out credentials. The address is checked after its name was resolved, and the connection is made to
//! the address that was checked: another answer of the name server a moment later has no effect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Whether the server connects to addresses of its own host, to link-local ones, and to those of metadata services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalTargets {
    /// It does not.
    #[default]
    Refused,
    /// It does.
    Permitted,
}

/// Addresses of metadata services outside of the link-local range.
const METADATA: [IpAddr; 5] = [
    // Azure's wire server.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Why a name has no address that may be connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The address is not permitted.
    #[error("{0}")]
    NotPermitted(String),
    /// The name cannot be resolved.
    #[error("{0}")]
    Failed(String),
}

impl LocalTargets {
    /// Rejects an address that may not be connected to, and `localhost`. Other names are checked when they are resolved.
    pub fn check_literal(self, host: &str) -> Result<(), ResolveError> {
        let plain = plain(host);
        // A trailing dot and another case are the same name to a resolver.
        let name = plain.trim_end_matches('.').to_ascii_lowercase();
        if self == Self::Refused && (name == "localhost" || name.ends_with(".localhost")) {
            return Err(not_permitted(plain, None, LOOPBACK));
        }
        match plain.parse() {
            Ok(ip) => self.check(plain, ip),
            Err(_) => Ok(()),
        }
    }

    /// Resolves a name, and returns the addresses that may be connected to, of which there is at least one.
    pub async fn resolve(self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let plain = plain(host);
        let found = tokio::net::lookup_host((plain, port)).await;
        let found = found.map_err(|error| ResolveError::Failed(format!("cannot resolve {plain}: {error}")))?;
        let mut refused = ResolveError::Failed(format!("{plain} has no address"));
        let mut allowed = Vec::new();
        for address in found {
            // Each address is judged on its own: a name with a permitted address and a refused one is usable through
            // the first.
            match self.check(plain, address.ip()) {
                Ok(()) => allowed.push(address),
                Err(error) => refused = error,
            }
        }
        if allowed.is_empty() { Err(refused) } else { Ok(allowed) }
    }

    fn check(self, host: &str, ip: IpAddr) -> Result<(), ResolveError> {
        // Asked last, because it needs a socket.
        let own = || is_own(ip).then_some("an address of the server's own host");
        let found = if self == Self::Permitted { None } else { local(ip).or_else(own) };
        found.map_or(Ok(()), |kind| Err(not_permitted(host, Some(ip), kind)))
    }
}

fn plain(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn not_permitted(host: &str, ip: Option<IpAddr>, kind: &str) -> ResolveError {
    let resolved = ip.filter(|ip| host.parse() != Ok(*ip)).map(|ip| format!("resolves to {ip}, "));
    let is = resolved.unwrap_or_else(|| "is ".to_owned());
    ResolveError::NotPermitted(format!(
        "{host} {is}{kind}; to permit it, set `outgoing.allow_local_targets` on the server"
    ))
}

/// Returns whether an address is one of this host's interfaces. Connecting a UDP socket sends nothing; it chooses the source
/// address, which for destinations on this host is the destination itself.
fn is_own(ip: IpAddr) -> bool {
    let any = if ip.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let source = || {
        let socket = UdpSocket::bind((any, 0))?;
        // Any port will do.
        socket.connect((ip, 9))?;
        socket.local_addr()
    };
    source().is_ok_and(|source| source.ip() == ip)
}

const LOOPBACK: &str = "a loopback address";
const LINK_LOCAL: &str = "a link-local address";
const NO_HOST: &str = "not the address of a host";

/// Returns what an address is if it is one of this host, a link-local one, that of a metadata service, or of no single host.
fn local(ip: IpAddr) -> Option<&'static str> {
    if METADATA.contains(&ip) {
        // Before the ranges: some of these addresses look like ordinary ones.
        return Some("the address of a metadata service");
    }
    match ip {
        IpAddr::V4(ip) if ip.is_loopback() => Some(LOOPBACK),
        IpAddr::V4(ip) if ip.is_link_local() => Some(LINK_LOCAL),
        IpAddr::V4(ip) => (ip.is_broadcast() || ip.is_multicast() || ip.octets()[0] == 0).then_some(NO_HOST),
        IpAddr::V6(ip) => match embedded(ip) {
            // The address inside is where the packets end up.
            Some(inner) => local(IpAddr::V4(inner)),
            None if ip.is_loopback() => Some(LOOPBACK),
            None if ip.is_unicast_link_local() => Some(LINK_LOCAL),
            None => (ip.is_unspecified() || ip.is_multicast()).then_some(NO_HOST),
        },
    }
}

/// Returns the IPv4 address in a mapped (`::ffff:0:0/96`), compatible, NAT64 (`64:ff9b::/96`) or 6to4 (`2002::/16`) address.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let pair = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => Some(pair(g, h)),
        // Not `::` and `::1`, which are addresses of their own.
        [0, 0, 0, 0, 0, 0] if (g, h) > (0, 1) => Some(pair(g, h)),
        [0x2002, high, low, ..] => Some(pair(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_host_links_and_metadata_services_are_local_in_every_spelling() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "255.255.255.255",
            "224.0.0.1",
            "100.100.100.200",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(local(text.parse().unwrap()).is_some(), "{text}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "192.0.2.1", "2001:db8::1", "fd00::1", "64:ff9b::a00:1"] {
            assert!(local(other.parse().unwrap()).is_none(), "{other}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_host_is_refused_unless_it_is_permitted() {
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            let refused = LocalTargets::Refused.resolve(host, 443).await.unwrap_err();
            assert!(
                refused.to_string().contains("a loopback address; to permit it, set `outgoing.allow_local_targets`"),
                "{host}: {refused}"
            );
            assert!(
                LocalTargets::Refused.check_literal(host).is_err()
                    && LocalTargets::Permitted.check_literal(host).is_ok()
            );
        }
        let address = LocalTargets::Permitted.resolve("127.0.0.1", 443).await.unwrap();
        assert_eq!(address, ["127.0.0.1:443".parse().unwrap()]);
        let said = LocalTargets::Refused.check_literal("169.254.169.254").unwrap_err().to_string();
        assert!(said.starts_with("169.254.169.254 is a link-local address; "), "{said}");
        LocalTargets::Refused.check_literal("es.example.com").unwrap();
    }

    #[test]
    fn addresses_of_interfaces_are_own_and_others_are_not() {
        assert!(is_own("127.0.0.1".parse().unwrap()) && local("168.63.129.16".parse().unwrap()).is_some());
        assert!(!is_own("192.0.2.77".parse().unwrap()) && !is_own("2001:db8::77".parse().unwrap()));
        // The source address of the way out is one of an interface.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.77:9").is_ok() {
            assert!(is_own(socket.local_addr().unwrap().ip()));
        }
    }
}
