//! Inventory of hosts besides their software.

use muster_core::fleetd::inventory::Kind;
use muster_core::id::AgentId;

use super::row::{Columns, Result, all, send};
use super::session::{Connection, params};
use crate::port::InventoryWrite;
use crate::query::InventoryDocument;
use crate::sql::inventory as sql;

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &InventoryWrite) -> Result<()> {
    let InventoryWrite { agent, kind, document } = write;
    send(connection, sql::PUT, params![agent.as_str(), kind.as_str(), document])
}

/// Deletes the documents of an agent.
pub(super) fn delete_of(connection: &Connection, agent: &AgentId) -> Result<()> {
    send(connection, sql::DELETE_OF, [agent.as_str()])
}

/// Selects documents of agents.
pub(super) fn of_agents(connection: &Connection, agents: &[AgentId], kinds: &[Kind]) -> Result<Vec<InventoryDocument>> {
    let agents: Vec<&str> = agents.iter().map(AgentId::as_str).collect();
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    all(connection, sql::OF_AGENTS, params![agents, kinds], |row| {
        let mut c = Columns::of(row);
        Ok(InventoryDocument { agent: c.id()?, kind: c.word()?, document: c.take()? })
    })
}
