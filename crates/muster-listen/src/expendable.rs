//! Connections that are closed when a new one needs their place: unauthenticated ones that are not processing a request.
//! They are in their handshake, waiting for a request, or being closed.
//!
//! Anybody can open connections and stay silent. Such connections may use all free places, so that many agents can
//! connect at once, but they never prevent a client from connecting. When no place is free, a new connection takes the
//! place of an expendable one: the oldest from the address that has most of them. Clients from other addresses therefore
//! have the time for a handshake and a request.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::signal::CloseSignal;

/// Time for which a connection does not lose its place to another from the same address. When many agents connect from
/// one address at once, the last ones are rejected. Otherwise, each would interrupt the handshake of an earlier one.
const GRACE: Duration = Duration::from_secs(1);

/// The expendable connections of a listener.
#[derive(Debug, Default)]
pub(super) struct ExpendableConnections(Mutex<Networks>);

#[derive(Debug, Default)]
struct Networks {
    by_address: HashMap<IpAddr, BTreeMap<u64, Waiting>>,
    /// The addresses in the order in which they lose connections. The last one is next.
    ranking: BTreeSet<Rank>,
    next: u64,
}

/// Number of connections, number of the oldest connection, address.
type Rank = (usize, Reverse<u64>, IpAddr);

#[derive(Debug)]
struct Waiting {
    since: Instant,
    close: Arc<CloseSignal>,
}

/// The entry of an expendable connection. Dropped when the connection is not expendable any more, or has ended.
#[derive(Debug)]
pub(super) struct Expendable {
    connections: Arc<ExpendableConnections>,
    address: IpAddr,
    number: u64,
    close: Arc<CloseSignal>,
}

impl ExpendableConnections {
    /// Adds a connection from `address`.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Expendable {
        let close = Arc::new(CloseSignal::default());
        let waiting = Waiting { since: Instant::now(), close: Arc::clone(&close) };
        let number = self.networks().add(address, waiting);
        Expendable { connections: Arc::clone(self), address, number, close }
    }

    /// Closes an expendable connection, so that one from `address` can have its place. Returns false if there is none.
    pub fn make_room(&self, address: Option<IpAddr>) -> bool {
        let mut networks = self.networks();
        // The address with most connections, whoever asks: a flood from one address costs only this address.
        let Some(&(_, _, largest)) = networks.ranking.last() else { return false };
        networks.close_oldest(largest, if address == Some(largest) { GRACE } else { Duration::ZERO })
    }

    /// Closes an expendable connection from `address`, so that another from there can have its place. Returns false if
    /// there is none.
    pub fn make_room_within(&self, address: IpAddr) -> bool {
        self.networks().close_oldest(address, GRACE)
    }

    fn networks(&self) -> MutexGuard<'_, Networks> {
        // No change panics halfway, so that a poisoned state is still consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Networks {
    fn add(&mut self, address: IpAddr, waiting: Waiting) -> u64 {
        let number = self.next;
        self.next += 1;
        self.change(address, |connections| connections.insert(number, waiting));
        number
    }

    /// Closes the oldest connection from `address`, if it is at least `age` old.
    fn close_oldest(&mut self, address: IpAddr, age: Duration) -> bool {
        let oldest = self.by_address.get(&address).and_then(BTreeMap::first_key_value);
        let Some((&number, _)) = oldest.filter(|(_, waiting)| waiting.since.elapsed() >= age) else { return false };
        if let Some(waiting) = self.change(address, |connections| connections.remove(&number)) {
            waiting.close.set();
        }
        true
    }

    /// Changes the connections from `address`, and its rank with them.
    fn change<T>(&mut self, address: IpAddr, change: impl FnOnce(&mut BTreeMap<u64, Waiting>) -> T) -> T {
        let connections = self.by_address.entry(address).or_default();
        // The rank depends on the connections, so it is removed before the change and added after it.
        let before = rank(address, connections);
        let result = change(connections);
        let after = rank(address, connections);
        if let Some(before) = before {
            self.ranking.remove(&before);
        }
        match after {
            Some(after) => _ = self.ranking.insert(after),
            None => {
                self.by_address.remove(&address);
                // A map never shrinks automatically, and would keep its size after connections from many addresses.
                let few = self.by_address.len() * 4;
                if self.by_address.capacity() > few.max(1024) {
                    self.by_address.shrink_to(few);
                }
            }
        }
        result
    }
}

fn rank(address: IpAddr, connections: &BTreeMap<u64, Waiting>) -> Option<Rank> {
    let (oldest, _) = connections.first_key_value()?;
    Some((connections.len(), Reverse(*oldest), address))
}

impl Expendable {
    /// Ready if another connection has taken the place of this one, which must close.
    pub fn poll_displaced(&self, cx: &Context<'_>) -> Poll<()> {
        self.close.poll(cx)
    }

    /// Ends this entry. Returns false if another connection has already taken the place.
    #[must_use]
    pub fn keep_place(self) -> bool {
        self.leave().is_some()
    }

    fn leave(&self) -> Option<Waiting> {
        // Another connection may have taken the place at the same moment. Only one of the two finds the entry.
        self.connections.networks().change(self.address, |connections| connections.remove(&self.number))
    }
}

impl Drop for Expendable {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_displaced(expendable: &Expendable) -> bool {
        expendable.close.is_set()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_connection_of_the_address_with_most_of_them_is_closed() {
        let all = Arc::new(ExpendableConnections::default());
        assert!(!all.make_room(Some(address("192.0.2.9"))), "there is none");
        let few = all.enter(address("192.0.2.200"));
        let many: Vec<_> = (0..3).map(|_| all.enter(address("192.0.2.1"))).collect();
        assert!(all.make_room(Some(address("192.0.2.9"))));
        assert!(all.make_room(Some(address("192.0.2.9"))));
        assert_eq!(many.iter().map(is_displaced).collect::<Vec<_>>(), [true, true, false]);
        assert!(!is_displaced(&few));
        // Each address has one now: the oldest of all is closed.
        assert!(all.make_room(Some(address("192.0.2.9"))));
        assert!(is_displaced(&few) && !is_displaced(&many[2]));
        assert!(all.make_room(Some(address("192.0.2.9"))));
        assert!(!all.make_room(Some(address("192.0.2.9"))));
        assert!(many.into_iter().all(|expendable| !expendable.keep_place()));
        drop(few);
        assert!(all.networks().by_address.is_empty() && all.networks().ranking.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_does_not_interrupt_its_own_handshakes() {
        let all = Arc::new(ExpendableConnections::default());
        let first = all.enter(address("2001:db8::1"));
        assert!(!all.make_room(Some(address("2001:db8::1"))));
        assert!(!all.make_room_within(address("2001:db8::1")));
        assert!(!all.make_room_within(address("192.0.2.1")), "it has no connections");
        tokio::time::advance(GRACE).await;
        assert!(all.make_room_within(address("2001:db8::1")));
        assert!(is_displaced(&first));
    }

    #[tokio::test]
    async fn a_connection_that_has_sent_a_request_keeps_its_place() {
        let all = Arc::new(ExpendableConnections::default());
        let first = all.enter(address("192.0.2.1"));
        assert!(first.keep_place());
        assert!(!all.make_room(Some(address("192.0.2.2"))));
    }
}
