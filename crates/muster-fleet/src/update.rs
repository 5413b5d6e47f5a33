//! One way to change an agent's record: load, change, commit with the version it started from, try again on conflict.

use std::sync::Arc;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::id::AgentId;
use muster_core::time::Timestamp;
use muster_core::upgrade::Ended;
use muster_store::{ActionWrite, AgentWrite, Precondition, StoreError, Write};

use super::authority::Authority;
use super::records::Records;
use super::registry::AgentEntry;

/// How often a change is tried again when others changed the record meanwhile.
const ATTEMPTS: usize = 5;

/// What a change of an agent's record comes to.
#[derive(Debug, Default)]
pub struct AgentChange {
    /// The changed record, version raised by one; `None`: the record stays.
    pub record: Option<AgentRecord>,
    /// What is committed with it.
    pub writes: Vec<Write>,
}

impl Records {
    /// Changes an agent's record. `change` is called again with the newer record when somebody else was faster.
    /// Answers the record as it then stands. Refused as unknown when the agent was deleted.
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
            if !Arc::ptr_eq(&before, &after) {
                // First, since its precondition is the likeliest to fail, and then nothing else need be tried.
                writes.insert(
                    0,
                    Write::Agent(AgentWrite::Update { before: Arc::clone(&before), after: Arc::clone(&after) }),
                );
                writes.extend(end_of_actions(&before, &after));
            }
            // A heartbeat that changes nothing ends here: no commit, no wait for the disk.
            if writes.is_empty() {
                return Ok(after);
            }
            match self.store.commit(by, writes).await {
                Ok(_) => {
                    entry.renew(Arc::clone(&after));
                    return Ok(after);
                }
                // Another node, or another task of this one, was faster: decide again on what is there now.
                Err(StoreError::Conflict(Precondition::Changed(_))) => self.reload(entry.id()).await?,
                Err(error @ StoreError::Conflict(Precondition::Missing(_))) => {
                    self.reload(entry.id()).await?;
                    return Err(if entry.record().is_none() { agent_gone() } else { error.into() });
                }
                Err(error) => {
                    // Perhaps applied: what is in memory must not be older than what is on disk.
                    let _ = self.reload(entry.id()).await;
                    return Err(error.into());
                }
            }
        }
        Err(Error::conflict("agent_busy", "the agent's record keeps changing; retry"))
    }
}

/// What the end of an agent's life does to its open actions, whatever ended it. It comes after all other writes of
/// the change: an UNENROLL that was carried out is answered, and not ended.
pub(super) fn end_of_actions(before: &AgentRecord, after: &AgentRecord) -> Option<Write> {
    (before.active && !after.active)
        .then(|| Write::Agent(AgentWrite::EndActions { id: after.id.clone(), now: after.updated_at }))
}

/// What the end of an upgrade in the agent's record does to its action.
pub(super) fn end_of_upgrade(agent: &AgentId, ended: &Ended, now: Timestamp) -> Write {
    let Ended { action, error } = ended.clone();
    Write::Action(ActionWrite::EndTarget { action, agent: agent.clone(), error, now })
}

fn agent_gone() -> Error {
    super::authenticate::unauthorized()
}
