//! The clock of the fleet: the host's clock, corrected if it differs too much from the database's.
//!
//! Servers write times that other servers compare with their own: an agent that checked in to a server whose clock is an
//! hour behind would be offline at once for another one. So a server over a shared database corrects its clock by the
//! difference from the database's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use muster_core::time::{Clock, Timestamp};
use muster_fleet::system::SystemClock;
use muster_store::{NodeStore, SqlStore};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Interval of the comparison.
const COMPARE: Duration = Duration::from_secs(10);
/// Duration of a server's lease. Its end is the last renewal by the database's clock, plus this.
const LEASE: Duration = Duration::from_secs(15);
/// Maximum difference in microseconds that is not corrected, because the comparison is only accurate to a few seconds.
const TOLERATED: i64 = 30_000_000;

/// This host's clock with a correction.
pub(super) struct FleetClock {
    system: Arc<dyn Clock>,
    /// Microseconds to add.
    correction: AtomicI64,
}

impl FleetClock {
    /// Creates the clock, without a correction.
    pub fn new(system: Arc<dyn Clock>) -> Self {
        Self { system, correction: AtomicI64::new(0) }
    }

    /// Compares the clock with a time of the database, which may be some seconds old.
    fn compare(&self, database: Timestamp) {
        let difference = database.as_micros().saturating_sub(self.system.now().as_micros());
        let next = if difference.abs() > TOLERATED { difference } else { 0 };
        let current = self.correction.load(Ordering::Relaxed);
        // A correction is only changed when it is wrong by more than the tolerance. Otherwise, the clock would jump with
        // every inaccuracy of the comparison.
        if (current == 0) == (next == 0) && (next - current).abs() <= TOLERATED {
            return;
        }
        self.correction.store(next, Ordering::Relaxed);
        let seconds = next / 1_000_000;
        if next == 0 {
            info!("this host's clock agrees with the database's again");
        } else {
            warn!(
                seconds,
                hint = "synchronize the clocks",
                "this host's clock differs from the database's; using the database's time"
            );
        }
    }

    /// Compares the clock with the database's once. Only for a shared database, since an embedded one has no own clock.
    pub async fn compare_with(&self, store: &SqlStore) {
        let this = store.this_node().borrow().node.clone();
        match store.nodes().await {
            Ok(nodes) => {
                if let Some(own) = nodes.into_iter().find(|node| node.id == this) {
                    // The own row contains the database's time: it was renewed within the last seconds.
                    self.compare(own.expires_at.minus(LEASE));
                }
            }
            Err(error) => warn!(%error, "failed to compare the clock with the database's"),
        }
    }

    /// Compares the clock with the database's until shutdown.
    pub async fn follow(self: Arc<Self>, store: Arc<SqlStore>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(COMPARE) => self.compare_with(&store).await,
                () = shutdown.cancelled() => return,
            }
        }
    }
}

impl Default for FleetClock {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl Clock for FleetClock {
    fn now(&self) -> Timestamp {
        let micros = self.system.now().as_micros();
        Timestamp::from_micros(micros.saturating_add(self.correction.load(Ordering::Relaxed)))
    }

    fn steady(&self) -> Duration {
        self.system.steady()
    }
}

#[cfg(test)]
mod tests {
    use muster_core::testing::{TestClock, at};

    use super::*;

    #[test]
    fn clock_that_is_an_hour_off_is_corrected_and_small_differences_are_not() {
        let system = Arc::new(TestClock::new(at(0)));
        let clock = FleetClock::new(system.clone());
        let second = |n: u64| Duration::from_secs(n);
        let database = |by: u64| at(0).plus(second(by));
        clock.compare(database(20));
        assert_eq!(clock.now(), at(0));
        clock.compare(database(3600));
        assert_eq!(clock.now(), database(3600));
        clock.compare(database(3610));
        assert_eq!(clock.now(), database(3600), "within the accuracy of the comparison");
        clock.compare(at(0).minus(second(3600)));
        assert_eq!(clock.now(), at(0).minus(second(3600)));
        clock.compare(database(2));
        assert_eq!(clock.now(), at(0), "it was synchronized");
        assert_eq!(clock.steady(), system.steady());
    }
}
