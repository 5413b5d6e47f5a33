//! Background tasks of a [`Fleet`], and their end.

use std::sync::Arc;

use muster_core::error_chain::chain;

use crate::{Fleet, registry};

impl Fleet {
    /// Runs the background tasks until [`Fleet::stop`]: the change feed, status transitions, recovery of a read-only
    /// store, output keys, rollouts, alerts, live queries, the index of software, and housekeeping. Returns when all of them have ended.
    pub async fn run_background(self: Arc<Self>) {
        // A task each, so that a slow read of one does not delay the others. The feed matters most: revocations by other
        // nodes depend on it.
        let feed = tokio::spawn(Arc::clone(&self.feed).follow());
        let statuses = tokio::spawn(Arc::clone(&self.statuses).run());
        let recovery = Arc::clone(&self.store).recover(Arc::clone(&self.clock), Arc::clone(&self.shutdown));
        let recovery = tokio::spawn(recovery);
        let house = tokio::spawn(Arc::clone(&self.housekeeping).run_periodically());
        let actions = tokio::spawn(Arc::clone(&self.actions).finish_abandoned(Arc::clone(&self.shutdown)));
        let keys = tokio::spawn(Arc::clone(&self.output_keys).run());
        let rollouts = tokio::spawn(Arc::clone(&self.rollouts).run());
        let upgrades = tokio::spawn(Arc::clone(&self.auto_upgrades).run());
        let alerts = tokio::spawn(Arc::clone(&self.alerts).run());
        let live_queries = tokio::spawn(Arc::clone(&self.live_queries).run());
        let (scripts, installs) = (Arc::clone(&self.orbit_work.scripts), Arc::clone(&self.orbit_work.installs));
        let disk_keys = Arc::clone(&self.orbit_work.disk_keys);
        let of_orbit = tokio::spawn(async move {
            scripts.start_over().await;
            installs.start_over().await;
            disk_keys.start_over().await;
        });
        let hints = tokio::spawn(Arc::clone(&self.hints).run());
        let software = tokio::spawn(Arc::clone(&self.software).run());
        let of_agents = [feed, statuses, recovery, house, actions, keys, rollouts, upgrades];
        for task in of_agents.into_iter().chain([alerts, live_queries, of_orbit, hints, software]) {
            // A task ends with an error only if it panicked. The others keep running: a server without housekeeping
            // still serves its agents.
            if let Err(error) = task.await {
                tracing::error!(error = %chain(&error), "a background task ended unexpectedly");
            }
        }
    }

    /// Answers every held poll with an empty response (EA87) and ends the background work.
    pub fn stop(&self) {
        self.shutdown.begin();
        // After the flag: a poll that is woken earlier would find nothing due and go on waiting.
        for entry in self.registry.select(registry::AgentEntry::is_connected) {
            entry.wake();
        }
    }

    /// Whether [`Fleet::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.shutdown.has_begun()
    }

    /// Waits for [`Fleet::stop`].
    pub async fn stopped(&self) {
        self.shutdown.wait().await;
    }
}
