//! Rate limit of one event per key and interval, with bounded memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_core::time::Timestamp;

/// Maximum number of keys that are remembered.
const REMEMBERED: usize = 4096;

/// A rate limit for each key.
#[derive(Debug)]
pub struct Throttle {
    every: Duration,
    seen: Mutex<HashMap<String, Timestamp>>,
}

impl Throttle {
    /// Allows one event for each key in `every`.
    pub fn new(every: Duration) -> Self {
        Self { every, seen: Mutex::default() }
    }

    /// Returns true if the event is allowed. When the table is full, expired keys are dropped; if there are none, new
    /// keys are denied: many different keys must not cause more writes than many events of one.
    pub fn first_in_a_while(&self, key: &str, now: Timestamp) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A time in the future was recorded before the clock was set back. It must not deny the key until then.
        if seen.get(key).is_some_and(|last| *last <= now && now.since(*last) < self.every) {
            return false;
        }
        if seen.len() >= REMEMBERED {
            seen.retain(|_, last| *last <= now && now.since(*last) < self.every);
        }
        if seen.len() >= REMEMBERED {
            return false;
        }
        seen.insert(key.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_per_interval_with_bounded_memory() {
        let throttle = Throttle::new(Duration::from_secs(60));
        let at = |s: i64| Timestamp::from_micros(s * 1_000_000);
        assert!(throttle.first_in_a_while("a", at(0)));
        assert!(!throttle.first_in_a_while("a", at(59)));
        assert!(throttle.first_in_a_while("a", at(60)));
        let through = (0..10_000).filter(|i| throttle.first_in_a_while(&i.to_string(), at(61))).count();
        assert!(through < REMEMBERED);
        assert!(throttle.first_in_a_while("b", at(200)));
    }

    #[test]
    fn clock_set_back_does_not_deny_events() {
        let throttle = Throttle::new(Duration::from_secs(60));
        let later = Timestamp::from_micros(0).plus(Duration::from_secs(86_400));
        assert!(throttle.first_in_a_while("a", later));
        assert!(throttle.first_in_a_while("a", Timestamp::from_micros(0)));
        assert!(!throttle.first_in_a_while("a", Timestamp::from_micros(1)));
    }
}
