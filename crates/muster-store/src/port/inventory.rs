//! Inventory of hosts besides their software.

use muster_core::fleetd::inventory::Kind;
use muster_core::id::AgentId;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::InventoryDocument;

/// Stores a document of the inventory of a host, in place of the former one.
#[derive(Clone, Debug)]
pub struct InventoryWrite {
    /// Its osqueryd, which must exist.
    pub agent: AgentId,
    /// The kind.
    pub kind: Kind,
    /// The document, compressed.
    pub document: Vec<u8>,
}

impl From<InventoryWrite> for Write {
    fn from(write: InventoryWrite) -> Self {
        Self::Inventory(write)
    }
}

reads! {
    /// Reads of the inventory of hosts.
    pub trait InventoryStore {
        /// Selects the documents of these kinds that agents have, by agent and kind.
        async fn host_inventory(
            &self,
            agents: &[AgentId],
            kinds: &[Kind],
        ) -> Result<Vec<InventoryDocument>, StoreError>;
    }
}
