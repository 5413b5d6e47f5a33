//! The audit log: append-only, and chained by hashes (M25).

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// An event, before it is chained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Time.
    pub at: Timestamp,
    /// Actor: `user:…`, `agent:…`, `system`, `local:root`.
    pub actor: String,
    /// Action: `agent.enroll`, `agent.identity_mismatch`, `enrollment_key.revoke` …
    pub action: String,
    /// Subject: `agent:<id>`, `policy:<id>` …
    pub subject: String,
    /// Details, as a JSON object without secrets.
    pub detail: serde_json::Value,
}

/// Computes the hash of an event: SHA-256 over the previous hash and the JSON of the event.
pub fn chain_hash(previous: &[u8], event_json: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    // No separator is needed: the previous hash has a fixed length.
    context.update(previous);
    context.update(event_json);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
