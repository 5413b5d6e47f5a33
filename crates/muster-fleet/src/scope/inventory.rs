//! Inventory of hosts within a space.

use muster_core::agent::AgentRecord;
use muster_core::fleetd::inventory::{Inventory, Kind};
use muster_core::id::AgentId;
use muster_store::StoreError;
use muster_store::query::InventoryDocument;

use super::Scoped;
use crate::inventory::of_agent;

/// Inventory.
impl Scoped<'_> {
    /// Returns the inventory of an agent's host.
    pub async fn inventory_of(&self, agent: &AgentRecord) -> Result<Inventory, StoreError> {
        if self.holds(&agent.space) { of_agent(self.store, &agent.id).await } else { Ok(Inventory::default()) }
    }

    /// Returns documents of the hosts of agents, which a read of this scope returned.
    pub async fn inventory_documents(
        &self,
        agents: &[AgentId],
        kinds: &[Kind],
    ) -> Result<Vec<InventoryDocument>, StoreError> {
        self.store.host_inventory(agents, kinds).await
    }
}
