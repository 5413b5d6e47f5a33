//! Inventory of hosts besides their software: disks and the last boot, users, certificates.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use muster_core::Error;
use muster_core::agent::Family;
use muster_core::authorization::{AgentsRead, Grant};
use muster_core::fleetd::inventory::{self, Inventory, Kind, MAX_DOCUMENT_BYTES};
use muster_core::id::AgentId;
use muster_core::time::Clock;
use muster_store::query::InventoryDocument;
use muster_store::{InventoryWrite, Resources, StoreError, Write};

use super::agent_views::AgentView;
use super::registry::AgentEntry;
use super::watched_store::WatchedStore;

/// The service of the inventory of hosts.
pub struct HostInventory {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
}

impl HostInventory {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Stores what the results of a request, which are JSON objects by query name, report of the inventory. Reads the store only if the host
    /// was asked for it, and writes only what changed.
    pub async fn reported(&self, entry: &AgentEntry, queries: &str, statuses: &str) -> Result<(), Error> {
        let Some(report) = inventory::report(queries, statuses, self.clock.now()) else { return Ok(()) };
        let before = of_agent(self.store.everywhere(entry), entry.id()).await?;
        let after = before.updated(report);
        let write = |kind: Kind| -> Write {
            let document = compressed(&after.document(kind));
            InventoryWrite { agent: entry.id().clone(), kind, document }.into()
        };
        let writes: Vec<Write> = after.changes(&before).into_iter().map(write).collect();
        if !writes.is_empty() {
            self.store.commit(entry, writes).await?;
        }
        Ok(())
    }

    /// Returns the inventory of a host, for the user of the host: `agents` are those of its orbit's host
    /// ([`Agents::of_device`](crate::agents::Agents::of_device)).
    pub async fn of_device(&self, orbit: &AgentEntry, agents: &[AgentView]) -> Result<Inventory, Error> {
        let mut records = agents.iter().map(|agent| &agent.details.record);
        let Some(record) = records.find(|record| record.family == Family::Osquery) else {
            return Ok(Inventory::default());
        };
        Ok(of_agent(self.store.everywhere(orbit), &record.id).await?)
    }

    /// Returns disks and the last boot of the hosts of agents in the grant's space, by agent.
    pub async fn systems(
        &self,
        grant: &Grant<AgentsRead>,
        agents: &[AgentView],
    ) -> Result<HashMap<AgentId, Inventory>, Error> {
        let records = agents.iter().map(|agent| &agent.details.record);
        let ids: Vec<AgentId> =
            records.filter(|record| record.space == *grant.space()).map(|record| record.id.clone()).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let mut found: HashMap<AgentId, Inventory> = HashMap::new();
        for stored in self.store.seen_by(grant).inventory_documents(&ids, &[Kind::System]).await? {
            take(found.entry(stored.agent.clone()).or_default(), &stored);
        }
        Ok(found)
    }
}

/// Returns the inventory of an agent's host.
pub(crate) async fn of_agent(store: &dyn Resources, agent: &AgentId) -> Result<Inventory, StoreError> {
    let mut found = Inventory::default();
    for stored in store.host_inventory(std::slice::from_ref(agent), &Kind::ALL).await? {
        take(&mut found, &stored);
    }
    Ok(found)
}

/// Reads a document into an inventory.
fn take(into: &mut Inventory, stored: &InventoryDocument) {
    into.read(stored.kind, &decompressed(&stored.document));
}

fn compressed(document: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(document.as_bytes());
    encoder.finish().unwrap_or_default()
}

/// Returns a document; empty if it is damaged, which counts as never reported.
fn decompressed(document: &[u8]) -> String {
    let mut text = String::new();
    let read = ZlibDecoder::new(document).take(MAX_DOCUMENT_BYTES as u64).read_to_string(&mut text);
    read.map(|_| text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_back_and_damaged_ones_are_empty() {
        let text = "{\"disks\":[]}".repeat(1000);
        let packed = compressed(&text);
        assert!(packed.len() < text.len() / 10);
        assert_eq!((decompressed(&packed), decompressed(b"x")), (text, String::new()));
        let bomb = compressed(&" ".repeat(2 * MAX_DOCUMENT_BYTES));
        assert_eq!(decompressed(&bomb).len(), MAX_DOCUMENT_BYTES, "bounded");
    }
}
