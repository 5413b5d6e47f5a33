//! The change log.

use async_trait::async_trait;
use muster_core::change::Change;
use tokio::sync::watch;

use super::StoreError;

/// Reads of the change log.
#[async_trait]
pub trait ChangeStore: Send + Sync + 'static {
    /// Returns a receiver of the newest sequence number of the change log.
    fn changes(&self) -> watch::Receiver<i64>;
    /// Changes after `seq`, oldest first, at most `limit`, each with its number. Unknown kinds are `None`.
    async fn changes_since(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Option<Change>)>, StoreError>;
    /// Deletes up to `limit` of the oldest changes, up to and including number `through`, and returns their number.
    /// The newest row is always kept, because it holds the current number.
    async fn changes_prune(&self, through: i64, limit: u32) -> Result<u64, StoreError>;
}
