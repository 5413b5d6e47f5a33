//! Tails the change log and wakes who is concerned.
//!
//! A change carries no data: its subject is looked at anew. A node that was away reads on from the last number it
//! handled; nothing depends on a message that could be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use muster_core::Error;
use muster_core::change::Change;
use muster_core::id::{ActionId, AgentId, PolicyId};

use super::policy_cache::PolicyCache;
use super::records::Records;
use super::registry::Registry;
use super::status_timer::Statuses;
use super::stopping::Stopping;
use super::watched_store::WatchedStore;

const BATCH: u32 = 1000;
/// After an error the store is asked again this much later.
const RETRY: Duration = Duration::from_secs(1);
/// How many held polls are woken at once when a policy goes out, and the pause between (EA100): 25,600 a second.
const WAVE: usize = 128;
const WAVE_PAUSE: Duration = Duration::from_millis(5);

/// Follows the change log on behalf of this node's memory.
pub(crate) struct ChangeFeed {
    store: Arc<WatchedStore>,
    registry: Arc<Registry>,
    records: Arc<Records>,
    policies: Arc<PolicyCache>,
    statuses: Arc<Statuses>,
    stopping: Arc<Stopping>,
    /// The last row of the change log that this node handled.
    handled: AtomicI64,
}

impl ChangeFeed {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        registry: Arc<Registry>,
        records: Arc<Records>,
        policies: Arc<PolicyCache>,
        statuses: Arc<Statuses>,
        stopping: Arc<Stopping>,
    ) -> Self {
        let handled = AtomicI64::new(*store.changes().borrow());
        Self { store, registry, records, policies, statuses, stopping, handled }
    }

    /// The last row that this node handled.
    pub(crate) fn handled(&self) -> i64 {
        self.handled.load(Ordering::Acquire)
    }

    /// Says where this node stands.
    #[cfg(test)]
    pub(crate) fn set_handled(&self, seq: i64) {
        self.handled.store(seq, Ordering::Release);
    }

    /// Follows the change log until the fleet stops, from where it stood when it was made: what was changed before
    /// this task ran for the first time is not passed over.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut newest = self.store.changes();
        let mut handled = self.handled();
        loop {
            while handled < *newest.borrow_and_update() {
                match self.handle_changes(handled).await {
                    Ok(seq) => {
                        handled = seq;
                        self.handled.store(handled, Ordering::Release);
                    }
                    Err(error) => {
                        tracing::warn!(error = %error, detail = ?error.internal, "failed to read the change log");
                        tokio::time::sleep(RETRY).await;
                        if self.stopping.has_begun() {
                            return;
                        }
                    }
                }
            }
            tokio::select! {
                grown = newest.changed() => if grown.is_err() { return },
                () = self.stopping.begun() => return,
            }
        }
    }

    /// Handles one batch after `seq`; answers the last number handled.
    async fn handle_changes(self: &Arc<Self>, seq: i64) -> Result<i64, Error> {
        let changes = self.store.changes_since(seq, BATCH).await?;
        let Some((last, _)) = changes.last().cloned() else { return Ok(seq) };
        for (_, change) in changes {
            match change {
                Some(Change::Agent(id)) => self.agent_changed(&id).await?,
                Some(Change::Action(id)) => self.action_changed(&id).await?,
                Some(Change::Policy(id)) => self.policy_changed(&id).await?,
                // Enrollment keys, outputs and settings are read anew whenever they are needed.
                Some(Change::EnrollmentKey(_) | Change::Output(_) | Change::Setting(_)) | None => {}
            }
        }
        Ok(last)
    }

    async fn agent_changed(&self, id: &AgentId) -> Result<(), Error> {
        let Some(entry) = self.registry.get(id) else { return Ok(()) };
        self.records.reload(id).await?;
        entry.wake();
        Ok(())
    }

    async fn action_changed(&self, id: &ActionId) -> Result<(), Error> {
        let mut place = -1;
        loop {
            let targets = self.store.action_targets(id, place, BATCH).await?;
            let Some((last, _, _)) = targets.last() else { return Ok(()) };
            place = *last;
            for (_, agent, _) in &targets {
                if let Some(entry) = self.registry.get(agent) {
                    entry.wake();
                }
            }
        }
    }

    async fn policy_changed(self: &Arc<Self>, id: &PolicyId) -> Result<(), Error> {
        self.policies.refresh(id).await?;
        let feed = Arc::clone(self);
        let id = id.clone();
        // The fan-out is paced; other changes do not wait for it.
        tokio::spawn(async move {
            feed.fan_out(&id).await;
            feed.statuses.heal_inactivity_of(&id).await;
        });
        Ok(())
    }

    async fn fan_out(&self, policy: &PolicyId) {
        for wave in self.registry.parked_followers(policy).chunks(WAVE) {
            for entry in wave {
                entry.wake_for_policy();
            }
            tokio::time::sleep(WAVE_PAUSE).await;
        }
    }
}
