//! Uninstallation reports of agents and their components (EA §8).

use muster_core::Error;
use muster_core::agent::{AuditReason, AuditReport};
use muster_core::audit::AuditEvent;
use muster_core::change::Change;
use muster_core::id::AgentId;
use muster_core::lifecycle::report_left;
use muster_core::time::Timestamp;
use muster_store::Write;
use serde_json::json;

use super::check_in::CheckIns;
use super::registry::AgentEntry;
use super::update::AgentChange;

impl CheckIns {
    /// Stores the report. The agent stays active, and its next check-in clears the report (EA61, EA140). The report of
    /// a muster-agent unenrolls it and revokes its credentials immediately. Returns `Denial::LeftForGood` once
    /// `orphaned` was reported (EA138).
    pub async fn report_unenroll(&self, entry: &AgentEntry, reason: AuditReason, at: Timestamp) -> Result<(), Error> {
        let report = AuditReport { reason, at };
        let update = self.records.update(entry, entry, |record, now| {
            let after = report_left(record, report, entry.last_seen(now), now)?;
            // A repeated report changes nothing and leaves no second line: agents send it until they get a response.
            let mut writes: Vec<Write> =
                after.iter().map(|_| Write::Audit(audit_line(&record.id, report, now))).collect();
            if after.as_ref().is_some_and(|after| record.active && !after.active) {
                writes.push(Write::Changed(Change::Agent(record.id.clone())));
            }
            Ok(AgentChange { record: after, writes })
        });
        if !update.await?.active {
            // Its poll was authenticated by a key that no longer exists: it ends now, not at its deadline.
            entry.wake();
            tracing::info!(agent = %entry.id(), "agent uninstalled; its credentials were revoked");
        }
        Ok(())
    }
}

fn audit_line(agent: &AgentId, report: AuditReport, now: Timestamp) -> AuditEvent {
    AuditEvent {
        at: now,
        actor: format!("agent:{agent}"),
        action: "agent.report_unenroll".to_owned(),
        subject: format!("agent:{agent}"),
        detail: json!({"reason": report.reason, "at": report.at.to_rfc3339_millis()}),
        address: None,
        reason: None,
    }
}
