//! Reads of the change log.

use crate::engine::session::Connection;
use async_trait::async_trait;
use muster_core::change::Change;
use tokio::sync::watch;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::log;
use crate::port::{ChangeRow, ChangeStore, Currency, StoreError};

#[async_trait]
impl ChangeStore for SqlStore {
    fn changes(&self) -> watch::Receiver<i64> {
        self.feed.subscribe()
    }

    fn confirmed(&self) -> Currency {
        self.feed.currency()
    }

    fn caught_up(&self) -> Currency {
        self.feed.caught_up()
    }

    fn changes_handled(&self, seq: i64) {
        self.feed.set_handled(seq);
    }

    async fn changes_since(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Option<Change>)>, StoreError> {
        self.points.read(move |c| log::changes(c, seq, limit)).await
    }

    async fn change_rows_since(&self, seq: i64, limit: u32) -> Result<Vec<ChangeRow>, StoreError> {
        self.points.read(move |c| log::change_rows(c, seq, limit)).await
    }

    async fn changes_prune(&self, through: i64, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: log::prune(c, through, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }
}
