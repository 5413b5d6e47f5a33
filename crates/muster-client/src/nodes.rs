//! Nodes, the servers of the fleet.

use muster_protocol::management::Empty;
use muster_protocol::management::node::Nodes;

use crate::{Client, Result};

const NODES: &str = "nodes";

impl Client {
    /// Returns the servers of the fleet.
    pub async fn nodes(&self) -> Result<Nodes> {
        self.get(&[NODES]).await
    }

    /// Tells a server to send its agents to the others.
    pub async fn drain_node(&self, id: &str) -> Result<()> {
        self.post::<Empty>(&[NODES, id, "drain"], &Empty {}).await.map(drop)
    }

    /// Validates [`Self::drain_node`]; changes nothing.
    pub async fn try_drain_node(&self, id: &str) -> Result<()> {
        self.try_post::<Empty>(&[NODES, id, "drain"], &Empty {}).await.map(drop)
    }

    /// Tells a draining server to accept agents again.
    pub async fn resume_node(&self, id: &str) -> Result<()> {
        self.post::<Empty>(&[NODES, id, "resume"], &Empty {}).await.map(drop)
    }
}
