//! Hosts that report identifiers of another one.

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::audit::AuditEvent;
use muster_core::error_chain::chain;
use muster_core::fleetd::claims::Claims;
use muster_core::id::AgentId;
use muster_core::time::Timestamp;
use muster_store::Write;
use muster_store::query::{AgentCondition, AgentFilter, Identifier};
use serde_json::json;

use super::CheckIns;
use crate::registry::AgentEntry;

/// Maximum number of agents that an event names.
const NAMED: u32 = 5;

impl CheckIns {
    /// Records in the audit log that a host reports the hardware UUID or serial number of another host of its space, at most every
    /// twelve hours. The host keeps its own, if they are known; this finds clones, and hosts that pretend to be others.
    pub async fn note_claims(&self, entry: &AgentEntry, claims: &Claims, address: &str) -> Result<(), Error> {
        let Some(record) = entry.record() else { return Ok(()) };
        let mut others = Vec::new();
        for (identifier, value) in [(Identifier::Uuid, &claims.uuid), (Identifier::Serial, &claims.serial)] {
            if !value.is_empty() {
                others.extend(self.others_with(entry, &record, identifier, value).await?);
            }
        }
        others.sort_unstable();
        others.dedup();
        let now = self.clock.now();
        if others.is_empty() || !self.claims.first_in_a_while(entry.id().as_str(), now) {
            return Ok(());
        }
        let hint = "two machines may have the same hardware UUID, such as cloned virtual machines, or a host pretends to be another one";
        tracing::warn!(agent = %record.id, hostname = record.hostname, address, hint, "a host reports an identifier of another host");
        let line = Write::Audit(audit_line(&record, claims, &others, address, now));
        // The report itself is fine, and would be sent again.
        if let Err(error) = self.store.commit(entry, vec![line]).await {
            tracing::warn!(error = %chain(&error), "failed to record a claimed identifier");
        }
        Ok(())
    }

    /// Returns agents of other hosts of the space that are known by an identifier.
    async fn others_with(
        &self,
        entry: &AgentEntry,
        record: &AgentRecord,
        identifier: Identifier,
        value: &str,
    ) -> Result<Vec<AgentId>, Error> {
        let filter = AgentFilter {
            space: Some(record.space.clone()),
            ..AgentFilter::all([AgentCondition::Hardware(identifier, vec![value.to_owned()])])
        };
        let mut others = Vec::new();
        for id in self.store.everywhere(entry).agent_ids(&filter, None, NAMED).await? {
            let found = self.records.loaded(entry, &id).await?.and_then(|other| other.record());
            if found.is_some_and(|other| other.active && other.host_id != record.host_id) {
                others.push(id);
            }
        }
        Ok(others)
    }
}

fn audit_line(record: &AgentRecord, claims: &Claims, others: &[AgentId], address: &str, now: Timestamp) -> AuditEvent {
    AuditEvent {
        at: now,
        actor: format!("agent:{}", record.id),
        action: "agent.claimed_identifier".to_owned(),
        subject: format!("agent:{}", record.id),
        detail: json!({
            "hardware_uuid": claims.uuid,
            "serial": claims.serial,
            "hostname": record.hostname,
            "agents": others,
        }),
        address: Some(address.to_owned()).filter(|address| !address.is_empty()),
        reason: None,
        space: Some(record.space.clone()),
    }
}
