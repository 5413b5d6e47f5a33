//! Disk keys of agents that were found within the scope.

use muster_core::disk_key::DiskKey;
use muster_core::id::AgentId;
use muster_store::StoreError;

use super::Scoped;

/// Disk keys.
impl Scoped<'_> {
    /// Returns the disk key of an agent that was found in this view.
    pub async fn disk_key(&self, agent: &AgentId) -> Result<Option<DiskKey>, StoreError> {
        self.store.disk_key(agent).await
    }
}
