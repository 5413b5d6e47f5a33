//! Disk keys of agents that were found within the scope.

use muster_core::disk_key::DiskKey;
use muster_core::id::AgentId;
use muster_store::StoreError;

use super::Scoped;

/// Disk keys.
impl Scoped<'_> {
    /// Returns the disk key that the space has of an agent that was found in this view.
    pub async fn disk_key(&self, agent: &AgentId) -> Result<Option<DiskKey>, StoreError> {
        self.store.disk_key(agent, self.space).await
    }

    /// Returns whether the space has the key of an agent that has left it. Callers with a limited scope see none: what the scope selects
    /// by has left with the agent.
    pub async fn has_left_key(&self, agent: &AgentId) -> Result<bool, StoreError> {
        Ok(self.is_whole() && self.disk_key(agent).await?.is_some_and(|key| key.sealed.is_some()))
    }
}
