//! Idle connections of one key: a few may stay open, and one more closes the oldest of them.
//!
//! A client that authenticated no longer has one of the few places of the unauthenticated ([`super::unauthenticated`]).
//! Without this bound, one agent's key could hold all others. Only connections without a request count: requests and
//! held polls have bounds of their own.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Idle connections of one key. An agent needs one for its check-ins and one or two for acks and files.
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
    /// Number of `doors`, to be read without their lock: most keys have one or two connections, and each request asks.
    number: AtomicUsize,
    /// Oldest first.
    doors: Mutex<Vec<Arc<Door>>>,
}

/// A connection's place among those of its key, until the connection ends.
#[derive(Debug)]
pub struct IdlePlace {
    idle: Arc<IdleConnections>,
    key: Arc<str>,
    siblings: Arc<Connections>,
    door: Arc<Door>,
}

/// How an idle connection learns that it must close.
#[derive(Debug, Default)]
struct Door {
    /// Whether the connection waits for a request.
    is_idle: AtomicBool,
    is_shown: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one step, so what a panic leaves behind is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl IdleConnections {
    fn shard(&self, key: &str) -> &Shard {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// A place for a connection of `key`, which does not count until it is idle.
    pub fn enter(self: &Arc<Self>, key: Arc<str>) -> IdlePlace {
        let door = Arc::new(Door::default());
        let mut shard = lock(self.shard(&key));
        let siblings = Arc::clone(shard.entry(Arc::clone(&key)).or_default());
        // Under the lock of the shard: otherwise the last connection to leave could remove the entry in between.
        lock(&siblings.doors).push(Arc::clone(&door));
        siblings.number.fetch_add(1, Ordering::AcqRel);
        drop(shard);
        IdlePlace { idle: Arc::clone(self), key, siblings, door }
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
            let doors = lock(&self.doors);
            let mut idle = doors.iter().filter(|door| door.waits());
            let oldest = idle.next().cloned();
            (idle.count() >= MOST).then_some(oldest).flatten()
        };
        if let Some(oldest) = oldest {
            oldest.show();
        }
    }
}

impl Door {
    /// Whether the connection is idle and was not told to close.
    fn waits(&self) -> bool {
        self.is_idle.load(Ordering::Acquire) && !self.is_shown.load(Ordering::Acquire)
    }

    fn show(&self) {
        self.is_shown.store(true, Ordering::Release);
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }
}

impl IdlePlace {
    /// A request has arrived: the connection does not count until it is idle again.
    pub fn is_busy(&self) {
        self.door.is_idle.store(false, Ordering::Release);
    }

    /// Ready when the connection is idle and another one of the same key took its place.
    pub fn poll_displaced(&self, cx: &mut Context<'_>) -> Poll<()> {
        // The waker is stored before the last look: whoever shows the door in between wakes this task.
        self.remember(cx);
        if !self.door.is_idle.swap(true, Ordering::AcqRel) {
            self.siblings.make_room();
        }
        if self.door.is_shown.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn remember(&self, cx: &Context<'_>) {
        let mut waker = lock(&self.door.waker);
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }
}

impl Drop for IdlePlace {
    fn drop(&mut self) {
        let mut shard = lock(self.idle.shard(&self.key));
        let is_last = {
            let mut doors = lock(&self.siblings.doors);
            doors.retain(|door| !Arc::ptr_eq(door, &self.door));
            self.siblings.number.store(doors.len(), Ordering::Release);
            doors.is_empty()
        };
        if is_last {
            shard.remove(&self.key);
            // After a storm of agents the map would keep its size for ever.
            let few = shard.len() * 4;
            if shard.capacity() > few.max(1024) {
                shard.shrink_to(few);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_displaced(place: &IdlePlace) -> bool {
        place.poll_displaced(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_of_a_key_makes_room_and_nothing_is_kept_of_who_left() {
        let idle = Arc::new(IdleConnections::default());
        let other = idle.enter("other".into());
        let mut places: Vec<_> = (0..=MOST).map(|_| idle.enter("key".into())).collect();
        assert!(!places.iter().take(MOST).any(is_displaced));
        assert!(!is_displaced(&places[MOST]), "the youngest stays");
        let displaced: Vec<bool> = places.iter().map(is_displaced).collect();
        assert_eq!(displaced, [true, false, false, false, false]);
        assert!(!is_displaced(&other));
        drop(places.remove(0));
        drop(places.pop());
        places.push(idle.enter("key".into()));
        assert!(!places.iter().any(is_displaced), "a connection that left has given its place back");
        places[0].is_busy();
        let further = idle.enter("key".into());
        assert!(!is_displaced(&further) && !places.iter().skip(1).any(is_displaced), "a busy one does not count");
        drop((places, other, further));
        assert_eq!(idle.keys(), 0);
    }
}
