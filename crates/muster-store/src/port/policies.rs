//! Policies and their revisions.

use muster_core::id::{PolicyId, SpaceId};
use muster_core::policy::{Policy, PolicyHead, PolicyRevision};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::{Listed, Page, Readable};

/// A change of policies and their revisions.
#[derive(Clone, Debug)]
pub enum PolicyWrite {
    /// Inserts a policy. Fails with `Exists` or `NameTaken`.
    Insert(Box<Policy>),
    /// Updates a policy. Fails with `Changed` unless the stored revision is `before_revision` and the stored
    /// `updated_at` is `before_updated_at`, and with `NameTaken`.
    Update {
        /// Revision that the change is based on.
        before_revision: i64,
        /// `updated_at` that the change is based on.
        before_updated_at: Timestamp,
        /// Policy to store.
        policy: Box<Policy>,
    },
    /// Inserts a revision. Fails with `Exists` if the number is taken.
    InsertRevision(Box<PolicyRevision>),
    /// Deletes a policy, its revisions and its enrollment keys. Fails with `Changed` if it has active agents.
    Delete {
        /// The policy.
        id: PolicyId,
    },
}

impl From<PolicyWrite> for Write {
    fn from(write: PolicyWrite) -> Self {
        Self::Policy(write)
    }
}

reads! {
    /// Reads of policies and their revisions.
    pub trait PolicyStore {
        /// Selects a policy.
        async fn policy(&self, id: &PolicyId) -> Result<Option<Policy>, StoreError>;
        /// Selects the head of a policy.
        async fn policy_head(&self, id: &PolicyId) -> Result<Option<PolicyHead>, StoreError>;
        /// Selects a policy of the space.
        async fn policy_in(&self, space: &SpaceId, id: &PolicyId) -> Result<Option<Policy>, StoreError>;
        /// Selects the policy of that name in the space.
        async fn policy_by_name(&self, space: &SpaceId, name: &str) -> Result<Option<Policy>, StoreError>;
        /// Returns a page of policies by name, of a space or of all spaces.
        async fn policies(&self, space: Option<&SpaceId>, page: Page) -> Result<Listed<Policy>, StoreError>;
        /// Selects the policies of a space after a name, by name.
        async fn policies_after(&self, space: &SpaceId, name: &str, limit: u32) -> Result<Readable<Policy>, StoreError>;
        /// Counts the active agents of each policy of a space. Policies without agents are omitted.
        async fn policy_agent_counts(&self, space: &SpaceId) -> Result<Vec<(PolicyId, u64)>, StoreError>;
        /// Selects the newest revision of a policy.
        async fn policy_newest_revision(&self, id: &PolicyId) -> Result<Option<PolicyRevision>, StoreError>;
        /// Selects a revision of a policy.
        async fn policy_revision(&self, id: &PolicyId, revision: i64) -> Result<Option<PolicyRevision>, StoreError>;
        /// Selects numbers, times and authors of a policy's revisions, newest first.
        async fn policy_revisions(&self, id: &PolicyId) -> Result<Vec<(i64, Timestamp, String)>, StoreError>;
    }
}
