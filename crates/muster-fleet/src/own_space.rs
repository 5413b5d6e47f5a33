//! The condition of an administrator's commit that its agents are still in the space of the grant.
//!
//! Services find agents in the space of the caller, and commit later. In between, another request may transfer the agent to a space in
//! which the caller has no rights. Every commit with a grant therefore gets this condition, which the store checks in the transaction.

use muster_core::change::Change;
use muster_core::id::{AgentId, SpaceId};
use muster_store::{ActionWrite, AgentWrite, DiskKeyWrite, Write};

/// Returns the condition that the agents on which `writes` act are in the space; `None` if there are none.
pub(crate) fn condition(writes: &[Write], space: &SpaceId) -> Option<Write> {
    let mut ids: Vec<AgentId> = writes.iter().flat_map(|write| acted_on(write, space)).cloned().collect();
    ids.sort_unstable();
    ids.dedup();
    (!ids.is_empty()).then(|| AgentWrite::InSpace { ids, space: space.clone() }.into())
}

fn acted_on<'a>(write: &'a Write, space: &SpaceId) -> &'a [AgentId] {
    let one = std::slice::from_ref;
    match write {
        // The store compares the version of the record, and thereby its space. Only one that was elsewhere already is left to refuse.
        Write::Agent(AgentWrite::Update { before, .. }) if before.space != *space => one(&before.id),
        Write::Agent(AgentWrite::Delete { id, .. })
        | Write::DiskKey(DiskKeyWrite::Escrow { agent: id, .. })
        | Write::Changed(Change::Refetch(id)) => one(id),
        Write::Action(ActionWrite::Insert { targets, .. }) => targets,
        // Runs of scripts and of installers, and live queries, get only those targets that are in their space. All others are about
        // objects that never leave a space, or accompany one of the writes above.
        _ => &[],
    }
}
