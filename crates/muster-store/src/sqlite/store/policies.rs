//! Reads of policies and their revisions.

use async_trait::async_trait;
use muster_core::id::PolicyId;
use muster_core::policy::{Policy, PolicyHead, PolicyRevision};
use muster_core::time::Timestamp;

use super::SqliteStore;
use crate::port::{PolicyStore, StoreError};
use crate::query::{Listed, Page};
use crate::sqlite::{agents, policies};

#[async_trait]
impl PolicyStore for SqliteStore {
    async fn policy(&self, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| policies::by_id(c, &id)).await
    }

    async fn policy_head(&self, id: &PolicyId) -> Result<Option<PolicyHead>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| policies::head(c, &id)).await
    }

    async fn default_policy_head(&self) -> Result<Option<PolicyHead>, StoreError> {
        self.points.read(policies::default_head).await
    }

    async fn policy_by_name(&self, name: &str) -> Result<Option<Policy>, StoreError> {
        let name = name.to_owned();
        self.points.read(move |c| policies::by_name(c, &name)).await
    }

    async fn policies(&self, page: Page) -> Result<Listed<Policy>, StoreError> {
        self.lists.snapshot(move |c| policies::page(c, page)).await
    }

    async fn policy_agent_counts(&self) -> Result<Vec<(PolicyId, u64)>, StoreError> {
        self.lists.read(agents::per_policy).await
    }

    async fn policy_newest_revision(&self, id: &PolicyId) -> Result<Option<PolicyRevision>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| policies::newest_revision(c, &id)).await
    }

    async fn policy_revision(&self, id: &PolicyId, revision: i64) -> Result<Option<PolicyRevision>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| policies::revision(c, &id, revision)).await
    }

    async fn policy_revisions(&self, id: &PolicyId) -> Result<Vec<(i64, Timestamp, String)>, StoreError> {
        let id = id.clone();
        self.lists.read(move |c| policies::revisions(c, &id)).await
    }
}
