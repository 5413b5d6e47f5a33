//! Hosts for administrators: each with the agents on it, as far as the caller sees them.

use std::collections::HashMap;

use muster_core::Error;
use muster_core::agent::{AgentRecord, Family};
use muster_core::authorization::{AgentsPurge, AgentsRead, DiagnosticsRequest, Grant, OpContext};
use muster_core::change::Change;
use muster_core::fleetd::inventory::Inventory;
use muster_core::fleetd::platform::Platform;
use muster_core::fleetd::schedule::QueryFailure;
use muster_core::host::{self, Host};
use muster_core::id::{AgentId, HostId};
use muster_core::raw_json;
use muster_core::reported::shortened_to;
use muster_core::time::Timestamp;
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, HostRows, Listed, Page};
use muster_store::{Precondition, StoreError, Write};
use serde_json::json;

use super::agent_views::AgentView;
use super::agents::Agents;
use super::audit::audit_line;
use super::host_checks::{AnsweredCheck, answered, applying, check_ids};
use super::labels;
use super::registry::AgentEntry;
use super::selection::Selected;
use super::software::Installed;

/// Maximum agents of a page of hosts, for each host on average. A host rarely has more than three.
const AGENTS_PER_HOST: u32 = 20;

/// Maximum length of a fact in a view, bytes.
const FACT: usize = 256;

/// A host with its agents.
#[derive(Clone, Debug)]
pub struct HostView {
    /// The host.
    pub host: Host,
    /// Its agents that the caller sees, the first to enroll first.
    pub agents: Vec<AgentView>,
    /// The host checks with its answers; empty in lists.
    pub checks: Vec<AnsweredCheck>,
    /// Names of its labels; empty in lists.
    pub labels: Vec<String>,
    /// Its software; empty in lists.
    pub software: Installed,
    /// Its disks, its last boot, its users and certificates; empty in lists.
    pub inventory: Inventory,
    /// Number of host checks that it fails; `None` without osquery.
    pub failing: Option<u64>,
    /// Scheduled queries that do not work on it, by name.
    pub failures: Vec<QueryFailure>,
}

impl HostView {
    /// Returns the newest name that an agent reported; otherwise, the name when the host was first seen.
    pub fn hostname(&self) -> String {
        let newest = self.newest(|agent| Some(agent.details.record.hostname.clone()).filter(|name| !name.is_empty()));
        newest.unwrap_or_else(|| self.host.hostname.clone())
    }

    /// Returns the machines that seem to share its identifier, as its agents know them.
    pub fn duplicates(&self) -> Vec<String> {
        let known = self.agents.iter().filter_map(|agent| agent.details.record.duplicate_hosts.as_ref());
        let mut hosts: Vec<String> = known.flat_map(|known| known.hosts.iter().cloned()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// Returns the name and version of the operating system, or its platform while no agent has reported them; empty if it is unknown.
    pub fn os(&self) -> String {
        // orbit knows only the platform, and is seen more often than osquery.
        self.newest(|agent| os_of(agent, "name"))
            .or_else(|| self.newest(|agent| os_of(agent, "platform")))
            .unwrap_or_default()
    }

    /// Returns the hardware UUID, or the machine id of the operating system.
    pub fn hardware_uuid(&self) -> Option<String> {
        self.newest(|agent| reported(agent, &["host", "id"]))
    }

    /// Returns the serial number.
    pub fn serial(&self) -> Option<String> {
        self.newest(|agent| reported(agent, &["hardware", "serial"]))
    }

    /// Returns when an agent was last seen.
    pub fn last_seen(&self) -> Option<Timestamp> {
        self.agents.iter().filter_map(|agent| agent.last_checkin).max()
    }

    /// Returns the names of the scheduled queries that osqueryd has denylisted, because it was killed or crashed while it ran them.
    pub fn denylisted(&self) -> Vec<String> {
        self.failures.iter().filter(|failure| failure.is_denylisted()).map(|failure| failure.name.clone()).collect()
    }

    /// Returns the platform of the osquery that gets checks and packs, which can be unknown; `None` if there is no osquery.
    pub(crate) fn osquery_platform(&self) -> Option<Option<Platform>> {
        asked(&self.agents).map(Platform::of)
    }

    /// Returns what the agent that was seen last reports. Reports of several agents differ for a while if one of them is gone.
    fn newest<T>(&self, wanted: impl Fn(&AgentView) -> Option<T>) -> Option<T> {
        let told = self.agents.iter().filter_map(|agent| Some((agent.last_checkin, wanted(agent)?)));
        told.max_by_key(|(seen, _)| *seen).map(|(_, told)| told)
    }
}

/// Returns a fact about the operating system in an agent's metadata, with its version.
fn os_of(agent: &AgentView, name: &str) -> Option<String> {
    let metadata = agent.details.documents.local_metadata.as_deref()?;
    let fact = |key| raw_json::text(metadata, &["os", key]).filter(|fact| !fact.is_empty());
    let name = fact(name)?;
    Some(fact("version").map_or_else(|| name.to_string(), |version| with_version(&name, &version)))
}

/// Returns the name of an operating system with its version. osquery's version of CentOS 6 begins with the name: `CentOS release 6.10 (Final)`.
fn with_version(name: &str, version: &str) -> String {
    if version.starts_with(name) { version.to_owned() } else { format!("{name} {version}") }
}

/// Returns a fact in an agent's metadata, unless it is empty.
fn reported(agent: &AgentView, path: &[&str]) -> Option<String> {
    let metadata = agent.details.documents.local_metadata.as_deref()?;
    raw_json::text(metadata, path).filter(|fact| !fact.is_empty()).map(|fact| shortened_to(&fact, FACT).into_owned())
}

/// Returns the agent that answers the host checks and reports the software: the latest osquery.
fn asked(agents: &[AgentView]) -> Option<&AgentRecord> {
    agents.iter().map(|agent| &agent.details.record).rfind(|record| record.family == Family::Osquery)
}

fn on_hosts(ids: impl IntoIterator<Item = HostId>) -> AgentFilter {
    AgentFilter::all([AgentCondition::Hosts(ids.into_iter().collect())])
}

impl Agents {
    /// Returns hosts that have a matching agent, by name. Their other agents are returned too.
    pub async fn hosts(
        &self,
        grant: &Grant<AgentsRead>,
        filter: &AgentFilter,
        wanted: &HostRows,
    ) -> Result<Listed<HostView>, Error> {
        let seen = self.store.seen_by(grant);
        let Listed { items, total, unreadable } = seen.hosts(filter, wanted).await?;
        let rows = Page { offset: 0, limit: wanted.limit().saturating_mul(AGENTS_PER_HOST) };
        let wanted = on_hosts(items.iter().map(|host| host.id.clone()));
        let agents = seen.agents(&wanted, AgentSort::EnrolledAt, false, rows).await?.items;
        let mut of_host: HashMap<HostId, Vec<AgentView>> = HashMap::new();
        for details in agents {
            if let Some(host) = details.record.host_id.clone() {
                of_host.entry(host).or_default().push(self.with_presence(details));
            }
        }
        let failing = self.failing(grant, of_host.values().flatten()).await?;
        let mut failures = self.query_failures(grant, of_host.values()).await?;
        let view = |host: Host| {
            let agents = of_host.remove(&host.id).unwrap_or_default();
            let osquery = asked(&agents).map(|record| &record.id);
            let failing = osquery.map(|id| failing.get(id).copied().unwrap_or_default());
            let failures = osquery.and_then(|id| failures.remove(id)).unwrap_or_default();
            let (checks, labels, software) = (Vec::new(), Vec::new(), Installed::default());
            HostView { host, agents, checks, labels, software, inventory: Inventory::default(), failing, failures }
        };
        Ok(Listed { items: items.into_iter().map(view).collect(), total, unreadable })
    }

    /// Returns the number of host checks that the hosts of agents fail, without those that fail none.
    async fn failing(
        &self,
        grant: &Grant<AgentsRead>,
        agents: impl Iterator<Item = &AgentView>,
    ) -> Result<HashMap<AgentId, u64>, Error> {
        let records = agents.map(|view| &view.details.record).filter(|record| record.family == Family::Osquery);
        let agents: Vec<AgentId> = records.map(|record| record.id.clone()).collect();
        let seen = self.store.seen_by(grant);
        let checks = if agents.is_empty() { Vec::new() } else { check_ids(seen.host_checks().await?.as_deref())? };
        if checks.is_empty() {
            return Ok(HashMap::new());
        }
        Ok(seen.failing_checks(&agents, &checks).await?.into_iter().collect())
    }

    /// Returns the scheduled queries that do not work on hosts with these agents, by the osqueryd of the host.
    async fn query_failures(
        &self,
        grant: &Grant<AgentsRead>,
        hosts: impl Iterator<Item = &Vec<AgentView>>,
    ) -> Result<HashMap<AgentId, Vec<QueryFailure>>, Error> {
        let agents: Vec<AgentId> = hosts.filter_map(|agents| Some(asked(agents)?.id.clone())).collect();
        let mut of_agent: HashMap<AgentId, Vec<QueryFailure>> = HashMap::new();
        if !agents.is_empty() {
            for (agent, failure) in self.store.seen_by(grant).query_failures(&agents, self.clock.now()).await? {
                of_agent.entry(agent).or_default().push(failure);
            }
        }
        Ok(of_agent)
    }

    /// Returns a host with its agents, by its id, or the hardware UUID under which fleetd enrolled on it.
    pub async fn host(&self, grant: &Grant<AgentsRead>, id: &str) -> Result<HostView, Error> {
        let by_machine = host::machine_id(id).map(|machine| {
            let ids = [Family::Osquery, Family::Orbit].map(|family| host::agent_id(family, &machine));
            AgentFilter::all([AgentCondition::Ids(ids.into())])
        });
        let mut found = None;
        for filter in HostId::parse(id).ok().map(|id| on_hosts([id])).into_iter().chain(by_machine) {
            if found.is_none() {
                found = self.hosts(grant, &filter, &HostRows::Page(Page { offset: 0, limit: 1 })).await?.items.pop();
            }
        }
        let mut view = found.ok_or_else(|| Error::not_found("host", id))?;
        let seen = self.store.seen_by(grant);
        let systems: Vec<&str> = view.agents.iter().map(|agent| agent.details.record.os.as_str()).collect();
        view.labels = labels::names_of(seen, &view.host, &systems).await?;
        if let Some(record) = asked(&view.agents) {
            let checks = applying(seen.host_checks().await?.as_deref(), Platform::of(record), &view.labels)?;
            let (results, changes) = (seen.check_results(record).await?, seen.check_changes(record).await?);
            view.checks = answered(checks.into_iter(), results, changes);
            view.software = seen.software_of(record).await?;
            view.inventory = seen.inventory_of(record).await?;
        }
        Ok(view)
    }

    /// Returns the agents of fleetd on an agent's host, for the user of the host.
    pub async fn of_device(&self, entry: &AgentEntry) -> Result<Vec<AgentView>, Error> {
        let Some(record) = entry.record() else { return Ok(Vec::new()) };
        let Some(host) = record.host_id.clone() else { return Ok(Vec::new()) };
        let families = AgentCondition::Families(vec![Family::Orbit, Family::Osquery]);
        let conditions = vec![AgentCondition::Hosts(vec![host]), families];
        let filter = AgentFilter { space: Some(record.space.clone()), conditions, ..AgentFilter::default() };
        let page = Page { offset: 0, limit: AGENTS_PER_HOST };
        let found = self.store.everywhere(entry).agent_list(&filter, AgentSort::EnrolledAt, false, page).await?;
        Ok(found.items.into_iter().map(|details| self.with_presence(details)).collect())
    }

    /// Makes osquery on a host report its details and answer the host checks with its next requests.
    pub async fn refetch_host(&self, context: &OpContext, id: &str) -> Result<(), Error> {
        let host = HostId::parse(id).map_err(|_| Error::not_found("host", id))?;
        let conditions = [AgentCondition::Hosts(vec![host.clone()]), AgentCondition::Families(vec![Family::Osquery])];
        let selected = Selected::Matching(Box::new(AgentFilter::all(conditions)));
        let selection = self.select::<DiagnosticsRequest>(context, &selected).await?;
        if selection.ids.is_empty() {
            return Err(Error::not_found("osquery on the host", id).remedy("enroll osquery on the host"));
        }
        let (grant, subject) = (selection.grant(), format!("host:{host}"));
        let mut writes: Vec<Write> =
            selection.ids.iter().map(|id| Write::Changed(Change::Refetch(id.clone()))).collect();
        writes.push(audit_line(grant.origin(), self.clock.now(), "host.refetch", subject, json!({})));
        self.store.commit(grant, writes).await.map_err(|error| match error {
            StoreError::Conflict(Precondition::LeftSpace(_)) => Error::not_found("host", id),
            error => error.into(),
        })?;
        if !grant.is_dry_run() {
            // Now, and not when the change arrives: the host may ask in between.
            let now = self.clock.now();
            selection.ids.iter().filter_map(|id| self.registry.get(id)).for_each(|entry| entry.forget_reports(now));
        }
        Ok(())
    }

    /// Makes osquery on an orbit's host report its details and answer the host checks and labels, for the user of the host. While it has not
    /// done so since the last time, nothing is written.
    pub async fn refetch_device(&self, orbit: &AgentEntry) -> Result<(), Error> {
        let agents = self.of_device(orbit).await?;
        let records = agents.iter().map(|agent| &agent.details.record);
        let osquery = records.filter(|record| record.family == Family::Osquery).map(|record| &record.id);
        for id in osquery {
            let entry = self.registry.get(id);
            if entry.as_ref().is_some_and(|entry| entry.facts_reported_at().is_none()) {
                continue;
            }
            self.store.commit(orbit, vec![Write::Changed(Change::Refetch(id.clone()))]).await?;
            entry.iter().for_each(|entry| entry.forget_reports(self.clock.now()));
        }
        Ok(())
    }

    /// Deletes the agents of a host, whose keys are rejected from now on, and with the last one the host. Returns the number
    /// of agents.
    pub async fn delete_host(&self, context: &OpContext, id: &str) -> Result<u64, Error> {
        let host = HostId::parse(id).map_err(|_| Error::not_found("host", id))?;
        let selected = Selected::Matching(Box::new(on_hosts([host])));
        let selection = self.select::<AgentsPurge>(context, &selected).await?;
        if selection.ids.is_empty() {
            return Err(Error::not_found("host", id));
        }
        match self.delete_many(&selection).await? {
            // Its agents were deleted or transferred since they were selected.
            0 => Err(Error::not_found("host", id)),
            deleted => Ok(deleted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::with_version;

    #[test]
    fn the_name_of_an_operating_system_is_shown_once() {
        assert_eq!(with_version("Ubuntu", "24.04"), "Ubuntu 24.04");
        assert_eq!(with_version("CentOS", "CentOS release 6.10 (Final)"), "CentOS release 6.10 (Final)");
    }
}
