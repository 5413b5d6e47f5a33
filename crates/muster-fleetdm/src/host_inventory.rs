//! Disks, users and certificates of hosts in FleetDM's format.

use std::collections::{BTreeSet, HashMap};

use muster_core::authorization::AgentsRead;
use muster_core::fleetd::inventory::{Inventory, User};
use muster_core::id::AgentId;
use muster_fleet::agent_views::AgentView;
use serde_json::{Value, json};

use crate::entry::Caller;
use crate::failure::Failure;

/// Returns a user.
pub fn user(user: &User) -> Value {
    json!({
        "uid": user.uid,
        "username": user.username,
        "type": user.kind,
        "groupname": user.group,
        "shell": user.shell,
    })
}

/// Reads disks and the last boot of a page of hosts, with one query for each team.
pub async fn systems(caller: &Caller, hosts: &[AgentView]) -> Result<HashMap<AgentId, Inventory>, Failure> {
    let spaces: BTreeSet<_> = hosts.iter().map(|agent| agent.details.record.space.clone()).collect();
    let mut found = HashMap::new();
    for space in &spaces {
        let grant = caller.within(space).grant::<AgentsRead>()?;
        found.extend(caller.fleet.inventory().systems(&grant, hosts).await?);
    }
    Ok(found)
}
