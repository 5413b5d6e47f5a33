//! Status transitions by time (offline, inactive), writing of presence, and removal of silent agents from memory.
//!
//! The store has an indexed deadline for each agent, at which its status must be evaluated again. Presence in memory
//! may be newer than the store. So an idle connected agent costs one write in five minutes, which is batched. With several
//! servers, each one writes the presence of its own agents before their deadlines, and the holder of a lease evaluates those
//! that are due because no server has seen them.

use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::error_chain::chain;
use muster_core::status::OFFLINE_AFTER;
use muster_core::time::{Clock, Timestamp};
use muster_store::{AgentWrite, FencingToken, LeaseName, Write};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::authority::System;
use super::members::Members;
use super::observation::{reevaluated, undecided_until};
use super::records::Records;
use super::registry::{AgentEntry, Registry};
use super::shutdown::Shutdown;
use super::update::{AgentChange, end_of_upgrade};
use super::watched_store::WatchedStore;

/// Interval between queries for due agents.
const TICK: Duration = Duration::from_secs(2);
/// A longer time between two queries means that the process was stopped, or the host slept.
const STALL: Duration = Duration::from_secs(30);
/// Interval at which the sightings of this server's agents are written, of those whose stored sighting is older than
/// [`RENEW_AFTER`].
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// A minute before an agent would be offline: longer than the lease of a server that can't write any more.
const RENEW_AFTER: Duration = Duration::from_secs(OFFLINE_AFTER.as_secs() - 60);
/// After a start agents get this long to come back before anything is written about those that did not. They count as
/// offline later, after a full back-off (`Records::spared`).
const GRACE: Duration = Duration::from_secs(60);
/// Agents per read.
const BATCH: u32 = 500;
/// An agent that was not seen for this long is dropped from memory.
const QUIET: Duration = Duration::from_secs(900);
/// Maximum time over which a draining server spreads the end of its held polls, and the pause between two waves. Fewer polls
/// than waves end one at a time, and sooner.
const DRAIN: Duration = Duration::from_secs(30);
const DRAIN_PAUSE: Duration = Duration::from_millis(100);
const RETIRE_EVERY: Duration = Duration::from_secs(60);

/// The service of statuses and presence.
pub struct Statuses {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) registry: Arc<Registry>,
    pub(super) records: Arc<Records>,
    members: Arc<Members>,
    pub(super) shutdown: Arc<Shutdown>,
}

/// When the parts of the timer last ran.
struct Ran {
    start: Instant,
    looked: Instant,
    renewed: Instant,
    retired: Instant,
}

impl Statuses {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        registry: Arc<Registry>,
        records: Arc<Records>,
        members: Arc<Members>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { store, clock, registry, records, members, shutdown }
    }

    /// Runs the timer until shutdown, then writes all presence.
    pub(crate) async fn run(self: Arc<Self>) {
        let now = Instant::now();
        let mut ran = Ran { start: now, looked: now, renewed: now, retired: now };
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.shutdown.wait() => break,
            }
            self.tick(&mut ran).await;
        }
        log_failure("failed to write last check-in times", self.flush_presence().await);
    }

    async fn tick(self: &Arc<Self>, ran: &mut Ran) {
        // Time that passed while nobody could be seen must not make agents offline.
        if ran.looked.elapsed() > STALL {
            tracing::warn!("the server was suspended; restarting timeouts");
            self.records.observation.restart(&*self.clock);
        }
        log_failure(
            "failed to correct last check-in times that are in the future; retrying later",
            self.follow_clock().await,
        );
        log_failure("failed to read the servers of the fleet", self.watch_members().await);
        // Before the transitions: an agent that this server has seen must not be due.
        if ran.renewed.elapsed() >= RENEW_EVERY {
            ran.renewed = Instant::now();
            log_failure("failed to write last check-in times", self.renew_presence().await);
        }
        // After a restart, no agent has been seen yet. Without the grace period, the records of the whole fleet
        // would be written, and most of them again when the agents reconnect.
        if ran.start.elapsed() >= GRACE {
            log_failure("failed to update agent statuses", self.transition_due().await.map(drop));
        }
        if ran.retired.elapsed() >= RETIRE_EVERY {
            ran.retired = Instant::now();
            log_failure("failed to remove disconnected agents from memory; retrying later", self.retire_quiet().await);
        }
        // Set at the end, because a run that takes long since many agents are due is not a stall.
        ran.looked = Instant::now();
    }

    /// Restarts the observation when another server has left: its agents need time to find another one. If this server was
    /// told to drain, ends its held polls.
    pub async fn watch_members(self: &Arc<Self>) -> Result<(), Error> {
        let was_draining = self.members.is_draining();
        for left in self.members.look().await? {
            if self.members.is_this(&left) {
                tracing::warn!("this server had lost its lease, and registered again; restarting timeouts");
            } else {
                tracing::warn!(node = %left.id, name = left.name, "a server left the fleet; restarting timeouts");
            }
            self.records.observation.restart(&*self.clock);
        }
        if self.members.is_draining() && !was_draining {
            tracing::info!("draining: this server sends its agents to other servers");
            tokio::spawn(Arc::clone(self).dismiss_polls());
        }
        Ok(())
    }

    /// Ends the held polls, spread over at most [`DRAIN`]: their agents must not fall on the other servers all at once.
    async fn dismiss_polls(self: Arc<Self>) {
        let held = self.registry.select(AgentEntry::is_connected);
        let waves = u32::try_from(DRAIN.as_millis() / DRAIN_PAUSE.as_millis()).unwrap_or(u32::MAX);
        let wave = held.len().div_ceil(waves as usize).max(1);
        for entries in held.chunks(wave) {
            if !self.members.is_draining() {
                // It was told to resume.
                return;
            }
            entries.iter().for_each(|entry| entry.dismiss_polls());
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
    }

    /// Writes the sightings of the agents that check in to this server before their stored deadlines, so that the server
    /// that holds the lease of statuses finds none of them due.
    pub async fn renew_presence(self: &Arc<Self>) -> Result<(), Error> {
        let now = self.clock.now();
        let is_due = |entry: &AgentEntry| {
            let (Some(record), Some(seen)) = (entry.record(), entry.last_seen(now)) else { return false };
            let stored = record.last_checkin.unwrap_or(record.enrolled_at);
            // Of this server's own agents only: others write theirs.
            record.active && self.records.is_own(&record) && seen > stored && now.since(stored) >= RENEW_AFTER
        };
        for chunk in self.registry.select(is_due).chunks(BATCH as usize) {
            self.transition(chunk.to_vec(), None).await?;
        }
        Ok(())
    }

    /// Evaluates every agent that is due, if this server holds the lease of statuses; returns their number.
    pub async fn transition_due(self: &Arc<Self>) -> Result<usize, Error> {
        let mut looked_at = 0;
        loop {
            // For each batch: a server that was asleep must not go on after another one has taken over.
            let token = self.store.everywhere(&System).take_lease(LeaseName::Statuses).await?;
            let Some(token) = token else { return Ok(looked_at) };
            let due = self.store.everywhere(&System).agents_due(self.clock.now(), BATCH).await?;
            if due.is_empty() {
                return Ok(looked_at);
            }
            looked_at += due.len();
            // Admitted, so that the record which is judged is at least as new as the one that was read.
            let entries = due.into_iter().map(|record| self.registry.admit(record)).collect();
            self.transition(entries, Some(token)).await?;
        }
    }

    async fn transition(
        self: &Arc<Self>,
        entries: Vec<Arc<AgentEntry>>,
        token: Option<FencingToken>,
    ) -> Result<(), Error> {
        let mut moves = JoinSet::new();
        for entry in entries {
            let statuses = Arc::clone(self);
            // Concurrently, so that the store's writer can group the commits into one transaction.
            moves.spawn(async move { statuses.transition_one(&entry, token).await });
        }
        moves.join_all().await.into_iter().collect()
    }

    async fn transition_one(&self, entry: &Arc<AgentEntry>, token: Option<FencingToken>) -> Result<(), Error> {
        let mut left = None;
        let moved = self
            .records
            .update(&System, entry, |record, now| {
                let mut change = self.after_a_look(record, entry.last_seen(now), now);
                // Fenced: what is decided from an absence must not be committed after another server has taken over.
                change.writes.splice(0..0, token.map(Write::Fenced));
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
        // Also after a restart or a suspension, which count as not having looked.
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

fn log_failure(what: &'static str, outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        tracing::warn!(error = %chain(&error), "{what}");
    }
}
