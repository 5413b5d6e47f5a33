//! Tails the change log and wakes who is concerned.
//!
//! A change carries no data: its subject is looked at anew. A node that was away reads on from the last number it
//! handled; nothing depends on a message that could be lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use muster_core::Error;
use muster_core::change::Change;
use muster_core::id::{ActionId, AgentId, PolicyId};

use super::authority::System;
use super::policy_cache::PolicyCache;
use super::records::Records;
use super::registry::{AgentEntry, Registry};
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
        let handled = AtomicI64::new(*store.everywhere(&System).changes().borrow());
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
        let mut newest = self.store.everywhere(&System).changes();
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
        let changes = self.store.everywhere(&System).changes_since(seq, BATCH).await?;
        let Some((last, _)) = changes.last().cloned() else { return Ok(seq) };
        // In the order of the log, but runs of changed agents, as a bulk action leaves them, together.
        for run in changes.chunk_by(|(_, one), (_, next)| is_of_agent(one) && is_of_agent(next)) {
            match &run[0].1 {
                Some(Change::Agent(_)) => self.agents_changed(run).await?,
                Some(Change::Action(id)) => self.action_changed(id).await?,
                Some(Change::Policy(id)) => self.policy_changed(id).await?,
                // Enrollment keys, outputs and settings are read anew whenever they are needed.
                Some(Change::EnrollmentKey(_) | Change::Output(_) | Change::Setting(_)) | None => {}
            }
        }
        Ok(last)
    }

    /// Brings this node's memory up to date, and wakes the agents. Most changes are this node's own and in its memory
    /// already: one read of the versions tells which are not.
    async fn agents_changed(&self, run: &[(i64, Option<Change>)]) -> Result<(), Error> {
        let changed = run.iter().filter_map(|(_, change)| match change {
            Some(Change::Agent(id)) => self.registry.get(id),
            _ => None,
        });
        let known: Vec<Arc<AgentEntry>> = changed.collect();
        if known.is_empty() {
            return Ok(());
        }
        let ids: Vec<AgentId> = known.iter().map(|entry| entry.id().clone()).collect();
        let stored: HashMap<AgentId, i64> =
            self.store.everywhere(&System).agent_versions(&ids).await?.into_iter().collect();
        let is_up_to_date = |entry: &AgentEntry| {
            let held = entry.record().map(|record| record.version);
            held.zip(stored.get(entry.id())).is_some_and(|(held, stored)| held >= *stored)
        };
        let stale: Vec<AgentId> =
            known.iter().filter(|entry| !is_up_to_date(entry)).map(|entry| entry.id().clone()).collect();
        self.records.reload_many(&stale).await?;
        known.iter().for_each(|entry| entry.wake());
        Ok(())
    }

    async fn action_changed(&self, id: &ActionId) -> Result<(), Error> {
        let mut place = -1;
        loop {
            let targets = self.store.everywhere(&System).action_targets(id, place, BATCH).await?;
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

fn is_of_agent(change: &Option<Change>) -> bool {
    matches!(change, Some(Change::Agent(_)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use muster_core::agent::{AgentDocuments, AgentRecord};
    use muster_core::authorization::{Actor, AgentsWrite, OpContext};
    use muster_core::testing::bare_agent;
    use muster_store::StoreError;
    use muster_store::testing::{Gate, Gated};

    use super::*;
    use crate::force::Force;
    use crate::selection::Selected;
    use crate::testing::{TestFleet, steady};

    /// Counts reads.
    #[derive(Default)]
    struct Reads(AtomicUsize);

    impl Gate for Reads {
        fn read(&self) -> Result<(), StoreError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    /// A fleet with that many agents in its memory, on policy `from`.
    async fn fleet_of(count: usize) -> (Arc<Gated<Reads>>, TestFleet, Vec<AgentId>) {
        let store = Arc::new(Gated::new(Arc::new(muster_store::testing::fresh()), Reads::default()));
        let test = TestFleet::over(store.clone(), steady());
        let from = test.revised_policy("from", |_| {}).await;
        test.revised_policy("to", |_| {}).await;
        let mut ids = Vec::new();
        for number in 0..count {
            let id = format!("agent-{number}");
            let record = AgentRecord { policy_id: Some(from.clone()), ..bare_agent(&id, test.now()) };
            test.add_agent(record, AgentDocuments::default()).await;
            ids.push(AgentId::trusted(id));
            test.fleet.entry(&ids[number]).await.unwrap();
        }
        (store, test, ids)
    }

    async fn reassign(by: &TestFleet, ids: &[AgentId]) {
        let context = OpContext::administrator(Actor::Local { uid: 0 });
        let selected = Selected::Ids(ids.to_vec());
        let selection = by.fleet.agents().select::<AgentsWrite>(&context, &selected).await.unwrap();
        let given = by.fleet.actions().reassign(&selection, Some("to"), None, Force::No).await.unwrap();
        assert_eq!(given.ordered, ids.len() as u64);
    }

    fn generation(test: &TestFleet, id: &AgentId) -> u64 {
        test.fleet.registry().get(id).unwrap().generation()
    }

    /// Handles what there is, and answers how many reads it took.
    async fn handle_all(store: &Gated<Reads>, test: &TestFleet) -> usize {
        let before = store.gate().0.load(Ordering::Relaxed);
        let feed = &test.fleet.feed;
        feed.handle_changes(feed.handled()).await.unwrap();
        store.gate().0.load(Ordering::Relaxed) - before
    }

    #[tokio::test]
    async fn changes_of_many_agents_take_as_many_reads_as_those_of_a_few() {
        for by_another_node in [false, true] {
            let mut reads = Vec::new();
            for count in [2, 40] {
                let (store, test, ids) = fleet_of(count).await;
                let start = *test.store().changes().borrow();
                test.fleet.feed.set_handled(start);
                if by_another_node {
                    reassign(&test.beside(), &ids).await;
                } else {
                    reassign(&test, &ids).await;
                }
                let before = generation(&test, &ids[1]);
                reads.push(handle_all(&store, &test).await);
                for id in &ids {
                    let record = test.fleet.registry().get(id).and_then(|entry| entry.record()).unwrap();
                    assert_eq!(record.policy_id, Some(PolicyId::trusted("to")), "{id}");
                }
                assert!(generation(&test, &ids[1]) > before, "its poll is woken");
            }
            assert_eq!(reads[0], reads[1], "by another node: {by_another_node}");
        }
    }

    #[tokio::test]
    async fn agents_that_another_node_deleted_are_forgotten() {
        let (store, test, ids) = fleet_of(3).await;
        test.fleet.feed.set_handled(*test.store().changes().borrow());
        let other = test.beside();
        let context = OpContext::administrator(Actor::Local { uid: 0 });
        let selected = Selected::Ids(ids[..2].to_vec());
        let selection = other.fleet.agents().select::<AgentsWrite>(&context, &selected).await.unwrap();
        assert_eq!(other.fleet.agents().delete_many(&selection).await.unwrap(), 2);
        handle_all(&store, &test).await;
        let known: Vec<bool> = ids.iter().map(|id| test.fleet.registry().get(id).is_some()).collect();
        assert_eq!(known, [false, false, true]);
    }
}
