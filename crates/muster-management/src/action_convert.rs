//! Conversion of actions to the API's types.

use muster_core::action::{Action as Record, ActionResult as ResultRecord, ActionType, TargetState};
use muster_core::action_request::ActionStatus as Status;
use muster_protocol::management::Json;
use muster_protocol::management::action::{Action, ActionError, ActionResult, ActionStatus, CancelAction};

use super::convert::{document, time};
use muster_fleet::action_views::{ActionView, AgentResult, TargetView};
use muster_fleet::actions::Cancellation;

/// Converts a created action.
pub fn action(action: &Record, agents: Vec<String>) -> Action {
    Action {
        id: action.id.to_string(),
        kind: action.kind.as_str().into(),
        created_at: time(action.created_at),
        agents,
        data: document(action.data.as_deref()),
        expiration: action.expiration.map(time),
        start_time: action.start_time.map(time),
    }
}

/// Converts a created CANCEL action.
pub fn cancel(cancellation: &Cancellation) -> CancelAction {
    let action = &cancellation.submitted.action;
    CancelAction {
        id: action.id.to_string(),
        kind: action.kind.as_str().into(),
        created_at: time(action.created_at),
        continuing: cancellation.continuing,
    }
}

/// Converts the status of an action.
pub fn status(view: ActionView) -> ActionStatus {
    let ActionView { action, created, progress, errors } = view;
    let data = document(action.data.as_deref());
    // Kibana reports some of an action's data as fields of their own, each for one type only.
    let text = |key: &str| data[key].as_str().map(str::to_owned);
    let of = |kind: ActionType, key: &str| if action.kind == kind { text(key) } else { None };
    ActionStatus {
        action_id: action.id.to_string(),
        kind: action.kind.as_str().into(),
        status: status_word(progress.status).into(),
        nb_agents_action_created: created,
        nb_agents_actioned: progress.actioned,
        nb_agents_ack: progress.acked,
        nb_agents_failed: progress.failed,
        version: of(ActionType::Upgrade, "version"),
        new_policy_id: of(ActionType::PolicyReassign, "policy_id"),
        policy_id: of(ActionType::PolicyChange, "policy_id"),
        revision: data["revision"].as_i64().filter(|_| action.kind == ActionType::PolicyChange),
        start_time: action.start_time.map(time),
        expiration: action.expiration.map(time),
        creation_time: time(action.created_at),
        completion_time: progress.completed_at.map(time),
        cancellation_time: action.cancelled_at.map(time),
        // Clients use this to tell a slow rollout from agents that don't answer.
        has_rollout_period: action.rollout_seconds.is_some(),
        // Created by the server itself and not by a person.
        is_automatic: action.created_by == "system",
        // The newest ones only: an action may fail on every agent. All results have an endpoint of their own.
        latest_errors: errors.into_iter().map(error).collect(),
        created_by: action.created_by,
    }
}

/// Returns the API's name of a status.
pub fn status_word(status: Status) -> &'static str {
    match status {
        Status::Cancelled => "CANCELLED",
        Status::Failed => "FAILED",
        Status::Complete => "COMPLETE",
        Status::Expired => "EXPIRED",
        Status::RolloutPassed => "ROLLOUT_PASSED",
        Status::InProgress => "IN_PROGRESS",
    }
}

fn error(failed: AgentResult) -> ActionError {
    ActionError {
        agent_id: failed.result.agent_id.to_string(),
        error: failed.result.outcome.message().unwrap_or_default().to_owned(),
        timestamp: time(failed.result.at),
        hostname: failed.hostname,
    }
}

/// Converts the result of an action for one agent.
pub fn result(target: TargetView) -> ActionResult {
    // A target without a result is still queued, or belongs to an action that expired.
    let (timestamp, error, fields) = match target.result {
        Some(ResultRecord { at, outcome, fields, .. }) => {
            (Some(time(at)), outcome.message().map(str::to_owned), fields)
        }
        None => (None, None, None),
    };
    ActionResult {
        agent_id: target.agent.to_string(),
        hostname: target.hostname,
        state: state_word(target.state).into(),
        timestamp,
        error,
        fields: fields.as_deref().and_then(Json::parse).filter(|fields| !fields.is_null()),
    }
}

fn state_word(state: TargetState) -> &'static str {
    match state {
        TargetState::Queued => "queued",
        TargetState::Acked => "acked",
        TargetState::Failed => "failed",
        TargetState::Cancelled => "cancelled",
    }
}
