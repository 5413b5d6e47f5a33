//! The live queries that run, as this node has them in memory: hosts ask every few seconds, which must not read the store.
//!
//! The store decides which answer counts. Memory may be behind it: a host that has answered to another node is asked again here,
//! and its second answer is dropped.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_core::Error;
use muster_core::error_chain::chain;
use muster_core::id::{AgentId, LiveQueryId};
use muster_core::live_query::{EndReason, HostAnswer, LiveQuery, LiveResult};
use muster_core::time::Timestamp;
use muster_store::{LiveQueryWrite, StoreError};

use super::LiveQueries;
use crate::authority::System;
use crate::registry::AgentEntry;

/// Interval at which live queries are ended, and compared with the store.
const TICK: Duration = Duration::from_secs(1);
/// Time for which the number of targets that are offline is not counted again.
const OFFLINE_FOR: Duration = Duration::from_secs(1);
/// Targets per read.
const BATCH: u32 = 5_000;
/// Number of ended live queries whose late answers are dropped without a notice.
const REMEMBERED: usize = 256;

/// What is known of an answer before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The host was asked and has yet to answer.
    Yes,
    /// It has answered, or the live query has ended.
    Late,
    /// It was never asked.
    Never,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored.
    Stored,
    /// The host had answered before, or the live query has ended.
    Dropped,
}

/// A live query that runs.
struct Live {
    query: Arc<LiveQuery>,
    /// Latest time at which it ends, which can be prolonged.
    expires_at: Mutex<Timestamp>,
    targets: Mutex<Targets>,
    /// The number of targets that are offline, and when it was counted.
    offline: Mutex<Option<(u64, Timestamp)>>,
}

/// The targets of a live query.
struct Targets {
    /// Each with whether it has answered.
    all: HashMap<AgentId, bool>,
    /// Number of those that have not.
    waiting: usize,
}

/// The live queries that run.
#[derive(Default)]
pub(super) struct Running {
    live: Mutex<Vec<Arc<Live>>>,
    ended: Mutex<VecDeque<LiveQueryId>>,
    /// Held while memory is compared with the store.
    reload: tokio::sync::Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    /// Adds a live query, unless it is known.
    pub(super) fn begin(&self, query: &LiveQuery, targets: Vec<AgentId>) {
        let mut live = lock(&self.live);
        if live.iter().all(|known| known.query.id != query.id) {
            let all: HashMap<AgentId, bool> = targets.into_iter().map(|agent| (agent, false)).collect();
            let targets = Mutex::new(Targets { waiting: all.len(), all });
            let (expires_at, query) = (Mutex::new(query.expires_at), Arc::new(query.clone()));
            live.push(Arc::new(Live { query, expires_at, targets, offline: Mutex::default() }));
        }
    }

    /// Lets a live query last until a time.
    pub(super) fn prolong(&self, id: &LiveQueryId, until: Timestamp) {
        if let Some(live) = self.find(id.as_str()) {
            *lock(&live.expires_at) = until;
        }
    }

    /// Removes a live query that has ended.
    pub(super) fn end(&self, id: &LiveQueryId) {
        let mut live = lock(&self.live);
        let before = live.len();
        live.retain(|known| known.query.id != *id);
        if live.len() < before {
            let mut ended = lock(&self.ended);
            if ended.len() >= REMEMBERED {
                ended.pop_front();
            }
            ended.push_back(id.clone());
        }
    }

    fn all(&self) -> Vec<Arc<Live>> {
        lock(&self.live).clone()
    }

    fn find(&self, id: &str) -> Option<Arc<Live>> {
        lock(&self.live).iter().find(|live| live.query.id.as_str() == id).cloned()
    }

    /// Returns the number of targets that are offline, if it was counted a short time ago.
    pub(super) fn offline(&self, id: &LiveQueryId, now: Timestamp) -> Option<u64> {
        let live = self.find(id.as_str())?;
        let (count, at) = (*lock(&live.offline))?;
        (now.since(at) < OFFLINE_FOR).then_some(count)
    }

    /// Remembers the number of targets that are offline.
    pub(super) fn remember_offline(&self, id: &LiveQueryId, count: u64, now: Timestamp) {
        if let Some(live) = self.find(id.as_str()) {
            *lock(&live.offline) = Some((count, now));
        }
    }

    fn answered(&self, live: &Live, agent: &AgentId) {
        let is_last = {
            let mut targets = lock(&live.targets);
            let is_first =
                targets.all.get_mut(agent).is_some_and(|has_answered| !std::mem::replace(has_answered, true));
            targets.waiting -= usize::from(is_first);
            targets.waiting == 0
        };
        if is_last {
            self.end(&live.query.id);
        }
    }
}

impl Live {
    fn is_expired(&self, now: Timestamp) -> bool {
        now >= *lock(&self.expires_at)
    }

    /// Returns whether a target has answered; `None` for an agent that is no target.
    fn has_answered(&self, agent: &AgentId) -> Option<bool> {
        lock(&self.targets).all.get(agent).copied()
    }
}

impl LiveQueries {
    /// Returns the live queries that an agent has yet to answer. Reads nothing from the store.
    pub fn due(&self, entry: &AgentEntry) -> Vec<Arc<LiveQuery>> {
        let live = lock(&self.running.live);
        if live.is_empty() {
            return Vec::new();
        }
        let Some(record) = entry.record() else { return Vec::new() };
        let now = self.clock.now();
        // A host that moved to another space must not answer to the former one.
        let is_due = |live: &&Arc<Live>| {
            live.query.space == record.space && !live.is_expired(now) && live.has_answered(entry.id()) == Some(false)
        };
        live.iter().filter(is_due).map(|live| Arc::clone(&live.query)).collect()
    }

    /// Returns whether an agent was asked a live query. Reads the store only for one that this node does not know: it may have
    /// ended before a restart, or on another node.
    pub async fn asked(&self, entry: &AgentEntry, id: &str) -> Result<Asked, Error> {
        let Some(record) = entry.record() else { return Ok(Asked::Never) };
        if let Some(live) = self.running.find(id) {
            let is_here = record.space == live.query.space;
            return Ok(match live.has_answered(entry.id()).filter(|_| is_here) {
                Some(false) if !live.is_expired(self.clock.now()) => Asked::Yes,
                Some(_) => Asked::Late,
                None => Asked::Never,
            });
        }
        if lock(&self.running.ended).iter().any(|ended| ended.as_str() == id) {
            return Ok(Asked::Late);
        }
        let Ok(id) = LiveQueryId::parse(id) else { return Ok(Asked::Never) };
        let stored = self.store.everywhere(entry).live_query_in(&record.space, &id).await?;
        Ok(if stored.is_some() { Asked::Late } else { Asked::Never })
    }

    /// Stores the answer of an agent that was asked. The first one counts.
    pub async fn answer(&self, entry: &AgentEntry, id: &str, answer: HostAnswer) -> Result<Outcome, Error> {
        let Some((live, record)) = self.running.find(id).zip(entry.record()) else { return Ok(Outcome::Dropped) };
        let result = LiveResult {
            seq: 0,
            agent: entry.id().clone(),
            host: record.host_id.clone(),
            hostname: record.hostname.clone(),
            at: self.clock.now(),
            answer,
        };
        let write = LiveQueryWrite::Answer { query: live.query.id.clone(), result: Box::new(result) };
        let outcome = match self.store.commit(entry, vec![write.into()]).await {
            Ok(_) => Outcome::Stored,
            Err(StoreError::Conflict(_)) => Outcome::Dropped,
            Err(error) => return Err(error.into()),
        };
        self.running.answered(&live, entry.id());
        Ok(outcome)
    }

    /// Ends live queries by their time-outs, and follows those that end elsewhere, until shutdown.
    pub(crate) async fn run(self: Arc<Self>) {
        if let Err(error) = self.reload().await {
            tracing::warn!(error = %chain(&error), "failed to read the live queries; retrying");
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.shutdown.wait() => return,
            }
            if let Err(error) = self.advance().await {
                tracing::warn!(error = %chain(&error), "failed to end live queries; retrying");
            }
        }
    }

    /// Ends the live queries whose time-out has passed, and forgets those that ended otherwise. Reads nothing while none runs.
    pub async fn advance(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let running = self.running.all();
        if running.is_empty() {
            return Ok(());
        }
        for live in running.iter().filter(|live| live.is_expired(now)) {
            self.time_out(&live.query.id, now).await?;
        }
        // This also brings back one that another server has prolonged meanwhile.
        self.reload().await
    }

    async fn time_out(&self, id: &LiveQueryId, now: Timestamp) -> Result<(), Error> {
        // Each node does this. The first one counts.
        let end = LiveQueryWrite::End { id: id.clone(), reason: EndReason::TimedOut, now };
        self.store.commit(&System, vec![end.into()]).await?;
        self.running.end(id);
        Ok(())
    }

    /// Compares memory with the store: begins what other nodes began, and ends what has ended.
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        let _turn = self.running.reload.lock().await;
        // Before the read: what is added meanwhile must not be taken for ended.
        let known: HashSet<LiveQueryId> = self.running.all().iter().map(|live| live.query.id.clone()).collect();
        let stored = self.store.everywhere(&System).live_queries_running().await?;
        let there: HashSet<&LiveQueryId> = stored.iter().map(|query| &query.id).collect();
        for gone in known.iter().filter(|id| !there.contains(id)) {
            self.running.end(gone);
        }
        for query in &stored {
            if known.contains(&query.id) {
                self.running.prolong(&query.id, query.expires_at);
            } else {
                self.running.begin(query, self.pending(&query.id).await?);
            }
        }
        Ok(())
    }

    async fn pending(&self, id: &LiveQueryId) -> Result<Vec<AgentId>, Error> {
        let mut pending: Vec<AgentId> = Vec::new();
        loop {
            let batch = self.store.everywhere(&System).live_query_pending(id, pending.last(), BATCH).await?;
            let is_last = batch.len() < BATCH as usize;
            pending.extend(batch);
            if is_last {
                return Ok(pending);
            }
        }
    }
}
