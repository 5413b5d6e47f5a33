//! Reads scoped to a space, and to the part of it that a grant covers. Like commits, reads name their authority.
//!
//! People read through a [`Scoped`], which is constructed from a grant. It adds the space and the scope of the grant to
//! every query, so that no service can forget them. Only the server itself and authenticated agents may read across spaces.
//!
//! ```
//! use muster_core::agent::AgentRecord;
//! use muster_core::authorization::{AgentsRead, Grant};
//! use muster_core::id::AgentId;
//! use muster_fleet::watched_store::WatchedStore;
//! use muster_store::StoreError;
//!
//! async fn show(
//!     store: &WatchedStore,
//!     grant: &Grant<AgentsRead>,
//!     id: &AgentId,
//! ) -> Result<Option<AgentRecord>, StoreError> {
//!     store.seen_by(grant).agent(id).await
//! }
//! ```
//!
//! Without a grant it does not compile:
//!
//! ```compile_fail,E0599
//! # use muster_core::agent::AgentRecord;
//! # use muster_core::id::AgentId;
//! # use muster_fleet::watched_store::WatchedStore;
//! # use muster_store::StoreError;
//! async fn show(store: &WatchedStore, id: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
//!     store.agent(id).await
//! }
//! ```
//!
//! A grant does not give access to all spaces:
//!
//! ```compile_fail,E0277
//! # use muster_core::agent::AgentRecord;
//! # use muster_core::authorization::{AgentsRead, Grant};
//! # use muster_core::id::AgentId;
//! # use muster_fleet::watched_store::WatchedStore;
//! # use muster_store::StoreError;
//! async fn show(
//!     store: &WatchedStore,
//!     grant: &Grant<AgentsRead>,
//!     id: &AgentId,
//! ) -> Result<Option<AgentRecord>, StoreError> {
//!     store.everywhere(grant).agent(id).await
//! }
//! ```

use std::collections::BTreeSet;

use muster_core::action::{Action, ActionCounts, ActionResult, Target};
use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord};
use muster_core::alert::{Progress, Receiver};
use muster_core::authorization::{Scope, Selector};
use muster_core::credential::Credential;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::file::{DeliverableFile, Upload};
use muster_core::id::{
    ActionId, AgentId, AlertReceiverId, EnrollmentKeyId, FileId, NetworkObjectId, OutputId, PolicyId, RolloutId,
    SpaceId, UninstallTokenId,
};
use muster_core::network_object::{NetworkObject, NetworkObjectKind, Shared};
use muster_core::output::Output;
use muster_core::output_key::{KeyCounts, OutputCluster, OutputKey};
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::rollout::{Place, Rollout, Subject};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_core::uninstall_token::UninstallToken;
use muster_store::query::{
    ActionFilter, ActionScope, AgentCondition, AgentCursor, AgentFilter, AgentSort, Listed, ListedToken, Page,
    Readable, TokenSearch, VersionCount,
};
use muster_store::{Resources, StoreError};

use super::space_settings;

/// Ids of agents per read.
const IDS_PER_READ: u32 = 5_000;

/// Keys of one policy that a caller with a limited scope sees.
const MOST_KEYS: u32 = 1_000;
/// Targets that are read at once to find those within a limited scope.
const TARGETS_READ: u32 = 1_000;
/// Position before the first target of an action.
const BEFORE_FIRST: i64 = -1;

/// A view of the store that is limited to one space, and to the scope of a grant: other objects don't exist in it.
///
/// Dependent data (documents, targets, revisions) is read with the record that it belongs to, which has the space.
#[derive(Clone, Copy)]
pub struct Scoped<'a> {
    store: &'a dyn Resources,
    space: &'a SpaceId,
    scope: &'a Scope,
}

impl<'a> Scoped<'a> {
    /// Called only by the watched store, for a grant or for the server itself.
    pub(crate) fn new(store: &'a dyn Resources, space: &'a SpaceId, scope: &'a Scope) -> Self {
        Self { store, space, scope }
    }

    /// The space.
    pub fn space(&self) -> &'a SpaceId {
        self.space
    }

    fn is_whole(&self) -> bool {
        *self.scope == Scope::Whole
    }

    // For tables without a column for the space. The result for a foreign record is empty and not an error, as if the
    // record did not exist.
    fn holds(&self, space: &SpaceId) -> bool {
        self.space == space
    }
}

/// Agents.
impl Scoped<'_> {
    /// Returns an agent's record.
    pub async fn agent(&self, id: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        let found = self.store.agent_in(self.space, id).await?;
        Ok(found.filter(|agent| self.scope.has_agent(agent.policy_id.as_ref(), &agent.tags)))
    }

    /// Returns an agent's documents.
    pub async fn agent_documents(&self, agent: &AgentRecord) -> Result<Option<AgentDocuments>, StoreError> {
        if self.holds(&agent.space) { self.store.agent_documents(&agent.id).await } else { Ok(None) }
    }

    /// Returns an agent's credentials, the newest first.
    pub async fn agent_credentials(&self, agent: &AgentRecord) -> Result<Vec<Credential>, StoreError> {
        if self.holds(&agent.space) { self.store.agent_credentials(&agent.id).await } else { Ok(Vec::new()) }
    }

    /// Returns a page of matching agents.
    pub async fn agents(
        &self,
        filter: &AgentFilter,
        sort: AgentSort,
        descending: bool,
        page: Page,
    ) -> Result<Listed<AgentDetails>, StoreError> {
        self.store.agent_list(&self.agents_that(filter), sort, descending, page).await
    }

    /// Returns at most `limit` matching agents after a cursor.
    pub async fn agents_after(
        &self,
        filter: &AgentFilter,
        sort: AgentSort,
        descending: bool,
        after: &AgentCursor,
        limit: u32,
    ) -> Result<Readable<AgentDetails>, StoreError> {
        self.store.agents_after(&self.agents_that(filter), sort, descending, after, limit).await
    }

    /// Returns at most `limit` ids of matching agents after `after`, sorted.
    pub async fn agent_ids(
        &self,
        filter: &AgentFilter,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        self.store.agent_ids(&self.agents_that(filter), after, limit).await
    }

    /// Returns the ids of all matching agents, sorted. Whoever changes agents collects them first: paging through agents
    /// that it changes meanwhile would skip some.
    pub async fn all_agent_ids(&self, filter: &AgentFilter) -> Result<Vec<AgentId>, StoreError> {
        let mut ids: Vec<AgentId> = Vec::new();
        loop {
            let page = self.agent_ids(filter, ids.last(), IDS_PER_READ).await?;
            if page.is_empty() {
                return Ok(ids);
            }
            ids.extend(page);
        }
    }

    /// Returns the number of matching agents in each status.
    pub async fn agent_counts(&self, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, StoreError> {
        self.store.agent_counts(&self.agents_that(filter)).await
    }

    /// Counts matching agents by version and upgrade.
    pub async fn agents_by_version(&self, filter: &AgentFilter) -> Result<Vec<VersionCount>, StoreError> {
        self.store.agents_by_version(&self.agents_that(filter)).await
    }

    /// Returns all tags of the matching agents, sorted case-insensitively.
    pub async fn agent_tags(&self, filter: &AgentFilter) -> Result<Vec<String>, StoreError> {
        self.store.agent_tags(&self.agents_that(filter)).await
    }

    // Replaces a space in the filter: a caller's filter can't widen the scope.
    fn agents_that(&self, filter: &AgentFilter) -> AgentFilter {
        let mut conditions = filter.conditions.clone();
        if let Scope::AnyOf(selectors) = self.scope {
            conditions.push(AgentCondition::Any(selectors.iter().map(selected_by).collect()));
        }
        AgentFilter { space: Some(self.space.clone()), conditions }
    }
}

/// Actions. A caller with a limited scope sees the actions that have a target within it, and of these only such targets.
impl Scoped<'_> {
    /// Returns an action.
    pub async fn action(&self, id: &ActionId) -> Result<Option<Action>, StoreError> {
        let Some(found) = self.store.action_in(self.space, id).await? else { return Ok(None) };
        let is_visible = self.is_whole() || !self.action_targets(&found, BEFORE_FIRST, 1).await?.is_empty();
        Ok(Some(found).filter(|_| is_visible))
    }

    /// Returns whether all targets of an action are within the scope: others must not be affected by what a caller does to
    /// it.
    pub async fn has_all_targets(&self, action: &Action) -> Result<bool, StoreError> {
        let mut place = BEFORE_FIRST;
        while !self.is_whole() {
            let batch = self.store.action_targets(&action.id, place, TARGETS_READ).await?;
            let Some((last, _, _)) = batch.last() else { break };
            place = *last;
            let read = batch.len();
            if self.targets_within(batch).await?.len() < read {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns a page of matching actions with their counts, newest first.
    pub async fn actions(
        &self,
        filter: ActionFilter,
        page: Page,
    ) -> Result<Listed<(Action, ActionCounts)>, StoreError> {
        let within = match self.scope {
            Scope::Whole => None,
            Scope::AnyOf(selectors) => Some(ActionScope {
                agents: AgentCondition::Any(selectors.iter().map(selected_by).collect()),
                policies: self.scope.policies().unwrap_or_default(),
            }),
        };
        self.store.actions(&ActionFilter { space: Some(self.space.clone()), within, ..filter }, page).await
    }

    /// Returns at most `limit` targets of an action with their states, in order, after position `after`.
    pub async fn action_targets(
        &self,
        action: &Action,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, AgentId, Target)>, StoreError> {
        if !self.holds(&action.space) {
            return Ok(Vec::new());
        }
        if self.is_whole() {
            return self.store.action_targets(&action.id, after, limit).await;
        }
        let (mut found, mut place) = (Vec::new(), after);
        while found.len() < limit as usize {
            let batch = self.store.action_targets(&action.id, place, TARGETS_READ).await?;
            let Some((last, _, _)) = batch.last() else { break };
            place = *last;
            found.extend(self.targets_within(batch).await?);
        }
        found.truncate(limit as usize);
        Ok(found)
    }

    // A target of a former enrollment is another machine's, perhaps, and was on another policy.
    async fn targets_within(
        &self,
        mut targets: Vec<(i64, AgentId, Target)>,
    ) -> Result<Vec<(i64, AgentId, Target)>, StoreError> {
        let visible = self.visible_among(targets.iter().map(|(_, agent, _)| agent)).await?;
        targets.retain(|(_, agent, target)| !target.is_former && visible.contains(agent));
        Ok(targets)
    }

    /// Returns which of these agents exist.
    pub async fn visible_among<'i>(
        &self,
        ids: impl Iterator<Item = &'i AgentId>,
    ) -> Result<BTreeSet<AgentId>, StoreError> {
        let filter = AgentFilter::all([AgentCondition::Ids(ids.cloned().collect())]);
        Ok(self.agent_ids(&filter, None, u32::MAX).await?.into_iter().collect())
    }

    /// Returns the state of one agent as a target of an action; `None` if it is not a target.
    pub async fn action_target(&self, action: &Action, agent: &AgentId) -> Result<Option<Target>, StoreError> {
        if !self.holds(&action.space) || (!self.is_whole() && self.agent(agent).await?.is_none()) {
            return Ok(None);
        }
        let target = self.store.action_target(&action.id, agent).await?;
        Ok(target.filter(|target| self.is_whole() || !target.is_former))
    }

    /// Returns at most `limit` results of an action, newest first; with `failed_only`, only failed ones.
    pub async fn action_results(
        &self,
        action: &Action,
        failed_only: bool,
        limit: u32,
    ) -> Result<Vec<ActionResult>, StoreError> {
        if !self.holds(&action.space) {
            return Ok(Vec::new());
        }
        if self.is_whole() {
            return self.store.action_results(&action.id, failed_only, limit).await;
        }
        let mut results = self.store.action_results(&action.id, failed_only, u32::MAX).await?;
        let mut visible = BTreeSet::new();
        for batch in results.chunks(TARGETS_READ as usize) {
            visible.extend(self.visible_among(batch.iter().map(|result| &result.agent_id)).await?);
        }
        results.retain(|result| visible.contains(&result.agent_id));
        results.truncate(limit as usize);
        Ok(results)
    }
}

/// Policies.
impl Scoped<'_> {
    /// Returns a policy.
    pub async fn policy(&self, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
        if self.scope.has_policy(id) { self.store.policy_in(self.space, id).await } else { Ok(None) }
    }

    /// Returns the policy with that name.
    pub async fn policy_by_name(&self, name: &str) -> Result<Option<Policy>, StoreError> {
        let found = self.store.policy_by_name(self.space, name).await?;
        Ok(found.filter(|policy| self.scope.has_policy(&policy.id)))
    }

    /// Returns a page of policies by name.
    pub async fn policies(&self, page: Page) -> Result<Listed<Policy>, StoreError> {
        let Some(ids) = self.scope.policies() else { return self.store.policies(Some(self.space), page).await };
        let mut items = self.policies_among(&ids).await?;
        let total = items.len() as u64;
        items = items.into_iter().skip(page.offset as usize).take(page.limit as usize).collect();
        Ok(Listed { items, total, unreadable: 0 })
    }

    // A scope lists few policies, so they are read one by one.
    async fn policies_among(&self, ids: &[PolicyId]) -> Result<Vec<Policy>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids.iter().collect::<BTreeSet<_>>() {
            found.extend(self.store.policy_in(self.space, id).await?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Returns the policies after a name, by name.
    pub async fn policies_after(&self, name: &str, limit: u32) -> Result<Readable<Policy>, StoreError> {
        let Some(ids) = self.scope.policies() else {
            return self.store.policies_after(self.space, name, limit).await;
        };
        let mut items = self.policies_among(&ids).await?;
        items.retain(|policy| policy.name.as_str() > name);
        items.truncate(limit as usize);
        Ok(Readable { items, unreadable: 0 })
    }

    /// Returns the number of active agents on each policy that has any.
    pub async fn policy_agent_counts(&self) -> Result<Vec<(PolicyId, u64)>, StoreError> {
        let mut counts = self.store.policy_agent_counts(self.space).await?;
        counts.retain(|(policy, _)| self.scope.has_policy(policy));
        Ok(counts)
    }

    /// Returns the newest revision of a policy.
    pub async fn newest_revision(&self, policy: &Policy) -> Result<Option<PolicyRevision>, StoreError> {
        if self.holds(&policy.space) { self.store.policy_newest_revision(&policy.id).await } else { Ok(None) }
    }

    /// Returns a revision of a policy.
    pub async fn revision(&self, policy: &Policy, revision: i64) -> Result<Option<PolicyRevision>, StoreError> {
        if self.holds(&policy.space) { self.store.policy_revision(&policy.id, revision).await } else { Ok(None) }
    }

    /// Returns numbers, times and authors of a policy's revisions, newest first.
    pub async fn revisions(&self, policy: &Policy) -> Result<Vec<(i64, Timestamp, String)>, StoreError> {
        if self.holds(&policy.space) { self.store.policy_revisions(&policy.id).await } else { Ok(Vec::new()) }
    }
}

/// Rollouts.
impl Scoped<'_> {
    /// Returns a rollout.
    pub async fn rollout(&self, id: &RolloutId) -> Result<Option<Rollout>, StoreError> {
        let found = self.store.rollout_in(self.space, id).await?;
        Ok(found.filter(|rollout| self.has_rollout(rollout)))
    }

    /// Returns the active rollout of a policy, which the caller has found in its scope.
    pub async fn active_rollout_of(&self, policy: &PolicyId) -> Result<Option<Rollout>, StoreError> {
        self.store.active_rollout_of(policy).await
    }

    /// Returns a page of rollouts, newest first. A caller with a limited scope gets those on the page that it covers.
    pub async fn rollouts(&self, page: Page) -> Result<Listed<Rollout>, StoreError> {
        let mut found = self.store.rollouts(self.space, page).await?;
        found.items.retain(|rollout| self.has_rollout(rollout));
        Ok(found)
    }

    fn has_rollout(&self, rollout: &Rollout) -> bool {
        match &rollout.subject {
            Subject::Policy { policy, .. } => self.scope.has_policy(policy),
            Subject::Upgrade { .. } => self.is_whole(),
        }
    }

    /// Returns the place in rollouts of the matching agent after `before` others; `None` if there are fewer.
    pub async fn agent_place(&self, filter: &AgentFilter, before: u32) -> Result<Option<Place>, StoreError> {
        self.store.agent_place(&self.agents_that(filter), before).await
    }
}

/// Outputs, enrollment keys, uploads.
impl Scoped<'_> {
    /// Returns an output.
    pub async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError> {
        self.store.output_in(self.space, id).await
    }

    /// Returns the clusters of outputs that were found in this space.
    pub async fn output_clusters(&self, outputs: &[String]) -> Result<Vec<OutputCluster>, StoreError> {
        let mut clusters = self.store.output_clusters().await?;
        clusters.retain(|cluster| outputs.contains(&cluster.output));
        Ok(clusters)
    }

    /// Returns the numbers of keys at a cluster, and the reason why one of them was rejected.
    pub async fn output_key_counts(&self, cluster: &OutputCluster) -> Result<(KeyCounts, Option<String>), StoreError> {
        self.store.output_key_counts(&cluster.id).await
    }

    /// Returns an agent's keys at the clusters of outputs.
    pub async fn output_keys(&self, agent: &AgentRecord) -> Result<Vec<OutputKey>, StoreError> {
        if self.holds(&agent.space) { Ok(self.store.output_keys(&agent.id).await?.0) } else { Ok(Vec::new()) }
    }

    /// Returns all outputs by name.
    pub async fn outputs(&self) -> Result<Vec<Output>, StoreError> {
        self.store.outputs(self.space).await
    }

    /// Returns true if an output in any space has the id: a new one needs to know, since ids are unique across spaces.
    pub async fn is_output_id_taken(&self, id: &OutputId) -> Result<bool, StoreError> {
        // This and the one below are the only reads of this view across spaces; it reveals no more than the conflict of the insert would.
        Ok(self.store.output(id).await?.is_some())
    }

    /// Returns a Fleet Server host, a proxy or a download source.
    pub async fn network_object(
        &self,
        kind: NetworkObjectKind,
        id: &NetworkObjectId,
    ) -> Result<Option<NetworkObject>, StoreError> {
        let found = self.store.network_object(kind, id).await?;
        Ok(found.filter(|object| self.holds(&object.space)))
    }

    /// Returns all network objects by kind and name.
    pub async fn network_objects(&self) -> Result<Vec<NetworkObject>, StoreError> {
        self.store.network_objects(self.space).await
    }

    /// Returns the objects that policies may refer to.
    pub async fn shared(&self) -> Result<Shared, StoreError> {
        Ok(Shared { outputs: self.outputs().await?, network: self.network_objects().await? })
    }

    /// Returns a receiver of alerts.
    pub async fn alert_receiver(&self, id: &AlertReceiverId) -> Result<Option<Receiver>, StoreError> {
        self.store.alert_receiver(self.space, id).await
    }

    /// Returns all receivers of alerts by name.
    pub async fn alert_receivers(&self) -> Result<Vec<Receiver>, StoreError> {
        self.store.alert_receivers(self.space).await
    }

    /// Returns how far a receiver of alerts is.
    pub async fn alert_progress(&self, receiver: &Receiver) -> Result<Progress, StoreError> {
        if !self.holds(&receiver.space) {
            return Ok(Progress::default());
        }
        Ok(self.store.alert_progress(&receiver.id).await?.unwrap_or_default())
    }

    /// Returns true if an object of the kind in any space has the id: a new one needs to know.
    pub async fn is_network_object_id_taken(
        &self,
        kind: NetworkObjectKind,
        id: &NetworkObjectId,
    ) -> Result<bool, StoreError> {
        Ok(self.store.network_object(kind, id).await?.is_some())
    }

    /// Returns the stored settings of the space.
    pub async fn space_settings(&self) -> Result<Option<String>, StoreError> {
        self.store.setting(&space_settings::setting_name(self.space)).await
    }

    /// Returns an uninstall token.
    pub async fn uninstall_token(&self, id: &UninstallTokenId) -> Result<Option<UninstallToken>, StoreError> {
        let found = self.store.uninstall_token(id).await?;
        Ok(found.filter(|token| self.holds(&token.space) && self.scope.has_policy(&token.policy_id)))
    }

    /// Returns the newest uninstall token of each policy that matches, newest first.
    pub async fn uninstall_tokens(&self, search: &TokenSearch) -> Result<Vec<ListedToken>, StoreError> {
        let mut found = self.store.uninstall_tokens(self.space, search).await?;
        found.retain(|token| self.scope.has_policy(&token.policy_id));
        Ok(found)
    }

    /// Returns an enrollment key.
    pub async fn enrollment_key(&self, id: &EnrollmentKeyId) -> Result<Option<EnrollmentKey>, StoreError> {
        let found = self.store.enrollment_key_in(self.space, id).await?;
        Ok(found.filter(|key| self.has_key(key)))
    }

    /// Returns a page of enrollment keys of one policy or of all, newest first.
    pub async fn enrollment_keys(
        &self,
        policy: Option<&PolicyId>,
        page: Page,
    ) -> Result<Listed<EnrollmentKey>, StoreError> {
        if self.is_whole() {
            return self.store.enrollment_keys(self.space, policy, page).await;
        }
        let items = self.keys_among(policy).await?;
        let total = items.len() as u64;
        let items = items.into_iter().skip(page.offset as usize).take(page.limit as usize).collect();
        Ok(Listed { items, total, unreadable: 0 })
    }

    /// Returns the enrollment keys after the one with this creation time and id, newest first.
    pub async fn enrollment_keys_after(
        &self,
        policy: Option<&PolicyId>,
        after: (Timestamp, &EnrollmentKeyId),
        limit: u32,
    ) -> Result<Readable<EnrollmentKey>, StoreError> {
        if self.is_whole() {
            return self.store.enrollment_keys_after(self.space, policy, after, limit).await;
        }
        let mut items = self.keys_among(policy).await?;
        items.retain(|key| (key.created_at, &key.id) < after);
        items.truncate(limit as usize);
        Ok(Readable { items, unreadable: 0 })
    }

    /// Returns whether a key that was read in another view belongs to this one, too.
    pub fn has_enrollment_key(&self, key: &EnrollmentKey) -> bool {
        self.holds(&key.space) && self.has_key(key)
    }

    fn has_key(&self, key: &EnrollmentKey) -> bool {
        self.is_whole() || key.policy_id.as_ref().is_some_and(|policy| self.scope.has_policy(policy))
    }

    // Keys of the policies of a limited scope, newest first.
    async fn keys_among(&self, policy: Option<&PolicyId>) -> Result<Vec<EnrollmentKey>, StoreError> {
        let ids = self.scope.policies().unwrap_or_default();
        let mut found = Vec::new();
        for id in ids.iter().filter(|id| policy.is_none_or(|only| only == *id)).collect::<BTreeSet<_>>() {
            let page = Page { offset: 0, limit: MOST_KEYS };
            found.extend(self.store.enrollment_keys(self.space, Some(id), page).await?.items);
        }
        found.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(found)
    }

    /// Returns the files that an agent may fetch, newest first.
    pub async fn files_of(&self, agent: &AgentRecord) -> Result<Vec<DeliverableFile>, StoreError> {
        if self.holds(&agent.space) { self.store.files_of(&agent.id).await } else { Ok(Vec::new()) }
    }

    /// Returns an upload.
    pub async fn upload(&self, id: &FileId) -> Result<Option<Upload>, StoreError> {
        let Some(upload) = self.store.upload_in(self.space, id).await? else { return Ok(None) };
        Ok(self.agent(&upload.agent_id).await?.map(|_| upload))
    }

    /// Returns an agent's uploads, newest first.
    pub async fn uploads(&self, agent: &AgentRecord) -> Result<Vec<Upload>, StoreError> {
        if self.holds(&agent.space) { self.store.uploads(&agent.id).await } else { Ok(Vec::new()) }
    }
}

fn selected_by(selector: &Selector) -> AgentCondition {
    match selector {
        Selector::Policies(ids) => AgentCondition::Policies(ids.clone()),
        Selector::Tags(tags) => AgentCondition::Tags(tags.clone()),
    }
}
