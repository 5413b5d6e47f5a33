//! Status transitions by time (offline, inactive), writing of presence, and removal of silent agents from memory.
//!
//! The store has an indexed deadline for each agent, at which its status must be evaluated again. Presence in memory
//! may be newer than the store. So an idle connected agent costs one write in five minutes, which is batched.

use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::error_chain::chain;
use muster_core::time::{Clock, Timestamp};
use muster_store::{AgentWrite, Write};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::authority::System;
use super::observation::{reevaluated, undecided_until};
use super::records::Records;
use super::registry::{AgentEntry, Registry};
use super::shutdown::Shutdown;
use super::update::{AgentChange, end_of_upgrade};
use super::watched_store::WatchedStore;

/// Interval between looks for due agents.
const TICK: Duration = Duration::from_secs(2);
/// After a start agents get this long to come back before anything is written about those that did not. They count as
/// offline later, after a full back-off (`Records::spared`).
const GRACE: Duration = Duration::from_secs(60);
/// Agents per read.
const BATCH: u32 = 500;
/// An agent that was not seen for this long is dropped from memory.
const QUIET: Duration = Duration::from_secs(900);
const RETIRE_EVERY: Duration = Duration::from_secs(60);

/// The service of statuses and presence.
pub struct Statuses {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) registry: Arc<Registry>,
    pub(super) records: Arc<Records>,
    pub(super) shutdown: Arc<Shutdown>,
}

impl Statuses {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        registry: Arc<Registry>,
        records: Arc<Records>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { store, clock, registry, records, shutdown }
    }

    /// Runs the timer until shutdown, then writes all presence.
    pub(crate) async fn run(self: Arc<Self>) {
        let start = Instant::now();
        let mut retired = start;
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.shutdown.wait() => break,
            }
            if let Err(error) = self.follow_clock().await {
                tracing::warn!(error = %chain(&error), "failed to correct last check-in times that are in the future; retrying later");
            }
            // After a restart, no agent has been seen yet. Without the grace period, the records of the whole fleet
            // would be written, and most of them again when the agents reconnect.
            if start.elapsed() >= GRACE
                && let Err(error) = self.transition_due().await
            {
                tracing::warn!(error = %chain(&error), "failed to update agent statuses");
            }
            if retired.elapsed() >= RETIRE_EVERY {
                retired = Instant::now();
                if let Err(error) = self.retire_quiet().await {
                    tracing::warn!(error = %chain(&error), "failed to remove disconnected agents from memory; retrying later");
                }
            }
        }
        if let Err(error) = self.flush_presence().await {
            tracing::warn!(error = %chain(&error), "failed to write last check-in times");
        }
    }

    /// Evaluates every agent that is due; returns their number.
    pub async fn transition_due(self: &Arc<Self>) -> Result<usize, Error> {
        let mut looked_at = 0;
        loop {
            let due = self.store.everywhere(&System).agents_due(self.clock.now(), BATCH).await?;
            if due.is_empty() {
                return Ok(looked_at);
            }
            looked_at += due.len();
            let mut moves = JoinSet::new();
            for record in due {
                let (statuses, entry) = (Arc::clone(self), self.registry.admit(record));
                // Concurrently, so that the store's writer can group the commits into one transaction.
                moves.spawn(async move { statuses.transition_one(&entry).await });
            }
            for outcome in moves.join_all().await {
                outcome?;
            }
        }
    }

    async fn transition_one(&self, entry: &Arc<AgentEntry>) -> Result<(), Error> {
        let mut left = None;
        let moved = self
            .records
            .update(&System, entry, |record, now| {
                let change = self.after_a_look(record, entry.last_seen(now), now);
                let after = change.record.as_ref().map_or(record.status, |after| after.status);
                left = (after != record.status).then_some((record.status, after));
                Ok(change)
            })
            .await;
        match moved {
            // Deleted, or changed by others at each attempt. Neither is a reason to stop: in the second case, the
            // agent is due again in the next tick.
            Err(error) if error.kind != muster_core::ErrorKind::Unavailable => Ok(()),
            Err(error) => Err(error),
            Ok(record) => {
                if let Some((before, after)) = left {
                    tracing::info!(agent = %record.id, before = before.as_str(), after = after.as_str(), "status");
                }
                Ok(())
            }
        }
    }

    /// Returns the changes that time alone causes: another status, and the end of an upgrade without progress.
    fn after_a_look(&self, before: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> AgentChange {
        // An upgrade is given up only for the silence of an agent that had a chance to be seen.
        let is_judged = undecided_until(before, seen, &self.records.observation, &*self.clock).is_none();
        let given_up = before.upgrade.given_up(&before.agent_version, now).filter(|_| is_judged);
        let Some((upgrade, ended)) = given_up else {
            return AgentChange { record: Some(reevaluated(before, seen, now)), writes: Vec::new() };
        };
        let given_up = AgentRecord { upgrade, ..before.clone() };
        let writes = vec![end_of_upgrade(&before.id, &ended, now)];
        AgentChange { record: Some(reevaluated(&given_up, seen, now)), writes }
    }

    /// Drops agents that were not seen for `QUIET` from memory, after writing their presence.
    pub async fn retire_quiet(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let quiet = |entry: &AgentEntry| {
            !entry.is_connected() && entry.last_seen(now).is_none_or(|seen| now.since(seen) >= QUIET)
        };
        // In this order, because the latest sightings are only in memory. An agent that comes back in between is not
        // quiet any more, and stays.
        self.write_sightings(&self.registry.select(quiet)).await?;
        self.registry.retire(quiet);
        Ok(())
    }

    /// Writes all sightings that are newer than the stored ones.
    pub async fn flush_presence(&self) -> Result<(), Error> {
        self.write_sightings(&self.registry.select(|_| true)).await
    }

    async fn write_sightings(&self, entries: &[Arc<AgentEntry>]) -> Result<(), Error> {
        let now = self.clock.now();
        let seen: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some((entry.record()?, entry.last_seen(now)?)))
            .filter(|(record, seen)| record.last_checkin.is_none_or(|written| written < *seen))
            .map(|(record, seen)| (record.id.clone(), seen))
            .collect();
        for chunk in seen.chunks(1000) {
            // `Seen` raises no record version: presence must not conflict with concurrent changes of the record.
            self.store.commit(&System, vec![Write::Agent(AgentWrite::Seen { seen: chunk.to_vec() })]).await?;
        }
        self.write_uses(entries).await
    }

    async fn write_uses(&self, entries: &[Arc<AgentEntry>]) -> Result<(), Error> {
        let uses = |entry: &Arc<AgentEntry>| {
            let entry = Arc::clone(entry);
            entry.unwritten_uses().into_iter().map(move |(key, at)| (Arc::clone(&entry), key, at))
        };
        let all: Vec<_> = entries.iter().flat_map(uses).collect();
        for chunk in all.chunks(1000) {
            let used = chunk.iter().map(|(_, key, at)| (key.clone(), *at)).collect();
            self.store.commit(&System, vec![Write::Agent(AgentWrite::CredentialsUsed { used })]).await?;
            // Marked after the commit, so that a failed chunk is written by the next call.
            chunk.iter().for_each(|(entry, key, at)| entry.use_written(key, *at));
        }
        Ok(())
    }
}
