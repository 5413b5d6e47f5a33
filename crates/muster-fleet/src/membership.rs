//! Direct changes to agents by administrators: metadata, tags, deletion.

use std::sync::atomic::{AtomicBool, Ordering};

use muster_core::agent::{AgentDetails, AgentRecord};
use muster_core::authorization::{AgentsPurge, AgentsTag, Grant};
use muster_core::change::Change;
use muster_core::host::Host;
use muster_core::id::AgentId;
use muster_core::{Error, ErrorKind, status};
use muster_store::query::{AgentCondition, AgentFilter, HostRows, Page};
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
const DELETE_BATCH: u32 = 200;

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
        let is_there = AtomicBool::new(false);
        let decide = |before: &AgentRecord, now| {
            is_there.store(true, Ordering::Relaxed);
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
        self.records.change_many(grant, agents, Basis::Store, &decide).await?;
        // It may have been deleted, or transferred to another space, since the caller found it.
        if is_there.into_inner() { Ok(()) } else { Err(Error::not_found("agent", id)) }
    }

    /// Deletes the selected agents with their documents, keys and uploads (M13); returns their number. Their actions keep
    /// their counts, but not their results. A dry run only counts the agents.
    pub async fn delete_many(&self, selection: &Authorized<Selection, AgentsPurge>) -> Result<u64, Error> {
        let grant = selection.grant();
        if grant.is_dry_run() {
            return Ok(selection.ids.len() as u64);
        }
        let mut deleted = 0;
        for chunk in selection.ids.chunks(DELETE_BATCH as usize) {
            deleted += self.purge_those_left(grant, chunk).await?;
        }
        Ok(deleted)
    }

    /// Deletes the agents that are still in the space, and returns their number. If another request deletes or transfers some of them at
    /// the same time, the commit conflicts, and the rest is looked up again.
    async fn purge_those_left(&self, grant: &Grant<AgentsPurge>, ids: &[AgentId]) -> Result<u64, Error> {
        for _ in 0..10 {
            // Each conflict means that at least one of them is gone, so the list shrinks.
            let left = self.records.select(grant, &Selected::Ids(ids.to_vec())).await?.ids;
            let records = self.records.read(&left).await?;
            if records.is_empty() {
                return Ok(0);
            }
            match self.store.commit(grant, self.deletions(grant, &records).await?).await {
                Ok(_) => {
                    // Removed from the cache at once: their keys must not work any more when the call returns.
                    records.iter().for_each(|details| self.registry.forget(&details.record.id));
                    return Ok(records.len() as u64);
                }
                Err(StoreError::Conflict(Precondition::Missing(_) | Precondition::LeftSpace(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::conflict("agents_busy", "these agents are being deleted by another request; retry"))
    }

    async fn deletions(&self, grant: &Grant<AgentsPurge>, agents: &[AgentDetails]) -> Result<Vec<Write>, Error> {
        let ids = agents.iter().map(|details| details.record.id.clone()).collect();
        let rows = HostRows::Page(Page { offset: 0, limit: DELETE_BATCH });
        let on_them = AgentFilter::all([AgentCondition::Ids(ids)]);
        let hosts = self.store.seen_by(grant).hosts(&on_them, &rows).await?.items;
        let now = self.clock.now();
        let writes = agents.iter().flat_map(|AgentDetails { record, .. }| {
            let host = hosts.iter().find(|host| Some(&host.id) == record.host_id.as_ref());
            let (subject, detail) = (format!("agent:{}", record.id), detail_of_deleted(record, host));
            [
                Write::Agent(AgentWrite::Delete { id: record.id.clone(), now }),
                Write::Deleted(Change::Agent(record.id.clone()), grant.space().clone()),
                audit_line(grant.origin(), now, "agent.delete", subject, detail),
            ]
        });
        Ok(writes.collect())
    }
}

/// Returns the detail of the audit event of a deletion: what is needed to find the machine again, since nothing else is left.
pub(crate) fn detail_of_deleted(record: &AgentRecord, host: Option<&Host>) -> Value {
    json!({
        "family": record.family.as_str(),
        "hostname": record.hostname,
        "host": record.host_id,
        "machine_id": host.and_then(|host| host.machine_id.as_deref()),
    })
}

fn metadata_text(metadata: &Map<String, Value>) -> Result<String, Error> {
    let text = serde_json::to_string(metadata).map_err(Error::internal)?;
    if text.len() > MAX_METADATA_BYTES {
        let message = format!("user_provided_metadata: at most {MAX_METADATA_BYTES} bytes");
        return Err(Error::new(ErrorKind::Invalid, "too_long", message));
    }
    Ok(text)
}
