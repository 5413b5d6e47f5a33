//! Changing many agents' records: in chunks, each committed whole; on conflict the chunk is read and decided anew.

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

/// Agents changed by one commit: others' writes wait no longer than this takes.
const CHUNK: usize = 500;
/// How often a chunk is tried whole; then its agents are changed one by one.
const ATTEMPTS: usize = 3;

/// The records that a change starts from; after a conflict they are the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// Those in this node's memory, where there are some: agents that are connected need no read. The commit refuses a
    /// record that is out of date, except for the time of the last check-in, which `decide` must bring up to date.
    Memory,
    /// Those in the store.
    Store,
}

/// What to do to one agent's record; `None` in it leaves the record as it is.
pub type Decide<'a> = dyn Fn(&AgentRecord, Timestamp) -> AgentChange + Send + Sync + 'a;

impl Records {
    /// Changes the records of `ids` as `decide` says, in one commit for each chunk. Agents deleted meanwhile are passed
    /// over.
    pub(crate) async fn change_many<A: Authority>(
        &self,
        by: &A,
        ids: &[AgentId],
        basis: Basis,
        decide: &Decide<'_>,
    ) -> Result<(), Error> {
        for chunk in ids.chunks(CHUNK) {
            // A chunk fails as a whole when one of its records changed; one busy agent must not keep all others waiting.
            if !self.change_chunk(by, chunk, basis, decide).await? {
                for id in chunk {
                    self.change_one(by, id, decide).await?;
                }
            }
        }
        Ok(())
    }

    /// False: others keep changing one of these.
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
        for _ in 0..ATTEMPTS * 10 {
            let records = self.read_records(std::slice::from_ref(id)).await?;
            if self.commit_changes(by, &records, decide).await? {
                return Ok(());
            }
        }
        Err(Error::conflict("agent_busy", format!("the record of agent {id} keeps changing; retry")))
    }

    /// The records as this node knows them, and those that it does not know from the store.
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

    /// False: a record changed meanwhile; nothing was applied.
    async fn commit_changes<A: Authority>(
        &self,
        by: &A,
        records: &[Arc<AgentRecord>],
        decide: &Decide<'_>,
    ) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut writes = Vec::new();
        let mut changed: Vec<Arc<AgentRecord>> = Vec::new();
        for before in records {
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

    /// Puts the new record into this node's memory at once, so that a dead key is dead when the caller hears of it.
    fn renew(&self, record: Arc<AgentRecord>) {
        if let Some(entry) = self.registry.get(&record.id) {
            entry.renew(record);
            // Polls held under a key that died with this change end now, not at their next look.
            entry.wake();
        }
    }
}
