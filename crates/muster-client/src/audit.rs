//! The audit log.

use muster_protocol::management::audit::{AuditEvents, AuditVerdict, ExportAuditEvents, ListAuditEvents};
use reqwest::Method;
use tokio::io::AsyncWrite;

use crate::{Client, Result};

impl Client {
    /// Returns a page of audit events, newest first.
    pub async fn audit_events(&self, query: &ListAuditEvents) -> Result<AuditEvents> {
        self.get_with(&["audit"], query).await
    }

    /// Writes a signed export to `to`, and returns its length.
    pub async fn export_audit(&self, query: &ExportAuditEvents, to: &mut (impl AsyncWrite + Unpin)) -> Result<u64> {
        let request = self.request(Method::GET, self.fleet(&["audit", "_export"])?).query(query);
        self.download(request, to, &mut |_| ()).await
    }

    /// Verifies the whole audit log on the server.
    pub async fn verify_audit(&self) -> Result<AuditVerdict> {
        self.get(&["audit", "_verify"]).await
    }
}
