//! When is a refusal definite? One 401 may come from a proxy or a server in trouble; many of them, over some time, mean
//! that we were shut out (AG §9.1).

use std::time::Duration;

use tokio::time::Instant;

use crate::settings::RevocationSettings;

/// The refusals in a row.
#[derive(Clone, Debug)]
pub struct Refusals {
    attempts: u32,
    spread: Duration,
    count: u32,
    first: Option<Instant>,
}

impl Refusals {
    /// None yet.
    pub fn new(settings: &RevocationSettings) -> Self {
        Self { attempts: settings.attempts.max(1), spread: settings.spread, count: 0, first: None }
    }

    /// Counts one; answers whether it is definite now.
    pub fn count(&mut self, now: Instant) -> bool {
        self.count = self.count.saturating_add(1);
        let first = *self.first.get_or_insert(now);
        self.count >= self.attempts && now.duration_since(first) >= self.spread
    }

    /// Another answer came between.
    pub fn reset(&mut self) {
        (self.count, self.first) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_takes_enough_of_them_over_enough_time() {
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
