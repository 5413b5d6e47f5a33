//! The delivery of acks, as far as it concerns the loop.

use std::time::Duration;

use muster_core::error_chain::chain;
use muster_protocol::elastic::ack::AckItem;
use tokio::time::Instant;

use super::Coordinator;
use crate::fleet::CallError;
use crate::state::{PendingAck, Phase};

/// Maximum time for which a check-in waits for the delivery of acks. Usually it takes milliseconds, and spares the server
/// from delivering the same actions again.
const ACKS_FIRST: Duration = Duration::from_secs(3);
/// Maximum attempts to deliver the last ack of an unenrolled agent.
const LAST_ACK_ATTEMPTS: u32 = 10;

impl Coordinator {
    /// Returns when check-ins stop waiting for the delivery of acks in progress.
    pub(super) fn acks_late_at(&self) -> Option<Instant> {
        self.acks.is_some().then(|| self.acks_begun + ACKS_FIRST)
    }

    pub(super) fn acknowledged(&mut self, sent: &[PendingAck], items: &[AckItem]) {
        self.ack_backoff.reset();
        self.acks_fault = None;
        let attempts = self.deps.settings.ack.attempts;
        for (place, ack) in sent.iter().enumerate() {
            // An item that is missing from the response counts as an error of the server, and is retried.
            let status = items.get(place).map_or(500, |item| item.status);
            let Some(kept) = self.state.outbox.iter_mut().find(|kept| kept.action_id == ack.action_id) else {
                continue;
            };
            // The ack was replaced by a newer one for the same action, which is still pending.
            if kept.timestamp != ack.timestamp {
                continue;
            }
            kept.refusals += 1;
            let given_up = kept.refusals >= attempts;
            // An ack that was rejected with 400 cannot succeed later.
            if status <= 400 || given_up {
                if status >= 400 {
                    tracing::error!(action = ack.action_id, status, "ack rejected by the server; dropping it");
                }
                self.state.outbox.retain(|kept| kept.action_id != ack.action_id);
            }
        }
        if !self.state.outbox.is_empty() {
            self.next_acks = Instant::now() + self.ack_backoff.next(&*self.deps.entropy);
        }
        self.persist();
    }

    pub(super) fn acks_failed(&mut self, error: &CallError) {
        let wait = self.ack_backoff.next(&*self.deps.entropy);
        tracing::warn!(error = %chain(error), ?wait, "failed to deliver acks");
        self.next_acks = Instant::now() + wait;
        self.acks_fault = Some(chain(error).to_string());
        let revoked_key = matches!(error, CallError::Refused { .. });
        // Programs and policy have been removed. If the key is revoked or the server does not respond, do not wait for
        // this ack.
        let leaves = self.state.phase == Phase::Unenrolling || self.state.migration.is_some();
        if leaves && (revoked_key || self.ack_backoff.failures() >= LAST_ACK_ATTEMPTS) {
            self.state.outbox.clear();
            self.persist();
        }
    }

    /// Returns what is wrong with the delivery of acks.
    pub(super) fn acks_message(&self) -> Option<String> {
        if self.acks_late_at().is_some_and(|late| late <= Instant::now()) {
            return Some("the server does not respond to acks".into());
        }
        self.acks_fault.as_ref().map(|fault| format!("acks cannot be delivered: {fault}"))
    }
}
