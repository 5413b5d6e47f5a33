//! Hosts that report identifiers of another one.

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::audit::AuditEvent;
use muster_core::error_chain::chain;
use muster_core::fleetd::claims::Claims;
use muster_core::id::{AgentId, SpaceId};
use muster_store::Write;
use muster_store::query::{AgentCondition, AgentFilter, Identifier};
use serde_json::{Value, json};

use super::CheckIns;
use crate::registry::AgentEntry;

/// Maximum number of agents that an event names.
const NAMED: u32 = 5;

/// An identifier that a host reports, although it seems to belong to another one.
pub(super) struct Claim<'a> {
    /// What happened, for the log.
    pub what: &'static str,
    /// Possible causes, for the log.
    pub hint: &'static str,
    /// Name of the host.
    pub hostname: &'a str,
    /// Its space.
    pub space: &'a SpaceId,
    /// Detail of the audit event.
    pub detail: Value,
}

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
        if others.is_empty() {
            return Ok(());
        }
        let claim = Claim {
            what: "a host reports an identifier of another host",
            hint: "two machines may have the same hardware UUID, such as cloned virtual machines, or a host pretends to be another one",
            hostname: &record.hostname,
            space: &record.space,
            detail: json!({
                "hardware_uuid": claims.uuid,
                "serial": claims.serial,
                "hostname": record.hostname,
                "agents": others,
            }),
        };
        self.record_claim(entry, claim, address).await;
        Ok(())
    }

    /// Records a claim of an agent in the log and in the audit log, at most every twelve hours.
    pub(super) async fn record_claim(&self, entry: &AgentEntry, claim: Claim<'_>, address: &str) {
        let (now, id) = (self.clock.now(), entry.id());
        if !self.claims.first_in_a_while(id.as_str(), now) {
            return;
        }
        let Claim { what, hint, hostname, space, detail } = claim;
        tracing::warn!(agent = %id, hostname, address, hint, "{what}");
        let line = Write::Audit(AuditEvent {
            at: now,
            actor: format!("agent:{id}"),
            action: "agent.claimed_identifier".to_owned(),
            subject: format!("agent:{id}"),
            detail,
            address: Some(address.to_owned()).filter(|address| !address.is_empty()),
            reason: None,
            space: Some(space.clone()),
        });
        // The report itself is fine, and would be sent again.
        if let Err(error) = self.store.commit(entry, vec![line]).await {
            tracing::warn!(error = %chain(&error), "failed to record a claimed identifier");
        }
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
