//! `/nodes`: the servers of the fleet.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_fleet::Fleet;
use muster_protocol::management::Empty;
use muster_protocol::management::node::{LostNode, Node, Nodes};

use super::answer::Answer;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use muster_core::authorization::PrivilegeName as Name;

/// Endpoints for nodes.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/nodes", list).about("List the servers of the fleet").needs(&[Name::NodesRead]),
        Endpoint::post("/nodes/{id}/drain", drain).about("Drain a server").needs(&[Name::NodesWrite]),
        Endpoint::post("/nodes/{id}/resume", resume).about("Resume a drained server").needs(&[Name::NodesWrite]),
    ]
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Nodes> {
    let found = fleet.nodes().list(&context.grant()?).await?;
    let node = |node: muster_store::NodeRecord| Node {
        this: node.id == found.this,
        id: node.id.to_string(),
        name: node.name,
        version: node.version,
        addresses: node.addresses,
        draining: node.is_draining,
        started_at: time(node.started_at),
        expires_at: time(node.expires_at),
    };
    let lost = |node: muster_store::LostNode| LostNode {
        id: node.id.to_string(),
        name: node.name,
        lost_seconds_ago: node.since.as_secs(),
    };
    let items = found.live.into_iter().map(node).collect();
    Ok(Json(Nodes { items, lost: found.lost.into_iter().map(lost).collect() }))
}

async fn drain(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.nodes().drain(&fleet.nodes().find(&context, &id).await?).await?;
    Ok(Json(Empty {}))
}

async fn resume(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.nodes().resume(&fleet.nodes().find(&context, &id).await?).await?;
    Ok(Json(Empty {}))
}
