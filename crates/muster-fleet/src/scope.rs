//! Reads scoped to a space. Like commits, reads name their authority.
//!
//! Administrators read through a [`Scoped`], which is constructed from a grant. It adds the space to every query, so
//! that no service can forget it. Only the server itself and authenticated agents may read across spaces.
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

use muster_core::action::{Action, ActionCounts, ActionResult, Target};
use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord};
use muster_core::credential::Credential;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::file::Upload;
use muster_core::id::{ActionId, AgentId, EnrollmentKeyId, FileId, OutputId, PolicyId, SpaceId};
use muster_core::output::Output;
use muster_core::output_key::{KeyCounts, OutputCluster, OutputKey};
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_store::query::{ActionFilter, AgentCursor, AgentFilter, AgentSort, Listed, Page, Readable};
use muster_store::{Resources, StoreError};

/// A view of the store that is limited to one space: objects of other spaces don't exist in it.
///
/// Dependent data (documents, targets, revisions) is read with the record that it belongs to, which has the space.
#[derive(Clone, Copy)]
pub struct Scoped<'a> {
    store: &'a dyn Resources,
    space: &'a SpaceId,
}

impl<'a> Scoped<'a> {
    /// Called only by the watched store, for a grant or for the server itself.
    pub(crate) fn new(store: &'a dyn Resources, space: &'a SpaceId) -> Self {
        Self { store, space }
    }

    /// The space.
    pub fn space(&self) -> &'a SpaceId {
        self.space
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
        self.store.agent_in(self.space, id).await
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

    /// Returns the number of matching agents in each status.
    pub async fn agent_counts(&self, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, StoreError> {
        self.store.agent_counts(&self.agents_that(filter)).await
    }

    /// Returns all tags of the matching agents, sorted case-insensitively.
    pub async fn agent_tags(&self, filter: &AgentFilter) -> Result<Vec<String>, StoreError> {
        self.store.agent_tags(&self.agents_that(filter)).await
    }

    // Replaces a space in the filter: a caller's filter can't widen the scope.
    fn agents_that(&self, filter: &AgentFilter) -> AgentFilter {
        AgentFilter { space: Some(self.space.clone()), ..filter.clone() }
    }
}

/// Actions.
impl Scoped<'_> {
    /// Returns an action.
    pub async fn action(&self, id: &ActionId) -> Result<Option<Action>, StoreError> {
        self.store.action_in(self.space, id).await
    }

    /// Returns a page of matching actions with their counts, newest first.
    pub async fn actions(
        &self,
        filter: ActionFilter,
        page: Page,
    ) -> Result<Listed<(Action, ActionCounts)>, StoreError> {
        self.store.actions(&ActionFilter { space: Some(self.space.clone()), ..filter }, page).await
    }

    /// Returns at most `limit` targets of an action with their states, in order, after position `after`.
    pub async fn action_targets(
        &self,
        action: &Action,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, AgentId, Target)>, StoreError> {
        if self.holds(&action.space) { self.store.action_targets(&action.id, after, limit).await } else { Ok(vec![]) }
    }

    /// Returns the state of one agent as a target of an action; `None` if it is not a target.
    pub async fn action_target(&self, action: &Action, agent: &AgentId) -> Result<Option<Target>, StoreError> {
        if self.holds(&action.space) { self.store.action_target(&action.id, agent).await } else { Ok(None) }
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
        self.store.action_results(&action.id, failed_only, limit).await
    }
}

/// Policies.
impl Scoped<'_> {
    /// Returns a policy.
    pub async fn policy(&self, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
        self.store.policy_in(self.space, id).await
    }

    /// Returns the policy with that name.
    pub async fn policy_by_name(&self, name: &str) -> Result<Option<Policy>, StoreError> {
        self.store.policy_by_name(self.space, name).await
    }

    /// Returns a page of policies by name.
    pub async fn policies(&self, page: Page) -> Result<Listed<Policy>, StoreError> {
        self.store.policies(Some(self.space), page).await
    }

    /// Returns the policies after a name, by name.
    pub async fn policies_after(&self, name: &str, limit: u32) -> Result<Readable<Policy>, StoreError> {
        self.store.policies_after(self.space, name, limit).await
    }

    /// Returns the number of active agents on each policy that has any.
    pub async fn policy_agent_counts(&self) -> Result<Vec<(PolicyId, u64)>, StoreError> {
        self.store.policy_agent_counts(self.space).await
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
        // The only read of this view across spaces; it reveals no more than the conflict of the insert would.
        Ok(self.store.output(id).await?.is_some())
    }

    /// Returns an enrollment key.
    pub async fn enrollment_key(&self, id: &EnrollmentKeyId) -> Result<Option<EnrollmentKey>, StoreError> {
        self.store.enrollment_key_in(self.space, id).await
    }

    /// Returns a page of enrollment keys of one policy or of all, newest first.
    pub async fn enrollment_keys(
        &self,
        policy: Option<&PolicyId>,
        page: Page,
    ) -> Result<Listed<EnrollmentKey>, StoreError> {
        self.store.enrollment_keys(self.space, policy, page).await
    }

    /// Returns the enrollment keys after the one with this creation time and id, newest first.
    pub async fn enrollment_keys_after(
        &self,
        policy: Option<&PolicyId>,
        after: (Timestamp, &EnrollmentKeyId),
        limit: u32,
    ) -> Result<Readable<EnrollmentKey>, StoreError> {
        self.store.enrollment_keys_after(self.space, policy, after, limit).await
    }

    /// Returns an upload.
    pub async fn upload(&self, id: &FileId) -> Result<Option<Upload>, StoreError> {
        self.store.upload_in(self.space, id).await
    }

    /// Returns an agent's uploads, newest first.
    pub async fn uploads(&self, agent: &AgentRecord) -> Result<Vec<Upload>, StoreError> {
        if self.holds(&agent.space) { self.store.uploads(&agent.id).await } else { Ok(Vec::new()) }
    }
}
