//! Delays: uniform jitter, and back-off with equal jitter (EA §10.1).

use std::time::Duration;

use muster_core::Entropy;
use muster_core::entropy::random_bytes;

/// Returns a random duration in `[low, high)`, uniformly; `low` if the range is empty.
pub fn between(entropy: &dyn Entropy, low: Duration, high: Duration) -> Duration {
    let span = high.saturating_sub(low).as_nanos().min(u128::from(u64::MAX));
    if span == 0 {
        return low;
    }
    let drawn = u128::from(u64::from_le_bytes(random_bytes(entropy)));
    let offset = (drawn * span) >> 64;
    low + Duration::from_nanos(u64::try_from(offset).unwrap_or(0))
}

/// Back-off with equal jitter: each delay is in `[b, 2b)`, where *b* doubles from `init` to half of `max`.
#[derive(Clone, Debug)]
pub struct Backoff {
    init: Duration,
    max: Duration,
    base: Duration,
    failures: u32,
}

impl Backoff {
    /// Creates a back-off whose first delay is in `[init, 2·init)`, and whose delays do not exceed `max`.
    pub fn new(init: Duration, max: Duration) -> Self {
        let max = max.max(init);
        Self { init, max, base: init.min(max / 2), failures: 0 }
    }

    /// Returns the next delay, and doubles the range of the following one.
    pub fn next(&mut self, entropy: &dyn Entropy) -> Duration {
        // Never shorter than the base, so that the agents of a fleet return spread out after an outage, and none of
        // them too early.
        let wait = between(entropy, self.base, (self.base * 2).min(self.max));
        self.base = (self.base * 2).min(self.max / 2);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Returns the number of failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Resets the back-off after a success.
    pub fn reset(&mut self) {
        *self = Self::new(self.init, self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Seeded;

    #[test]
    fn delays_are_within_the_limits_for_every_seed() {
        let bounds = [(60, 120), (120, 240), (240, 480), (300, 600), (300, 600)];
        for seed in 0..10_000 {
            let entropy = Seeded::new(seed);
            let mut backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(600));
            for (low, high) in bounds {
                let wait = backoff.next(&entropy);
                assert!(wait >= Duration::from_secs(low) && wait < Duration::from_secs(high), "{seed}: {wait:?}");
            }
            backoff.reset();
            assert!(backoff.next(&entropy) < Duration::from_secs(120));
        }
    }

    #[test]
    fn an_empty_range_returns_its_minimum() {
        let entropy = Seeded::new(1);
        assert_eq!(between(&entropy, Duration::from_secs(2), Duration::from_secs(1)), Duration::from_secs(2));
    }
}
