//! The service that transfers hosts to another space.
//!
//! A host moves as it does with an enroll secret of the other space: its agents join the host of their machine there, which has an id of
//! its own. They keep their keys, so that nothing enrolls again. Each host is one commit, with an audit event in either space.

use std::sync::Arc;

use muster_core::agent::{AgentRecord, Family};
use muster_core::authorization::{AgentsPurge, DiskKeysReveal, EnrollmentCreate, Grant, OpContext, Privilege, Scope};
use muster_core::change::Change;
use muster_core::entropy::time_ordered_uuid;
use muster_core::error_chain::chain;
use muster_core::host::{self, Host};
use muster_core::id::{AgentId, HostId, SpaceId};
use muster_core::time::{Clock, Timestamp};
use muster_core::transfer::{self, MAX_HOSTS, Refusal};
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, HostRows, Page};
use muster_store::{AgentWrite, DiskKeyWrite, IdentityWrite, StoreError, Write};
use serde_json::json;

use super::audit::audit_line;
use super::registry::Registry;
use super::watched_store::WatchedStore;

/// Maximum attempts of a host when commits conflict.
const ATTEMPTS: usize = 5;
/// Maximum number of agents on a host.
const MAX_AGENTS: u32 = 1_000;

/// The hosts to transfer.
#[derive(Clone, Debug)]
pub enum HostsToMove {
    /// Those with these ids or hardware UUIDs.
    Named(Vec<String>),
    /// Those with a matching agent.
    Matching(AgentFilter),
}

/// What became of a host, or in a dry run would become of it.
#[derive(Clone, Debug)]
pub struct HostTransfer {
    /// The host in the former space.
    pub host: HostId,
    /// Its name.
    pub hostname: String,
    /// Where it is now, or why it was not moved.
    pub outcome: Result<MovedHost, Refusal>,
}

/// A host that was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedHost {
    /// Its id in the new space; in a dry run, only if its machine is a host there already.
    pub host: Option<HostId>,
    /// Number of agents that moved.
    pub agents: u64,
    /// Whether its disk key moved, too.
    pub has_disk_key: bool,
}

/// The caller's rights in both spaces.
struct Rights {
    /// The host leaves the one space as if it were deleted there.
    leave: Grant<AgentsPurge>,
    /// It enters the other one as if it had enrolled with a key that the caller created.
    enter: Grant<EnrollmentCreate>,
    may_reveal_keys: bool,
}

/// The agents that move, and the host that they join.
struct Plan {
    agents: Vec<AgentRecord>,
    joined: Host,
    /// Whether the host is in the new space already.
    is_there: bool,
    /// The agents that have reported a disk key.
    disk_keys: Vec<AgentId>,
}

/// Transfers hosts.
pub struct Transfers {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    registry: Arc<Registry>,
}

impl Transfers {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        registry: Arc<Registry>,
    ) -> Self {
        Self { store, clock, entropy, registry }
    }

    /// Transfers hosts from the space of the context to another one. Fails before anything is changed if a host is unknown, or if there are
    /// too many. A host that can't be moved does not stop the others. A dry run returns the same and moves nothing.
    pub async fn transfer(
        &self,
        context: &OpContext,
        hosts: &HostsToMove,
        to: &str,
    ) -> Result<Vec<HostTransfer>, Error> {
        let rights = self.rights(context, to).await?;
        let hosts = self.hosts(&rights.leave, hosts).await?;
        let mut done = Vec::with_capacity(hosts.len());
        for host in hosts {
            // An error must not hide which hosts have moved.
            done.push(self.transfer_one(&rights, &host).await.unwrap_or_else(|error| {
                tracing::warn!(error = %chain(&error), host = %host.id, "failed to transfer a host");
                HostTransfer { host: host.id, hostname: host.hostname, outcome: Err(Refusal::Failed) }
            }));
        }
        Ok(done)
    }

    async fn rights(&self, context: &OpContext, to: &str) -> Result<Rights, Error> {
        let unknown = || Error::not_found("space", to);
        let space = SpaceId::parse(to).map_err(|_| unknown())?;
        let leave = whole(context.grant::<AgentsPurge>()?)?;
        let there = context.clone().in_space(space.clone());
        // As everywhere: without rights in it, the space does not exist.
        if !there.may_enter_space() {
            return Err(unknown());
        }
        if space == *leave.space() {
            return Err(Error::invalid("to_space", "the hosts are in this space already"));
        }
        let enter = whole(there.grant::<EnrollmentCreate>()?)?;
        if space != SpaceId::default() && self.store.identity(&enter).space(&space).await?.is_none() {
            return Err(unknown());
        }
        let may_reveal_keys = context.grant::<DiskKeysReveal>().is_ok_and(|grant| *grant.scope() == Scope::Whole);
        Ok(Rights { leave, enter, may_reveal_keys })
    }

    /// Finds the hosts, each once.
    async fn hosts(&self, grant: &Grant<AgentsPurge>, wanted: &HostsToMove) -> Result<Vec<Host>, Error> {
        let seen = self.store.seen_by(grant);
        let limit = u32::try_from(MAX_HOSTS).unwrap_or(u32::MAX);
        let rows = HostRows::Page(Page { offset: 0, limit });
        let names = match wanted {
            HostsToMove::Named(names) => names,
            HostsToMove::Matching(filter) => {
                let found = seen.hosts(filter, &rows).await?;
                return if found.total > MAX_HOSTS as u64 { Err(too_many(found.total)) } else { Ok(found.items) };
            }
        };
        if names.len() > MAX_HOSTS {
            return Err(too_many(names.len() as u64));
        }
        let ids: Vec<HostId> = names.iter().filter_map(|name| HostId::parse(name).ok()).collect();
        // A machine has an id of its own for each program of fleetd, so that one query finds all machines.
        let machines = names.iter().filter_map(|name| host::machine_id(name));
        let agents = machines
            .flat_map(|machine| [Family::Osquery, Family::Orbit].map(|family| host::agent_id(family, &machine)))
            .collect();
        let filter =
            AgentFilter::all([AgentCondition::Any(vec![AgentCondition::Hosts(ids), AgentCondition::Ids(agents)])]);
        let found = seen.hosts(&filter, &rows).await?.items;
        let is_found = |name: &&String| {
            let machine = host::machine_id(name);
            found.iter().any(|host| host.id.as_str() == *name || (machine.is_some() && host.machine_id == machine))
        };
        match names.iter().find(|name| !is_found(name)) {
            Some(missing) => Err(Error::not_found("host", missing)),
            None => Ok(found),
        }
    }

    async fn transfer_one(&self, rights: &Rights, host: &Host) -> Result<HostTransfer, Error> {
        let mut hostname = host.hostname.clone();
        for _ in 0..ATTEMPTS {
            let now = self.clock.now();
            let agents = self.agents_on(&rights.leave, &host.id).await?;
            let named = agents.iter().filter(|agent| !agent.hostname.is_empty());
            let newest = named.max_by_key(|agent| agent.last_checkin).map(|agent| &agent.hostname);
            hostname = newest.unwrap_or(&host.hostname).clone();
            let told = |outcome| HostTransfer { host: host.id.clone(), hostname: hostname.clone(), outcome };
            let plan = match self.plan(rights, host, agents, now).await? {
                Ok(plan) => plan,
                Err(refusal) => return Ok(told(Err(refusal))),
            };
            let is_dry_run = rights.leave.is_dry_run();
            match self.commit(rights, host, &plan, now).await {
                Ok(()) => {
                    let id = (plan.is_there || !is_dry_run).then(|| plan.joined.id.clone());
                    let (agents, has_disk_key) = (plan.agents.len() as u64, !plan.disk_keys.is_empty());
                    return Ok(told(Ok(MovedHost { host: id, agents, has_disk_key })));
                }
                // A record has changed, or the machine has a host in the new space meanwhile.
                Err(StoreError::Conflict(reason)) => tracing::debug!(%reason, host = %host.id, "retrying a transfer"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(HostTransfer { host: host.id.clone(), hostname, outcome: Err(Refusal::Busy) })
    }

    /// Returns all agents on a host, in the order of ids, in which all servers lock the rows of several agents.
    async fn agents_on(&self, grant: &Grant<AgentsPurge>, host: &HostId) -> Result<Vec<AgentRecord>, Error> {
        let filter = AgentFilter::all([AgentCondition::Hosts(vec![host.clone()])]);
        let rows = Page { offset: 0, limit: MAX_AGENTS };
        let found = self.store.seen_by(grant).agents(&filter, AgentSort::EnrolledAt, false, rows).await?;
        let mut records: Vec<AgentRecord> = found.items.into_iter().map(|details| details.record).collect();
        records.sort_by(|one, other| one.id.as_str().cmp(other.id.as_str()));
        Ok(records)
    }

    async fn plan(
        &self,
        rights: &Rights,
        host: &Host,
        agents: Vec<AgentRecord>,
        now: Timestamp,
    ) -> Result<Result<Plan, Refusal>, Error> {
        let agents = match transfer::moving(agents) {
            Ok(agents) => agents,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut disk_keys = Vec::new();
        for orbit in agents.iter().filter(|agent| agent.family == Family::Orbit) {
            let key = self.store.seen_by(&rights.leave).disk_key(&orbit.id).await?;
            disk_keys.extend(key.and_then(|key| key.sealed).map(|_| orbit.id.clone()));
        }
        if !disk_keys.is_empty() && !rights.may_reveal_keys {
            return Ok(Err(Refusal::DiskKey));
        }
        let there = match &host.machine_id {
            Some(machine) => self.store.seen_by(&rights.enter).host_by_machine(machine).await?,
            None => None,
        };
        let is_there = there.is_some();
        let joined = there.unwrap_or_else(|| Host {
            id: HostId::trusted(time_ordered_uuid(now, &*self.entropy)),
            space: rights.enter.space().clone(),
            ..host.clone()
        });
        Ok(Ok(Plan { agents, joined, is_there, disk_keys }))
    }

    async fn commit(&self, rights: &Rights, host: &Host, plan: &Plan, now: Timestamp) -> Result<(), StoreError> {
        let Rights { leave, enter, may_reveal_keys } = rights;
        let (from, to) = (leave.space(), enter.space());
        // Inserted even if it was found: it may be deleted with its last agent meanwhile.
        let mut writes = vec![
            IdentityWrite::HasSpace { id: to.clone() }.into(),
            Write::Agent(AgentWrite::PutHost(plan.joined.clone())),
        ];
        let mut moved = Vec::new();
        for before in &plan.agents {
            let (agent, seen) = (before.id.clone(), self.registry.last_seen(&before.id, now));
            let after = Arc::new(transfer::moved(before, &plan.joined, seen, now));
            if before.family == Family::Orbit {
                // A key that the host has reported since the plan was made needs the privilege, and must be in the audit event.
                let is_stored = plan.disk_keys.contains(&agent);
                writes.push(DiskKeyWrite::Expect { agent: agent.clone(), is_stored }.into());
                if *may_reveal_keys {
                    writes.push(DiskKeyWrite::HandOver { agent: agent.clone(), space: to.clone() }.into());
                }
            }
            writes
                .push(Write::Agent(AgentWrite::Update { before: Arc::new(before.clone()), after: Arc::clone(&after) }));
            // For readers of the former space, the agent is gone; for those of the new one, it has appeared.
            writes.push(Write::Deleted(Change::Agent(agent.clone()), from.clone()));
            writes.push(Write::Changed(Change::Agent(agent)));
            moved.push(after);
        }
        let agents: Vec<&str> = plan.agents.iter().map(|agent| agent.id.as_str()).collect();
        let detail = json!({"from": from, "to": to, "former_host": host.id, "host": plan.joined.id, "agents": agents,
            "disk_key": !plan.disk_keys.is_empty()});
        for (origin, subject) in [(leave.origin(), &host.id), (enter.origin(), &plan.joined.id)] {
            writes.push(audit_line(origin, now, "host.transfer", format_args!("host:{subject}"), detail.clone()));
        }
        self.store.commit(leave, writes).await?;
        if !leave.is_dry_run() {
            // Now, and not when the change arrives: the host must not get anything of its former space after the response.
            for record in moved {
                if let Some(entry) = self.registry.get(&record.id) {
                    entry.renew(record);
                    entry.wake_for_policy();
                }
            }
        }
        Ok(())
    }
}

/// Rejects a grant for a part of a space: the host may have agents outside of it, and tags, which may decide who can act on an agent,
/// do not move.
fn whole<P: Privilege>(grant: Grant<P>) -> Result<Grant<P>, Error> {
    if *grant.scope() == Scope::Whole {
        return Ok(grant);
    }
    let message = format!("a transfer requires the privilege {} for the whole space {}", P::NAME, grant.space());
    Err(Error::new(ErrorKind::Forbidden, "limited_scope", message))
}

fn too_many(count: u64) -> Error {
    Error::invalid("hosts", format!("{count} hosts are selected; at most {MAX_HOSTS} in one request"))
}
