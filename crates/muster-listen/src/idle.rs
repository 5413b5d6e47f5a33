//! Idle connections of one key: a few may stay open, and one more closes the oldest of them.
//!
//! A client that authenticated no longer has one of the few places of the unauthenticated ([`super::strangers`]).
//! Without this bound, one agent's key could hold all others. Only connections without a request count: requests and
//! held polls have bounds of their own.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Idle connections of one key. An agent needs one for its check-ins and one or two for acks and files.
const MOST: usize = 4;
const SHARDS: usize = 16;

type Shard = Mutex<HashMap<Arc<str>, Vec<Arc<Door>>>>;

/// The idle connections of one listener, by their keys.
#[derive(Debug, Default)]
pub struct IdleConnections {
    shards: [Shard; SHARDS],
    hasher: RandomState,
}

/// An idle connection's place. Dropped when a request comes, or when the connection ends.
#[derive(Debug)]
pub struct IdlePlace {
    idle: Arc<IdleConnections>,
    key: Arc<str>,
    door: Arc<Door>,
}

/// How an idle connection learns that it has to go.
#[derive(Debug, Default)]
struct Door {
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

    /// A place for a connection of `key`; the oldest one of that key is displaced if there are too many.
    pub fn enter(self: &Arc<Self>, key: Arc<str>) -> IdlePlace {
        let door = Arc::new(Door::default());
        let displaced = {
            let mut shard = lock(self.shard(&key));
            let doors = shard.entry(Arc::clone(&key)).or_default();
            doors.push(Arc::clone(&door));
            // Oldest first.
            (doors.len() > MOST).then(|| doors.remove(0))
        };
        // Outside the lock, for which the other keys of the shard wait.
        if let Some(oldest) = displaced {
            oldest.show();
        }
        IdlePlace { idle: Arc::clone(self), key, door }
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}

impl Door {
    fn show(&self) {
        self.is_shown.store(true, Ordering::Release);
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }
}

impl IdlePlace {
    /// Ready when a younger connection of the same key has taken the place.
    pub fn poll_displaced(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Stored before the look: who shows the door in between wakes this task.
        *lock(&self.door.waker) = Some(cx.waker().clone());
        if self.door.is_shown.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for IdlePlace {
    fn drop(&mut self) {
        let mut shard = lock(self.idle.shard(&self.key));
        let Some(doors) = shard.get_mut(&self.key) else { return };
        doors.retain(|door| !Arc::ptr_eq(door, &self.door));
        if doors.is_empty() {
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
        let displaced: Vec<bool> = places.iter().map(is_displaced).collect();
        assert_eq!(displaced, [true, false, false, false, false]);
        assert!(!is_displaced(&other));
        drop(places.remove(0));
        drop(places.pop());
        places.push(idle.enter("key".into()));
        assert!(!places.iter().any(is_displaced), "a connection that left has given its place back");
        drop((places, other));
        assert_eq!(idle.keys(), 0);
    }
}
