//! Retention of unenrolled agents: spaces can have their records deleted after some time (MG153).

use std::time::Duration;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::change::Change;
use muster_core::event::of_purge;
use muster_core::host::Host;
use muster_core::id::SpaceId;
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_store::query::{AgentCondition, AgentFilter};
use muster_store::{AgentWrite, StoreError, Write};

use super::{BATCHES, Housekeeping};
use crate::audit::audit_line;
use crate::authority::System;
use crate::membership::detail_of_deleted;
use crate::space_settings;

/// Agents deleted by one commit, each with its documents, tags and credentials.
const BATCH: u32 = 100;

impl Housekeeping {
    /// Deletes the unenrolled agents of each space whose retention has passed.
    pub(super) async fn purge_unenrolled(&self) -> Result<u64, Error> {
        let everywhere = self.store.everywhere(&System);
        // The default space may have no row.
        let others = everywhere.spaces().await?.into_iter().map(|space| space.id);
        let mut spaces = vec![SpaceId::default()];
        spaces.extend(others.filter(|id| *id != SpaceId::default()));
        let mut purged = 0;
        for space in spaces {
            let settings = space_settings::of(self.store.within(&System, &space)).await?;
            if let Some(seconds) = settings.delete_unenrolled_after {
                let before = self.clock.now().minus(Duration::from_secs(seconds));
                purged += self.purge_unenrolled_in(&space, before).await?;
            }
        }
        Ok(purged)
    }

    async fn purge_unenrolled_in(&self, space: &SpaceId, before: Timestamp) -> Result<u64, Error> {
        // Nobody was seen after its unenrollment, so that those who were seen later need not be read.
        let filter =
            AgentFilter::all([AgentCondition::Statuses(vec![Status::Unenrolled]), AgentCondition::UnseenSince(before)]);
        let (mut purged, mut after) = (0, None);
        // Bounded in each run; the next one continues with whatever is left.
        for _ in 0..BATCHES {
            let seen = self.store.within(&System, space);
            let ids = seen.agent_ids(&filter, after.as_ref(), BATCH).await?;
            let Some(last) = ids.last().cloned().filter(|_| !self.shutdown.has_begun()) else { break };
            let mut due = Vec::new();
            for id in &ids {
                // Read again for each agent: the filter knows the last sighting, not the time of the unenrollment.
                let Some(record) = seen.agent(id).await?.filter(|record| is_due(record, before)) else { continue };
                let host = match &record.host_id {
                    Some(host) => self.store.everywhere(&System).host(host).await?,
                    None => None,
                };
                due.push((record, host));
            }
            purged += self.purge(&due).await?;
            after = Some(last);
        }
        Ok(purged)
    }

    async fn purge(&self, due: &[(AgentRecord, Option<Host>)]) -> Result<u64, Error> {
        if due.is_empty() {
            return Ok(0);
        }
        let now = self.clock.now();
        let writes = due.iter().flat_map(|(record, host)| {
            let (id, subject) = (record.id.clone(), format!("agent:{}", record.id));
            let mut detail = detail_of_deleted(record, host.as_ref());
            detail["reason"] = "retention".into();
            [
                // An agent that has enrolled again under its id in the meantime stays.
                Write::Agent(AgentWrite::Unchanged { id: id.clone(), version: record.version }),
                Write::Agent(AgentWrite::Delete { id: id.clone(), now }),
                Write::Changed(Change::Agent(id)),
                audit_line(&System::in_space(&record.space), now, "agent.delete", subject, detail),
                Write::Event(Box::new(of_purge(record, now))),
            ]
        });
        match self.store.commit(&System, writes.collect()).await {
            Ok(_) => {
                // After the commit: another server learns of it by the change.
                due.iter().for_each(|(record, _)| self.registry.forget(&record.id));
                Ok(due.len() as u64)
            }
            // One of them has changed. The next run reads the list again.
            Err(StoreError::Conflict(_)) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_due(record: &AgentRecord, before: Timestamp) -> bool {
    !record.active && record.unenrolled_at.is_some_and(|at| at <= before)
}
