//! Reads of the inventory of hosts.

use async_trait::async_trait;
use muster_core::fleetd::inventory::Kind;
use muster_core::id::AgentId;

use super::SqlStore;
use crate::engine::inventory;
use crate::port::{InventoryStore, StoreError};
use crate::query::InventoryDocument;

#[async_trait]
impl InventoryStore for SqlStore {
    async fn host_inventory(&self, agents: &[AgentId], kinds: &[Kind]) -> Result<Vec<InventoryDocument>, StoreError> {
        let (agents, kinds) = (agents.to_vec(), kinds.to_vec());
        let reader = if agents.len() == 1 { &self.points } else { &self.lists };
        reader.read(move |c| inventory::of_agents(c, &agents, &kinds)).await
    }
}
