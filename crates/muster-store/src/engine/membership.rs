//! Membership of this process as a node of its store.

use std::sync::Arc;

use muster_core::id::NodeId;
use tokio::sync::watch;

use crate::port::{NodeEpoch, NodeLease, NodeStanding};

/// Id of the single node of an embedded store.
pub(crate) const ALONE: &str = "local";

impl NodeStanding {
    /// Returns the standing of the single node of an embedded store.
    pub(crate) fn alone() -> Self {
        Self { node: NodeId::trusted(ALONE), epoch: NodeEpoch(ALONE.into()), lease: NodeLease::Held }
    }
}

/// The node's standing. The writer and the follower of a shared store set it; everyone else watches it.
pub(crate) struct Membership(watch::Sender<NodeStanding>);

impl Membership {
    /// Creates the membership of a node that holds its lease.
    pub(crate) fn new(node: NodeId, epoch: NodeEpoch) -> Self {
        Self(watch::Sender::new(NodeStanding { node, epoch, lease: NodeLease::Held }))
    }

    /// Creates the membership of the single node of an embedded store.
    pub(crate) fn alone() -> Arc<Self> {
        let NodeStanding { node, epoch, .. } = NodeStanding::alone();
        Arc::new(Self::new(node, epoch))
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<NodeStanding> {
        self.0.subscribe()
    }

    pub(crate) fn standing(&self) -> NodeStanding {
        self.0.borrow().clone()
    }

    /// Returns the current epoch; `None` if the lease is lost.
    pub(crate) fn epoch(&self) -> Option<NodeEpoch> {
        let standing = self.0.borrow();
        (standing.lease == NodeLease::Held).then(|| standing.epoch.clone())
    }

    /// Records that the lease of an epoch is lost.
    pub(crate) fn lost(&self, epoch: &NodeEpoch) {
        self.0.send_if_modified(|standing| {
            // A report about an older epoch comes too late: the node has registered again since.
            let is_new = standing.epoch == *epoch && standing.lease == NodeLease::Held;
            if is_new {
                standing.lease = NodeLease::Lost;
            }
            is_new
        });
    }

    /// Records a new registration.
    pub(crate) fn registered(&self, epoch: NodeEpoch) {
        self.0.send_modify(|standing| (standing.epoch, standing.lease) = (epoch, NodeLease::Held));
    }
}
