//! Lets one of many equal events through in a while, with bounded memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_core::time::Timestamp;

const REMEMBERED: usize = 4096;

/// Remembers when each key was let through last.
#[derive(Debug)]
pub struct Throttle {
    every: Duration,
    seen: Mutex<HashMap<String, Timestamp>>,
}

impl Throttle {
    /// One event for each key `every` so often.
    pub fn new(every: Duration) -> Self {
        Self { every, seen: Mutex::default() }
    }

    /// Whether this one goes through. When more keys come than are remembered, old ones are forgotten; if none is
    /// old, nothing goes through: a flood of keys must not write more than a flood of events.
    pub fn first_in_a_while(&self, key: &str, now: Timestamp) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // One in the future was let through by a clock that has been set back since.
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
    fn one_in_a_while_and_bounded() {
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
    fn clock_set_back_silences_nothing() {
        let throttle = Throttle::new(Duration::from_secs(60));
        let later = Timestamp::from_micros(0).plus(Duration::from_secs(86_400));
        assert!(throttle.first_in_a_while("a", later));
        assert!(throttle.first_in_a_while("a", Timestamp::from_micros(0)));
        assert!(!throttle.first_in_a_while("a", Timestamp::from_micros(1)));
    }
}
