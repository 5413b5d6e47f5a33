//! Agents of one machine that enrolled with different ids: Elastic Agent and muster-agent report the machine id of the operating
//! system, orbit and osqueryd the UUID of the hardware. Once osquery has told what the machine id is, they become agents of one host.

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::audit::AuditEvent;
use muster_core::change::Change;
use muster_core::host::Host;
use muster_core::id::AgentId;
use muster_core::status;
use muster_core::time::Timestamp;
use muster_store::query::{AgentCondition, AgentFilter};
use muster_store::{AgentWrite, Write};
use serde_json::{Value, json};

use super::CheckIns;
use super::claims::Claim;
use crate::registry::AgentEntry;
use crate::update::AgentChange;

/// Maximum number of hosts with the same machine id that are looked at: clones of an image have the same.
const HOSTS: u32 = 64;
/// Maximum number of agents that join a host at once; the rest follows with the next report.
const AGENTS: u32 = 32;

impl CheckIns {
    /// Joins the agents that have enrolled with a machine id to the host of the osqueryd that reports its hash. Writes nothing if that
    /// is known, and there are none.
    ///
    /// The report is not authenticated, and clones share their machine ids. So a host keeps the first id that it has reported, agents
    /// only join a host that enrolled under their name, and none that has a rival with the same name and id: these are in the audit log.
    pub async fn join_agents_of_system(
        &self,
        osquery: &AgentEntry,
        system_id: &str,
        address: &str,
    ) -> Result<(), Error> {
        let Some(id) = osquery.record().and_then(|record| record.host_id.clone()) else { return Ok(()) };
        let Some(own) = self.store.everywhere(osquery).host(&id).await? else { return Ok(()) };
        // On macOS, all of them know the UUID of the hardware, and nothing has to join.
        if own.is_by_system() {
            return Ok(());
        }
        let found = self.store.everywhere(osquery).hosts_by_system(&own.space, system_id, HOSTS).await?;
        let is_alike = |host: &&Host| host.id != own.id && host.is_namesake_of(&own.hostname);
        let (of_system, rivals): (Vec<_>, Vec<_>) = found.iter().filter(is_alike).partition(|host| host.is_by_system());
        let is_another = own.system_id.as_deref().is_some_and(|known| known != system_id);
        // Among too many clones, a rival might not be seen.
        if is_another || !rivals.is_empty() || found.len() >= HOSTS as usize {
            self.note_claim(osquery, &own, &rivals, address).await;
            return Ok(());
        }
        if own.system_id.is_none() {
            let set = AgentWrite::SetSystem { host: own.id.clone(), system_id: system_id.to_owned() };
            self.store.commit(osquery, vec![set.into()]).await?;
        }
        // One at most, because a machine id has one host in a space.
        for former in of_system {
            self.move_agents(osquery, former, &Host { system_id: Some(system_id.to_owned()), ..own.clone() }).await?;
        }
        Ok(())
    }

    /// Moves the agents of a host to another one of its space. The former host is deleted with the last of them.
    async fn move_agents(&self, osquery: &AgentEntry, former: &Host, host: &Host) -> Result<(), Error> {
        let on_former = AgentFilter {
            space: Some(host.space.clone()),
            ..AgentFilter::all([AgentCondition::Hosts(vec![former.id.clone()])])
        };
        // Not moved, because labels decide what a host is asked and told: an administrator sees them in the audit log.
        let labels = self.store.everywhere(osquery).labels_of_host(&former.id).await?;
        for id in self.store.everywhere(osquery).agent_ids(&on_former, None, AGENTS).await? {
            let Some(agent) = self.records.loaded(osquery, &id).await? else { continue };
            let update = self.records.update(osquery, &agent, |record, now| {
                // It may have enrolled again, or moved to another space, since it was found.
                if record.host_id.as_ref() != Some(&former.id) || record.space != host.space {
                    return Ok(AgentChange { record: None, writes: Vec::new() });
                }
                let after = AgentRecord { host_id: Some(host.id.clone()), ..(**record).clone() };
                let detail =
                    json!({"former_host": former.id, "agent": id, "hostname": record.hostname, "labels": labels});
                let writes = vec![
                    // Again, because the host may be deleted with its osqueryd meanwhile.
                    AgentWrite::PutHost(host.clone()).into(),
                    Write::Audit(joined(osquery.id(), host, detail, now)),
                    Write::Changed(Change::Agent(id.clone())),
                ];
                Ok(AgentChange { record: Some(status::finish(record, after, agent.last_seen(now), now)), writes })
            });
            update.await?;
        }
        Ok(())
    }

    /// Records that a host reports a machine id that another host of its name has reported, or another one than before, at most every
    /// twelve hours.
    async fn note_claim(&self, osquery: &AgentEntry, own: &Host, rivals: &[&Host], address: &str) {
        let hosts: Vec<&str> = rivals.iter().map(|host| host.id.as_str()).collect();
        let claim = Claim {
            what: "the agents of a reported machine id were not joined",
            hint: "two machines may be clones of one image, the machine id was replaced, or a host pretends to be another one",
            hostname: &own.hostname,
            space: &own.space,
            detail: json!({"identifier": "machine_id", "hostname": own.hostname, "hosts": hosts}),
        };
        self.record_claim(osquery, claim, address).await;
    }
}

fn joined(osquery: &AgentId, host: &Host, detail: Value, now: Timestamp) -> AuditEvent {
    AuditEvent {
        at: now,
        actor: format!("agent:{osquery}"),
        action: "host.join".to_owned(),
        subject: format!("host:{}", host.id),
        detail,
        address: None,
        reason: None,
        space: Some(host.space.clone()),
    }
}
