//! Selection of the agents of hosts that a live query or a script is for.

use muster_core::agent::Family;
use muster_core::id::{AgentId, HostId};
use muster_core::{Error, ErrorKind, host};
use muster_store::query::{AgentCondition, AgentFilter};
use serde_json::Value;

use super::labels;
use super::scope::Scoped;

/// Maximum number of hosts that a request can name. Each is looked up.
pub const MAX_NAMED: usize = 100;

/// Hosts that a request selects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostSelection<'a> {
    /// The program that is addressed, of which each host has one.
    pub(crate) family: Family,
    /// Its name in errors.
    pub(crate) program: &'a str,
    /// Names or ids of hosts; empty for all that match the filter.
    pub(crate) hosts: &'a [String],
    /// Names or ids of labels. A host needs one of them; empty for all hosts.
    pub(crate) labels: &'a [String],
    /// Filter for the agents. Those of other families are ignored.
    pub(crate) filter: &'a AgentFilter,
    /// Maximum number of agents.
    pub(crate) limit: usize,
}

/// Maximum number of names, and of agents, in an audit event.
const AUDITED: usize = 100;

/// Adds to the detail of an audit event which hosts were selected: those that the request named, its labels, and the ids of the first
/// agents. The records of what runs on hosts are deleted long before the audit log.
pub(crate) fn with_targets(mut detail: Value, hosts: &[String], labels: &[String], agents: &[AgentId]) -> Value {
    detail["hosts"] = hosts.into();
    detail["labels"] = labels.iter().take(AUDITED).cloned().collect();
    detail["agents"] = agents.iter().take(AUDITED).map(AgentId::as_str).collect();
    detail
}

impl HostSelection<'_> {
    /// Returns the selected agents in the view of the caller. Fails if a named host is unknown, or if none is selected.
    pub(crate) async fn agents(&self, seen: Scoped<'_>) -> Result<Vec<AgentId>, Error> {
        if self.hosts.len() > MAX_NAMED {
            let reason = format!("at most {MAX_NAMED} hosts can be named");
            return Err(Error::invalid("hosts", reason).remedy("use a filter"));
        }
        let of_family = || AgentCondition::Families(vec![self.family]);
        let mut conditions = self.filter.conditions.clone();
        conditions.push(of_family());
        conditions.extend(labels::among(seen, self.labels).await?);
        let mut named = Vec::new();
        for name in self.hosts {
            let found = seen.all_agent_ids(&AgentFilter::all([of_family(), self.on_host(name)])).await?;
            if found.is_empty() {
                return Err(Error::not_found(&format!("host with {}", self.program), format_args!("{name:?}")));
            }
            named.extend(found);
        }
        if !self.hosts.is_empty() {
            conditions.push(AgentCondition::Ids(named));
        }
        let agents = seen.all_agent_ids(&AgentFilter::all(conditions)).await?;
        if agents.is_empty() {
            let message = format!("no host with {} matches", self.program);
            return Err(Error::new(ErrorKind::Invalid, "no_host_matches", message));
        }
        if agents.len() > self.limit {
            let reason = format!("{} hosts match; at most {} are allowed", agents.len(), self.limit);
            return Err(Error::invalid("kuery", reason));
        }
        Ok(agents)
    }

    /// Matches the agents on a host with this name, id, machine id or agent id.
    fn on_host(&self, name: &str) -> AgentCondition {
        let by_machine = host::machine_id(name).map(|machine| host::agent_id(self.family, &machine));
        let ids = AgentId::parse(name).ok().into_iter().chain(by_machine).collect();
        let mut any = vec![AgentCondition::Hostnames(vec![name.to_owned()]), AgentCondition::Ids(ids)];
        any.extend(HostId::parse(name).ok().map(|id| AgentCondition::Hosts(vec![id])));
        AgentCondition::Any(any)
    }
}
