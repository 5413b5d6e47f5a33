//! The inactivity timeout: copied from each policy to its agents' records, so that the status timer finds due agents
//! with an index and without their policies.

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::error_chain::chain;
use muster_core::id::PolicyId;
use muster_core::lifecycle::{inactivity_timeout, set_inactivity_timeout};
use muster_core::status::Status;
use muster_store::query::{AgentCondition, AgentFilter};

use super::authority::System;
use super::bulk_update::Basis;
use super::policies::all_policies;
use super::status_timer::Statuses;
use super::update::AgentChange;

/// Agents handled before the policy is read again.
const BATCH: usize = 500;

impl Statuses {
    /// Copies the timeouts of all policies to agents that have different ones.
    pub(crate) async fn correct_inactivity(&self) -> Result<u64, Error> {
        let mut corrected = 0;
        for policy in all_policies(&self.store).await? {
            corrected += self.correct_inactivity_of(&policy.id).await?;
        }
        Ok(corrected)
    }

    /// Copies the timeout of a changed policy to its agents. On failure, the next housekeeping corrects them.
    pub(crate) async fn apply_inactivity_timeout(&self, policy: &PolicyId) {
        if let Err(error) = self.correct_inactivity_of(policy).await {
            tracing::warn!(%policy, error = %chain(&error), "failed to apply a changed inactivity timeout; retrying later");
        }
    }

    async fn correct_inactivity_of(&self, id: &PolicyId) -> Result<u64, Error> {
        let mut corrected = 0;
        let mut after = None;
        while !self.shutdown.has_begun() {
            // Read again for each batch: the policy may change while its agents are updated, and the last value counts.
            let Some(policy) = self.store.everywhere(&System).policy(id).await? else { break };
            let timeout = inactivity_timeout(Some(policy.inactivity_timeout));
            let filter = AgentFilter::all([
                AgentCondition::Policies(vec![id.clone()]),
                !AgentCondition::Statuses(vec![Status::Unenrolled]),
                !AgentCondition::InactivityTimeout(timeout),
            ]);
            let ids = self.store.everywhere(&System).agent_ids(&filter, after.as_ref(), BATCH as u32).await?;
            let Some(last) = ids.last().cloned() else { break };
            let decide = |before: &AgentRecord, now| {
                // The agent may have been unenrolled or reassigned since the list was read.
                let concerned = before.active && before.policy_id.as_ref() == Some(id);
                let seen = self.registry.last_seen(&before.id, now);
                let record = concerned.then(|| set_inactivity_timeout(before, timeout, seen, now)).flatten();
                AgentChange { record, writes: Vec::new() }
            };
            self.records.change_many(&System, &ids, Basis::Store, &decide).await?;
            corrected += ids.len() as u64;
            after = Some(last);
        }
        Ok(corrected)
    }
}
