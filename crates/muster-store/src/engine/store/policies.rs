//! Reads of policies and their revisions.

use async_trait::async_trait;
use muster_core::id::{PolicyId, SpaceId};
use muster_core::policy::{Policy, PolicyHead, PolicyRevision};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::{agent_counts, policies};
use crate::port::{PolicyStore, StoreError};
use crate::query::{Listed, Page, Readable};

#[async_trait]
impl PolicyStore for SqlStore {
    async fn policy_in(&self, space: &SpaceId, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| policies::by_id_in(c, &space, &id)).await
    }

    async fn policy(&self, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| policies::by_id(c, &id)).await
    }

    async fn policy_head(&self, id: &PolicyId) -> Result<Option<PolicyHead>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| policies::head(c, &id)).await
    }

    async fn policy_by_name(&self, space: &SpaceId, name: &str) -> Result<Option<Policy>, StoreError> {
        let (space, name) = (space.clone(), name.to_owned());
        self.points.read(move |c| policies::by_name(c, &space, &name)).await
    }

    async fn policies(&self, space: Option<&SpaceId>, page: Page) -> Result<Listed<Policy>, StoreError> {
        let space = space.cloned();
        self.lists.snapshot(move |c| policies::page(c, space.as_ref(), page)).await
    }

    async fn policies_after(&self, space: &SpaceId, name: &str, limit: u32) -> Result<Readable<Policy>, StoreError> {
        let (space, name) = (space.clone(), name.to_owned());
        self.lists.read(move |c| policies::after(c, &space, &name, limit)).await
    }

    async fn policy_agent_counts(&self, space: &SpaceId) -> Result<Vec<(PolicyId, u64)>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| agent_counts::per_policy(c, &space)).await
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
