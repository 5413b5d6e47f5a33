//! Hosts for administrators: each with the agents on it, as far as the caller sees them.

use std::collections::HashMap;

use muster_core::Error;
use muster_core::agent::Family;
use muster_core::authorization::{AgentsPurge, AgentsRead, DiagnosticsRequest, Grant, OpContext};
use muster_core::change::Change;
use muster_core::fleetd::platform::Platform;
use muster_core::host::{self, Host};
use muster_core::id::HostId;
use muster_store::Write;
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, Listed, Page};
use serde_json::json;

use super::agent_views::AgentView;
use super::agents::Agents;
use super::audit::audit_line;
use super::host_checks::{AnsweredCheck, answered, applying};
use super::labels;
use super::registry::AgentEntry;
use super::selection::Selected;
use super::software::Installed;

/// Maximum agents of a page of hosts, for each host on average. A host rarely has more than three.
const AGENTS_PER_HOST: u32 = 20;

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
}

fn on_hosts(ids: impl IntoIterator<Item = HostId>) -> AgentFilter {
    AgentFilter::all([AgentCondition::Hosts(ids.into_iter().collect())])
}

impl Agents {
    /// Returns a page of the hosts that have a matching agent, by name. Their other agents are returned too.
    pub async fn hosts(
        &self,
        grant: &Grant<AgentsRead>,
        filter: &AgentFilter,
        page: Page,
    ) -> Result<Listed<HostView>, Error> {
        let seen = self.store.seen_by(grant);
        let Listed { items, total, unreadable } = seen.hosts(filter, page).await?;
        let wanted = on_hosts(items.iter().map(|host| host.id.clone()));
        let rows = Page { offset: 0, limit: page.limit.saturating_mul(AGENTS_PER_HOST) };
        let agents = seen.agents(&wanted, AgentSort::EnrolledAt, false, rows).await?.items;
        let mut of_host: HashMap<HostId, Vec<AgentView>> = HashMap::new();
        for details in agents {
            if let Some(host) = details.record.host_id.clone() {
                of_host.entry(host).or_default().push(self.with_presence(details));
            }
        }
        let view = |host: Host| HostView {
            agents: of_host.remove(&host.id).unwrap_or_default(),
            host,
            checks: Vec::new(),
            labels: Vec::new(),
            software: Installed::default(),
        };
        Ok(Listed { items: items.into_iter().map(view).collect(), total, unreadable })
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
                found = self.hosts(grant, &filter, Page { offset: 0, limit: 1 }).await?.items.pop();
            }
        }
        let mut view = found.ok_or_else(|| Error::not_found("host", id))?;
        let seen = self.store.seen_by(grant);
        let systems: Vec<&str> = view.agents.iter().map(|agent| agent.details.record.os.as_str()).collect();
        view.labels = labels::names_of(seen, &view.host, &systems).await?;
        let mut records = view.agents.iter().map(|agent| &agent.details.record);
        if let Some(record) = records.rfind(|record| record.family == Family::Osquery) {
            let checks = applying(seen.host_checks().await?.as_deref(), Platform::of(record), &view.labels)?;
            view.checks = answered(checks.into_iter(), seen.check_results(record).await?);
            view.software = seen.software_of(record).await?;
        }
        Ok(view)
    }

    /// Returns the agents of fleetd on an agent's host, for the user of the host.
    pub async fn of_device(&self, entry: &AgentEntry) -> Result<Vec<AgentView>, Error> {
        let Some(record) = entry.record() else { return Ok(Vec::new()) };
        let Some(host) = record.host_id.clone() else { return Ok(Vec::new()) };
        let families = AgentCondition::Families(vec![Family::Orbit, Family::Osquery]);
        let conditions = vec![AgentCondition::Hosts(vec![host]), families];
        let filter = AgentFilter { space: Some(record.space.clone()), conditions };
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
            return Err(Error::not_found("host with osquery", id));
        }
        let (grant, subject) = (selection.grant(), format!("host:{host}"));
        let mut writes: Vec<Write> =
            selection.ids.iter().map(|id| Write::Changed(Change::Refetch(id.clone()))).collect();
        writes.push(audit_line(grant.origin(), self.clock.now(), "host.refetch", subject, json!({})));
        self.store.commit(grant, writes).await?;
        if !grant.is_dry_run() {
            // Now, and not when the change arrives: the host may ask in between.
            selection.ids.iter().filter_map(|id| self.registry.get(id)).for_each(|entry| entry.forget_reports());
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
            entry.iter().for_each(|entry| entry.forget_reports());
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
        self.delete_many(&selection).await
    }
}
