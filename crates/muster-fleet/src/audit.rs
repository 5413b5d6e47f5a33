//! Audit events. Every operation that changes something or reveals a secret commits one.

use std::fmt::Display;

use muster_core::audit::AuditEvent;
use muster_core::authorization::Origin;
use muster_core::time::Timestamp;
use muster_store::Write;
use serde_json::Value;

/// Returns the write of an audit event: somebody did `action` to `subject`.
pub fn audit_line(origin: &Origin, at: Timestamp, action: &str, subject: impl Display, detail: Value) -> Write {
    Write::Audit(AuditEvent {
        at,
        actor: origin.actor.to_string(),
        action: action.to_owned(),
        subject: subject.to_string(),
        detail,
        address: origin.address.as_deref().map(str::to_owned),
        reason: origin.reason.as_deref().map(str::to_owned),
    })
}
