//! What this node has cached of one agent: its record, the results of the last look-ups, and its presence.
//!
//! Two counters replace locks between those that change something for the agent and its polls: `generation` rises with each
//! wake-up, `action_generation` with each that may bring actions. A result that was cached in an earlier generation is stale.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use muster_core::action::DueAction;
use muster_core::agent::AgentRecord;
use muster_core::check_in::KnownDocuments;
use muster_core::credential::{CredentialKind, LiveCredential, LiveCredentials};
use muster_core::documents::Digest;
use muster_core::fleetd::schedule::MAX_FAILURES;
use muster_core::id::{ActionId, AgentId, KeyId, LabelId};
use muster_core::poll::GoDuration;
use muster_core::time::Timestamp;
use tokio::sync::Notify;

use super::lock;
use super::poll_slot::Polls;

/// A cached agent.
pub struct AgentEntry {
    id: AgentId,
    state: Mutex<EntryState>,
    // The fields below are atomics and not part of `state`: heartbeats and wake-ups touch only these, and a fan-out to
    // a hundred thousand agents must not wait for locks.
    wake: Notify,
    generation: AtomicU64,
    action_generation: AtomicU64,
    pub(super) polls: Polls,
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
    // Actions that were created but not announced yet. Boxed: few agents have one.
    #[allow(clippy::box_collection, reason = "an empty list takes 8 bytes of a parked agent instead of 24")]
    expected: Option<Box<Vec<ActionId>>>,
    // The `generation` in which nothing was to be done for the agent's output keys.
    without_keys: Option<u64>,
    // Revision that the agent acked after its last delivery, if that had all output keys.
    acked_policy: i64,
    offers: PolicyOffers,
    used: Vec<CredentialUse>,
    // When the agent last reported its facts to this node, because it was asked for them.
    facts_reported_at: Option<Timestamp>,
    // When it was asked to report them again, until it does. Boxed: few agents are.
    refetch_requested_at: Option<Box<Timestamp>>,
    // When its host last answered the host checks, and which version of them. Boxed: only osqueryd is asked.
    checks_answered: Option<Box<(Timestamp, i64)>>,
    // When its host last answered the labels, and which it has. Boxed: only osqueryd is asked.
    labels: Option<Box<KnownLabels>>,
    // Hash of the software that its host last reported to this node. Boxed: only osqueryd is asked.
    software: Option<Box<[u8; 32]>>,
    // Failures of scheduled queries that this node has stored: their hashes, and the times until which they need not be stored again. Boxed:
    // few hosts have one.
    #[allow(clippy::box_collection, reason = "an empty map takes 8 bytes of a parked agent instead of 24")]
    failures: Option<Box<BTreeMap<u64, Timestamp>>>,
    // The osqueryd on the host of an orbit, once it was looked for. Boxed: only orbit has one.
    osquery: Option<Box<AgentId>>,
}

/// What is known of the labels of an agent's host.
#[derive(Debug, Default)]
struct KnownLabels {
    /// Time of the last answer to this node, and the version of the labels that were answered.
    answered: Option<(Timestamp, u64)>,
    /// The labels, as they were read with this load of the labels of the space.
    has: Option<(u64, Arc<[LabelId]>)>,
    /// Number of changes by answers: what was read before one is stale.
    changes: u64,
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

impl AgentEntry {
    pub(super) fn new(record: &AgentRecord) -> Self {
        let state = EntryState {
            record: Some(Arc::new(record.clone())),
            known: None,
            last_request: None,
            without_actions: None,
            only_due: None,
            expected: None,
            without_keys: None,
            acked_policy: 0,
            offers: PolicyOffers::default(),
            used: Vec::new(),
            facts_reported_at: None,
            refetch_requested_at: None,
            checks_answered: None,
            labels: None,
            software: None,
            failures: None,
            osquery: None,
        };
        Self {
            id: record.id.clone(),
            state: Mutex::new(state),
            wake: Notify::new(),
            generation: AtomicU64::new(0),
            action_generation: AtomicU64::new(0),
            polls: Polls::default(),
            is_detached: AtomicBool::new(false),
            last_seen: AtomicI64::new(i64::MIN),
        }
    }

    /// Returns the agent's id.
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
        // No poll is authenticated with a device token, which is replaced every hour.
        let is_live = |old: &LiveCredential| {
            old.kind == CredentialKind::DeviceToken || record.credentials.iter().any(|kept| kept == old)
        };
        // Polls of an agent that was unenrolled end with the error of a revoked key, as soon as they are woken.
        let has_ended = record.active && !held.credentials.iter().all(is_live);
        let (is_elsewhere, is_in_other_space) = (held.node != record.node, held.space != record.space);
        if is_elsewhere {
            // The agent has moved between servers. What was derived from its check-ins here may be outdated.
            (state.known, state.last_request, state.without_keys) = (None, None, None);
            (state.software, state.labels, state.failures) = (None, None, None);
        }
        if is_in_other_space {
            // It has enrolled in another space, which asks for other things.
            (state.facts_reported_at, state.checks_answered, state.labels) = (None, None, None);
            (state.refetch_requested_at, state.failures) = (None, None);
        }
        state.record = Some(record);
        drop(state);
        // After the lock: the polls that wake up need the state.
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

    /// Records that the agent was deleted.
    pub(crate) fn mark_gone(&self) {
        lock(&self.state).record = None;
        self.wake();
    }

    /// Records that the registry no longer has the entry. Its polls end as soon as they are woken.
    pub(super) fn detach(&self) {
        self.is_detached.store(true, Ordering::Release);
    }

    /// Returns true once the registry no longer has the entry.
    pub(super) fn is_detached(&self) -> bool {
        self.is_detached.load(Ordering::Acquire)
    }

    /// Returns when the agent last reported its facts to this node, because it was asked for them.
    pub fn facts_reported_at(&self) -> Option<Timestamp> {
        lock(&self.state).facts_reported_at
    }

    /// Records that the agent has reported its facts.
    pub fn remember_facts(&self, now: Timestamp) {
        let mut state = lock(&self.state);
        (state.facts_reported_at, state.refetch_requested_at) = (Some(now), None);
    }

    /// Returns when the agent was asked to report its facts again, unless it has done so to this node.
    pub(crate) fn refetch_requested_at(&self) -> Option<Timestamp> {
        lock(&self.state).refetch_requested_at.as_deref().copied()
    }

    /// Returns when the agent's host last answered the host checks to this node, and their version.
    pub(crate) fn checks_answered(&self) -> Option<(Timestamp, i64)> {
        lock(&self.state).checks_answered.as_deref().copied()
    }

    /// Records that the agent's host has answered the host checks.
    pub(crate) fn remember_checks(&self, now: Timestamp, version: i64) {
        lock(&self.state).checks_answered = Some(Box::new((now, version)));
    }

    /// Returns whether the agent's host last reported software with this hash to this node.
    pub(crate) fn has_software(&self, digest: &[u8; 32]) -> bool {
        lock(&self.state).software.as_deref() == Some(digest)
    }

    /// Records the hash of the software that is stored for the agent's host.
    pub(crate) fn remember_software(&self, digest: [u8; 32]) {
        lock(&self.state).software = Some(Box::new(digest));
    }

    /// Returns whether the failure of a scheduled query with this hash is stored, and need not be stored again yet.
    pub(crate) fn has_failure(&self, hash: u64, now: Timestamp) -> bool {
        lock(&self.state).failures.as_ref().and_then(|all| all.get(&hash)).is_some_and(|until| *until > now)
    }

    /// Records that the failure of a scheduled query with this hash is stored.
    pub(crate) fn remember_failure(&self, hash: u64, until: Timestamp) {
        let mut state = lock(&self.state);
        let all = state.failures.get_or_insert_default();
        // Errors that change with each run must not fill the memory.
        if all.len() >= MAX_FAILURES {
            all.clear();
        }
        all.insert(hash, until);
    }

    /// Forgets when the agent reported its facts and answered the host checks and labels, so that it is asked for all of them.
    pub(crate) fn forget_reports(&self, now: Timestamp) {
        let mut state = lock(&self.state);
        (state.facts_reported_at, state.checks_answered, state.labels) = (None, None, None);
        state.refetch_requested_at = Some(Box::new(now));
    }

    /// Returns when the agent's host last answered the labels to this node, and their version.
    pub(crate) fn labels_answered(&self) -> Option<(Timestamp, u64)> {
        lock(&self.state).labels.as_ref()?.answered
    }

    /// Records that the agent's host has answered the labels. If that changed the labels that it has, they are read again, and host checks,
    /// which may be for some labels only, are asked again.
    pub(crate) fn remember_labels(&self, now: Timestamp, version: u64, has_changed: bool) {
        let mut state = lock(&self.state);
        let known = state.labels.get_or_insert_default();
        known.answered = Some((now, version));
        if has_changed {
            known.has = None;
            known.changes += 1;
            state.checks_answered = None;
        }
    }

    /// Returns the labels of the agent's host, if they were read with this load of the labels of its space; otherwise the number of
    /// changes so far.
    pub(crate) fn known_labels(&self, load: u64) -> Result<Arc<[LabelId]>, u64> {
        let state = lock(&self.state);
        let Some(known) = &state.labels else { return Err(0) };
        let has = known.has.as_ref().filter(|(read, _)| *read == load);
        has.map(|(_, labels)| Arc::clone(labels)).ok_or(known.changes)
    }

    /// Caches the labels of the agent's host, unless they have changed since this number of changes.
    pub(crate) fn cache_labels(&self, load: u64, changes: u64, labels: Arc<[LabelId]>) {
        let mut state = lock(&self.state);
        let known = state.labels.get_or_insert_default();
        if known.changes == changes {
            known.has = Some((load, labels));
        }
    }

    /// Returns the osqueryd on the host of this orbit, if it is known.
    pub(crate) fn osquery_beside(&self) -> Option<AgentId> {
        lock(&self.state).osquery.as_deref().cloned()
    }

    /// Remembers the osqueryd on the host of this orbit; `None` if the known one is gone.
    pub(crate) fn remember_osquery(&self, id: Option<AgentId>) {
        lock(&self.state).osquery = id.map(Box::new);
    }

    /// Returns the digests of the agent's documents, if loaded.
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

    /// Returns true if a query of the store in this generation found no due actions.
    pub fn is_without_actions(&self, generation: u64) -> bool {
        lock(&self.state).without_actions == Some(generation)
    }

    /// Records that a query which started in this generation found no due actions.
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

    /// Returns true if a check of the agent's output keys in this generation found nothing to do.
    pub fn is_without_keys(&self, generation: u64) -> bool {
        lock(&self.state).without_keys == Some(generation)
    }

    /// Records that a check which started in this generation found nothing to do for the agent's output keys.
    pub fn remember_without_keys(&self, generation: u64) {
        lock(&self.state).without_keys = Some(generation);
    }

    /// Makes the next check for a policy include the output keys.
    pub fn forget_keys(&self) {
        lock(&self.state).without_keys = None;
    }

    /// Returns the revision that the agent acked since its last delivery, if that had all output keys; 0 if none.
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

    /// Returns the deliveries of the current revision so far.
    pub fn offers(&self) -> PolicyOffers {
        lock(&self.state).offers
    }

    /// Counts a delivery of `revision`, with all output keys or without some.
    pub fn remember_offer(&self, revision: i64, is_whole: bool, now: Timestamp) {
        let mut state = lock(&self.state);
        let before = Some(state.offers).filter(|before| before.revision == revision).unwrap_or_default();
        let whole = before.whole + u32::from(is_whole);
        // Counts anew for another revision.
        state.offers = PolicyOffers { revision, count: before.count + 1, whole, last: now };
        state.acked_policy = 0;
    }

    /// Returns a number that rises with each wake-up: a result from an earlier generation is stale.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns a number that rises with each wake-up that may bring actions. Until then, the store has no others for
    /// this agent.
    pub fn action_generation(&self) -> u64 {
        self.action_generation.load(Ordering::Acquire)
    }

    /// Wakes the held polls. Carries no data: they look up what is due.
    pub fn wake(&self) {
        // In this order: a poll that sees the new `generation` must not rely on the old "no actions".
        self.action_generation.fetch_add(1, Ordering::Release);
        self.wake_for_policy();
    }

    /// Notes an action that is announced later, by [`Self::wake_for_action`].
    pub(crate) fn expect_action(&self, id: &ActionId) {
        let mut state = lock(&self.state);
        let expected = state.expected.get_or_insert_default();
        if !expected.contains(id) {
            expected.push(id.clone());
        }
    }

    /// Notes that an expected action is not announced any more.
    pub(crate) fn expect_no_longer(&self, id: &ActionId) {
        Self::remove_expected(&mut lock(&self.state), id);
    }

    fn remove_expected(state: &mut EntryState, id: &ActionId) {
        if let Some(expected) = &mut state.expected {
            expected.retain(|known| known != id);
        }
        state.expected.take_if(|expected| expected.is_empty());
    }

    /// Wakes the held polls for a new action. If nothing was due before, this action is all that is due, and the polls
    /// need not ask the store: an action for ten thousand agents is read once.
    ///
    /// To be called in the order of the change log, which is also the order in which actions are created. Therefore, an
    /// action that was created earlier has been announced, or is expected; one that was created later has a higher number,
    /// and is delivered after its own wake-up.
    pub(crate) fn wake_for_action(&self, due: DueAction) {
        let mut state = lock(&self.state);
        Self::remove_expected(&mut state, &due.action.id);
        let generation = self.action_generation();
        let is_only = state.without_actions == Some(generation) && state.expected.is_none();
        // Known for the generation that this wake-up begins, not for the one that it ends.
        state.only_due = is_only.then(|| Box::new((generation + 1, due)));
        // Under the lock, so that no other announcement takes this number.
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
        self.polls.dismiss();
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
        self.polls.are_held()
    }

    /// Records a sighting. Never moves the time back, since requests may be handled out of order.
    pub fn seen(&self, now: Timestamp) {
        self.last_seen.fetch_max(now.as_micros(), Ordering::Relaxed);
    }

    pub(super) fn clock_was_set(&self, by: i64, now: Timestamp) {
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
