//! Actions and how they stand (MG §2.11, §5.7).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::Json;

/// `POST /agents/{id}/actions`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateAction {
    /// The order.
    pub action: NewAction,
}

/// An order of any type (EA §4.11).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewAction {
    /// `SETTINGS`, `INPUT_ACTION`, `REQUEST_DIAGNOSTICS` …
    #[serde(rename = "type")]
    pub kind: String,
    /// The order's own fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Accepted for the original's sake, where nothing reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_data: Option<Value>,
    /// Component type that an `INPUT_ACTION` is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_type: Option<String>,
    /// How long the agent may take, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// When it ends: a duration (`3h`) or an RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// When the agent is to run it: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
}

/// An action.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Action {
    /// Its id.
    pub id: String,
    /// What is ordered.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was given.
    pub created_at: String,
    /// The agents meant; left out when there are many.
    #[serde(default)]
    pub agents: Vec<String>,
    /// The order's own fields, secrets as references.
    #[serde(default)]
    pub data: Value,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// When the agent is to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
}

/// `POST /agents/actions/{id}/cancel`: what is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelRequest {
    /// Only tell whether it can be cancelled, and how many agents would hear of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// `POST /agents/actions/{id}/cancel`: what is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct CancelAction {
    /// The CANCEL action's id.
    pub id: String,
    /// `CANCEL`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When.
    pub created_at: String,
}

/// How an action stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionStatus {
    /// The action; `<policy>:<revision>` for a change of policy.
    pub action_id: String,
    /// What is ordered.
    #[serde(rename = "type")]
    pub kind: String,
    /// `COMPLETE`, `EXPIRED`, `CANCELLED`, `FAILED`, `IN_PROGRESS`, `ROLLOUT_PASSED`.
    pub status: String,
    /// Agents to which it was addressed.
    pub nb_agents_action_created: i64,
    /// Agents meant, ineligible ones included.
    pub nb_agents_actioned: i64,
    /// Agents that acked without an error.
    pub nb_agents_ack: i64,
    /// Agents that failed or could not be ordered.
    pub nb_agents_failed: i64,
    /// The version of an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The policy of a reassignment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_policy_id: Option<String>,
    /// The policy that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<String>,
    /// Its new revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// When the agents are to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// When it was given.
    pub creation_time: String,
    /// Time of the latest result, once complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<String>,
    /// When it was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancellation_time: Option<String>,
    /// Whether its starts are spread over a window.
    #[serde(default)]
    pub has_rollout_period: bool,
    /// Whether a job of ours made it.
    #[serde(rename = "is_automatic", default)]
    pub is_automatic: bool,
    /// Who gave it.
    #[serde(default)]
    pub created_by: String,
    /// The latest errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latest_errors: Vec<ActionError>,
}

/// An agent's error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionError {
    /// The agent.
    pub agent_id: String,
    /// What it said, or why it could not be ordered.
    pub error: String,
    /// When.
    pub timestamp: String,
    /// Its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// One agent's part in an action: `GET /agents/actions/{id}/results`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct ActionResult {
    /// The agent.
    pub agent_id: String,
    /// Its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `queued`, `acked`, `failed`.
    pub state: String,
    /// When it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// Its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Type-specific fields of its ack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Json>,
}

/// `GET /agents/action_status` (MG §5.7). Its pages start at 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListActionStatus {
    /// The page's number, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// Rows on a page, default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_page: Option<u32>,
    /// KQL over `id`, `type`, `status`, `agent_id`, `policy_id`, `created_by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kuery: Option<String>,
    /// Only of this day: `2026-01-02`, or a time of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Only the last so many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest: Option<u64>,
    /// How many errors to show, default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_size: Option<u32>,
}
