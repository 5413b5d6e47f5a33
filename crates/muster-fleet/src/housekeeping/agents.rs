//! When policies have agents that stay away unenrolled.

use std::time::Duration;

use muster_core::Error;
use muster_core::id::PolicyId;
use muster_core::lifecycle::is_due_to_unenroll;
use muster_core::policy::Policy;
use muster_core::status::Status;
use muster_store::query::AgentFilter;

use super::Housekeeping;
use crate::authority::System;
use crate::policies::all_policies;

/// Agents unenrolled in one run at most (MG §3.4).
const UNENROLLED_AT_MOST: usize = 1000;
/// Agents looked at before the policy is read anew.
const AT_ONCE: usize = 500;

impl Housekeeping {
    /// Unenrols agents that are inactive, and unseen for as long as their policy says while this server watched. Those of
    /// managed policies stay.
    pub(super) async fn unenroll_unseen(&self) -> Result<u64, Error> {
        self.statuses.follow_clock().await?;
        let mut left = UNENROLLED_AT_MOST;
        for policy in all_policies(&self.store).await? {
            if left > 0 && unenroll_timeout(&policy).is_some() {
                left -= self.unenroll_unseen_on(&policy.id, left).await?.min(left);
            }
        }
        Ok((UNENROLLED_AT_MOST - left) as u64)
    }

    async fn unenroll_unseen_on(&self, id: &PolicyId, at_most: usize) -> Result<usize, Error> {
        let (mut unenrolled, mut after) = (0, None);
        while unenrolled < at_most && !self.stopping.has_begun() {
            // Read each time: who hosts a policy or takes its timeout away means the agents that are still there.
            let policy = self.store.everywhere(&System).policy(id).await?;
            let Some(timeout) = policy.as_ref().and_then(unenroll_timeout) else { break };
            let filter = AgentFilter {
                policy_ids: Some(vec![id.clone()]),
                statuses: Some(vec![Status::Inactive]),
                unseen_since: Some(self.clock.now().minus(timeout)),
                ..AgentFilter::default()
            };
            let ids = self
                .store
                .everywhere(&System)
                .agent_ids(&filter, after.as_ref(), AT_ONCE.min(at_most - unenrolled) as u32)
                .await?;
            let Some(last) = ids.last().cloned() else { break };
            unenrolled += self
                .actions
                .shut_out_due(&ids, "timeout", &|record, now| {
                    // Nobody could be seen by a server that was down, or whose clock stood elsewhere.
                    let counts_from = self.statuses.absences_count_from().min(now);
                    let seen = self.registry.last_seen(&record.id, now).max(Some(counts_from));
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
