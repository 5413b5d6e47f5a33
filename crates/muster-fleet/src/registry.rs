//! The agents that this node has cached, their presence, and their held polls.
//!
//! An entry caches one agent's record, so that a heartbeat needs no read. The store remains authoritative: each update
//! carries the version that it started from, and the change feed refreshes records that other nodes have changed.

mod entry;
mod poll_slot;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_core::agent::AgentRecord;
use muster_core::credential::CredentialKind;
use muster_core::id::{AgentId, KeyId, PolicyId};
use muster_core::time::Timestamp;

pub use self::entry::{AgentEntry, LastRequest, PolicyOffers};
pub use self::poll_slot::PollSlot;

const SHARDS: usize = 64;
type Shard = Mutex<HashMap<AgentId, Arc<AgentEntry>>>;

/// The cached agents. An entry is added when an agent is first used and removed when it was deleted or silent for long.
pub struct Registry {
    shards: Vec<Shard>,
    /// The agents of cached node keys and device tokens, which do not name them. A hint: whoever uses it checks the key against the record.
    node_keys: Vec<Mutex<HashMap<KeyId, AgentId>>>,
    hasher: std::hash::RandomState,
    parked: Arc<AtomicUsize>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            node_keys: (0..SHARDS).map(|_| Mutex::default()).collect(),
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

    fn node_keys_of(&self, key: &KeyId) -> &Mutex<HashMap<KeyId, AgentId>> {
        &self.node_keys[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Returns the entry of the agent that has had this node key, if it is cached.
    pub(crate) fn by_node_key(&self, key: &KeyId) -> Option<Arc<AgentEntry>> {
        let id = lock(self.node_keys_of(key)).get(key).cloned()?;
        self.get(&id)
    }

    /// Adds the node keys of a record to those by which agents are found.
    fn index(&self, record: &AgentRecord) {
        for credential in record.credentials.iter().filter(|credential| credential.kind != CredentialKind::AccessKey) {
            lock(self.node_keys_of(&credential.key_id)).insert(credential.key_id.clone(), record.id.clone());
        }
    }

    /// Removes the node keys of an entry that is dropped.
    fn unindex(&self, record: Option<&AgentRecord>) {
        for credential in record.into_iter().flat_map(|record| record.credentials.iter()) {
            lock(self.node_keys_of(&credential.key_id)).remove(&credential.key_id);
        }
    }

    /// Caches a record that was read from the store: adds an entry, or updates the existing one if the record is newer.
    pub fn admit(&self, record: AgentRecord) -> Arc<AgentEntry> {
        let entry = Arc::clone(
            lock(self.shard(&record.id)).entry(record.id.clone()).or_insert_with(|| Arc::new(AgentEntry::new(&record))),
        );
        // Outside the shard's lock, for which the other agents of the shard may wait.
        let held = entry.record();
        if held.as_ref().is_none_or(|held| held.version <= record.version) {
            // Another server may have replaced the keys, which would otherwise stay for as long as this one runs.
            self.unindex(held.as_deref().filter(|held| held.credentials != record.credentials));
            self.index(&record);
        }
        entry.renew(Arc::new(record));
        entry
    }

    /// Removes a deleted agent. Its held polls are woken and find that it is gone.
    pub fn forget(&self, id: &AgentId) {
        // Out of the map before its polls are woken: one that polls again must not find this entry.
        let removed = lock(self.shard(id)).remove(id);
        if let Some(entry) = removed {
            self.unindex(entry.record().as_deref());
            entry.mark_gone();
        }
    }

    /// Returns the number of held polls.
    pub fn parked(&self) -> usize {
        self.parked.load(Ordering::Relaxed)
    }

    /// Returns the number of cached agents.
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
            self.unindex(entry.record().as_deref());
            entry.detach();
        }
        detached
    }

    /// Drops entries for which `quiet` is true; returns their number.
    pub fn retire(&self, quiet: impl Fn(&AgentEntry) -> bool) -> usize {
        let mut retired = 0;
        for shard in &self.shards {
            let mut agents = lock(shard);
            let before = agents.len();
            agents.retain(|_, entry| {
                let is_quiet = quiet(entry);
                if is_quiet {
                    self.unindex(entry.record().as_deref());
                }
                !is_quiet
            });
            retired += before - agents.len();
            // Otherwise the map would keep the capacity of its largest size. Half of it is kept, so that agents that
            // come and go don't cause a reallocation each time.
            agents.shrink_to(before / 2);
        }
        retired
    }
}
