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
            let by_id = AgentFilter::all([of_family(), has_id(name, &[self.family])]);
            let mut found = seen.all_agent_ids(&by_id).await?;
            if found.is_empty() {
                found = seen.all_agent_ids(&AgentFilter::all([of_family(), has_name(name)])).await?;
                check_unambiguous(name, found.len())?;
            }
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
}

/// Matches the agents of these families on a host with this id, machine id or agent id. It is tried before [`has_name`]: hosts report
/// their names, which must not stand for the id of another host.
pub(crate) fn has_id(named: &str, families: &[Family]) -> AgentCondition {
    let machine = host::machine_id(named);
    let by_machine = machine.iter().flat_map(|machine| families.iter().map(|family| host::agent_id(*family, machine)));
    let ids = AgentId::parse(named).ok().into_iter().chain(by_machine).collect();
    let mut any = vec![AgentCondition::Ids(ids)];
    any.extend(HostId::parse(named).ok().map(|id| AgentCondition::Hosts(vec![id])));
    AgentCondition::Any(any)
}

/// Matches the agents on hosts with this name.
pub(crate) fn has_name(named: &str) -> AgentCondition {
    AgentCondition::Hostnames(vec![named.to_owned()])
}

/// Rejects a name that several hosts have: a host chooses its name, and could add itself to what another one is selected for.
pub(crate) fn check_unambiguous(name: &str, hosts: usize) -> Result<(), Error> {
    if hosts <= 1 {
        return Ok(());
    }
    let message = format!("{hosts} hosts have the name {name:?}");
    Err(Error::conflict("host_ambiguous", message).remedy("specify the host by its id or its hardware UUID"))
}
