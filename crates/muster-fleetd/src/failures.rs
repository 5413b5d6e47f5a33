//! Failed requests by address, for requests that may be guesses: of device tokens, and of enroll secrets.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_core::time::Timestamp;

/// Failures in a row within [`WINDOW`] after which an address is refused for [`WINDOW`] (FL §3.4). Many hosts can have one
/// address, so that only failures count.
pub const MAX_FAILURES: u32 = 1000;
/// See [`MAX_FAILURES`].
pub const WINDOW: Duration = Duration::from_secs(60);
/// Maximum number of addresses that are counted.
const ADDRESSES: usize = 10_000;

/// Failed requests by address.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<String, Count>>);

#[derive(Clone, Copy, Debug)]
struct Count {
    since: Timestamp,
    failures: u32,
}

impl Failures {
    fn counts(&self) -> MutexGuard<'_, HashMap<String, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time for which an address is refused; `None` if it is not.
    pub fn refused_for(&self, address: &str, now: Timestamp) -> Option<Duration> {
        let count = *self.counts().get(address)?;
        let left = WINDOW.checked_sub(now.since(count.since)).filter(|left| !left.is_zero())?;
        (count.failures >= MAX_FAILURES).then_some(left)
    }

    /// Counts a failure. Returns whether it is the one from which on the address is refused.
    pub fn failed(&self, address: &str, now: Timestamp) -> bool {
        let mut counts = self.counts();
        if !counts.contains_key(address) && counts.len() >= ADDRESSES {
            counts.retain(|_, count| now.since(count.since) < WINDOW);
            if counts.len() >= ADDRESSES {
                // Not counted. Tokens and secrets have more than 120 random bits: the limit spares reads of the store, and
                // protects nothing.
                return false;
            }
        }
        let count = counts.entry(address.to_owned()).or_insert(Count { since: now, failures: 0 });
        if now.since(count.since) >= WINDOW {
            *count = Count { since: now, failures: 0 };
        }
        count.failures += 1;
        let is_last = count.failures == MAX_FAILURES;
        if is_last {
            count.since = now;
        }
        is_last
    }

    /// Forgets the failures of an address.
    pub fn succeeded(&self, address: &str) {
        self.counts().remove(address);
    }
}

#[cfg(test)]
mod tests {
    use muster_core::testing::at;

    use super::*;

    #[test]
    fn fl72_an_address_is_refused_after_many_failures_in_a_row() {
        let failures = Failures::default();
        let is_refused = |address: &str, now| failures.refused_for(address, at(now)).is_some();
        for n in 0..MAX_FAILURES {
            assert!(!is_refused("a", 0), "{n}");
            assert_eq!(failures.failed("a", at(0)), n + 1 == MAX_FAILURES, "told once");
        }
        assert!(!failures.failed("a", at(0)), "a request that was under way");
        assert_eq!(failures.refused_for("a", at(59)), Some(Duration::from_secs(1)));
        assert!(!is_refused("a", 60) && !is_refused("b", 0));
        for n in 0..3 {
            for _ in 1..MAX_FAILURES {
                failures.failed("c", at(n));
            }
            failures.succeeded("c");
        }
        assert!(!is_refused("c", 3), "a success resets");
        for n in 0..2 * ADDRESSES {
            failures.failed(&n.to_string(), at(0));
        }
        assert!(failures.counts().len() <= ADDRESSES);
    }
}
