//! Unenrollment: by an action that the agent acks, or immediately by the server (MG §5.6).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use muster_core::action::{ActionType, TargetState};
use muster_core::action_request::ActionRequest;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{AgentsForceUnenroll, AgentsUnenroll, Privilege};
use muster_core::eligibility::Operation;
use muster_core::id::{ActionId, AgentId};
use muster_core::time::Timestamp;
use muster_core::{Error, lifecycle};
use muster_store::Write;
use muster_store::query::{ActionFilter, Page};
use serde_json::{Value, json};

use super::effect::{Effect, PendingUnenrolls, done};
use super::{Actions, Submitted};
use crate::audit::audit_line;
use crate::authority::{Authorized, System};
use crate::bulk_update::Basis;
use crate::force::Force;
use crate::selection::Selection;
use crate::update::AgentChange;

/// Maximum actions of one agent that are searched for pending UNENROLL actions, newest first.
const MAX_SCANNED: u32 = 100;

impl Actions {
    /// Creates an UNENROLL action; each agent is unenrolled when it acks.
    pub async fn unenroll(
        &self,
        selection: &Authorized<Selection, AgentsUnenroll>,
        force: Force,
    ) -> Result<Submitted, Error> {
        self.begin_unenroll(selection, force).await
    }

    pub(super) async fn begin_unenroll<P: Privilege>(
        &self,
        selection: &Authorized<Selection, P>,
        force: Force,
    ) -> Result<Submitted, Error> {
        let facts = self.policy_facts(selection.grant()).await?;
        let operation = Operation::Unenroll { force: force.is_yes() };
        let checked = self.check_targets(selection, &|agent, now| facts.check(agent, operation, now)).await?;
        let request = ActionRequest::new(ActionType::Unenroll, Value::Null);
        self.submit_checked(selection.grant(), checked, request, Some(Effect::BeginUnenroll)).await
    }

    /// Unenrolls agents immediately: their access keys are revoked.
    pub async fn force_unenroll(
        &self,
        selection: &Authorized<Selection, AgentsForceUnenroll>,
        force: Force,
    ) -> Result<Submitted, Error> {
        let facts = self.policy_facts(selection.grant()).await?;
        let operation = Operation::Revoke { force: force.is_yes() };
        let unenrolling: Mutex<Vec<AgentId>> = Mutex::default();
        // Collected during the check, which reads every record anyway. A mutex, because the check is a shared `Fn`.
        let checked = self
            .check_targets(selection, &|agent, now| {
                facts.check(agent, operation, now)?;
                if is_unenrolling(&agent.record) {
                    unenrolling.lock().unwrap_or_else(PoisonError::into_inner).push(agent.record.id.clone());
                }
                Ok(())
            })
            .await?;
        let open = self.pending_unenrolls(&unenrolling.into_inner().unwrap_or_else(PoisonError::into_inner)).await?;
        let request = ActionRequest::new(ActionType::ForceUnenroll, Value::Null);
        self.submit_checked(selection.grant(), checked, request, Some(Effect::ForceUnenroll(open))).await
    }

    /// Unenrolls the `agents` for which `is_due` still holds when their record is changed. Returns how many.
    pub(crate) async fn force_unenroll_due(
        &self,
        agents: &[AgentId],
        reason: &str,
        is_due: &(dyn Fn(&AgentRecord, Timestamp) -> bool + Send + Sync),
    ) -> Result<usize, Error> {
        let open = self.pending_unenrolls(&self.unenrolling_among(agents).await?).await?;
        let left: Mutex<HashSet<AgentId>> = Mutex::default();
        let decide = |before: &AgentRecord, now| {
            // Called again after a conflict, possibly with another outcome: the set must reflect the last call only.
            let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
            let record = is_due(before, now).then(|| lifecycle::force_unenroll(before, reason, now).unwrap_or(None));
            let Some(record) = record.flatten() else {
                left.remove(&before.id);
                return AgentChange::default();
            };
            let mut writes: Vec<Write> =
                open.get(&before.id).into_iter().flatten().map(|id| done(id, &before.id, now)).collect();
            let detail = json!({"reason": reason, "policy": before.policy_id});
            writes.push(audit_line(
                &System::in_space(&before.space),
                now,
                "agent.unenroll",
                format_args!("agent:{}", before.id),
                detail,
            ));
            left.insert(before.id.clone());
            AgentChange { record: Some(record), writes }
        };
        self.records.change_many(&System, agents, Basis::Store, &decide).await?;
        Ok(left.into_inner().unwrap_or_else(PoisonError::into_inner).len())
    }

    /// Returns the `agents` that have an UNENROLL action without an ack.
    pub(super) async fn unenrolling_among(&self, agents: &[AgentId]) -> Result<Vec<AgentId>, Error> {
        let mut unenrolling = Vec::new();
        for chunk in agents.chunks(500) {
            // Re-read from the store and not from the cache: another node may have created the UNENROLL.
            let records = self.records.read(chunk).await?.into_iter().map(|details| details.record);
            unenrolling.extend(records.filter(is_unenrolling).map(|record| record.id));
        }
        Ok(unenrolling)
    }

    /// Returns the pending UNENROLL actions of each agent.
    pub(super) async fn pending_unenrolls(&self, unenrolling: &[AgentId]) -> Result<PendingUnenrolls, Error> {
        let mut open = PendingUnenrolls::new();
        for id in unenrolling {
            open.insert(id.clone(), self.pending_unenrolls_of(id).await?);
        }
        Ok(open)
    }

    async fn pending_unenrolls_of(&self, agent: &AgentId) -> Result<Vec<ActionId>, Error> {
        // In every space: the agent may have been moved since, and all of its pending unenrollments end with it.
        let everywhere = self.store.everywhere(&System);
        let filter = ActionFilter { agent_id: Some(agent.clone()), ..ActionFilter::default() };
        let actions = everywhere.actions(&filter, Page { offset: 0, limit: MAX_SCANNED }).await?.items;
        let mut open = Vec::new();
        for (action, _) in actions.into_iter().filter(|(action, _)| action.kind == ActionType::Unenroll) {
            let target = everywhere.action_target(&action.id, agent).await?;
            if target.is_some_and(|target| target.state == TargetState::Queued) {
                open.push(action.id);
            }
        }
        Ok(open)
    }
}

fn is_unenrolling(record: &AgentRecord) -> bool {
    record.unenrollment_started_at.is_some()
}
