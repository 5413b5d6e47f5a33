//! Inventory of hosts besides their software.

use super::statements;

statements! {
    /// Inserts or replaces a document.
    PUT = "INSERT INTO host_inventory (agent_id, kind, document) VALUES ($1, $2, $3) \
        ON CONFLICT (agent_id, kind) DO UPDATE SET document = excluded.document";
    /// Deletes the documents of an agent.
    DELETE_OF = "DELETE FROM host_inventory WHERE agent_id = $1";
    /// Selects documents of agents.
    OF_AGENTS = "SELECT agent_id, kind, document FROM host_inventory \
        WHERE agent_id IN (SELECT value FROM json_each($1)) AND kind IN (SELECT value FROM json_each($2)) \
        ORDER BY agent_id, kind";
}
