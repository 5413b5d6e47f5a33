//! Addresses of the network interfaces.

use sysinfo::Networks;

/// Returns IP addresses with prefix (`10.0.0.5/24`) and hardware addresses. Both are sorted, so that check-ins of an
/// unchanged host do not differ.
pub fn addresses() -> (Vec<String>, Vec<String>) {
    let (mut ip, mut mac) = (Vec::new(), Vec::new());
    let Ok(networks) = Networks::new_with_refreshed_list() else { return (ip, mac) };
    for data in networks.values() {
        ip.extend(data.ip_networks().iter().map(|network| format!("{}/{}", network.addr, network.prefix)));
        // Loopback interfaces and tunnels have no hardware address.
        if !data.mac_address().is_unspecified() {
            mac.push(data.mac_address().to_string());
        }
    }
    for list in [&mut ip, &mut mac] {
        list.sort_unstable();
        list.dedup();
    }
    (ip, mac)
}
