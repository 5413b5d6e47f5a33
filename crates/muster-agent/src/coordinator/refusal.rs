//! Decides when rejections mean that the access key is revoked. A single 401 may come from a proxy or a faulty server.
//! Many over some time are a revocation (AG §9.1).

use std::time::Duration;

use tokio::time::Instant;

use crate::settings::RevocationSettings;

/// Consecutive rejections.
#[derive(Clone, Debug)]
pub struct Refusals {
    attempts: u32,
    spread: Duration,
    count: u32,
    first: Option<Instant>,
}

impl Refusals {
    /// Starts without rejections.
    pub fn new(settings: &RevocationSettings) -> Self {
        Self { attempts: settings.attempts.max(1), spread: settings.spread, count: 0, first: None }
    }

    /// Counts a rejection. Returns true if the key counts as revoked.
    pub fn count(&mut self, now: Instant) -> bool {
        self.count = self.count.saturating_add(1);
        let first = *self.first.get_or_insert(now);
        self.count >= self.attempts && now.duration_since(first) >= self.spread
    }

    /// Returns the minimum time to the next check-in while rejections are counted: as many as are needed fit into the time that is
    /// needed. With the back-off of failures, programs would run for half an hour on a host that is compromised.
    pub fn interval(&self) -> Duration {
        self.spread / self.attempts.saturating_sub(1).max(1)
    }

    /// Resets the count after any other response.
    pub fn reset(&mut self) {
        (self.count, self.first) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_revocation_requires_enough_refusals_over_enough_time() {
        let settings = RevocationSettings { attempts: 3, spread: Duration::from_secs(10), ..Default::default() };
        let mut refusals = Refusals::new(&settings);
        let start = Instant::now();
        for second in [0, 1, 2, 9] {
            assert!(!refusals.count(start + Duration::from_secs(second)));
        }
        assert!(refusals.count(start + Duration::from_secs(10)));
        refusals.reset();
        assert!(!refusals.count(start + Duration::from_secs(20)));
        assert!(!refusals.count(start + Duration::from_secs(50)));
        assert!(refusals.count(start + Duration::from_secs(51)));
    }
}
