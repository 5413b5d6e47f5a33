//! Agents known to this node, and who of them is connected: presence and parking.
//!
//! An entry caches one agent's record, so that a heartbeat costs no read. The store stays the truth: every update
//! carries the version it started from, and the change feed replaces records that other hands changed.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_core::agent::AgentRecord;
use muster_core::check_in::KnownDocuments;
use muster_core::credential::LiveCredentials;
use muster_core::documents::Digest;
use muster_core::id::{AgentId, KeyId, PolicyId};
use muster_core::poll::GoDuration;
use muster_core::time::{Clock, Timestamp};
use tokio::sync::Notify;

const SHARDS: usize = 64;
/// Polls of one agent that are held at a time. Two, because an agent that lost its connection asks again before its
/// old one is known to be dead; more would let one key take any number of places.
const MAX_POLLS: u32 = 2;

type Shard = Mutex<HashMap<AgentId, Arc<AgentEntry>>>;

/// The agents that this node has heard of since it started, or until they were quiet for long.
pub struct Registry {
    shards: Vec<Shard>,
    hasher: std::hash::RandomState,
    parked: Arc<AtomicUsize>,
}

/// One agent as this node knows it.
pub struct AgentEntry {
    id: AgentId,
    state: Mutex<EntryState>,
    wake: Notify,
    generation: AtomicU64,
    orders: AtomicU64,
    polls: AtomicU32,
    /// Polls that were ever held: the number of the newest.
    newest_poll: AtomicU32,
    last_seen: AtomicI64,
}

struct EntryState {
    record: Option<Arc<AgentRecord>>,
    known: Option<KnownDocuments>,
    last_request: Option<LastRequest>,
    without_actions: Option<u64>,
    offers: PolicyOffers,
    used: Vec<CredentialUse>,
}

/// When a credential was used last, and the last use that the store knows.
#[derive(Debug)]
struct CredentialUse {
    key: KeyId,
    at: Timestamp,
    written: Option<Timestamp>,
}

/// The last accepted check-in: when the same bytes come again and the record is the same, nothing need be decided.
#[derive(Clone, Copy, Debug)]
pub struct LastRequest {
    /// Fingerprint of the request's bytes and the headers that matter.
    pub digest: Digest,
    /// The record's version after it.
    pub version: i64,
    /// The revision from which on a policy is due.
    pub policy_revision: i64,
    /// How long the client asked to be held.
    pub poll: Option<GoDuration>,
}

/// How often the newest policy was offered to an agent that does not adopt it (D11).
#[derive(Clone, Copy, Debug, Default)]
pub struct PolicyOffers {
    /// The revision offered.
    pub revision: i64,
    /// How often.
    pub count: u32,
    /// When last.
    pub last: Timestamp,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: std::hash::RandomState::new(),
            parked: Arc::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of one request must not shut every agent of the shard out: what is in here is whole at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    fn shard(&self, id: &AgentId) -> &Shard {
        &self.shards[self.hasher.hash_one(id) as usize % SHARDS]
    }

    /// The agent's entry, if this node knows it.
    pub fn get(&self, id: &AgentId) -> Option<Arc<AgentEntry>> {
        lock(self.shard(id)).get(id).cloned()
    }

    /// Takes a record read from the store: makes an entry, or renews the one there is if the record is newer.
    pub fn admit(&self, record: AgentRecord) -> Arc<AgentEntry> {
        let entry = Arc::clone(
            lock(self.shard(&record.id)).entry(record.id.clone()).or_insert_with(|| Arc::new(AgentEntry::new(&record))),
        );
        // Outside the shard's lock, for which every other agent of the shard waits.
        entry.renew(Arc::new(record));
        entry
    }

    /// Forgets an agent; its held polls are woken and find it gone.
    pub fn forget(&self, id: &AgentId) {
        if let Some(entry) = lock(self.shard(id)).remove(id) {
            entry.mark_gone();
        }
    }

    /// Number of polls held now.
    pub fn parked(&self) -> usize {
        self.parked.load(Ordering::Relaxed)
    }

    /// Number of agents known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether no agent is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the agent was seen last: now while it is connected. `None` when this node has not seen it.
    pub fn last_seen(&self, id: &AgentId, now: Timestamp) -> Option<Timestamp> {
        self.get(id)?.last_seen(now)
    }

    /// Moves the times of all sightings by as much as the clock was set, in microseconds.
    pub(super) fn clock_was_set(&self, by: i64, now: Timestamp) {
        for entry in self.select(|_| true) {
            entry.clock_was_set(by, now);
        }
    }

    /// Whether a poll of the agent is held now.
    pub fn is_connected(&self, id: &AgentId) -> bool {
        self.get(id).is_some_and(|entry| entry.is_connected())
    }

    /// Entries for which `wanted` holds.
    pub fn select(&self, wanted: impl Fn(&AgentEntry) -> bool) -> Vec<Arc<AgentEntry>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            found.extend(lock(shard).values().filter(|entry| wanted(entry)).cloned());
        }
        found
    }

    /// Entries of agents that follow the newest revision of `policy` and have a poll held now.
    pub fn parked_followers(&self, policy: &PolicyId) -> Vec<Arc<AgentEntry>> {
        let follows =
            |record: &AgentRecord| record.policy_id.as_ref() == Some(policy) && record.target_revision.is_none();
        self.select(|entry| entry.is_connected() && entry.record().is_some_and(|record| follows(&record)))
    }

    /// Drops entries for which `quiet` holds; returns how many.
    pub fn retire(&self, quiet: impl Fn(&AgentEntry) -> bool) -> usize {
        let mut retired = 0;
        for shard in &self.shards {
            let mut agents = lock(shard);
            let before = agents.len();
            agents.retain(|_, entry| !quiet(entry));
            retired += before - agents.len();
            // After a storm of agents the map would keep its size for ever; half is kept, so that coming and going costs little.
            agents.shrink_to(before / 2);
        }
        retired
    }
}

impl AgentEntry {
    fn new(record: &AgentRecord) -> Self {
        let state = EntryState {
            record: Some(Arc::new(record.clone())),
            known: None,
            last_request: None,
            without_actions: None,
            offers: PolicyOffers::default(),
            used: Vec::new(),
        };
        Self {
            id: record.id.clone(),
            state: Mutex::new(state),
            wake: Notify::new(),
            generation: AtomicU64::new(0),
            orders: AtomicU64::new(0),
            polls: AtomicU32::new(0),
            newest_poll: AtomicU32::new(0),
            last_seen: AtomicI64::new(i64::MIN),
        }
    }

    /// The agent.
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// Its record; `None` once the agent was deleted.
    pub fn record(&self) -> Option<Arc<AgentRecord>> {
        lock(&self.state).record.clone()
    }

    /// Takes a record if it is newer than the one held.
    pub fn renew(&self, record: Arc<AgentRecord>) {
        let mut state = lock(&self.state);
        // Reads of the store can overtake each other. And an entry whose agent is gone stays so: its key is dead.
        if state.record.as_ref().is_some_and(|held| held.version < record.version) {
            state.record = Some(record);
        }
    }

    /// Notes that a request came with this credential.
    pub(crate) fn credential_used(&self, key: &KeyId, now: Timestamp) {
        let used = &mut lock(&self.state).used;
        match used.iter_mut().find(|known| known.key == *key) {
            Some(known) => known.at = known.at.max(now),
            None => {
                // The oldest goes first: keys that were renewed are never used again.
                if used.len() >= LiveCredentials::MOST {
                    used.remove(0);
                }
                used.push(CredentialUse { key: key.clone(), at: now, written: None });
            }
        }
    }

    /// Uses of credentials that the store does not know.
    pub(crate) fn unwritten_uses(&self) -> Vec<(KeyId, Timestamp)> {
        let state = lock(&self.state);
        let unwritten = state.used.iter().filter(|known| known.written.is_none_or(|written| written < known.at));
        unwritten.map(|known| (known.key.clone(), known.at)).collect()
    }

    /// Remembers that the store knows of a use.
    pub(crate) fn use_written(&self, key: &KeyId, at: Timestamp) {
        if let Some(known) = lock(&self.state).used.iter_mut().find(|known| known.key == *key) {
            known.written = Some(at);
        }
    }

    fn mark_gone(&self) {
        lock(&self.state).record = None;
        self.wake();
    }

    /// Fingerprints of the agent's documents, if they were loaded.
    pub fn known_documents(&self) -> Option<KnownDocuments> {
        lock(&self.state).known
    }

    /// Remembers the fingerprints.
    pub fn remember_documents(&self, known: KnownDocuments) {
        lock(&self.state).known = Some(known);
    }

    /// Remembers an accepted check-in.
    pub fn remember_request(&self, request: LastRequest) {
        lock(&self.state).last_request = Some(request);
    }

    /// The last accepted check-in, if it had these bytes and the record is still the one it left.
    pub fn same_request(&self, digest: &Digest) -> Option<LastRequest> {
        let state = lock(&self.state);
        let last = state.last_request.filter(|last| last.digest == *digest)?;
        state.record.as_ref().filter(|record| record.version == last.version).map(|_| last)
    }

    /// Whether a look at the store in this generation of orders found none due.
    pub fn is_without_actions(&self, orders: u64) -> bool {
        lock(&self.state).without_actions == Some(orders)
    }

    /// Remembers that a look begun in this generation of orders found none due.
    pub fn remember_without_actions(&self, orders: u64) {
        lock(&self.state).without_actions = Some(orders);
    }

    /// Counts an offer of a policy revision; answers the count so far and the time of the last one.
    pub fn offers(&self) -> PolicyOffers {
        lock(&self.state).offers
    }

    /// Counts one more offer of `revision`.
    pub fn remember_offer(&self, revision: i64, now: Timestamp) {
        let mut state = lock(&self.state);
        let count = if state.offers.revision == revision { state.offers.count + 1 } else { 1 };
        state.offers = PolicyOffers { revision, count, last: now };
    }

    /// Rises with each wake-up: whoever looked before it must look anew.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Rises with each wake-up that may bring orders: a look at the store found what it found until then.
    pub fn orders(&self) -> u64 {
        self.orders.load(Ordering::Acquire)
    }

    /// Tells whoever is parked to look. Carries no data.
    pub fn wake(&self) {
        // Orders rise first: who sees the new generation must not take the old "no actions" for an answer.
        self.orders.fetch_add(1, Ordering::Release);
        self.wake_for_policy();
    }

    /// Tells whoever is parked to look for a policy: there are no more orders than before.
    pub fn wake_for_policy(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        self.wake.notify_waiters();
    }

    /// Waits for the next wake-up after `generation`.
    pub async fn woken_after(&self, generation: u64) {
        let notified = self.wake.notified();
        tokio::pin!(notified);
        // Registered before the generation is compared: a wake-up between the two would otherwise be missed.
        notified.as_mut().enable();
        if self.generation() == generation {
            notified.await;
        }
    }

    /// Whether a poll is held now.
    pub fn is_connected(&self) -> bool {
        self.polls.load(Ordering::Relaxed) > 0
    }

    /// Notes that the agent was here.
    pub fn seen(&self, now: Timestamp) {
        self.last_seen.fetch_max(now.as_micros(), Ordering::Relaxed);
    }

    fn clock_was_set(&self, by: i64, now: Timestamp) {
        let moved = |micros: i64| (micros != i64::MIN).then(|| micros.saturating_add(by).min(now.as_micros()));
        // An error: it was not seen by this node.
        let _ = self.last_seen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }

    /// When it was here last: now while connected.
    pub fn last_seen(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_connected() {
            return Some(now);
        }
        let micros = self.last_seen.load(Ordering::Relaxed);
        (micros != i64::MIN).then(|| Timestamp::from_micros(micros))
    }
}

/// A held poll. While it lives the agent counts as connected.
pub struct PollSlot {
    entry: Arc<AgentEntry>,
    number: u32,
    parked: Arc<AtomicUsize>,
    clock: Arc<dyn Clock>,
}

impl PollSlot {
    /// Counts a poll of the agent as held.
    pub fn new(registry: &Registry, entry: Arc<AgentEntry>, clock: Arc<dyn Clock>) -> Self {
        let number = entry.newest_poll.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        registry.parked.fetch_add(1, Ordering::Relaxed);
        if entry.polls.fetch_add(1, Ordering::Relaxed) >= MAX_POLLS {
            // The oldest finds itself superseded; the others look, and wait on.
            entry.wake_for_policy();
        }
        Self { entry, number, parked: Arc::clone(&registry.parked), clock }
    }

    /// Whether the agent has begun as many newer polls as it may have at a time: this one is answered.
    pub fn is_superseded(&self) -> bool {
        self.entry.newest_poll.load(Ordering::Acquire).wrapping_sub(self.number) >= MAX_POLLS
    }

    /// The agent.
    pub fn entry(&self) -> &Arc<AgentEntry> {
        &self.entry
    }
}

impl Drop for PollSlot {
    fn drop(&mut self) {
        // Seen before the poll counts as gone: in between the agent must not look as if it had been away all along.
        self.entry.seen(self.clock.now());
        self.entry.polls.fetch_sub(1, Ordering::Relaxed);
        self.parked.fetch_sub(1, Ordering::Relaxed);
    }
}
