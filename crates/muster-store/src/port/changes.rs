//! The change log.

use async_trait::async_trait;
use muster_core::change::Change;
use tokio::sync::watch;

use super::StoreError;

/// Reads of the change log.
#[async_trait]
pub trait ChangeStore: Send + Sync + 'static {
    /// The change log's newest sequence number; the receiver wakes when it grows.
    fn changes(&self) -> watch::Receiver<i64>;
    /// Changes after `seq`, oldest first, at most `limit`, each with its number. Unknown kinds are `None`.
    async fn changes_since(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Option<Change>)>, StoreError>;
    /// Removes the oldest rows of the change log up to and with number `through`, at most `limit`; answers how many.
    /// The newest row always stays: it holds the place where the numbers go on.
    async fn changes_prune(&self, through: i64, limit: u32) -> Result<u64, StoreError>;
}
