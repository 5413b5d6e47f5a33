//! Update of one agent's record with optimistic concurrency: decide on the cached record, commit with its version as a
//! precondition, retry on a conflict.

use std::sync::Arc;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::change::Change;
use muster_core::id::AgentId;
use muster_core::time::Timestamp;
use muster_core::upgrade::Ended;
use muster_store::{ActionWrite, AgentWrite, Precondition, StoreError, Write};

use super::authority::Authority;
use super::records::Records;
use super::registry::AgentEntry;

/// Maximum attempts when commits conflict.
const ATTEMPTS: usize = 5;

/// A change of an agent's record.
#[derive(Debug, Default)]
pub struct AgentChange {
    /// The changed record with its version raised by one; `None` leaves the record as it is.
    pub record: Option<AgentRecord>,
    /// Writes to commit with it.
    pub writes: Vec<Write>,
}

impl Records {
    /// Changes an agent's record and returns the result. On a conflict, `change` is called again with the newer record.
    /// Fails as for an unknown key if the agent was deleted.
    pub async fn update(
        &self,
        by: &(impl Authority + ?Sized),
        entry: &AgentEntry,
        mut change: impl FnMut(&Arc<AgentRecord>, Timestamp) -> Result<AgentChange, Error> + Send,
    ) -> Result<Arc<AgentRecord>, Error> {
        for _ in 0..ATTEMPTS {
            let before = entry.record().ok_or_else(agent_gone)?;
            let AgentChange { record, mut writes } = change(&before, self.clock.now())?;
            let after = record.map_or_else(
                || Arc::clone(&before),
                |after| Arc::new(self.spared(&before, after, entry.last_seen(self.clock.now()))),
            );
            let is_changed = !Arc::ptr_eq(&before, &after);
            // A heartbeat that changes nothing ends here: no commit, no wait for the disk.
            if writes.is_empty() && !is_changed {
                return Ok(after);
            }
            // First after a fence, because its precondition is the one most likely to fail; then nothing else is tried.
            let place = usize::from(matches!(writes.first(), Some(Write::Fenced(_))));
            writes.insert(place, precondition(&before, &after));
            if is_changed {
                writes.extend(end_of_actions(&before, &after));
                writes.extend(self.news_for_others(&before, &after, &writes));
            }
            match self.store.commit(by, writes).await {
                Ok(_) => {
                    entry.renew(Arc::clone(&after));
                    return Ok(after);
                }
                // Another node, or another task of this one, has changed the record: decide again on the current one.
                Err(StoreError::Conflict(Precondition::Changed(_))) => self.refresh(entry).await?,
                Err(error @ StoreError::Conflict(Precondition::Missing(_))) => {
                    // The agent itself, or another object that the change refers to: the reload tells which.
                    self.refresh(entry).await?;
                    return Err(if entry.record().is_none() { agent_gone() } else { error.into() });
                }
                Err(error) => {
                    // The outcome may be unknown. If the commit was applied, the cached record is stale, and a key
                    // that it revoked would still work here.
                    let _ = self.refresh(entry).await;
                    return Err(error.into());
                }
            }
        }
        Err(Error::conflict("agent_busy", "the agent's record keeps changing; retry"))
    }
}

impl Records {
    /// Returns the change that other servers must learn of: the server to which the agent is connected has cached the record,
    /// and would take the agent's next report for unchanged.
    fn news_for_others(&self, before: &AgentRecord, after: &AgentRecord, writes: &[Write]) -> Option<Write> {
        let is_told = |write: &Write| matches!(write, Write::Changed(Change::Agent(id)) if *id == after.id);
        let is_news = !self.is_own(before) || before.credentials != after.credentials;
        (is_news && !writes.iter().any(is_told)).then(|| Write::Changed(Change::Agent(after.id.clone())))
    }
}

/// Returns the write of the record. A change that leaves the record as it is depends on it too: another server may have revoked
/// the agent in the meantime, and the result that it reports would be answered with success and dropped.
fn precondition(before: &Arc<AgentRecord>, after: &Arc<AgentRecord>) -> Write {
    Write::Agent(if Arc::ptr_eq(before, after) {
        AgentWrite::Unchanged { id: before.id.clone(), version: before.version }
    } else {
        AgentWrite::Update { before: Arc::clone(before), after: Arc::clone(after) }
    })
}

/// Returns the write that fails the pending actions of an agent that becomes inactive, whatever the cause; otherwise
/// they would stay in progress until they expire. It must come after the change's other writes, so that a completed
/// UNENROLL keeps its result.
pub(super) fn end_of_actions(before: &AgentRecord, after: &AgentRecord) -> Option<Write> {
    (before.active && !after.active)
        .then(|| Write::Agent(AgentWrite::EndActions { id: after.id.clone(), now: after.updated_at }))
}

/// Returns the write that ends the action of an upgrade that has ended in the agent's record.
pub(super) fn end_of_upgrade(agent: &AgentId, ended: &Ended, now: Timestamp) -> Write {
    let Ended { action, error } = ended.clone();
    Write::Action(ActionWrite::EndTarget { action, agent: agent.clone(), error, now })
}

fn agent_gone() -> Error {
    super::authenticate::unauthorized()
}
