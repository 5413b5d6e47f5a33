//! Reads name their authority, as commits do.
//!
//! A person's read goes through a [`Scoped`], which a grant makes: the space is part of every query, so that no service
//! can forget it. Reads across spaces are for those who ask for no person: the server itself, and an agent that
//! presented its key.
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
//! Without the grant there is nothing to read with:
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
//! And a grant does not open all spaces:
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

use muster_core::action::{Action, ActionCounts, ActionResult, Target, TargetState};
use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord};
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::file::Upload;
use muster_core::id::{ActionId, AgentId, EnrollmentKeyId, FileId, OutputId, PolicyId, SpaceId};
use muster_core::output::Output;
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_store::query::{ActionFilter, AgentCursor, AgentFilter, AgentSort, Listed, Page, Readable};
use muster_store::{Resources, StoreError};

/// The store as it is seen from within one space: whatever is of another one is not there.
///
/// What belongs to a record (documents, targets, revisions) is asked for with the record, which knows its space.
#[derive(Clone, Copy)]
pub struct Scoped<'a> {
    store: &'a dyn Resources,
    space: &'a SpaceId,
}

impl<'a> Scoped<'a> {
    /// Only the watched store makes one, for a grant or for the server itself.
    pub(crate) fn new(store: &'a dyn Resources, space: &'a SpaceId) -> Self {
        Self { store, space }
    }

    /// The space.
    pub fn space(&self) -> &'a SpaceId {
        self.space
    }

    fn holds(&self, space: &SpaceId) -> bool {
        self.space == space
    }
}

/// Agents.
impl Scoped<'_> {
    /// One agent's record.
    pub async fn agent(&self, id: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        self.store.agent_in(self.space, id).await
    }

    /// The documents of an agent.
    pub async fn agent_documents(&self, agent: &AgentRecord) -> Result<Option<AgentDocuments>, StoreError> {
        if self.holds(&agent.space) { self.store.agent_documents(&agent.id).await } else { Ok(None) }
    }

    /// A page of the agents that match.
    pub async fn agents(
        &self,
        filter: &AgentFilter,
        sort: AgentSort,
        descending: bool,
        page: Page,
    ) -> Result<Listed<AgentDetails>, StoreError> {
        self.store.agent_list(&self.agents_that(filter), sort, descending, page).await
    }

    /// The agents that match behind `after`, at most `limit`.
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

    /// Ids of the agents that match, ordered, after `after`, at most `limit`.
    pub async fn agent_ids(
        &self,
        filter: &AgentFilter,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        self.store.agent_ids(&self.agents_that(filter), after, limit).await
    }

    /// Number of agents in each status, among those that match.
    pub async fn agent_counts(&self, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, StoreError> {
        self.store.agent_counts(&self.agents_that(filter)).await
    }

    /// Every tag in use among those that match, sorted ignoring case.
    pub async fn agent_tags(&self, filter: &AgentFilter) -> Result<Vec<String>, StoreError> {
        self.store.agent_tags(&self.agents_that(filter)).await
    }

    fn agents_that(&self, filter: &AgentFilter) -> AgentFilter {
        AgentFilter { space: Some(self.space.clone()), ..filter.clone() }
    }
}

/// Actions.
impl Scoped<'_> {
    /// One action.
    pub async fn action(&self, id: &ActionId) -> Result<Option<Action>, StoreError> {
        self.store.action_in(self.space, id).await
    }

    /// A page of the actions that match, with their counts, newest first.
    pub async fn actions(
        &self,
        filter: ActionFilter,
        page: Page,
    ) -> Result<Listed<(Action, ActionCounts)>, StoreError> {
        self.store.actions(&ActionFilter { space: Some(self.space.clone()), ..filter }, page).await
    }

    /// An action's targets with their states, in order, after place `after`, at most `limit`.
    pub async fn action_targets(
        &self,
        action: &Action,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, AgentId, TargetState)>, StoreError> {
        if self.holds(&action.space) { self.store.action_targets(&action.id, after, limit).await } else { Ok(vec![]) }
    }

    /// How one agent stands to an action.
    pub async fn action_target(&self, action: &Action, agent: &AgentId) -> Result<Option<Target>, StoreError> {
        if self.holds(&action.space) { self.store.action_target(&action.id, agent).await } else { Ok(None) }
    }

    /// Results of an action, newest first, failed ones only if `failed_only`, at most `limit`.
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
    /// One policy.
    pub async fn policy(&self, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
        self.store.policy_in(self.space, id).await
    }

    /// The policy of that name.
    pub async fn policy_by_name(&self, name: &str) -> Result<Option<Policy>, StoreError> {
        self.store.policy_by_name(self.space, name).await
    }

    /// A page of policies by name.
    pub async fn policies(&self, page: Page) -> Result<Listed<Policy>, StoreError> {
        self.store.policies(Some(self.space), page).await
    }

    /// Policies behind a name, by name.
    pub async fn policies_after(&self, name: &str, limit: u32) -> Result<Readable<Policy>, StoreError> {
        self.store.policies_after(self.space, name, limit).await
    }

    /// Number of active agents on each policy that has any.
    pub async fn policy_agent_counts(&self) -> Result<Vec<(PolicyId, u64)>, StoreError> {
        self.store.policy_agent_counts(self.space).await
    }

    /// The newest revision of a policy.
    pub async fn newest_revision(&self, policy: &Policy) -> Result<Option<PolicyRevision>, StoreError> {
        if self.holds(&policy.space) { self.store.policy_newest_revision(&policy.id).await } else { Ok(None) }
    }

    /// A revision of a policy.
    pub async fn revision(&self, policy: &Policy, revision: i64) -> Result<Option<PolicyRevision>, StoreError> {
        if self.holds(&policy.space) { self.store.policy_revision(&policy.id, revision).await } else { Ok(None) }
    }

    /// Numbers, times and authors of a policy's revisions, newest first.
    pub async fn revisions(&self, policy: &Policy) -> Result<Vec<(i64, Timestamp, String)>, StoreError> {
        if self.holds(&policy.space) { self.store.policy_revisions(&policy.id).await } else { Ok(Vec::new()) }
    }
}

/// Outputs, enrollment keys, uploads.
impl Scoped<'_> {
    /// One output.
    pub async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError> {
        self.store.output_in(self.space, id).await
    }

    /// All outputs, by name.
    pub async fn outputs(&self) -> Result<Vec<Output>, StoreError> {
        self.store.outputs(self.space).await
    }

    /// Whether an output of any space has the id: ids are unique across them, which a new one must know.
    pub async fn is_output_id_taken(&self, id: &OutputId) -> Result<bool, StoreError> {
        Ok(self.store.output(id).await?.is_some())
    }

    /// One enrollment key.
    pub async fn enrollment_key(&self, id: &EnrollmentKeyId) -> Result<Option<EnrollmentKey>, StoreError> {
        self.store.enrollment_key_in(self.space, id).await
    }

    /// A page of enrollment keys, newest first, of one policy or of all.
    pub async fn enrollment_keys(
        &self,
        policy: Option<&PolicyId>,
        page: Page,
    ) -> Result<Listed<EnrollmentKey>, StoreError> {
        self.store.enrollment_keys(self.space, policy, page).await
    }

    /// Enrollment keys behind the one of this time of creation and id, newest first.
    pub async fn enrollment_keys_after(
        &self,
        policy: Option<&PolicyId>,
        after: (Timestamp, &EnrollmentKeyId),
        limit: u32,
    ) -> Result<Readable<EnrollmentKey>, StoreError> {
        self.store.enrollment_keys_after(self.space, policy, after, limit).await
    }

    /// One upload.
    pub async fn upload(&self, id: &FileId) -> Result<Option<Upload>, StoreError> {
        self.store.upload_in(self.space, id).await
    }

    /// The uploads of an agent, newest first.
    pub async fn uploads(&self, agent: &AgentRecord) -> Result<Vec<Upload>, StoreError> {
        if self.holds(&agent.space) { self.store.uploads(&agent.id).await } else { Ok(Vec::new()) }
    }
}
