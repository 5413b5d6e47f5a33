//! The servers of the fleet, as this one sees them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use muster_core::entropy::random_bytes;
use muster_core::id::NodeId;
use muster_core::time::Timestamp;
use muster_core::{Entropy, Error};
use muster_store::NodeRecord;
use tokio::sync::watch;

use super::authority::System;
use super::watched_store::WatchedStore;

/// Minimum time that a draining server holds a poll, and the maximum of the random time added to it.
const DRAINING_HOLD: Duration = Duration::from_secs(5);

/// The live servers, and whether this one is draining.
pub(crate) struct Members {
    store: Arc<WatchedStore>,
    node: NodeId,
    live: watch::Sender<Vec<NodeRecord>>,
    is_draining: AtomicBool,
}

impl Members {
    pub(crate) fn new(store: Arc<WatchedStore>) -> Self {
        let node = store.everywhere(&System).this_node().borrow().node.clone();
        Self { store, node, live: watch::Sender::new(Vec::new()), is_draining: AtomicBool::new(false) }
    }

    /// Returns true while this server sends its agents to others.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Number of live servers at the last read.
    pub(crate) fn count(&self) -> usize {
        self.live.borrow().len()
    }

    /// Returns how long a draining server holds a poll.
    pub(crate) fn hold_while_draining(entropy: &dyn Entropy) -> Duration {
        let [random] = random_bytes::<1>(entropy);
        DRAINING_HOLD + DRAINING_HOLD.mul_f64(f64::from(random) / 256.0)
    }

    /// Returns whether a record is that of this server.
    pub(crate) fn is_this(&self, node: &NodeRecord) -> bool {
        node.id == self.node
    }

    /// Reads the live servers. Returns those that have left since the last read. A server that registered again in between
    /// counts as well, also this one, because its agents were not observed for some time. One that never accepted agents does not: if it
    /// fails at each start, no agent would ever be offline.
    pub(crate) async fn look(&self) -> Result<Vec<NodeRecord>, Error> {
        let live = self.store.everywhere(&System).nodes().await?;
        self.is_draining.store(live.iter().any(|node| self.is_this(node) && node.is_draining), Ordering::Relaxed);
        let registration = |node: &NodeRecord| -> (NodeId, Timestamp) { (node.id.clone(), node.started_at) };
        let known: HashSet<_> = live.iter().map(registration).collect();
        let mut left = self.live.send_replace(live);
        left.retain(|node| !known.contains(&registration(node)) && !node.addresses.is_empty());
        Ok(left)
    }
}
