//! Rules for programs of which a machine has one, orbit and osqueryd: one-time secrets, the cooldown, their common client certificate,
//! and facts that are kept.
//!
//! Rejections with valid secrets are recorded in the audit log, at most once per host and reason in twelve hours on each server (FL84), because
//! hosts try again for ever.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_core::agent::AgentRecord;
use muster_core::audit::AuditEvent;
use muster_core::denial::Denial;
use muster_core::enroll::{Applicant, Request};
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::one_time::normalized;
use muster_core::time::Timestamp;
use muster_core::{Error, agent::Family};
use muster_store::{AgentWrite, Write};
use serde_json::json;

use super::{Admission, EnrollInput, Enrollment, Stored};

/// Time in which a rejection is recorded once.
const PERIOD: Duration = Duration::from_secs(12 * 60 * 60);
/// Maximum number of rejections that are remembered. With more at the same time, the rest is only logged.
const MOST: usize = 10_000;

/// The rejections that were recorded lately.
#[derive(Default)]
pub(super) struct Rejections {
    recorded: Mutex<HashMap<(String, &'static str), Timestamp>>,
}

impl Rejections {
    /// Returns whether a rejection must be recorded.
    fn is_new(&self, host: &str, reason: &'static str, now: Timestamp) -> bool {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if recorded.len() >= MOST {
            recorded.retain(|_, at| now.since(*at) < PERIOD);
        }
        let key = (host.to_owned(), reason);
        let is_known = recorded.get(&key).is_some_and(|at| now.since(*at) < PERIOD);
        !is_known && recorded.len() < MOST
    }

    /// Remembers a rejection that was recorded.
    fn remember(&self, host: &str, reason: &'static str, now: Timestamp) {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.insert((host.to_owned(), reason), now);
    }
}

impl Enrollment {
    /// Adds facts to an enrollment of an orbit that has enrolled before in the same space.
    pub(super) async fn keep_facts(
        &self,
        applicant: &mut Applicant,
        admission: &Admission,
        stored: &Stored,
    ) -> Result<(), Error> {
        let key = admission.key();
        let is_same = |before: &&AgentRecord| before.family == applicant.family && before.space == key.space;
        let Some(before) = stored.by_id.as_ref().filter(is_same).filter(|_| applicant.family == Family::Orbit) else {
            return Ok(());
        };
        let documents = self.store.everywhere(admission).agent_documents(&before.id).await?;
        if let Some(known) = documents.and_then(|documents| documents.local_metadata) {
            applicant.keep_facts(&known);
        }
        Ok(())
    }

    /// Applies the rules for one-time secrets and for the cooldown.
    pub(super) async fn check_machine(
        &self,
        applicant: &Applicant,
        admission: &Admission,
        input: &EnrollInput<'_>,
        stored: &Stored,
        now: Timestamp,
    ) -> Result<(), Error> {
        if !applicant.family.is_one_per_machine() {
            return Ok(());
        }
        let key = admission.key();
        let spent = key
            .one_time
            .as_ref()
            .and_then(|one_time| one_time.check(applicant.family, &input.request.hardware, now).err());
        let waits = stored.by_id.as_ref().is_some_and(|before| self.is_in_cooldown(before, key, now));
        let Some(denial) = spent.or(waits.then_some(Denial::EnrollCooldown)) else { return Ok(()) };
        let error = Error::from(denial);
        self.reject(admission, input, error.code, now).await;
        Err(error)
    }

    /// Returns whether an osqueryd has enrolled too short a time ago (FL11). orbit is not held back, as by the original.
    fn is_in_cooldown(&self, before: &AgentRecord, key: &EnrollmentKey, now: Timestamp) -> bool {
        let enrolled_at = before.credentials.iter().map(|credential| credential.issued_at).max();
        before.family == Family::Osquery
            && before.active
            && before.space == key.space
            && enrolled_at.is_some_and(|at| now.since(at) < self.cooldown)
    }

    /// Records a rejection. If that fails, the enrollment is rejected all the same.
    pub(super) async fn reject(
        &self,
        admission: &Admission,
        input: &EnrollInput<'_>,
        reason: &'static str,
        now: Timestamp,
    ) {
        let key = admission.key();
        let request = input.request;
        tracing::info!(key = %key.id, machine = request.machine_id, address = input.address, reason, "rejected an enrollment");
        if self.rejections.is_new(request.machine_id, reason, now) {
            let line = Write::Audit(audit_line(key, request, input.address, reason, now));
            match self.store.commit(admission, vec![line]).await {
                Ok(_) => self.rejections.remember(request.machine_id, reason, now),
                Err(error) => tracing::warn!(%error, "failed to record a rejected enrollment"),
            }
        }
    }
}

/// Returns the condition that the other program on the machine is not bound to another certificate. It may enroll at the same time.
pub(super) fn same_certificate(applicant: &Applicant) -> Option<AgentWrite> {
    let certificate = applicant.certificate().binding();
    applicant.twin().map(|id| AgentWrite::BoundAlike { id, certificate })
}

fn audit_line(key: &EnrollmentKey, request: &Request<'_>, address: &str, reason: &str, now: Timestamp) -> AuditEvent {
    AuditEvent {
        at: now,
        actor: format!("enrollment_key:{}", key.id),
        action: "host.enrollment_rejected".to_owned(),
        subject: format!("machine:{}", request.machine_id),
        detail: json!({
            "reason": reason,
            "enrollment_plane": request.family.as_str(),
            "host_uuid": normalized(request.hardware.uuid),
            "host_serial": normalized(request.hardware.serial),
            "address": address,
        }),
        address: None,
        reason: None,
        space: Some(key.space.clone()),
    }
}

#[cfg(test)]
mod tests {
    use muster_core::testing::at;

    use super::*;

    #[test]
    fn fl84_a_rejection_is_recorded_once_in_twelve_hours() {
        let rejections = Rejections::default();
        assert!(rejections.is_new("a", "spent", at(0)) && rejections.is_new("a", "spent", at(0)), "not recorded yet");
        let is_new = |host: &str, reason, now| {
            let is_new = rejections.is_new(host, reason, at(now));
            if is_new {
                rejections.remember(host, reason, at(now));
            }
            is_new
        };
        assert!(is_new("a", "spent", 0) && is_new("b", "spent", 0) && is_new("a", "mismatch", 0));
        assert!(!is_new("a", "spent", 12 * 3_600 - 1));
        assert!(is_new("a", "spent", 12 * 3_600));
        for number in 0..MOST {
            is_new(&number.to_string(), "spent", 20 * 3_600);
        }
        assert!(!is_new("one more", "spent", 20 * 3_600), "bounded");
        assert!(is_new("one more", "spent", 40 * 3_600));
    }
}
