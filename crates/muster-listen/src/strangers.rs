//! Connections that have not authenticated yet: bounded by address, and only a few may idle.
//!
//! A place that an authenticated agent holds is well spent; one that anybody holds by opening a connection is not. So
//! one address never takes more than half of the places before it authenticates, and of all such connections only a
//! few ([`Strangers::new`]) may stay open between requests or before their first one. The others are served, and
//! closed after the response.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::gate::{Gate, Pass};

/// Fewest and most unauthenticated connections that may idle on a listener, and their share of all places.
const FEWEST_IDLE: usize = 16;
const MOST_IDLE: usize = 1024;
const IDLE_SHARE: usize = 16;

/// The unauthenticated connections of one listener.
#[derive(Debug)]
pub struct Strangers {
    per_address: usize,
    idle: Arc<Gate>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that has not authenticated. Dropped when it does, or when it ends.
#[derive(Debug)]
pub struct Stranger {
    strangers: Arc<Strangers>,
    address: Option<IpAddr>,
    /// Its right to idle.
    idle: Option<Pass>,
}

impl Strangers {
    /// For a listener with so many places for connections.
    pub fn new(places: usize) -> Arc<Self> {
        let idle = (places / IDLE_SHARE).clamp(FEWEST_IDLE, MOST_IDLE);
        Arc::new(Self { per_address: places.div_ceil(2), idle: Gate::new(idle), by_address: Mutex::default() })
    }

    /// Admits a connection from `address`; `None` when that address has too many that have not authenticated.
    pub fn admit(self: &Arc<Self>, address: Option<SocketAddr>) -> Option<Stranger> {
        let address = address.map(|address| network(address.ip()));
        if let Some(address) = address {
            let mut by_address = self.by_address();
            let count = by_address.entry(address).or_default();
            if *count >= self.per_address {
                return None;
            }
            *count += 1;
        }
        Some(Stranger { strangers: Arc::clone(self), address, idle: self.idle.enter() })
    }

    /// How many have the right to idle.
    pub fn idle(&self) -> usize {
        self.idle.inside()
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // A count is changed in one step, so a poisoned map is still whole.
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Whether the connection may stay open without a request.
    pub fn may_idle(&self) -> bool {
        self.idle.is_some()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut by_address = self.strangers.by_address();
        let Some(count) = by_address.get_mut(&address) else { return };
        *count -= 1;
        if *count == 0 {
            by_address.remove(&address);
            // After a storm of addresses the map would keep its size for ever.
            let few = by_address.len() * 4;
            if by_address.capacity() > few.max(1024) {
                by_address.shrink_to(few);
            }
        }
    }
}

/// The address, or for IPv6 its /64: one host has all addresses of that.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(text.parse().unwrap(), 1))
    }

    #[test]
    fn one_address_takes_half_of_the_places_and_leaves_them_when_it_authenticates() {
        let strangers = Strangers::new(5);
        let first: Vec<_> = (0..3).map(|_| strangers.admit(from("192.0.2.1")).unwrap()).collect();
        assert!(strangers.admit(from("192.0.2.1")).is_none());
        assert!(strangers.admit(from("::ffff:192.0.2.1")).is_none(), "the same address in another form");
        assert!(strangers.admit(from("192.0.2.2")).is_some());
        drop(first);
        assert!(strangers.admit(from("192.0.2.1")).is_some());
        assert!(strangers.by_address().is_empty(), "nothing is kept of who left");
    }

    #[test]
    fn an_ipv6_host_is_counted_by_its_network() {
        let strangers = Strangers::new(1);
        let _first = strangers.admit(from("2001:db8::1")).unwrap();
        assert!(strangers.admit(from("2001:db8::ffff:2")).is_none());
        assert!(strangers.admit(from("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn a_few_may_idle() {
        let strangers = Strangers::new(200);
        let all: Vec<_> = (0..100).map(|_| strangers.admit(from("192.0.2.1")).unwrap()).collect();
        assert_eq!(all.iter().filter(|stranger| stranger.may_idle()).count(), FEWEST_IDLE);
        drop(all);
        assert_eq!(strangers.idle(), 0);
        assert!(strangers.admit(None).unwrap().may_idle());
    }
}
