//! The unenroll timeout of policies.

use std::time::Duration;

use muster_core::Error;
use muster_core::id::PolicyId;
use muster_core::lifecycle::is_due_to_unenroll;
use muster_core::policy::Policy;
use muster_core::status::Status;
use muster_store::query::{AgentCondition, AgentFilter};

use super::Housekeeping;
use crate::authority::System;
use crate::policies::all_policies;

/// Maximum agents unenrolled in one run (MG §3.4).
const MAX_UNENROLLED: usize = 1000;
/// Agents handled before the policy is read again.
const BATCH: usize = 500;

impl Housekeeping {
    /// Unenrolls agents that are inactive and have not been seen for the timeout of their policy, counted only while
    /// this server could have seen them. Agents of managed policies are never unenrolled.
    pub(super) async fn unenroll_unseen(&self) -> Result<u64, Error> {
        // First, so that a clock that was just set does not count as an absence.
        self.statuses.follow_clock().await?;
        let mut left = MAX_UNENROLLED;
        for policy in all_policies(&self.store).await? {
            // A limit for the whole run: if a wrong timeout unenrolls agents, it is noticed before the fleet is gone.
            if left > 0 && unenroll_timeout(&policy).is_some() {
                left -= self.unenroll_unseen_on(&policy.id, left).await?.min(left);
            }
        }
        Ok((MAX_UNENROLLED - left) as u64)
    }

    async fn unenroll_unseen_on(&self, id: &PolicyId, at_most: usize) -> Result<usize, Error> {
        let (mut unenrolled, mut after) = (0, None);
        while unenrolled < at_most && !self.shutdown.has_begun() {
            // Read again for each batch: an administrator who removes the timeout, or makes the policy managed,
            // expects that to save the agents that are still enrolled.
            let policy = self.store.everywhere(&System).policy(id).await?;
            let Some(timeout) = policy.as_ref().and_then(unenroll_timeout) else { break };
            let filter = AgentFilter::all([
                AgentCondition::Policies(vec![id.clone()]),
                AgentCondition::Statuses(vec![Status::Inactive]),
                AgentCondition::UnseenSince(self.clock.now().minus(timeout)),
            ]);
            let ids = self
                .store
                .everywhere(&System)
                .agent_ids(&filter, after.as_ref(), BATCH.min(at_most - unenrolled) as u32)
                .await?;
            let Some(last) = ids.last().cloned() else { break };
            unenrolled += self
                .actions
                .force_unenroll_due(&ids, "timeout", &|record, now| {
                    // Checked again on the record that is committed: the agent may have come back or been reassigned
                    // since the list was read. Time in which the server was down or had another clock does not count.
                    let absences_count_from = self.statuses.absences_count_from().min(now);
                    let seen = self.registry.last_seen(&record.id, now).max(Some(absences_count_from));
                    record.policy_id.as_ref() == Some(id) && is_due_to_unenroll(record, timeout, seen, now)
                })
                .await?;
            after = Some(last);
        }
        Ok(unenrolled)
    }
}

fn unenroll_timeout(policy: &Policy) -> Option<Duration> {
    let seconds = policy.unenroll_timeout.filter(|_| !policy.is_managed)?;
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}
