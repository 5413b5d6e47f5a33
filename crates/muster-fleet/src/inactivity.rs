//! What policies say about when agents that stay away count as inactive.

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::id::PolicyId;
use muster_core::lifecycle::{inactivity_timeout, set_inactivity_timeout};
use muster_core::status::Status;
use muster_store::query::AgentFilter;

use super::authority::System;
use super::many::Basis;
use super::policies::all_policies;
use super::status_timer::Statuses;
use super::update::AgentChange;

/// Agents looked at before the policy is read anew.
const AT_ONCE: usize = 500;

impl Statuses {
    /// Gives agents the inactivity timeout of their policy, if they have another.
    pub(crate) async fn correct_inactivity(&self) -> Result<u64, Error> {
        let mut corrected = 0;
        for policy in all_policies(&self.store).await? {
            corrected += self.correct_inactivity_on(&policy.id).await?;
        }
        Ok(corrected)
    }

    /// After a change of the policy. What fails is made good by the next housekeeping.
    pub(crate) async fn heal_inactivity_of(&self, policy: &PolicyId) {
        if let Err(error) = self.correct_inactivity_on(policy).await {
            tracing::warn!(%policy, %error, detail = ?error.internal, "inactivity timeouts not changed yet");
        }
    }

    async fn correct_inactivity_on(&self, id: &PolicyId) -> Result<u64, Error> {
        let mut corrected = 0;
        let mut after = None;
        while !self.stopping.has_begun() {
            let Some(policy) = self.store.everywhere(&System).policy(id).await? else { break };
            let timeout = inactivity_timeout(Some(policy.inactivity_timeout));
            let filter = AgentFilter {
                policy_ids: Some(vec![id.clone()]),
                without_statuses: vec![Status::Unenrolled],
                without_inactivity_timeout: Some(timeout),
                ..AgentFilter::default()
            };
            let ids = self.store.everywhere(&System).agent_ids(&filter, after.as_ref(), AT_ONCE as u32).await?;
            let Some(last) = ids.last().cloned() else { break };
            let decide = |before: &AgentRecord, now| {
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
