//! IP networks.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// An IP network, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Returns whether an address belongs to the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        // An IPv4 address can arrive as an IPv6 one: `::ffff:10.0.0.1`.
        self.0.contains(&ip.to_canonical())
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical())));
        network.map(Self).map_err(|_| format!("{text:?} is neither an IP address nor a network such as 10.0.0.0/24"))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            return self.0.addr().fmt(f);
        }
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_the_addresses_with_its_prefix() {
        let contains = |network: &str, ip: &str| network.parse::<Network>().unwrap().contains(ip.parse().unwrap());
        for (network, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.7", "10.2.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.3", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("::1", "::1", "127.0.0.1"),
            ("::ffff:127.0.0.1", "127.0.0.1", "::1"),
        ] {
            assert!(contains(network, inside) && !contains(network, outside), "{network}");
        }
        assert!(contains("0.0.0.0/0", "203.0.113.9") && contains("::/0", "2001:db8::1"));
        for bad in ["proxy", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", ""] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        assert_eq!("10.0.0.0/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
        assert_eq!("::1/128".parse::<Network>().unwrap().to_string(), "::1");
    }
}
