//! The servers that use the store, and the work that only one of them may do at a time.
//!
//! A server takes part as a *node*: a row with a lease that it renews, under an *epoch* that is new each time. All times of
//! leases are judged by the clock of the database, because the clocks of nodes may differ. A node whose lease another
//! one declared ended commits nothing any more, until it has registered again under a new epoch, which the store does by itself.
//!
//! SQLite has one node, which never loses its lease, and holds the lease of every kind of work.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use muster_core::id::NodeId;
use muster_core::time::Timestamp;
use tokio::sync::watch;

use super::{StoreError, Write};

/// A node whose lease is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its id.
    pub id: NodeId,
    /// Name for people. Not necessarily unique.
    pub name: String,
    /// Version of its program.
    pub version: String,
    /// Addresses on which it accepts agents, as `HOST:PORT`.
    pub addresses: Vec<String>,
    /// Whether it sends its agents to other nodes.
    pub is_draining: bool,
    /// Number of the last change that it handled, as of its last renewal.
    pub handled: i64,
    /// Time of its registration, by the clock of the database.
    pub started_at: Timestamp,
    /// Time at which its lease ends unless it is renewed, by the clock of the database.
    pub expires_at: Timestamp,
}

/// A node whose lease ended before it was given back: it crashed, or could not reach the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostNode {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Time since another node noticed it, by the clock of the database.
    pub since: Duration,
}

/// Identifies one registration of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeEpoch(pub(crate) Arc<str>);

impl NodeEpoch {
    /// The epoch as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// State of a node's own lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeLease {
    /// The node holds it, as far as it knows. Each commit checks it.
    Held,
    /// Another node declared it ended. Commits fail until the node has registered again.
    Lost,
}

/// This node's registration in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStanding {
    /// Its id.
    pub node: NodeId,
    /// Its registration. A new one means that other nodes may have taken over meanwhile.
    pub epoch: NodeEpoch,
    /// Whether the registration is valid.
    pub lease: NodeLease,
}

/// A change of a node's record.
#[derive(Clone, Debug)]
pub enum NodeWrite {
    /// Describes this node to the others.
    Describe {
        /// Name for people.
        name: String,
        /// Version of its program.
        version: String,
        /// Addresses on which it accepts agents, as `HOST:PORT`.
        addresses: Vec<String>,
    },
    /// Tells a node to send its agents to other nodes. Lasts until [`Self::Resume`], or until the node starts again.
    Drain {
        /// The node.
        id: NodeId,
    },
    /// Tells a node to accept agents again.
    Resume {
        /// The node.
        id: NodeId,
    },
}

impl From<NodeWrite> for Write {
    fn from(write: NodeWrite) -> Self {
        Self::Node(write)
    }
}

/// Work that one node does for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseName {
    /// Transitions of agents' statuses by time.
    Statuses,
    /// Removal of expired records.
    Housekeeping,
    /// Creation and invalidation of output keys.
    OutputKeys,
    /// Completion of actions that a crash interrupted.
    Actions,
    /// Steps of staged rollouts.
    Rollouts,
    /// Sending of alerts.
    Alerts,
    /// Beginning of automatic upgrades.
    AutoUpgrades,
    /// Index of software.
    Software,
}

impl LeaseName {
    /// All leases.
    pub const ALL: [Self; 8] = [
        Self::Statuses,
        Self::Housekeeping,
        Self::OutputKeys,
        Self::Actions,
        Self::Rollouts,
        Self::Alerts,
        Self::AutoUpgrades,
        Self::Software,
    ];
}

/// Proof that a node held a lease when it received the token. [`Write::Fenced`] makes a commit depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FencingToken {
    pub(crate) lease: LeaseName,
    /// Counts the holders.
    pub(crate) number: i64,
}

impl FencingToken {
    /// The lease that it belongs to.
    pub fn lease(&self) -> LeaseName {
        self.lease
    }
}

/// Reads of nodes.
#[async_trait]
pub trait NodeStore: Send + Sync + 'static {
    /// Returns the nodes whose leases are valid, by name and id.
    async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError>;
    /// Returns the nodes that were lost within the last day, the latest first. A node that came back is listed too: its agents were
    /// without it for some time.
    async fn lost_nodes(&self) -> Result<Vec<LostNode>, StoreError>;
    /// Returns a receiver of this node's standing.
    fn this_node(&self) -> watch::Receiver<NodeStanding>;
}

/// Leases of work.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// Takes a lease, or keeps the one that this node holds. `None` while another live node holds it. A lease lasts as long as its
    /// node's own; calling this often is cheap (one point read).
    async fn take_lease(&self, lease: LeaseName) -> Result<Option<FencingToken>, StoreError>;
    /// Releases a lease, so that another node can take it at once. Does nothing if it is no longer held.
    async fn release_lease(&self, token: FencingToken) -> Result<(), StoreError>;
}
