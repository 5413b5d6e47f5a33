//! The change log.
//!
//! Numbers are consecutive and ascend in the order of commits, for every reader: whoever has read up to a number finds
//! everything that is committed later above it. Old rows are pruned, but not those that a live node has yet to handle, unless it
//! is far behind. A reader whose first row after `seq` is not `seq + 1` has missed changes, and must read everything again
//! that it derived from them ([`has_gap`]).

use std::time::{Duration, Instant};

use async_trait::async_trait;
use muster_core::change::Change;
use muster_core::id::SpaceId;
use tokio::sync::watch;

use super::StoreError;

/// Time until which the newest known number of the change log is certain to be the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Currency {
    /// Always, because no other process writes.
    Always,
    /// At least until this instant, at which the database was queried.
    Until(Instant),
}

impl Currency {
    /// Returns whether the number was certain within the last `limit`.
    pub fn is_within(self, limit: Duration) -> bool {
        self.age() <= limit
    }

    /// Returns the time since it was last certain.
    pub fn age(self) -> Duration {
        match self {
            Self::Always => Duration::ZERO,
            Self::Until(asked) => asked.elapsed(),
        }
    }
}

/// A row of the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRow {
    /// Its number.
    pub seq: i64,
    /// The change; `None` for a kind that a newer node wrote.
    pub change: Option<Change>,
    /// The space from which the subject was deleted; `None` if it was changed.
    pub deleted_from: Option<SpaceId>,
}

/// Returns true if changes between `seq` and the rows that were read after it have been pruned.
pub fn has_gap(seq: i64, rows: &[(i64, Option<Change>)]) -> bool {
    rows.first().is_some_and(|(first, _)| *first > seq + 1)
}

/// Reads of the change log.
#[async_trait]
pub trait ChangeStore: Send + Sync + 'static {
    /// Returns a receiver of the newest sequence number of the change log.
    fn changes(&self) -> watch::Receiver<i64>;
    /// Returns until when the number in [`Self::changes`] was certain to be the newest. Costs one atomic read. The
    /// clock continues while the process is stopped.
    fn confirmed(&self) -> Currency;
    /// Returns until when all changes are handled on this node, including those of other nodes. After the process was
    /// stopped, the first confirmation tells of changes that it has not handled yet. Costs one atomic read.
    fn caught_up(&self) -> Currency;
    /// Records that this node has handled all changes up to `seq`, so that they can be pruned. Other nodes see it after
    /// the next renewal of this node's lease.
    fn changes_handled(&self, seq: i64);
    /// Selects changes after `seq`, oldest first, at most `limit`, each with its number. Unknown kinds are `None`. See
    /// [`has_gap`].
    async fn changes_since(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Option<Change>)>, StoreError>;
    /// Like [`Self::changes_since`], with the spaces of deleted subjects.
    async fn change_rows_since(&self, seq: i64, limit: u32) -> Result<Vec<ChangeRow>, StoreError>;
    /// Deletes up to `limit` of the oldest changes, up to and including number `through`, but none that a live node has
    /// not handled. Returns their number. The newest row is always kept, because it contains the current number.
    async fn changes_prune(&self, through: i64, limit: u32) -> Result<u64, StoreError>;
}
