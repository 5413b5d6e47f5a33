//! The audit log.

use super::StoreError;
use super::reads::reads;

reads! {
    /// Reads of the audit log.
    pub trait AuditStore {
        /// Audit lines after `seq`, oldest first, at most `limit`: number, event JSON as hashed, hash.
        async fn audit_events(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError>;
        /// Audit lines before `seq`, newest first, at most `limit`, as [`Self::audit_events`] has them.
        async fn audit_events_before(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError>;
    }
}
