//! The agents that this node has cached, their presence, and their held polls.
//!
//! An entry caches one agent's record, so that a heartbeat needs no read. The store remains authoritative: each update
//! carries the version that it started from, and the change feed refreshes records that other nodes have changed.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_core::action::DueAction;
use muster_core::agent::AgentRecord;
use muster_core::check_in::KnownDocuments;
use muster_core::credential::{LiveCredential, LiveCredentials};
use muster_core::documents::Digest;
use muster_core::id::{AgentId, KeyId, PolicyId};
use muster_core::poll::GoDuration;
use muster_core::time::{Clock, Timestamp};
use tokio::sync::Notify;

const SHARDS: usize = 64;
/// Maximum held polls of one agent. Two, because an agent that lost its connection polls again before the server
/// notices. Without a limit, one key could take all places.
const MAX_POLLS: u32 = 2;

type Shard = Mutex<HashMap<AgentId, Arc<AgentEntry>>>;

/// The cached agents. An entry is added when an agent is first used and removed when it was deleted or silent for long.
pub struct Registry {
    shards: Vec<Shard>,
    hasher: std::hash::RandomState,
    parked: Arc<AtomicUsize>,
}

/// A cached agent.
pub struct AgentEntry {
    id: AgentId,
    state: Mutex<EntryState>,
    // The fields below are atomics and not part of `state`: heartbeats and wake-ups touch only these, and a fan-out to
    // a hundred thousand agents must not wait for locks.
    wake: Notify,
    generation: AtomicU64,
    action_generation: AtomicU64,
    polls: AtomicU32,
    /// Number of the newest poll: the polls of this agent are numbered from 1, wrapping around.
    newest_poll: AtomicU32,
    /// Number of the newest poll that was dismissed: this one and all earlier ones are to be answered.
    dismissed: AtomicU32,
    /// Whether the entry was removed from the registry: then it is not refreshed any more, and holds no polls.
    is_detached: AtomicBool,
    last_seen: AtomicI64,
}

struct EntryState {
    // `None` once the agent was deleted. Held polls still own the entry and find out this way.
    record: Option<Arc<AgentRecord>>,
    // Digests of the documents that the store has, to notice changed ones. Loaded with the first check-in.
    known: Option<KnownDocuments>,
    last_request: Option<LastRequest>,
    // The `action_generation` in which the store had no due actions.
    without_actions: Option<u64>,
    // The only action that is due, with the `action_generation` for which that is known. Boxed: few agents have one.
    only_due: Option<Box<(u64, DueAction)>>,
    // The `generation` in which nothing was to be done for the agent's output keys.
    without_keys: Option<u64>,
    // Revision that the agent acked after its last delivery, if that had all output keys.
    acked_policy: i64,
    offers: PolicyOffers,
    used: Vec<CredentialUse>,
}

/// Time of a credential's last use, and the time that was last written to the store.
#[derive(Debug)]
struct CredentialUse {
    key: KeyId,
    at: Timestamp,
    written: Option<Timestamp>,
}

/// The last accepted check-in. If the same bytes arrive again and the record has not changed, there is nothing to
/// decide.
#[derive(Clone, Copy, Debug)]
pub struct LastRequest {
    /// Digest of the request's body and the relevant headers.
    pub digest: Digest,
    /// Version of the record after it.
    pub version: i64,
    /// The policy revision that the agent runs.
    pub policy_revision: i64,
    /// The poll time that the client requested.
    pub poll: Option<GoDuration>,
}

/// Deliveries of one policy revision to an agent that does not apply it (D11).
#[derive(Clone, Copy, Debug, Default)]
pub struct PolicyOffers {
    /// The revision.
    pub revision: i64,
    /// Number of deliveries.
    pub count: u32,
    /// Number of those with all output keys.
    pub whole: u32,
    /// Time of the last delivery.
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
    // A panic in one request must not lock out every agent of the shard. The data is valid at any time, because no
    // update consists of several steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    fn shard(&self, id: &AgentId) -> &Shard {
        &self.shards[self.hasher.hash_one(id) as usize % SHARDS]
    }

    /// Returns the agent's entry, if it is cached.
    pub fn get(&self, id: &AgentId) -> Option<Arc<AgentEntry>> {
        lock(self.shard(id)).get(id).cloned()
    }

    /// Caches a record that was read from the store: adds an entry, or updates the existing one if the record is newer.
    pub fn admit(&self, record: AgentRecord) -> Arc<AgentEntry> {
        let entry = Arc::clone(
            lock(self.shard(&record.id)).entry(record.id.clone()).or_insert_with(|| Arc::new(AgentEntry::new(&record))),
        );
        // Outside the shard's lock, for which the other agents of the shard may wait.
        entry.renew(Arc::new(record));
        entry
    }

    /// Removes a deleted agent. Its held polls are woken and find that it is gone.
    pub fn forget(&self, id: &AgentId) {
        if let Some(entry) = lock(self.shard(id)).remove(id) {
            entry.mark_gone();
        }
    }

    /// Number of held polls.
    pub fn parked(&self) -> usize {
        self.parked.load(Ordering::Relaxed)
    }

    /// Number of cached agents.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Returns true if no agent is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the time at which this node last saw the agent: `now` while it is connected, `None` if never.
    pub fn last_seen(&self, id: &AgentId, now: Timestamp) -> Option<Timestamp> {
        self.get(id)?.last_seen(now)
    }

    /// Shifts all times of last sightings after the clock was set, by that many microseconds.
    pub(super) fn clock_was_set(&self, by: i64, now: Timestamp) {
        for entry in self.select(|_| true) {
            entry.clock_was_set(by, now);
        }
    }

    /// Returns true while a poll of the agent is held.
    pub fn is_connected(&self, id: &AgentId) -> bool {
        self.get(id).is_some_and(|entry| entry.is_connected())
    }

    /// Returns the entries for which `wanted` is true.
    pub fn select(&self, wanted: impl Fn(&AgentEntry) -> bool) -> Vec<Arc<AgentEntry>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            found.extend(lock(shard).values().filter(|entry| wanted(entry)).cloned());
        }
        found
    }

    /// Returns the entries of agents that follow the newest revision of `policy` and have a held poll. Agents with a
    /// target revision are not concerned by a new one.
    pub fn parked_followers(&self, policy: &PolicyId) -> Vec<Arc<AgentEntry>> {
        let follows =
            |record: &AgentRecord| record.policy_id.as_ref() == Some(policy) && record.target_revision.is_none();
        self.select(|entry| entry.is_connected() && entry.record().is_some_and(|record| follows(&record)))
    }

    /// Removes all entries, and returns them: their polls end as soon as they are woken. Whoever needs an entry reads the
    /// record again.
    pub(crate) fn detach_all(&self) -> Vec<Arc<AgentEntry>> {
        let mut detached = Vec::new();
        for shard in &self.shards {
            detached.extend(lock(shard).drain().map(|(_, entry)| entry));
        }
        for entry in &detached {
            entry.is_detached.store(true, Ordering::Release);
        }
        detached
    }

    /// Drops entries for which `quiet` is true; returns their number.
    pub fn retire(&self, quiet: impl Fn(&AgentEntry) -> bool) -> usize {
        let mut retired = 0;
        for shard in &self.shards {
            let mut agents = lock(shard);
            let before = agents.len();
            agents.retain(|_, entry| !quiet(entry));
            retired += before - agents.len();
            // Otherwise the map would keep the capacity of its largest size. Half of it is kept, so that agents that
            // come and go don't cause a reallocation each time.
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
            only_due: None,
            without_keys: None,
            acked_policy: 0,
            offers: PolicyOffers::default(),
            used: Vec::new(),
        };
        Self {
            id: record.id.clone(),
            state: Mutex::new(state),
            wake: Notify::new(),
            generation: AtomicU64::new(0),
            action_generation: AtomicU64::new(0),
            polls: AtomicU32::new(0),
            newest_poll: AtomicU32::new(0),
            dismissed: AtomicU32::new(0),
            is_detached: AtomicBool::new(false),
            last_seen: AtomicI64::new(i64::MIN),
        }
    }

    /// The agent's id.
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// Returns the cached record; `None` once the agent was deleted.
    pub fn record(&self) -> Option<Arc<AgentRecord>> {
        lock(&self.state).record.clone()
    }

    /// Caches a record if it is newer than the cached one. If a credential has ended, dismisses the held polls: any of them
    /// may have been authenticated with it.
    pub fn renew(&self, record: Arc<AgentRecord>) {
        let mut state = lock(&self.state);
        // Concurrent reads of the store may finish in any order, so an older record can arrive last. An entry of a
        // deleted agent stays empty: an agent that enrolls again under this id gets a new entry.
        let Some(held) = state.record.as_ref().filter(|held| held.version < record.version) else { return };
        let is_live = |old: &LiveCredential| record.credentials.iter().any(|kept| kept == old);
        // Polls of an agent that was unenrolled end with the error of a revoked key, as soon as they are woken.
        let has_ended = record.active && !held.credentials.iter().all(is_live);
        if held.node != record.node {
            // The agent has moved between servers. What was derived from its check-ins here may be outdated.
            (state.known, state.last_request, state.without_keys) = (None, None, None);
        }
        state.record = Some(record);
        drop(state);
        if has_ended {
            self.dismiss_polls();
        }
    }

    /// Records the use of a credential.
    pub(crate) fn credential_used(&self, key: &KeyId, now: Timestamp) {
        let used = &mut lock(&self.state).used;
        match used.iter_mut().find(|known| known.key == *key) {
            Some(known) => known.at = known.at.max(now),
            None => {
                // Keys that were renewed are never used again, so the oldest entry is the one to drop.
                if used.len() >= LiveCredentials::MOST {
                    used.remove(0);
                }
                used.push(CredentialUse { key: key.clone(), at: now, written: None });
            }
        }
    }

    /// Returns the uses of credentials that are not stored yet.
    pub(crate) fn unwritten_uses(&self) -> Vec<(KeyId, Timestamp)> {
        let state = lock(&self.state);
        let unwritten = state.used.iter().filter(|known| known.written.is_none_or(|written| written < known.at));
        unwritten.map(|known| (known.key.clone(), known.at)).collect()
    }

    /// Records that a use was stored.
    pub(crate) fn use_written(&self, key: &KeyId, at: Timestamp) {
        if let Some(known) = lock(&self.state).used.iter_mut().find(|known| known.key == *key) {
            known.written = Some(at);
        }
    }

    fn mark_gone(&self) {
        lock(&self.state).record = None;
        self.wake();
    }

    /// Digests of the agent's documents, if loaded.
    pub fn known_documents(&self) -> Option<KnownDocuments> {
        lock(&self.state).known
    }

    /// Caches the digests of the agent's documents.
    pub fn remember_documents(&self, known: KnownDocuments) {
        lock(&self.state).known = Some(known);
    }

    /// Caches an accepted check-in.
    pub fn remember_request(&self, request: LastRequest) {
        lock(&self.state).last_request = Some(request);
    }

    /// Returns the last accepted check-in, if it had these bytes and the record has not changed since.
    pub fn same_request(&self, digest: &Digest) -> Option<LastRequest> {
        let state = lock(&self.state);
        let last = state.last_request.filter(|last| last.digest == *digest)?;
        state.record.as_ref().filter(|record| record.version == last.version).map(|_| last)
    }

    /// Returns true if a look at the store in this generation found no due actions.
    pub fn is_without_actions(&self, generation: u64) -> bool {
        lock(&self.state).without_actions == Some(generation)
    }

    /// Records that a look which started in this generation found no due actions.
    pub fn remember_without_actions(&self, generation: u64) {
        let mut state = lock(&self.state);
        state.without_actions = Some(generation);
        state.only_due = None;
    }

    /// Returns the action that is due, if it is known in this generation that there is no other one.
    pub(crate) fn only_due(&self, generation: u64) -> Option<DueAction> {
        let state = lock(&self.state);
        state.only_due.as_ref().filter(|known| known.0 == generation).map(|known| known.1.clone())
    }

    /// Returns true if a look at the agent's output keys in this generation found nothing to do.
    pub fn is_without_keys(&self, generation: u64) -> bool {
        lock(&self.state).without_keys == Some(generation)
    }

    /// Records that a look which started in this generation found nothing to do for the agent's output keys.
    pub fn remember_without_keys(&self, generation: u64) {
        lock(&self.state).without_keys = Some(generation);
    }

    /// Makes the next look for a policy look at the output keys, too.
    pub fn forget_keys(&self) {
        lock(&self.state).without_keys = None;
    }

    /// Revision that the agent acked since its last delivery, if that had all output keys; 0 if none.
    pub fn acked_policy(&self) -> i64 {
        lock(&self.state).acked_policy
    }

    /// Records the ack of a policy revision.
    pub fn remember_policy_ack(&self, revision: i64) {
        let mut state = lock(&self.state);
        // The ack of a delivery without keys says nothing about the keys that follow it.
        if state.offers.revision == revision && state.offers.whole > 0 {
            state.acked_policy = revision;
        }
        state.without_keys = None;
    }

    /// Deliveries of the current revision so far.
    pub fn offers(&self) -> PolicyOffers {
        lock(&self.state).offers
    }

    /// Counts a delivery of `revision`, with all output keys or without some.
    pub fn remember_offer(&self, revision: i64, is_whole: bool, now: Timestamp) {
        let mut state = lock(&self.state);
        let before = Some(state.offers).filter(|before| before.revision == revision).unwrap_or_default();
        let whole = before.whole + u32::from(is_whole);
        state.offers = PolicyOffers { revision, count: before.count + 1, whole, last: now };
        state.acked_policy = 0;
    }

    /// Rises with each wake-up: a result from an earlier generation is stale.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Rises with each wake-up that may bring actions: until then, the store has no others for this agent.
    pub fn action_generation(&self) -> u64 {
        self.action_generation.load(Ordering::Acquire)
    }

    /// Wakes the held polls. Carries no data: they look up what is due.
    pub fn wake(&self) {
        // In this order: a poll that sees the new `generation` must not rely on the old "no actions".
        self.action_generation.fetch_add(1, Ordering::Release);
        self.wake_for_policy();
    }

    /// Wakes the held polls for a new action. If nothing was due before, this action is all that is due, and the polls
    /// need not ask the store: an action for ten thousand agents is read once.
    ///
    /// To be called in the order of the change log, which is also the order of the actions' numbers. An action that the
    /// caller has not seen yet has a higher number, and its own wake-up follows.
    pub(crate) fn wake_for_action(&self, due: DueAction) {
        let mut state = lock(&self.state);
        let generation = self.action_generation();
        if state.without_actions == Some(generation) {
            state.only_due = Some(Box::new((generation + 1, due)));
        }
        // Under the lock, so that no other wake-up takes this number.
        let raised =
            self.action_generation.compare_exchange(generation, generation + 1, Ordering::Release, Ordering::Relaxed);
        if raised.is_err() {
            // A concurrent wake-up announces something that is not known here.
            state.only_due = None;
            self.action_generation.fetch_add(1, Ordering::Release);
        }
        drop(state);
        self.wake_for_policy();
    }

    /// Wakes the held polls to look for a policy. The cached "no actions" stays valid, so a new revision does not
    /// cause a read for each agent.
    pub fn wake_for_policy(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        self.wake.notify_waiters();
    }

    /// Answers the held polls with an empty response, after which the agent polls again and is authenticated again.
    pub fn dismiss_polls(&self) {
        self.dismissed.store(self.newest_poll.load(Ordering::Acquire), Ordering::Release);
        self.wake_for_policy();
    }

    /// Waits for the next wake-up after `generation`.
    pub async fn woken_after(&self, generation: u64) {
        let notified = self.wake.notified();
        tokio::pin!(notified);
        // Registered before the comparison, or a wake-up between the two would be missed.
        notified.as_mut().enable();
        if self.generation() == generation {
            notified.await;
        }
    }

    /// Returns true while a poll is held.
    pub fn is_connected(&self) -> bool {
        self.polls.load(Ordering::Relaxed) > 0
    }

    /// Records a sighting. Never moves the time back, since requests may be handled out of order.
    pub fn seen(&self, now: Timestamp) {
        self.last_seen.fetch_max(now.as_micros(), Ordering::Relaxed);
    }

    fn clock_was_set(&self, by: i64, now: Timestamp) {
        let moved = |micros: i64| (micros != i64::MIN).then(|| micros.saturating_add(by).min(now.as_micros()));
        // Fails only if this node has never seen the agent; then there is nothing to shift.
        let _ = self.last_seen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }

    /// Returns the time of the last sighting: `now` while connected.
    pub fn last_seen(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_connected() {
            return Some(now);
        }
        let micros = self.last_seen.load(Ordering::Relaxed);
        (micros != i64::MIN).then(|| Timestamp::from_micros(micros))
    }
}

/// A held poll. While it exists, the agent counts as connected.
pub struct PollSlot {
    entry: Arc<AgentEntry>,
    number: u32,
    parked: Arc<AtomicUsize>,
    clock: Arc<dyn Clock>,
}

impl PollSlot {
    /// Registers a held poll of the agent.
    pub fn new(registry: &Registry, entry: Arc<AgentEntry>, clock: Arc<dyn Clock>) -> Self {
        let number = entry.newest_poll.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        registry.parked.fetch_add(1, Ordering::Relaxed);
        if entry.polls.fetch_add(1, Ordering::Relaxed) >= MAX_POLLS {
            // The oldest poll finds that it is superseded and ends; the others continue to wait.
            entry.wake_for_policy();
        }
        Self { entry, number, parked: Arc::clone(&registry.parked), clock }
    }

    /// Returns true if the agent has started `MAX_POLLS` newer polls: then this one must be answered.
    pub fn is_superseded(&self) -> bool {
        self.entry.newest_poll.load(Ordering::Acquire).wrapping_sub(self.number) >= MAX_POLLS
    }

    /// Returns true once the agent's polls were dismissed: then this one must be answered.
    pub fn is_dismissed(&self) -> bool {
        // Numbers wrap around. A poll is never two thousand million polls older than the last one that was dismissed.
        let is_dismissed = self.entry.dismissed.load(Ordering::Acquire).wrapping_sub(self.number) < u32::MAX / 2;
        is_dismissed || self.entry.is_detached.load(Ordering::Acquire)
    }

    /// The agent.
    pub fn entry(&self) -> &Arc<AgentEntry> {
        &self.entry
    }
}

impl Drop for PollSlot {
    fn drop(&mut self) {
        // The sighting first: between the two, the agent would seem to have been away since the poll started.
        self.entry.seen(self.clock.now());
        self.entry.polls.fetch_sub(1, Ordering::Relaxed);
        self.parked.fetch_sub(1, Ordering::Relaxed);
    }
}
