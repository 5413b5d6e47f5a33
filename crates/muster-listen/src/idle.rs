//! Limits the idle connections of each key. If a key has too many, the oldest one is closed.
//!
//! An authenticated connection does not count towards the limit on unauthenticated ones ([`super::unauthenticated`]).
//! Without this limit, a single key could therefore use up all connections. Only connections without a request count,
//! because requests and held polls have their own limits.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::signal::CloseSignal;

/// Maximum number of idle connections of a key. An agent needs one for check-ins and one or two for acks and files.
const MOST: usize = 4;
const SHARDS: usize = 16;

type Shard = Mutex<HashMap<Arc<str>, Arc<Connections>>>;

/// The connections of each key on one listener.
#[derive(Debug, Default)]
pub struct IdleConnections {
    shards: [Shard; SHARDS],
    hasher: RandomState,
}

/// The connections of one key.
#[derive(Debug, Default)]
struct Connections {
    /// Number of `entries`, which can be read without the lock. It is read for each request, and most keys have only one
    /// or two connections.
    number: AtomicUsize,
    /// Oldest first.
    entries: Mutex<Vec<Arc<Entry>>>,
}

/// The entry of a connection among those of its key. Exists until the connection ends.
#[derive(Debug)]
pub struct IdlePlace {
    idle: Arc<IdleConnections>,
    key: Arc<str>,
    siblings: Arc<Connections>,
    entry: Arc<Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Whether the connection is waiting for a request.
    is_idle: AtomicBool,
    close: CloseSignal,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is a single step, so that a poisoned state is still consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl IdleConnections {
    fn shard(&self, key: &str) -> &Shard {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Adds a connection of `key`, which does not count until it is idle.
    pub fn enter(self: &Arc<Self>, key: Arc<str>) -> IdlePlace {
        let entry = Arc::new(Entry::default());
        let mut shard = lock(self.shard(&key));
        let siblings = Arc::clone(shard.entry(Arc::clone(&key)).or_default());
        // The lock of the shard is held, because the last connection of the key could otherwise remove the entry in
        // between.
        lock(&siblings.entries).push(Arc::clone(&entry));
        siblings.number.fetch_add(1, Ordering::AcqRel);
        drop(shard);
        IdlePlace { idle: Arc::clone(self), key, siblings, entry }
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}

impl Connections {
    /// Closes the oldest idle connection if there are too many.
    fn make_room(&self) {
        if self.number.load(Ordering::Acquire) <= MOST {
            return;
        }
        let oldest = {
            let entries = lock(&self.entries);
            let mut idle = entries.iter().filter(|entry| entry.is_waiting());
            let oldest = idle.next().cloned();
            (idle.count() >= MOST).then_some(oldest).flatten()
        };
        if let Some(oldest) = oldest {
            oldest.close.set();
        }
    }
}

impl Entry {
    /// Returns whether the connection is idle and was not told to close.
    fn is_waiting(&self) -> bool {
        self.is_idle.load(Ordering::Acquire) && !self.close.is_set()
    }
}

impl IdlePlace {
    /// Records that a request has arrived. The connection does not count until it is idle again.
    pub fn is_busy(&self) {
        self.entry.is_idle.store(false, Ordering::Release);
    }

    /// Ready if the connection is idle and must close, because its key has too many idle connections.
    pub fn poll_surplus(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.entry.is_idle.swap(true, Ordering::AcqRel) {
            self.siblings.make_room();
        }
        self.entry.close.poll(cx)
    }
}

impl Drop for IdlePlace {
    fn drop(&mut self) {
        let mut shard = lock(self.idle.shard(&self.key));
        let is_last = {
            let mut entries = lock(&self.siblings.entries);
            entries.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
            self.siblings.number.store(entries.len(), Ordering::Release);
            entries.is_empty()
        };
        if is_last {
            shard.remove(&self.key);
            // Otherwise, the map would keep its size after a burst of connections.
            let few = shard.len() * 4;
            if shard.capacity() > few.max(1024) {
                shard.shrink_to(few);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn is_surplus(place: &IdlePlace) -> bool {
        place.poll_surplus(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_connection_of_a_key_is_closed_and_its_entry_removed() {
        let idle = Arc::new(IdleConnections::default());
        let other = idle.enter("other".into());
        let mut places: Vec<_> = (0..=MOST).map(|_| idle.enter("key".into())).collect();
        assert!(!places.iter().take(MOST).any(is_surplus));
        assert!(!is_surplus(&places[MOST]), "the youngest stays");
        let surplus: Vec<bool> = places.iter().map(is_surplus).collect();
        assert_eq!(surplus, [true, false, false, false, false]);
        assert!(!is_surplus(&other));
        drop(places.remove(0));
        drop(places.pop());
        places.push(idle.enter("key".into()));
        assert!(!places.iter().any(is_surplus), "a connection that left has given its place back");
        places[0].is_busy();
        let further = idle.enter("key".into());
        assert!(!is_surplus(&further) && !places.iter().skip(1).any(is_surplus), "a busy one does not count");
        drop((places, other, further));
        assert_eq!(idle.keys(), 0);
    }
}
