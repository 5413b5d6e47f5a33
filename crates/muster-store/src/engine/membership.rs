//! This process as a node of its store.

use std::sync::Arc;

use muster_core::id::NodeId;
use tokio::sync::watch;

use crate::port::{NodeEpoch, NodeLease, NodeStanding};

/// Id of the one node of an embedded store.
pub(crate) const ALONE: &str = "local";

impl NodeStanding {
    /// Of the one node of an embedded store.
    pub(crate) fn alone() -> Self {
        Self { node: NodeId::trusted(ALONE), epoch: NodeEpoch(ALONE.into()), lease: NodeLease::Held }
    }
}

/// The node's standing, which the writer and the follower of a shared store set, and everybody else watches.
pub(crate) struct Membership(watch::Sender<NodeStanding>);

impl Membership {
    /// A node that holds its lease.
    pub(crate) fn new(node: NodeId, epoch: NodeEpoch) -> Self {
        Self(watch::Sender::new(NodeStanding { node, epoch, lease: NodeLease::Held }))
    }

    /// The one node of an embedded store.
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

    /// The current epoch; `None` if its lease is lost.
    pub(crate) fn epoch(&self) -> Option<NodeEpoch> {
        let standing = self.0.borrow();
        (standing.lease == NodeLease::Held).then(|| standing.epoch.clone())
    }

    /// Notes that the lease of an epoch is lost.
    pub(crate) fn lost(&self, epoch: &NodeEpoch) {
        self.0.send_if_modified(|standing| {
            let is_new = standing.epoch == *epoch && standing.lease == NodeLease::Held;
            if is_new {
                standing.lease = NodeLease::Lost;
            }
            is_new
        });
    }

    /// Notes a new registration.
    pub(crate) fn registered(&self, epoch: NodeEpoch) {
        self.0.send_modify(|standing| (standing.epoch, standing.lease) = (epoch, NodeLease::Held));
    }
}
