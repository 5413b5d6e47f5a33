//! Reads of the audit log.

use async_trait::async_trait;

use super::SqlStore;
use crate::engine::log;
use crate::port::{AuditStore, StoreError};

#[async_trait]
impl AuditStore for SqlStore {
    async fn audit_events(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError> {
        self.lists.read(move |c| log::audit(c, seq, limit)).await
    }

    async fn audit_events_before(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError> {
        self.lists.read(move |c| log::audit_before(c, seq, limit)).await
    }
}
