//! The audit log: append-only, each line bound to the one before by its hash (M25).

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// One line, before it has its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When.
    pub at: Timestamp,
    /// Who: `user:…`, `agent:…`, `system`, `local:root`.
    pub actor: String,
    /// What: `agent.enroll`, `agent.identity_mismatch`, `enrollment_key.revoke` …
    pub action: String,
    /// To what: `agent:<id>`, `policy:<id>` …
    pub subject: String,
    /// More, as a JSON object; never a secret.
    pub detail: serde_json::Value,
}

/// The hash of a line: SHA-256 over the previous hash and the event's JSON.
pub fn chain_hash(previous: &[u8], event_json: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    context.update(event_json);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
