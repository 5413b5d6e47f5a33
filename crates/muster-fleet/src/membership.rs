//! What people change about agents directly: notes, tags, and deletion.

use muster_core::change::Change;
use muster_core::context::{OpContext, Privilege};
use muster_core::id::AgentId;
use muster_core::{Error, ErrorKind, status};
use muster_store::{AgentWrite, Precondition, StoreError, Write};
use serde_json::{Map, Value, json};

use super::Fleet;
use super::audit::audit_line;
use super::selection::Selected;
use super::tags::clean_tags;
use super::update::AgentChange;

/// Longest note, bytes of JSON.
const MAX_METADATA_BYTES: usize = 64 << 10;
/// Agents deleted by one commit: a deletion removes many rows.
const DELETED_AT_ONCE: usize = 200;

/// What people note about an agent; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct AgentNote {
    /// Its tags from now on.
    pub tags: Option<Vec<String>>,
    /// Anything else, from now on.
    pub user_metadata: Option<Map<String, Value>>,
}

impl Fleet {
    /// Sets tags and notes.
    pub async fn note_agent(&self, context: &OpContext, id: &str, note: &AgentNote) -> Result<(), Error> {
        context.require(Privilege::AgentsWrite)?;
        let tags = note.tags.as_deref().map(|tags| clean_tags("tags", tags)).transpose()?;
        let metadata = note.user_metadata.as_ref().map(metadata_text).transpose()?;
        let agent = self.known_agent(id).await?;
        let detail = json!({"tags": tags, "user_provided_metadata": metadata.is_some()});
        let line = audit_line(context, self.clock.now(), "agent.update", format!("agent:{agent}"), detail);
        self.change_agents(&[agent], &|before, now| {
            let mut after = before.clone();
            after.tags = tags.clone().unwrap_or(after.tags);
            after.user_metadata = metadata.as_deref().map(Into::into).or(after.user_metadata);
            let record = (after != *before)
                .then(|| status::finish(before, after, self.registry.last_seen(&before.id, now), now));
            let writes = if record.is_some() { vec![line.clone()] } else { Vec::new() };
            AgentChange { record, writes }
        })
        .await
    }

    /// Purges one agent: record, documents, keys, uploads (M13). Its actions keep how they ended, not what it reported.
    pub async fn delete_agent(&self, context: &OpContext, id: &str) -> Result<(), Error> {
        context.require(Privilege::AgentsWrite)?;
        let agent = self.known_agent(id).await?;
        match self.purge(context, std::slice::from_ref(&agent)).await {
            Err(StoreError::Conflict(Precondition::Missing(_))) => Err(Error::not_found("agent", id)),
            other => Ok(other?),
        }
    }

    /// Purges a selection's agents; answers how many. A dry run counts them.
    pub async fn delete_agents(&self, context: &OpContext, selected: &Selected) -> Result<u64, Error> {
        context.require(Privilege::AgentsWrite)?;
        let found = self.find_selected(selected).await?.ids;
        if context.is_dry_run() {
            return Ok(found.len() as u64);
        }
        let mut deleted = 0;
        for chunk in found.chunks(DELETED_AT_ONCE) {
            deleted += self.purge_those_left(context, chunk).await?;
        }
        Ok(deleted)
    }

    /// Somebody else may delete some of them meanwhile: then the rest is looked up anew.
    async fn purge_those_left(&self, context: &OpContext, ids: &[AgentId]) -> Result<u64, Error> {
        for _ in 0..10 {
            let left = self.find_selected(&Selected::Ids(ids.to_vec())).await?.ids;
            match self.purge(context, &left).await {
                Ok(()) => return Ok(left.len() as u64),
                Err(StoreError::Conflict(Precondition::Missing(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::conflict("agents_busy", "these agents are being deleted by somebody else; try again"))
    }

    async fn purge(&self, context: &OpContext, ids: &[AgentId]) -> Result<(), StoreError> {
        let now = self.clock.now();
        let writes = ids.iter().flat_map(|id| {
            [
                Write::Agent(AgentWrite::Delete { id: id.clone(), now }),
                Write::Changed(Change::Agent(id.clone())),
                audit_line(context, now, "agent.delete", format!("agent:{id}"), json!({})),
            ]
        });
        self.store.commit(writes.collect()).await?;
        ids.iter().for_each(|id| self.registry.forget(id));
        Ok(())
    }

    /// The id, if there is such an agent.
    pub(super) async fn known_agent(&self, id: &str) -> Result<AgentId, Error> {
        let unknown = || Error::not_found("agent", id);
        let agent = AgentId::parse(id).map_err(|_| unknown())?;
        self.store.agent(&agent).await?.map(|record| record.id).ok_or_else(unknown)
    }
}

fn metadata_text(metadata: &Map<String, Value>) -> Result<String, Error> {
    let text = serde_json::to_string(metadata).map_err(|error| Error::internal(error.to_string()))?;
    if text.len() > MAX_METADATA_BYTES {
        let message = format!("user_provided_metadata: at most {MAX_METADATA_BYTES} bytes");
        return Err(Error::new(ErrorKind::Invalid, "too_long", message));
    }
    Ok(text)
}
