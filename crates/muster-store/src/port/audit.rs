//! The audit log: one hash chain per node, so that nodes do not wait for each other when they append.
//!
//! Sequence numbers order the log for people, across all chains. Within a chain they ascend. Between nodes, the order of events of the
//! same second means nothing, and an event may appear below one that was listed already.

use muster_core::audit::ChainHead;

use super::StoreError;
use super::reads::reads;

/// A link of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLink {
    /// Position in the chain, counted from 1.
    pub position: i64,
    /// JSON of the event, as hashed.
    pub event: String,
    /// Hash over the previous link's and the event.
    pub hash: [u8; 32],
    /// Subject under which the event is found; not covered by the hash.
    pub subject: String,
}

reads! {
    /// Reads of the audit log.
    pub trait AuditStore {
        /// Selects events after `seq`, oldest first, at most `limit`: sequence number, JSON of the event as hashed,
        /// hash.
        async fn audit_events(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError>;
        /// Selects events before `seq`, newest first, at most `limit`, in the form of [`Self::audit_events`].
        async fn audit_events_before(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError>;
        /// Selects events about an object before `seq`, newest first, at most `limit`, in the form of [`Self::audit_events`].
        async fn audit_events_of(
            &self,
            subject: &str,
            seq: i64,
            limit: u32,
        ) -> Result<Vec<(i64, String, [u8; 32])>, StoreError>;
        /// Returns the end of every chain, in the order of their names, as of one time.
        async fn audit_heads(&self) -> Result<Vec<ChainHead>, StoreError>;
        /// Returns the names of all chains.
        async fn audit_chains(&self) -> Result<Vec<String>, StoreError>;
        /// Returns links of a chain after a position, in order, at most `limit`.
        async fn audit_links(&self, chain: &str, after: i64, limit: u32) -> Result<Vec<AuditLink>, StoreError>;
        /// Returns the hash at a position of a chain.
        async fn audit_hash(&self, chain: &str, position: i64) -> Result<Option<[u8; 32]>, StoreError>;
    }
}
