//! The audit log.

use muster_protocol::management::audit::{AuditEvents, AuditVerdict, ListAuditEvents};

use crate::{Client, Result};

impl Client {
    /// Returns a page of audit events, newest first.
    pub async fn audit_events(&self, query: &ListAuditEvents) -> Result<AuditEvents> {
        self.get_with(&["audit"], query).await
    }

    /// Verifies the whole audit log on the server.
    pub async fn verify_audit(&self) -> Result<AuditVerdict> {
        self.get(&["audit", "_verify"]).await
    }
}
