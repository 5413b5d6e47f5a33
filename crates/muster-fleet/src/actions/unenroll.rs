//! Unenrolment: by order and ack, or at once without the agent (MG §5.6).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use muster_core::action::{ActionType, TargetState};
use muster_core::action_request::ActionRequest;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{AgentsForceUnenroll, AgentsWrite};
use muster_core::eligibility::Operation;
use muster_core::id::{ActionId, AgentId};
use muster_core::time::Timestamp;
use muster_core::{Error, lifecycle};
use muster_store::Write;
use muster_store::query::{ActionFilter, Page};
use serde_json::{Value, json};

use super::effect::{Effect, Open, done};
use super::{Actions, Given};
use crate::audit::audit_line;
use crate::authority::{Authorized, System};
use crate::force::Force;
use crate::many::Basis;
use crate::selection::Selection;
use crate::update::AgentChange;

/// Orders of one agent that are looked through for open unenrolments, newest first.
const LOOKED_THROUGH: u32 = 100;

impl Actions {
    /// Asks agents to leave; they are unenrolled by their ack.
    pub async fn unenroll(&self, selection: &Authorized<Selection, AgentsWrite>, force: Force) -> Result<Given, Error> {
        let facts = self.policy_facts(selection.grant()).await?;
        let operation = Operation::Unenroll { force: force.is_yes() };
        let sorted = self.sort_targets(selection, &|agent, now| facts.check(agent, operation, now)).await?;
        let order = ActionRequest::new(ActionType::Unenroll, Value::Null);
        self.give_to(selection.grant(), sorted, order, Some(Effect::AskToLeave)).await
    }

    /// Unenrolls agents at once: their access keys are revoked.
    pub async fn force_unenroll(
        &self,
        selection: &Authorized<Selection, AgentsForceUnenroll>,
        force: Force,
    ) -> Result<Given, Error> {
        let facts = self.policy_facts(selection.grant()).await?;
        let operation = Operation::Unenroll { force: force.is_yes() };
        let leaving: Mutex<Vec<AgentId>> = Mutex::default();
        let sorted = self
            .sort_targets(selection, &|agent, now| {
                facts.check(agent, operation, now)?;
                if is_leaving(&agent.record) {
                    leaving.lock().unwrap_or_else(PoisonError::into_inner).push(agent.record.id.clone());
                }
                Ok(())
            })
            .await?;
        let open = self.open_unenrolments(&leaving.into_inner().unwrap_or_else(PoisonError::into_inner)).await?;
        let order = ActionRequest::new(ActionType::ForceUnenroll, Value::Null);
        self.give_to(selection.grant(), sorted, order, Some(Effect::ShutOut(open))).await
    }

    /// Shuts out those of `agents` that `is_due` says are due, at the moment of the change. Answers how many.
    pub(crate) async fn shut_out_due(
        &self,
        agents: &[AgentId],
        reason: &str,
        is_due: &(dyn Fn(&AgentRecord, Timestamp) -> bool + Send + Sync),
    ) -> Result<usize, Error> {
        let open = self.open_unenrolments(&self.leaving_among(agents).await?).await?;
        let left: Mutex<HashSet<AgentId>> = Mutex::default();
        let decide = |before: &AgentRecord, now| {
            let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
            let record = is_due(before, now).then(|| lifecycle::force_unenroll(before, reason, now).unwrap_or(None));
            let Some(record) = record.flatten() else {
                left.remove(&before.id);
                return AgentChange::default();
            };
            let mut writes: Vec<Write> =
                open.get(&before.id).into_iter().flatten().map(|order| done(order, &before.id, now)).collect();
            let detail = json!({"reason": reason, "policy": before.policy_id});
            writes.push(audit_line(&System::ACTOR, now, "agent.unenroll", format_args!("agent:{}", before.id), detail));
            left.insert(before.id.clone());
            AgentChange { record: Some(record), writes }
        };
        self.records.change_many(&System, agents, Basis::Store, &decide).await?;
        Ok(left.into_inner().unwrap_or_else(PoisonError::into_inner).len())
    }

    /// Those of `agents` that were asked to leave.
    pub(super) async fn leaving_among(&self, agents: &[AgentId]) -> Result<Vec<AgentId>, Error> {
        let mut leaving = Vec::new();
        for some in agents.chunks(500) {
            let records = self.records.read(some).await?.into_iter().map(|details| details.record);
            leaving.extend(records.filter(is_leaving).map(|record| record.id));
        }
        Ok(leaving)
    }

    /// The open orders to leave of agents that were asked to.
    pub(super) async fn open_unenrolments(&self, leaving: &[AgentId]) -> Result<Open, Error> {
        let mut open = Open::new();
        for id in leaving {
            open.insert(id.clone(), self.open_orders_to_leave(id).await?);
        }
        Ok(open)
    }

    async fn open_orders_to_leave(&self, agent: &AgentId) -> Result<Vec<ActionId>, Error> {
        // Of any space: the server ends them, whoever asked for them.
        let everywhere = self.store.everywhere(&System);
        let filter = ActionFilter { agent_id: Some(agent.clone()), ..ActionFilter::default() };
        let actions = everywhere.actions(&filter, Page { offset: 0, limit: LOOKED_THROUGH }).await?.items;
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

fn is_leaving(record: &AgentRecord) -> bool {
    record.unenrollment_started_at.is_some()
}
