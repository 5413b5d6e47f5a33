//! Automatic upgrades: the background work that brings the agents of a policy to its `required_versions`. Which agents are
//! next is decided by core (`auto_upgrade.rs`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::action::{Action, ActionType};
use muster_core::authorization::{Actor, AgentsRead, AgentsUpgrade, Grant, OpContext, PoliciesRead};
use muster_core::auto_upgrade::{Attempts, Batch, Census, Demand, Member, choose, demands, required};
use muster_core::error_chain::chain;
use muster_core::id::AgentId;
use muster_core::policy::Policy;
use muster_core::status::Status;
use muster_core::time::{Clock, Timestamp};
use muster_core::upgrade_details::UpgradeDetails;
use muster_core::version::Version;
use muster_store::LeaseName;
use muster_store::query::{ActionFilter, AgentCondition, AgentFilter, Page};
use serde_json::Value;

use super::actions::{Actions, UpgradeRequest};
use super::authority::{Authorized, System};
use super::policies::all_policies;
use super::records::Records;
use super::selection::Selection;
use super::shutdown::Shutdown;
use super::watched_store::WatchedStore;

/// Pause between two looks at the policies.
const EVERY: Duration = Duration::from_secs(60);
/// Statuses of agents that do not count.
const GONE: [Status; 4] = [Status::Unenrolled, Status::Inactive, Status::Uninstalled, Status::Orphaned];
/// Maximum agents of a policy whose upgrades begin at one look: a package is not downloaded by a whole fleet at once.
const MOST_AT_ONCE: usize = 500;
/// Records per read.
const RECORD_BATCH: usize = 500;
/// Newest actions of an agent that are searched for its attempts.
const MOST_ACTIONS: u32 = 100;

/// The service of automatic upgrades.
pub struct AutoUpgrades {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    records: Arc<Records>,
    actions: Arc<Actions>,
    shutdown: Arc<Shutdown>,
}

impl AutoUpgrades {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        records: Arc<Records>,
        actions: Arc<Actions>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { store, clock, records, actions, shutdown }
    }

    /// Runs until shutdown.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.shutdown.wait() => return,
            }
            match self.advance().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "automatic upgrades began"),
                Err(error) => tracing::warn!(error = %chain(&error), "automatic upgrades failed; retrying later"),
            }
        }
    }

    /// Begins the upgrades that are due, if this server holds the lease; returns the number of agents.
    pub async fn advance(&self) -> Result<usize, Error> {
        let mut begun = 0;
        let policies = all_policies(&self.store).await?;
        // Managed policies are upgraded by the system that manages them.
        for policy in policies.iter().filter(|policy| !policy.is_managed && !required(&policy.fields).is_empty()) {
            if !self.has_lease().await? {
                break;
            }
            match self.advance_policy(policy).await {
                Ok(count) => begun += count,
                // One policy that fails must not stop the others.
                Err(error) => tracing::warn!(policy = %policy.id, error = %chain(&error),
                    "failed to begin the automatic upgrades of a policy; retrying later"),
            }
        }
        Ok(begun)
    }

    /// Returns whether this server does the work. Asked again before each step: a server that was asleep must not go on
    /// after another one has taken over.
    async fn has_lease(&self) -> Result<bool, Error> {
        Ok(self.store.everywhere(&System).take_lease(LeaseName::AutoUpgrades).await?.is_some())
    }

    async fn advance_policy(&self, policy: &Policy) -> Result<usize, Error> {
        let required = required(&policy.fields);
        // Most of the time, no agent is to be upgraded, or few are left: the others are only counted.
        let census = self.census(policy).await?;
        // Counts of versions decide whether any record is read at all.
        let Some(highest) = census.highest_demand(&required) else { return Ok(0) };
        let members = self.members(policy, highest).await?;
        let demands = demands(&required, &census, &members);
        if demands.is_empty() {
            return Ok(0);
        }
        // The policy was authorized when it was saved; its upgrades are the server's work.
        let context = OpContext::administrator(Actor::System).in_space(policy.space.clone());
        let grant: Grant<AgentsUpgrade> = context.grant()?;
        let now = self.clock.now();
        let mut attempts = HashMap::new();
        for demand in &demands {
            attempts.insert(demand.version, self.attempts(&grant, policy, demand).await?);
        }
        // Looked up before the choice, which is a pure function.
        let of = |version: &str, id: &AgentId| attempts.get(version)?.get(id).copied();
        let mut begun = 0;
        for Batch { version, mut agents } in choose(&demands, &of, now) {
            // The limit is for the policy, not for each of its versions.
            agents.truncate(MOST_AT_ONCE - MOST_AT_ONCE.min(begun));
            if agents.is_empty() || !self.has_lease().await? {
                break;
            }
            let submitted = self.actions.upgrade(&select(agents, &grant), &request(&version)).await?;
            tracing::info!(policy = %policy.id, version, agents = submitted.targets, "automatic upgrade began");
            begun += usize::try_from(submitted.targets).unwrap_or(usize::MAX);
        }
        Ok(begun)
    }

    /// Counts the agents of a policy by version.
    async fn census(&self, policy: &Policy) -> Result<Census, Error> {
        let mut census = Census::default();
        for counted in self.store.within(&System, &policy.space).agents_by_version(&members(policy)).await? {
            // An agent whose upgrade is in progress counts for the version that it will run.
            let target = counted.open.as_ref().and_then(|open| Version::parse(&open.version));
            census.add(Version::parse(&counted.version), target, usize::try_from(counted.agents).unwrap_or(usize::MAX));
        }
        Ok(census)
    }

    /// Returns the agents of a policy that count and run a lower version.
    async fn members(&self, policy: &Policy, than: Version) -> Result<Vec<Member>, Error> {
        let mut lower = members(policy);
        // From 1: an agent without a readable version has the key 0, and cannot be compared.
        lower.conditions.push(AgentCondition::VersionIn(1, than.sort_key()));
        let ids = self.store.within(&System, &policy.space).all_agent_ids(&lower).await?;
        let mut members = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(RECORD_BATCH) {
            let records = self.records.read(chunk).await?;
            members.extend(records.into_iter().map(|details| Member {
                version: Version::parse(&details.record.agent_version),
                target: details.record.upgrade.open.as_ref().and_then(|open| Version::parse(&open.version)),
                id: details.record.id,
            }));
        }
        Ok(members)
    }

    /// Returns the attempts of the candidates that can be upgraded, until enough of them have none.
    async fn attempts(
        &self,
        grant: &Grant<AgentsUpgrade>,
        policy: &Policy,
        demand: &Demand<'_>,
    ) -> Result<HashMap<AgentId, Attempts>, Error> {
        let ids: Vec<AgentId> = demand.candidates.iter().map(|id| (*id).clone()).collect();
        // Asked without creating anything: an agent that cannot be upgraded must not use up one of the places.
        let refused = self.actions.try_upgrade(&select(ids, grant), &request(demand.version)).await?;
        let refused: HashSet<AgentId> = refused.into_iter().map(|(id, _)| id).collect();
        let (mut found, mut fresh) = (HashMap::new(), 0);
        for id in demand.candidates.iter().filter(|id| !refused.contains(**id)) {
            // Enough agents without a failed attempt are found; the others would not be chosen.
            if fresh >= demand.needed {
                break;
            }
            let attempts = self.attempts_of(policy, id, demand.version).await?;
            fresh += usize::from(attempts.count == 0);
            found.insert((*id).clone(), attempts);
        }
        Ok(found)
    }

    /// Returns the attempts to upgrade an agent automatically. They are its actions by the server itself.
    async fn attempts_of(&self, policy: &Policy, agent: &AgentId, version: &str) -> Result<Attempts, Error> {
        let filter = ActionFilter {
            space: Some(policy.space.clone()),
            agent_id: Some(agent.clone()),
            ..ActionFilter::default()
        };
        let page = Page { offset: 0, limit: MOST_ACTIONS };
        let actions = self.store.everywhere(&System).actions(&filter, page).await?.items;
        // Only actions of the server itself: an upgrade that a person requested is not an automatic attempt.
        let times: Vec<Timestamp> = actions
            .iter()
            .filter(|(action, _)| is_attempt(action, version))
            .map(|(action, _)| action.created_at)
            .collect();
        Ok(Attempts { count: times.len(), last: times.into_iter().max() })
    }
}

/// Progress of a policy's agents towards a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionStatus {
    /// Number of agents that run it.
    pub agents: u64,
    /// Number of agents whose upgrade to it failed last.
    pub failed: u64,
    /// Number of agents that are being upgraded to it.
    pub in_progress: u64,
    /// The actions of the failed upgrades.
    pub failed_actions: BTreeSet<String>,
    /// The actions of the upgrades in progress.
    pub actions_in_progress: BTreeSet<String>,
}

impl AutoUpgrades {
    /// Returns the versions that the agents of a policy run or are being upgraded to, the highest first. Counts the agents that count
    /// for `required_versions`.
    pub async fn status(
        &self,
        grant: &Grant<AgentsRead>,
        policy: &Authorized<Policy, PoliciesRead>,
    ) -> Result<Vec<(String, VersionStatus)>, Error> {
        let mut versions: BTreeMap<String, VersionStatus> = BTreeMap::new();
        for counted in self.store.seen_by(grant).agents_by_version(&members(policy)).await? {
            let details = counted.details.as_deref().and_then(UpgradeDetails::stored);
            match (counted.open, details) {
                (Some(open), _) => {
                    let target = versions.entry(open.version).or_default();
                    target.in_progress += counted.agents;
                    target.actions_in_progress.insert(open.action.to_string());
                }
                (None, Some(details)) if details.has_failed() => {
                    let target = versions.entry(details.target_version).or_default();
                    target.failed += counted.agents;
                    target.failed_actions.insert(details.action_id);
                }
                _ => {}
            }
            // In any case: an agent that is being upgraded runs its present version until then.
            versions.entry(counted.version).or_default().agents += counted.agents;
        }
        let mut versions: Vec<_> = versions.into_iter().collect();
        versions.sort_by_key(|(version, _)| Reverse(Version::parse(version)));
        Ok(versions)
    }
}

/// Selects the agents of a policy that count.
fn members(policy: &Policy) -> AgentFilter {
    AgentFilter::all([AgentCondition::Policies(vec![policy.id.clone()]), !AgentCondition::Statuses(GONE.to_vec())])
}

fn is_attempt(action: &Action, version: &str) -> bool {
    let data = || action.data.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()).unwrap_or_default();
    action.kind == ActionType::Upgrade && action.created_by == Actor::System.to_string() && data()["version"] == version
}

fn select(ids: Vec<AgentId>, grant: &Grant<AgentsUpgrade>) -> Authorized<Selection, AgentsUpgrade> {
    Authorized::new(Selection { ids, ..Selection::default() }, grant.clone())
}

fn request(version: &str) -> UpgradeRequest {
    UpgradeRequest { version: version.to_owned(), ..UpgradeRequest::default() }
}
