//! Reads of disk keys.

use async_trait::async_trait;
use muster_core::disk_key::DiskKey;
use muster_core::id::{AgentId, SpaceId};

use super::SqlStore;
use crate::engine::disk_keys;
use crate::port::{DiskKeyStore, StoreError};

#[async_trait]
impl DiskKeyStore for SqlStore {
    async fn disk_key(&self, agent: &AgentId, space: &SpaceId) -> Result<Option<DiskKey>, StoreError> {
        let (agent, space) = (agent.clone(), space.clone());
        self.points.read(move |c| disk_keys::one(c, &agent, &space)).await
    }

    async fn disk_keys_in(&self, space: &SpaceId) -> Result<u64, StoreError> {
        let space = space.clone();
        self.points.read(move |c| disk_keys::count_in(c, &space)).await
    }

    async fn disk_escrows_due(&self, after: Option<&AgentId>, limit: u32) -> Result<Vec<AgentId>, StoreError> {
        let after = after.cloned();
        self.lists.read(move |c| disk_keys::escrow_due(c, after.as_ref(), limit)).await
    }
}
