//! The service of nodes: the servers of the fleet, for administrators.

use std::sync::Arc;

use muster_core::Error;
use muster_core::authorization::{Grant, NodesRead, NodesWrite, OpContext, Privilege};
use muster_core::id::NodeId;
use muster_core::time::Clock;
use muster_store::{LostNode, NodeRecord, NodeWrite, Precondition, StoreError, Write};
use serde_json::json;

use super::audit::audit_line;
use super::authority::{Authorized, System};
use super::watched_store::WatchedStore;

/// The servers of the fleet.
#[derive(Clone, Debug)]
pub struct NodeList {
    /// Those with a valid lease, by name.
    pub live: Vec<NodeRecord>,
    /// Those whose lease ended within the last day without being given back, except for those that came back.
    pub lost: Vec<LostNode>,
    /// The server that answers.
    pub this: NodeId,
}

/// The service of nodes.
pub struct Nodes {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    this: NodeId,
}

impl Nodes {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>) -> Self {
        let this = store.everywhere(&System).this_node().borrow().node.clone();
        Self { store, clock, this }
    }

    /// Describes this server to the others. To be called at startup.
    pub async fn describe(&self, name: String, version: String, addresses: Vec<String>) -> Result<(), Error> {
        let known = self.live().await?;
        if let Some(other) = known.iter().find(|node| node.name == name && node.id != self.this) {
            tracing::warn!(name, this = %self.this, other = %other.id, "another server has the same name; use their ids");
        }
        let describe = NodeWrite::Describe { name, version, addresses };
        self.store.commit(&System, vec![describe.into()]).await?;
        Ok(())
    }

    /// Returns the servers of the fleet.
    pub async fn list(&self, _grant: &Grant<NodesRead>) -> Result<NodeList, Error> {
        let mut lost = self.store.everywhere(&System).lost_nodes().await?;
        // Read later, so that a server that comes back in between is listed once.
        let live = self.live().await?;
        lost.retain(|lost| live.iter().all(|node| node.id != lost.id));
        Ok(NodeList { live, lost, this: self.this.clone() })
    }

    /// Finds a live server by its id.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<NodeRecord, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = self.live().await?.into_iter().find(|node| node.id.as_str() == id);
        Ok(Authorized::new(found.ok_or_else(|| Error::not_found("node", id))?, grant))
    }

    /// Tells a server to send its agents to the others. A conflict if there is no other one that accepts agents.
    pub async fn drain(&self, node: &Authorized<NodeRecord, NodesWrite>) -> Result<(), Error> {
        let others = self.live().await?;
        if !others.iter().any(|other| other.id != node.id && !other.is_draining) {
            let message = format!("no other server accepts the agents of {}", node.name);
            return Err(Error::conflict("last_node", message).remedy("start another server first, or stop this one"));
        }
        self.commit(node, NodeWrite::Drain { id: node.id.clone() }, "node.drain").await
    }

    /// Tells a draining server to accept agents again.
    pub async fn resume(&self, node: &Authorized<NodeRecord, NodesWrite>) -> Result<(), Error> {
        self.commit(node, NodeWrite::Resume { id: node.id.clone() }, "node.resume").await
    }

    async fn commit(
        &self,
        node: &Authorized<NodeRecord, NodesWrite>,
        write: NodeWrite,
        action: &str,
    ) -> Result<(), Error> {
        let (origin, now) = (node.grant().origin(), self.clock.now());
        let line = audit_line(origin, now, action, format_args!("node:{}", node.id), json!({"name": node.name}));
        match self.store.commit(node.grant(), vec![Write::Node(write), line]).await {
            Ok(_) => Ok(()),
            // It ended between the look-up and the commit.
            Err(StoreError::Conflict(Precondition::Missing(_))) => Err(Error::not_found("node", &node.id)),
            Err(error) => Err(error.into()),
        }
    }

    async fn live(&self) -> Result<Vec<NodeRecord>, Error> {
        Ok(self.store.everywhere(&System).nodes().await?)
    }
}
