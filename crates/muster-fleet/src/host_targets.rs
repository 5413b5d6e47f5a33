//! Selection of the agents of hosts that a live query or a script is for.

use muster_core::agent::Family;
use muster_core::host_run::MAX_TARGETS;
use muster_core::id::{AgentId, HostId};
use muster_core::{Error, ErrorKind, host};
use muster_store::query::{AgentCondition, AgentFilter, Identifier};
use serde_json::Value;

use super::audit::with_kuery;
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

impl<'a> HostSelection<'a> {
    /// Selects the orbits of hosts, for a run.
    pub(crate) fn of_orbit(hosts: &'a [String], filter: &'a AgentFilter) -> Self {
        Self { family: Family::Orbit, program: "orbit", hosts, labels: &[], filter, limit: MAX_TARGETS }
    }

    /// Adds to the detail of an audit event which hosts were selected: those that the request named, its labels and its query, and the ids
    /// of the first agents. The records of what runs on hosts are deleted long before the audit log.
    pub(crate) fn audited(&self, mut detail: Value, agents: &[AgentId]) -> Value {
        detail["hosts"] = self.hosts.into();
        detail["labels"] = self.labels.iter().take(AUDITED).cloned().collect();
        detail["agents"] = agents.iter().take(AUDITED).map(AgentId::as_str).collect();
        with_kuery(detail, self.filter.written.as_deref())
    }

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
        let mut chosen = Vec::new();
        for name in self.hosts {
            let [by_id, by_report] = named(name, &[self.family]);
            let mut found = seen.all_agent_ids(&AgentFilter::all([of_family(), by_id])).await?;
            if found.is_empty() {
                // Each host has one agent of the family.
                found = seen.all_agent_ids(&AgentFilter::all([of_family(), by_report])).await?;
                check_unambiguous(name, found.len() as u64)?;
            }
            if found.is_empty() {
                return Err(Error::not_found(&format!("host with {}", self.program), format_args!("{name:?}")));
            }
            chosen.extend(found);
        }
        if !self.hosts.is_empty() {
            conditions.push(AgentCondition::Ids(chosen));
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

/// Returns the conditions on the agents of these families on the host that a request names: by its id, and by what it reports. The second
/// one counts only if nothing meets the first one, and only if one host meets it ([`check_unambiguous`]).
pub(crate) fn named(name: &str, families: &[Family]) -> [AgentCondition; 2] {
    [has_id(name, families), is_called(&[name])]
}

/// Rejects what several hosts report: a host could add itself to what another one is selected for.
pub(crate) fn check_unambiguous(name: &str, hosts: u64) -> Result<(), Error> {
    if hosts <= 1 {
        return Ok(());
    }
    let message = format!("{hosts} hosts have the name, serial number or hardware UUID {name:?}");
    Err(Error::conflict("host_ambiguous", message).remedy("specify the host by its id"))
}

/// Matches the agents of these families on a host with this id, machine id or agent id.
fn has_id(named: &str, families: &[Family]) -> AgentCondition {
    let machine = host::machine_id(named);
    let by_machine = machine.iter().flat_map(|machine| families.iter().map(|family| host::agent_id(*family, machine)));
    let ids = AgentId::parse(named).ok().into_iter().chain(by_machine).collect();
    let mut any = vec![AgentCondition::Ids(ids)];
    any.extend(HostId::parse(named).ok().map(|id| AgentCondition::Hosts(vec![id])));
    AgentCondition::Any(any)
}

/// Matches the agents on hosts that report one of these as their name, serial number or hardware UUID. None of these facts is tried before
/// the others: a host could report the name of another one as its serial number.
pub fn is_called(named: &[impl AsRef<str>]) -> AgentCondition {
    let named = || named.iter().map(|name| name.as_ref().to_owned()).collect();
    AgentCondition::Any(vec![
        AgentCondition::Hostnames(named()),
        AgentCondition::Hardware(Identifier::Serial, named()),
        AgentCondition::Hardware(Identifier::Uuid, named()),
    ])
}
