//! Direct changes to agents by administrators: metadata, tags, deletion.

use muster_core::agent::AgentRecord;
use muster_core::authorization::{AgentsPurge, AgentsTag, Grant};
use muster_core::change::Change;
use muster_core::id::AgentId;
use muster_core::{Error, ErrorKind, status};
use muster_store::{AgentWrite, Precondition, StoreError, Write};
use serde_json::{Map, Value, json};

use super::agents::Agents;
use super::audit::{audit_line, with_changes};
use super::authority::Authorized;
use super::bulk_update::Basis;
use super::selection::{Selected, Selection};
use super::tags::clean_tags;
use super::update::AgentChange;

/// Maximum size of an agent's user metadata, in bytes of JSON.
const MAX_METADATA_BYTES: usize = 64 << 10;
/// Agents deleted by one commit. Fewer than in an update, since a deletion removes many rows.
const DELETE_BATCH: usize = 200;

/// A change of an agent's tags and user metadata; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct AgentNote {
    /// The new tags.
    pub tags: Option<Vec<String>>,
    /// The new user metadata.
    pub user_metadata: Option<Map<String, Value>>,
}

impl Agents {
    /// Sets tags and user metadata.
    pub async fn note(&self, agent: &Authorized<AgentRecord, AgentsTag>, note: &AgentNote) -> Result<(), Error> {
        let tags = note.tags.as_deref().map(|tags| clean_tags("tags", tags)).transpose()?;
        let metadata = note.user_metadata.as_ref().map(metadata_text).transpose()?;
        let (grant, id) = (agent.grant(), &agent.id);
        let agents = std::slice::from_ref(id);
        let decide = |before: &AgentRecord, now| {
            let mut after = before.clone();
            // An absent field keeps the value of the record as it is now, not as it was when the caller read it.
            after.tags = tags.clone().unwrap_or(after.tags);
            after.user_metadata = metadata.as_deref().map(Into::into).or(after.user_metadata);
            let record = (after != *before)
                .then(|| status::finish(before, after, self.registry.last_seen(&before.id, now), now));
            let told = |record: &AgentRecord| json!({"tags": record.tags});
            let line = record.as_ref().map(|after| {
                let detail = json!({"user_provided_metadata": metadata.is_some()});
                let detail = with_changes(detail, &told(before), &told(after));
                audit_line(grant.origin(), now, "agent.update", format_args!("agent:{id}"), detail)
            });
            AgentChange { record, writes: line.into_iter().collect() }
        };
        self.records.change_many(grant, agents, Basis::Store, &decide).await
    }

    /// Deletes the selected agents with their documents, keys and uploads (M13); returns their number. Their actions keep
    /// their counts, but not their results. A dry run only counts the agents.
    pub async fn delete_many(&self, selection: &Authorized<Selection, AgentsPurge>) -> Result<u64, Error> {
        let grant = selection.grant();
        if grant.is_dry_run() {
            return Ok(selection.ids.len() as u64);
        }
        let mut deleted = 0;
        for chunk in selection.ids.chunks(DELETE_BATCH) {
            deleted += self.purge_those_left(grant, chunk).await?;
        }
        Ok(deleted)
    }

    /// Deletes the agents that still exist. If another request deletes some of them at the same time, the commit
    /// conflicts, and the rest is looked up again.
    async fn purge_those_left(&self, grant: &Grant<AgentsPurge>, ids: &[AgentId]) -> Result<u64, Error> {
        for _ in 0..10 {
            // Each conflict means that another request has deleted at least one of them, so the list shrinks.
            let left = self.records.select(grant, &Selected::Ids(ids.to_vec())).await?.ids;
            match self.purge(grant, &left).await {
                Ok(()) => return Ok(left.len() as u64),
                Err(StoreError::Conflict(Precondition::Missing(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::conflict("agents_busy", "these agents are being deleted by another request; retry"))
    }

    async fn purge(&self, grant: &Grant<AgentsPurge>, ids: &[AgentId]) -> Result<(), StoreError> {
        let now = self.clock.now();
        let writes = ids.iter().flat_map(|id| {
            [
                Write::Agent(AgentWrite::Delete { id: id.clone(), now }),
                Write::Deleted(Change::Agent(id.clone()), grant.space().clone()),
                audit_line(grant.origin(), now, "agent.delete", format!("agent:{id}"), json!({})),
            ]
        });
        self.store.commit(grant, writes.collect()).await?;
        if !grant.is_dry_run() {
            // Removed from the cache at once: their keys must not work any more when the call returns.
            ids.iter().for_each(|id| self.registry.forget(id));
        }
        Ok(())
    }
}

fn metadata_text(metadata: &Map<String, Value>) -> Result<String, Error> {
    let text = serde_json::to_string(metadata).map_err(Error::internal)?;
    if text.len() > MAX_METADATA_BYTES {
        let message = format!("user_provided_metadata: at most {MAX_METADATA_BYTES} bytes");
        return Err(Error::new(ErrorKind::Invalid, "too_long", message));
    }
    Ok(text)
}
