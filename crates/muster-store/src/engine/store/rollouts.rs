//! Reads of rollouts.

use async_trait::async_trait;
use muster_core::id::{PolicyId, RolloutId, SpaceId};
use muster_core::rollout::{Place, Rollout};

use super::SqlStore;
use crate::engine::rollouts;
use crate::port::{RolloutStore, StoreError};
use crate::query::{AgentFilter, Listed, Page};

#[async_trait]
impl RolloutStore for SqlStore {
    async fn rollout_in(&self, space: &SpaceId, id: &RolloutId) -> Result<Option<Rollout>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| rollouts::one(c, &space, &id)).await
    }

    async fn rollouts(&self, space: &SpaceId, page: Page) -> Result<Listed<Rollout>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| rollouts::page(c, &space, page)).await
    }

    async fn active_rollout_of(&self, policy: &PolicyId) -> Result<Option<Rollout>, StoreError> {
        let policy = policy.clone();
        self.points.read(move |c| rollouts::open_of(c, &policy)).await
    }

    async fn active_rollouts(&self) -> Result<Vec<Rollout>, StoreError> {
        self.points.read(rollouts::open).await
    }

    async fn agent_place(&self, filter: &AgentFilter, before: u32) -> Result<Option<Place>, StoreError> {
        let filter = filter.clone();
        self.lists.read(move |c| rollouts::agent_place(c, &filter, before)).await
    }
}
