//! Which addresses may be connected to.
//!
//! Whoever may create receivers could otherwise reach services of the server's own host, or the metadata service of a cloud,
//! which hands out credentials. The address is checked after its name was resolved, and the connection is made to the address
//! that was checked: another answer of the name server a moment later has no effect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use muster_fleet::alerts::sender::SendError;

/// Whether receivers may have addresses of this host, link-local ones, or those of metadata services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalTargets {
    /// They may not.
    #[default]
    Refused,
    /// They may.
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

impl LocalTargets {
    /// Resolves a name, and returns the addresses that may be connected to, of which there is at least one.
    pub(crate) async fn resolve(self, host: &str, port: u16) -> Result<Vec<SocketAddr>, SendError> {
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((plain, port)).await;
        let found = found.map_err(|error| SendError::Failed(format!("cannot resolve {plain}: {error}")))?;
        let all: Vec<SocketAddr> = found.collect();
        let may = |ip: IpAddr| self == Self::Permitted || !(is_local(ip) || is_own(ip));
        let allowed: Vec<SocketAddr> = all.iter().copied().filter(|address| may(address.ip())).collect();
        match (allowed.is_empty(), all.first()) {
            (false, _) => Ok(allowed),
            (true, None) => Err(SendError::Failed(format!("{plain} has no address"))),
            (true, Some(address)) => Err(SendError::NotPermitted(format!(
                "{plain} is {}, a local address; `alerts.allow_local_targets` of the server permits it",
                address.ip()
            ))),
        }
    }
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

/// Returns whether an address is one of this host, a link-local one, that of a metadata service, or of no single host.
fn is_local(ip: IpAddr) -> bool {
    if METADATA.contains(&ip) {
        return true;
    }
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_link_local() || ip.is_broadcast() || ip.is_multicast() || ip.octets()[0] == 0
        }
        IpAddr::V6(ip) => match embedded(ip) {
            Some(inner) => is_local(IpAddr::V4(inner)),
            None => ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local(),
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
        for local in [
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
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "192.0.2.1", "2001:db8::1", "fd00::1", "64:ff9b::a00:1"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_host_is_refused_unless_it_is_permitted() {
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            let refused = LocalTargets::Refused.resolve(host, 443).await.unwrap_err();
            assert!(matches!(refused, SendError::NotPermitted(_)), "{host}: {refused}");
        }
        let address = LocalTargets::Permitted.resolve("127.0.0.1", 443).await.unwrap();
        assert_eq!(address, ["127.0.0.1:443".parse().unwrap()]);
    }

    #[test]
    fn addresses_of_interfaces_are_own_and_others_are_not() {
        assert!(is_own("127.0.0.1".parse().unwrap()) && is_local("168.63.129.16".parse().unwrap()));
        assert!(!is_own("192.0.2.77".parse().unwrap()) && !is_own("2001:db8::77".parse().unwrap()));
        // The source address of the way out is one of an interface.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.77:9").is_ok() {
            assert!(is_own(socket.local_addr().unwrap().ip()));
        }
    }
}
