//! Tails the change log, refreshes this node's caches and wakes the held polls concerned.
//!
//! A change carries no data: its subject is read again. A node that was disconnected continues after the last number it
//! handled, so nothing depends on a message that could be lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use muster_core::Error;
use muster_core::action::{DueAction, Target};
use muster_core::change::Change;
use muster_core::error_chain::chain;
use muster_core::id::{ActionId, AgentId, PolicyId};
use muster_core::time::Clock;
use muster_store::has_gap;

use super::authority::System;
use super::disk_keys::DiskKeys;
use super::fleet_keys::SIGNING_KEY;
use super::fleetd_options::FleetdOptions;
use super::hints::Hints;
use super::host_checks::HostChecks;
use super::installs::Installs;
use super::labels::Labels;
use super::live_queries::LiveQueries;
use super::policy_cache::PolicyCache;
use super::records::Records;
use super::registry::{AgentEntry, Registry};
use super::scripts::Scripts;
use super::shutdown::Shutdown;
use super::signing_keys::SigningKeys;
use super::status_timer::Statuses;
use super::urls::{self, ServerUrls};
use super::watched_store::WatchedStore;

const BATCH: u32 = 1000;
/// Pause before the next attempt after a failed read.
const RETRY: Duration = Duration::from_secs(1);
/// Number of held polls that a new policy revision wakes at a time, and the pause between (EA100): 25,600 polls a
/// second. Without the pauses, the responses of a large fleet would be encrypted at the same time as everybody else's
/// requests.
const WAVE: usize = 128;
const WAVE_PAUSE: Duration = Duration::from_millis(5);

/// Follows the change log for this node.
pub(crate) struct ChangeFeed {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    registry: Arc<Registry>,
    records: Arc<Records>,
    policies: Arc<PolicyCache>,
    live_queries: Arc<LiveQueries>,
    scripts: Arc<Scripts>,
    installs: Arc<Installs>,
    disk_keys: Arc<DiskKeys>,
    statuses: Arc<Statuses>,
    urls: Arc<ServerUrls>,
    fleetd_options: Arc<FleetdOptions>,
    host_checks: Arc<HostChecks>,
    labels: Arc<Labels>,
    hints: Arc<Hints>,
    signing: Arc<SigningKeys>,
    shutdown: Arc<Shutdown>,
    /// Number of the last change that this node handled.
    handled: AtomicI64,
}

/// The dependencies of a [`ChangeFeed`].
pub(crate) struct ChangeFeedParts {
    pub(crate) store: Arc<WatchedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) records: Arc<Records>,
    pub(crate) policies: Arc<PolicyCache>,
    pub(crate) live_queries: Arc<LiveQueries>,
    pub(crate) scripts: Arc<Scripts>,
    pub(crate) installs: Arc<Installs>,
    pub(crate) disk_keys: Arc<DiskKeys>,
    pub(crate) statuses: Arc<Statuses>,
    pub(crate) urls: Arc<ServerUrls>,
    pub(crate) fleetd_options: Arc<FleetdOptions>,
    pub(crate) host_checks: Arc<HostChecks>,
    pub(crate) labels: Arc<Labels>,
    pub(crate) hints: Arc<Hints>,
    pub(crate) signing: Arc<SigningKeys>,
    pub(crate) shutdown: Arc<Shutdown>,
}

impl ChangeFeed {
    pub(crate) fn new(parts: ChangeFeedParts) -> Self {
        // Nothing is cached yet, so older changes don't matter. The number is taken here and not when `follow` first
        // runs: agents may be cached in between, and their changes must not be skipped.
        let handled = AtomicI64::new(*parts.store.everywhere(&System).changes().borrow());
        Self {
            store: parts.store,
            clock: parts.clock,
            registry: parts.registry,
            records: parts.records,
            policies: parts.policies,
            live_queries: parts.live_queries,
            scripts: parts.scripts,
            installs: parts.installs,
            disk_keys: parts.disk_keys,
            statuses: parts.statuses,
            urls: parts.urls,
            fleetd_options: parts.fleetd_options,
            host_checks: parts.host_checks,
            labels: parts.labels,
            hints: parts.hints,
            signing: parts.signing,
            shutdown: parts.shutdown,
            handled,
        }
    }

    /// Number of the last change that this node handled.
    pub(crate) fn handled(&self) -> i64 {
        self.handled.load(Ordering::Acquire)
    }

    /// Sets the number of the last change handled.
    #[cfg(test)]
    pub(crate) fn set_handled(&self, seq: i64) {
        self.handled.store(seq, Ordering::Release);
    }

    /// Follows the change log until shutdown, from the position at which this feed was constructed.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut newest = self.store.everywhere(&System).changes();
        let mut standing = self.store.everywhere(&System).this_node();
        let mut epoch = standing.borrow_and_update().epoch.clone();
        let mut handled = self.handled();
        loop {
            loop {
                let known = *newest.borrow_and_update();
                if handled >= known {
                    break;
                }
                match self.handle_changes(handled).await {
                    Ok(seq) => {
                        handled = seq;
                        self.handled.store(handled, Ordering::Release);
                        // The store counts its confirmations from here: caches are valid only while this feed keeps
                        // up with them.
                        self.store.everywhere(&System).changes_handled(handled);
                    }
                    Err(error) => {
                        // The batch is read again from the start. Handling a change twice is harmless: it only reads
                        // and wakes.
                        tracing::warn!(error = %chain(&error), "failed to read the change log");
                        tokio::time::sleep(RETRY).await;
                        if self.shutdown.has_begun() {
                            return;
                        }
                    }
                }
            }
            tokio::select! {
                grown = newest.changed() => if grown.is_err() { return },
                changed = standing.changed() => if changed.is_err() { return },
                () = self.shutdown.wait() => return,
            }
            // Another epoch: this node was displaced in between, and its caches may have missed changes.
            let now = standing.borrow_and_update().clone();
            if now.epoch != epoch {
                tracing::warn!("the lease of this server expired: ended held polls and cleared caches");
                epoch = now.epoch;
                self.start_over().await;
            }
        }
    }

    /// Handles one batch of changes after `seq`; returns the last number handled.
    async fn handle_changes(self: &Arc<Self>, seq: i64) -> Result<i64, Error> {
        let changes = self.store.everywhere(&System).changes_since(seq, BATCH).await?;
        let Some((last, _)) = changes.last().cloned() else { return Ok(seq) };
        if has_gap(seq, &changes) {
            tracing::warn!(
                handled = seq,
                "changes were pruned before this server handled them: ended held polls and cleared caches"
            );
            self.start_over().await;
        }
        // In log order, but consecutive agent changes are handled together: a bulk action writes thousands in a row,
        // and one read for each would make this node fall behind.
        for run in changes.chunk_by(|(_, one), (_, next)| is_of_agent(one) && is_of_agent(next)) {
            match &run[0].1 {
                Some(Change::Agent(_)) => self.agents_changed(run).await?,
                Some(Change::Action(id)) => self.action_changed(id).await?,
                Some(Change::ActionBegun(id)) => self.action_begun(id).await?,
                Some(Change::Policy(id)) => self.policy_changed(id).await?,
                Some(Change::LiveQuery(_)) => {
                    self.live_queries.reload().await?;
                    self.hints.work_changed();
                }
                Some(Change::DiskEscrow(id)) => {
                    self.disk_keys.escrow_changed(id, run[0].0);
                    self.hints.work_changed();
                }
                Some(Change::ScriptRun(id)) => {
                    self.scripts.run_changed(id, run[0].0).await?;
                    self.hints.work_changed();
                }
                Some(Change::InstallRun(id)) => {
                    self.installs.run_changed(id, run[0].0).await?;
                    self.hints.work_changed();
                }
                Some(Change::Setting(name)) if name == urls::SETTING => self.urls.refresh().await?,
                Some(Change::Setting(name)) if name == SIGNING_KEY => drop(self.signing.refresh().await?),
                Some(Change::Setting(name)) => {
                    self.fleetd_options.setting_changed(name);
                    self.host_checks.setting_changed(name);
                    self.labels.setting_changed(name);
                    self.hints.work_changed();
                }
                // Other servers ask the agent anyway when it first connects to them.
                Some(Change::Refetch(id)) => {
                    self.registry.get(id).iter().for_each(|entry| entry.forget_reports(self.clock.now()));
                    self.hints.work_changed();
                }
                // These are not cached. `None` is a kind of change that a newer node wrote.
                Some(Change::EnrollmentKey(_) | Change::Output(_) | Change::NetworkObject(..)) | None => {}
            }
        }
        Ok(last)
    }

    /// Refreshes the cached records of changed agents and wakes their polls. Most changes are this node's own and are
    /// cached already, so only the versions are read first, in one query.
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
            // An agent that is missing in the answer was deleted, and is stale as well.
            held.zip(stored.get(entry.id())).is_some_and(|(held, stored)| held >= *stored)
        };
        let stale: Vec<AgentId> =
            known.iter().filter(|entry| !is_up_to_date(entry)).map(|entry| entry.id().clone()).collect();
        self.records.reload_many(&stale).await?;
        // All of them, not only the stale ones: the record may be current, but its poll has not looked since. A change
        // of the record brings no action: an action has a change of its own.
        known.iter().for_each(|entry| entry.wake_for_policy());
        Ok(())
    }

    /// Drops everything that was cached, after changes may have been missed, and ends the held polls, whose agents then poll
    /// again. Other servers may have recorded the agents' check-ins meanwhile.
    async fn start_over(self: &Arc<Self>) {
        // The latest sightings are only in memory. If they can't be written, absences count anew anyway.
        if let Err(error) = self.statuses.flush_presence().await {
            tracing::warn!(error = %chain(&error), "failed to write last check-in times");
        }
        self.policies.clear();
        self.fleetd_options.clear();
        self.host_checks.clear();
        self.labels.clear();
        let detached = self.registry.detach_all();
        let feed = Arc::clone(self);
        // Spread, like a fan-out: the agents of a large fleet must not all poll again in the same moment.
        tokio::spawn(async move {
            for wave in detached.chunks(WAVE) {
                wave.iter().for_each(|entry| entry.wake());
                tokio::time::sleep(WAVE_PAUSE).await;
            }
            if let Err(error) = feed.urls.refresh().await {
                tracing::warn!(error = %chain(&error), "failed to read the external URLs");
            }
            if let Err(error) = feed.live_queries.reload().await {
                tracing::warn!(error = %chain(&error), "failed to read the live queries");
            }
            feed.scripts.start_over().await;
            feed.installs.start_over().await;
            feed.disk_keys.start_over().await;
        });
    }

    async fn action_changed(&self, id: &ActionId) -> Result<(), Error> {
        let action = self.store.everywhere(&System).action(id).await?.map(Arc::new);
        let announce = |entry: &AgentEntry, position: i64, target: Target| match &action {
            Some(action) if target.is_open() => {
                entry.wake_for_action(DueAction { action: Arc::clone(action), position });
            }
            // Cancelled, or of an earlier enrollment: the polls must ask the store what is left.
            _ => {
                entry.expect_no_longer(id);
                entry.wake();
            }
        };
        self.for_cached_targets(id, &announce).await
    }

    /// Notes an action that is not announced yet, so that its targets do not take a later one for the only one.
    async fn action_begun(&self, id: &ActionId) -> Result<(), Error> {
        self.for_cached_targets(id, &|entry, _, _| entry.expect_action(id)).await
    }

    /// Calls `handle` with each target of an action that is cached here, and its position. The others hold no poll on
    /// this node.
    async fn for_cached_targets(
        &self,
        id: &ActionId,
        handle: &(dyn Fn(&AgentEntry, i64, Target) + Sync),
    ) -> Result<(), Error> {
        // Places begin at 0.
        let mut place = -1;
        loop {
            let targets = self.store.everywhere(&System).action_targets(id, place, BATCH).await?;
            let Some((last, _, _)) = targets.last() else { return Ok(()) };
            place = *last;
            for (position, agent, target) in &targets {
                if let Some(entry) = self.registry.get(agent) {
                    handle(&entry, *position, *target);
                }
            }
        }
    }

    async fn policy_changed(self: &Arc<Self>, id: &PolicyId) -> Result<(), Error> {
        // First the cache: polls that were woken before it knows the revision would find nothing due.
        self.policies.refresh(id).await?;
        let feed = Arc::clone(self);
        let id = id.clone();
        // In a task of its own: the fan-out to a large fleet takes seconds, in which revocations must not wait.
        tokio::spawn(async move {
            feed.fan_out(&id).await;
            feed.statuses.apply_inactivity_timeout(&id).await;
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

    use muster_core::action::ActionType;
    use muster_core::agent::{AgentDocuments, AgentRecord};
    use muster_core::authorization::{Actor, OpContext};
    use muster_core::testing::bare_agent;
    use muster_store::testing::{Gate, Gated};
    use muster_store::{ActionWrite, StoreError, Write};

    use super::*;
    use crate::check_in::{Delivery, HeldPoll, Poll};
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

    /// A fleet with `count` cached agents on policy `from`.
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
        let selection = by.fleet.agents().select(&context, &selected).await.unwrap();
        let given = by.fleet.actions().reassign(&selection, Some("to"), None, Force::No).await.unwrap();
        assert_eq!(given.targets, ids.len() as u64);
    }

    fn generation(test: &TestFleet, id: &AgentId) -> u64 {
        test.fleet.registry().get(id).unwrap().generation()
    }

    /// Handles all changes; returns the number of reads.
    async fn handle_all(store: &Gated<Reads>, test: &TestFleet) -> usize {
        let before = store.gate().0.load(Ordering::Relaxed);
        let feed = &test.fleet.feed;
        feed.handle_changes(feed.handled()).await.unwrap();
        store.gate().0.load(Ordering::Relaxed) - before
    }

    #[tokio::test]
    async fn number_of_reads_does_not_grow_with_the_number_of_changed_agents() {
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

    /// A held poll of the agent.
    async fn held(test: &TestFleet, id: &AgentId) -> HeldPoll {
        let entry = test.fleet.entry(id).await.unwrap();
        match test.check_in_of(&entry, r#"{"status":"online"}"#, "9.5.2").await.unwrap() {
            Poll::Held(poll) => poll,
            Poll::Due(_) => panic!("nothing is due"),
        }
    }

    #[tokio::test]
    async fn an_action_is_read_once_for_all_of_its_targets() {
        let mut reads = Vec::new();
        for count in [2, 40] {
            let store = Arc::new(Gated::new(Arc::new(muster_store::testing::fresh()), Reads::default()));
            let test = TestFleet::over(store.clone(), steady());
            let mut polls = Vec::new();
            let ids: Vec<AgentId> = (0..count).map(|number| AgentId::trusted(format!("agent-{number}"))).collect();
            for id in &ids {
                test.add_agent(bare_agent(id.as_str(), test.now()), AgentDocuments::default()).await;
                polls.push(held(&test, id).await);
            }
            test.fleet.feed.set_handled(*test.store().changes().borrow());
            test.add_action_for(&ids, "x", ActionType::Unenroll, |_| {}).await;
            let before = store.gate().0.load(Ordering::Relaxed);
            test.fleet.feed.handle_changes(test.fleet.feed.handled()).await.unwrap();
            for poll in polls {
                assert!(matches!(poll.wait().await.unwrap(), Delivery::Actions { actions, .. } if actions.len() == 1));
            }
            reads.push(store.gate().0.load(Ordering::Relaxed) - before);
        }
        assert_eq!(reads[0], reads[1]);
    }

    /// A fleet with one agent, whose poll is held; all changes so far are handled.
    async fn one_held() -> (TestFleet, AgentId, HeldPoll) {
        let store = Arc::new(muster_store::testing::fresh());
        let test = TestFleet::over(store, steady());
        let id = AgentId::trusted("a");
        test.add_agent(bare_agent("a", test.now()), AgentDocuments::default()).await;
        let poll = held(&test, &id).await;
        test.fleet.feed.set_handled(*test.store().changes().borrow());
        (test, id, poll)
    }

    #[tokio::test]
    async fn an_action_that_came_before_is_delivered_with_the_newest_one() {
        let (test, _, poll) = one_held().await;
        test.add_action("x", ActionType::Unenroll, "a", |_| {}).await;
        test.add_action("y", ActionType::Unenroll, "a", |_| {}).await;
        test.fleet.feed.handle_changes(test.fleet.feed.handled()).await.unwrap();
        let delivered = poll.wait().await.unwrap();
        assert!(matches!(delivered, Delivery::Actions { actions, .. } if actions.len() == 2));
    }

    #[tokio::test]
    async fn an_action_that_is_announced_later_is_delivered_before_a_newer_one() {
        let (test, id, poll) = one_held().await;
        let begun = muster_core::testing::action("x", ActionType::Unenroll, test.now());
        let change = Write::Changed(Change::ActionBegun(begun.id.clone()));
        let insert = Write::Action(ActionWrite::Insert { action: Box::new(begun), targets: vec![id] });
        test.commit(vec![insert, change]).await;
        test.add_action("y", ActionType::Unenroll, "a", |_| {}).await;
        test.fleet.feed.handle_changes(test.fleet.feed.handled()).await.unwrap();
        // With the newer one alone, its token would confirm the older one, too, which would then never arrive.
        let delivered = poll.wait().await.unwrap();
        assert!(matches!(delivered, Delivery::Actions { actions, .. } if actions.len() == 2));
    }

    #[tokio::test]
    async fn agents_deleted_by_another_node_are_removed_from_the_registry() {
        let (store, test, ids) = fleet_of(3).await;
        test.fleet.feed.set_handled(*test.store().changes().borrow());
        let other = test.beside();
        let context = OpContext::administrator(Actor::Local { uid: 0 });
        let selected = Selected::Ids(ids[..2].to_vec());
        let selection = other.fleet.agents().select(&context, &selected).await.unwrap();
        assert_eq!(other.fleet.agents().delete_many(&selection).await.unwrap(), 2);
        handle_all(&store, &test).await;
        let known: Vec<bool> = ids.iter().map(|id| test.fleet.registry().get(id).is_some()).collect();
        assert_eq!(known, [false, false, true]);
    }
}
