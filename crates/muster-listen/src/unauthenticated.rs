//! Limits on unauthenticated connections: on their number per address, and on how many may be idle.
//!
//! Without them, anybody could use up all connections of the listener by opening sockets. Each address can have
//! unauthenticated connections for at most half of all connections. Only a few unauthenticated connections
//! ([`UnauthenticatedLimit::new`]) may stay open before their first request or between requests. Others are closed
//! after the response. When a limit is reached, a new connection takes the place of one that is not processing a request
//! ([`super::expendable`]).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::concurrency_limit::{ConcurrencyLimit, Pass};
use super::expendable::{Expendable, ExpendableConnections};

/// Number of unauthenticated connections that may be idle on a listener: one sixteenth of all connections, within these
/// limits. The minimum is sufficient for the spare connections and health checks of a load balancer.
const FEWEST_IDLE: usize = 16;
const MOST_IDLE: usize = 1024;
const IDLE_SHARE: usize = 16;

/// Counts the unauthenticated connections of a listener.
#[derive(Debug)]
pub struct UnauthenticatedLimit {
    per_address: usize,
    idle: Arc<ConcurrencyLimit>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    expendable: Arc<ExpendableConnections>,
}

/// The slot of an unauthenticated connection. Dropped when the connection authenticates or ends.
#[derive(Debug)]
pub struct UnauthenticatedSlot {
    limit: Arc<UnauthenticatedLimit>,
    address: Option<IpAddr>,
    /// Permission to be idle.
    idle: Option<Pass>,
    /// Set while the connection is not processing a request.
    waiting: Option<Expendable>,
}

impl UnauthenticatedLimit {
    /// Creates the limits for a listener with at most `connections` open connections.
    pub fn new(connections: usize) -> Arc<Self> {
        let idle = (connections / IDLE_SHARE).clamp(FEWEST_IDLE, MOST_IDLE);
        // Not less than half, because a whole fleet behind NAT or a proxy reconnects from one address.
        Arc::new(Self {
            per_address: connections.div_ceil(2),
            idle: ConcurrencyLimit::new(idle),
            by_address: Mutex::default(),
            expendable: Arc::default(),
        })
    }

    /// Admits a connection from `address`. Returns `None` if the address has too many unauthenticated connections.
    pub fn admit(self: &Arc<Self>, address: Option<SocketAddr>) -> Option<UnauthenticatedSlot> {
        // Connections without an address come from the Unix socket or a test, and are not counted.
        let address = address.map(|address| network(address.ip()));
        if let Some(address) = address {
            let mut by_address = self.by_address();
            let count = by_address.entry(address).or_default();
            // At the limit, a connection that does nothing makes room. Only if all are busy is the new one rejected.
            if *count >= self.per_address && !self.expendable.make_room_within(address) {
                return None;
            }
            *count += 1;
        }
        Some(UnauthenticatedSlot { limit: Arc::clone(self), address, idle: self.idle.enter(), waiting: None })
    }

    /// Closes a connection that is not processing a request, so that one from `address` can have its place. Returns
    /// false if there is none.
    pub fn make_room(&self, address: Option<SocketAddr>) -> bool {
        self.expendable.make_room(address.map(|address| network(address.ip())))
    }

    /// Returns the number of unauthenticated connections that may be idle.
    pub fn idle(&self) -> usize {
        self.idle.inside()
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Each change is a single step, so that a poisoned map is still consistent.
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnauthenticatedSlot {
    /// Returns whether the connection may stay open between requests. This is decided when it is admitted. The first
    /// connections keep the permission until they authenticate or end.
    pub fn may_idle(&self) -> bool {
        self.idle.is_some()
    }

    /// Records that the connection is not processing a request. Another one may take its place.
    pub fn waits(&mut self) {
        if self.waiting.is_none()
            && let Some(address) = self.address
        {
            self.waiting = Some(self.limit.expendable.enter(address));
        }
    }

    /// Records that the connection has sent a request. Returns false if another one has already taken its place.
    #[must_use]
    pub fn keep_place(&mut self) -> bool {
        self.waiting.take().is_none_or(Expendable::keep_place)
    }

    /// Ready if another connection has taken the place of this one, which must close.
    pub fn poll_displaced(&self, cx: &Context<'_>) -> Poll<()> {
        self.waiting.as_ref().map_or(Poll::Pending, |waiting| waiting.poll_displaced(cx))
    }
}

impl Drop for UnauthenticatedSlot {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut by_address = self.limit.by_address();
        let Some(count) = by_address.get_mut(&address) else { return };
        *count -= 1;
        if *count == 0 {
            by_address.remove(&address);
            // A map never shrinks automatically, and would keep its size after connections from many addresses.
            let few = by_address.len() * 4;
            if by_address.capacity() > few.max(1024) {
                by_address.shrink_to(few);
            }
        }
    }
}

/// Returns the address that is counted. For IPv6, this is the /64 prefix, because a single host can use all addresses
/// in it.
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
    fn one_address_gets_half_of_the_unauthenticated_connections() {
        let limit = UnauthenticatedLimit::new(5);
        let first: Vec<_> = (0..3).map(|_| limit.admit(from("192.0.2.1")).unwrap()).collect();
        assert!(limit.admit(from("192.0.2.1")).is_none());
        assert!(limit.admit(from("::ffff:192.0.2.1")).is_none(), "the same address in another form");
        assert!(limit.admit(from("192.0.2.2")).is_some());
        drop(first);
        assert!(limit.admit(from("192.0.2.1")).is_some());
        assert!(limit.by_address().is_empty(), "an address without connections is forgotten");
    }

    #[test]
    fn an_ipv6_host_is_counted_by_its_network() {
        let limit = UnauthenticatedLimit::new(1);
        let _first = limit.admit(from("2001:db8::1")).unwrap();
        assert!(limit.admit(from("2001:db8::ffff:2")).is_none());
        assert!(limit.admit(from("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn the_number_of_idle_connections_is_limited() {
        let limit = UnauthenticatedLimit::new(200);
        let all: Vec<_> = (0..100).map(|_| limit.admit(from("192.0.2.1")).unwrap()).collect();
        assert_eq!(all.iter().filter(|slot| slot.may_idle()).count(), FEWEST_IDLE);
        drop(all);
        assert_eq!(limit.idle(), 0);
        assert!(limit.admit(None).unwrap().may_idle());
    }
}
