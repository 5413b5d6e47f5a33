//! Bulk updates of agent records, in chunks of one commit each. On a conflict, the chunk is read and decided again.

use std::sync::Arc;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::change::Change;
use muster_core::id::AgentId;
use muster_core::time::Timestamp;
use muster_store::{AgentWrite, StoreError, Write};

use super::authority::Authority;
use super::records::Records;
use super::update::{AgentChange, end_of_actions};

/// Agents changed by one commit. Larger chunks would be faster, but delay the writes of others.
const CHUNK: usize = 500;
/// Maximum attempts of a whole chunk; then its agents are changed one by one.
const ATTEMPTS: usize = 3;

/// Where the first attempt takes the records from. Retries always read the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// This node's cache, and the store for agents that are not cached. A stale record conflicts in the commit. The
    /// exception is its last check-in, which is written without a new version: `decide` must update it.
    Memory,
    /// The store.
    Store,
}

/// Decides the change of one record. May be called several times for the same agent.
pub type Decide<'a> = dyn Fn(&AgentRecord, Timestamp) -> AgentChange + Send + Sync + 'a;

impl Records {
    /// Applies `decide` to the records of `ids`, in one commit for each chunk. Agents that were deleted, or have left the space of a grant,
    /// are skipped.
    pub(crate) async fn change_many<A: Authority>(
        &self,
        by: &A,
        ids: &[AgentId],
        basis: Basis,
        decide: &Decide<'_>,
    ) -> Result<(), Error> {
        // In the order of ids, in which all nodes lock the rows of several agents.
        let mut ids = ids.to_vec();
        ids.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        for chunk in ids.chunks(CHUNK) {
            // A commit conflicts as a whole if one of its records has changed. One busy agent must not block the other
            // 499.
            if !self.change_chunk(by, chunk, basis, decide).await? {
                for id in chunk {
                    self.change_one(by, id, decide).await?;
                }
            }
        }
        Ok(())
    }

    /// Returns false if every attempt conflicted.
    async fn change_chunk<A: Authority>(
        &self,
        by: &A,
        ids: &[AgentId],
        basis: Basis,
        decide: &Decide<'_>,
    ) -> Result<bool, Error> {
        for attempt in 0..ATTEMPTS {
            let records = match basis {
                Basis::Memory if attempt == 0 => self.recall_records(ids).await?,
                Basis::Memory | Basis::Store => self.read_records(ids).await?,
            };
            if self.commit_changes(by, &records, decide).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn change_one<A: Authority>(&self, by: &A, id: &AgentId, decide: &Decide<'_>) -> Result<(), Error> {
        // Far more attempts than for a chunk: here, only writes to this one record conflict.
        for _ in 0..ATTEMPTS * 10 {
            let records = self.read_records(std::slice::from_ref(id)).await?;
            if self.commit_changes(by, &records, decide).await? {
                return Ok(());
            }
        }
        Err(Error::conflict("agent_busy", format!("the record of agent {id} keeps changing; retry")))
    }

    /// Returns the cached records, and reads those that are not cached.
    async fn recall_records(&self, ids: &[AgentId]) -> Result<Vec<Arc<AgentRecord>>, Error> {
        let (mut records, mut unknown) = (Vec::with_capacity(ids.len()), Vec::new());
        for id in ids {
            match self.registry.get(id).and_then(|entry| entry.record()) {
                Some(record) => records.push(record),
                None => unknown.push(id.clone()),
            }
        }
        records.extend(self.read_records(&unknown).await?);
        Ok(records)
    }

    async fn read_records(&self, ids: &[AgentId]) -> Result<Vec<Arc<AgentRecord>>, Error> {
        Ok(self.read(ids).await?.into_iter().map(|details| Arc::new(details.record)).collect())
    }

    /// Returns false on a conflict; then nothing was applied.
    async fn commit_changes<A: Authority>(
        &self,
        by: &A,
        records: &[Arc<AgentRecord>],
        decide: &Decide<'_>,
    ) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut writes = Vec::new();
        let mut changed: Vec<Arc<AgentRecord>> = Vec::new();
        // An agent that was transferred since it was selected is skipped, like one that was deleted.
        let is_reached = |record: &&Arc<AgentRecord>| by.space().is_none_or(|space| record.space == *space);
        for before in records.iter().filter(is_reached) {
            let AgentChange { record, writes: more } = decide(before, now);
            let seen = self.registry.last_seen(&before.id, now);
            let Some(after) = record.map(|after| Arc::new(self.spared(before, after, seen))) else {
                writes.extend(more);
                continue;
            };
            writes.push(Write::Agent(AgentWrite::Update { before: Arc::clone(before), after: Arc::clone(&after) }));
            writes.push(Write::Changed(Change::Agent(after.id.clone())));
            writes.extend(more);
            writes.extend(end_of_actions(before, &after));
            changed.push(after);
        }
        if writes.is_empty() {
            return Ok(true);
        }
        match self.store.commit(by, writes).await {
            Ok(_) => {
                changed.into_iter().for_each(|record| self.renew(record));
                Ok(true)
            }
            Err(StoreError::Conflict(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Updates the cached record immediately and not by the change feed: when a revocation returns, the key must not
    /// work on this node any more.
    fn renew(&self, record: Arc<AgentRecord>) {
        if let Some(entry) = self.registry.get(&record.id) {
            entry.renew(record);
            // A poll that is held under a key that this change revoked must end now.
            entry.wake_for_policy();
        }
    }
}
