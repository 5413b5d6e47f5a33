//! Actions and their status (MG §2.11, §5.7).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::Json;
use super::list_query::list_query;

/// `POST /agents/{id}/actions`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateAction {
    /// Action.
    pub action: NewAction,
}

/// New action of any type (EA §4.11).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewAction {
    /// `SETTINGS`, `INPUT_ACTION`, `REQUEST_DIAGNOSTICS` …
    #[serde(rename = "type")]
    pub kind: String,
    /// Type-specific fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Accepted for compatibility and ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Part of Kibana's schema; rejecting it would break its clients.
    pub ack_data: Option<Value>,
    /// Component type of an `INPUT_ACTION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_type: Option<String>,
    /// Timeout of the agent, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Expiration: a duration (`3h`) or an RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Start time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
}

/// Action.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct Action {
    /// Id.
    pub id: String,
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Creation time.
    pub created_at: String,
    /// Target agents; omitted if there are many.
    #[serde(default)]
    // A list of 100,000 ids would be larger than everything else in the response; `POST /agents` returns them on
    // request.
    pub agents: Vec<String>,
    /// Type-specific fields, with secrets as references.
    #[serde(default)]
    pub data: Value,
    /// Expiration time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Start time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
}

/// Request of `POST /agents/actions/{id}/cancel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelRequest {
    /// Dry run: only check whether it can be cancelled, and count the agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Response of `POST /agents/actions/{id}/cancel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct CancelAction {
    /// Id of the CANCEL action.
    pub id: String,
    /// `CANCEL`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Time.
    pub created_at: String,
    /// Number of agents that have begun the cancelled upgrade and continue with it.
    #[serde(default)]
    pub continuing: u64,
}

/// Status of an action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionStatus {
    /// Id of the action; `<policy>:<revision>` for a policy change.
    pub action_id: String,
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `COMPLETE`, `EXPIRED`, `CANCELLED`, `FAILED`, `IN_PROGRESS`, `ROLLOUT_PASSED`.
    pub status: String,
    /// Number of agents that it was created for.
    // Four counts, as in Kibana: created for, targets, acked, failed. A client computes the pending ones.
    pub nb_agents_action_created: i64,
    /// Number of target agents, ineligible ones included.
    pub nb_agents_actioned: i64,
    /// Number of agents that acknowledged it without an error.
    pub nb_agents_ack: i64,
    /// Number of agents that failed or were not eligible.
    pub nb_agents_failed: i64,
    /// Target version of an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Target policy of a reassignment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_policy_id: Option<String>,
    /// Policy that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<String>,
    /// New revision of that policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Start time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Expiration time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Creation time.
    pub creation_time: String,
    /// Time of the latest result, if complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<String>,
    /// Time of cancellation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancellation_time: Option<String>,
    /// Whether start times are spread over a window.
    #[serde(default)]
    pub has_rollout_period: bool,
    /// Whether a background job created it.
    // The only snake-case field of this object in Kibana.
    #[serde(rename = "is_automatic", default)]
    pub is_automatic: bool,
    /// User who created it.
    #[serde(default)]
    pub created_by: String,
    /// Latest errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    // A few examples. All of them are in the results of the action.
    pub latest_errors: Vec<ActionError>,
}

/// Error of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionError {
    /// Agent id.
    pub agent_id: String,
    /// Error of the agent, or the reason why it was not eligible.
    pub error: String,
    /// Time.
    pub timestamp: String,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// Result of one agent: `GET /agents/actions/{id}/results`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct ActionResult {
    /// Agent id.
    pub agent_id: String,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `queued`, `acked`, `failed`, `cancelled`.
    pub state: String,
    /// Time of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// Error message. For `cancelled`, a message if the agent acknowledged the action nevertheless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Type-specific fields of the ack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Json>,
}

list_query! {
    /// `GET /agents/action_status` (MG §5.7). Its pages start at 0.
    // From 0, unlike all other lists of the API (MG §5.7).
    ListActionStatus, first page 0, with search_after {
        /// KQL over `id`, `type`, `status`, `agent_id`, `policy_id`, `created_by`.
        kuery: String,
        /// Only actions of this day: `2026-01-02`, or a time on it.
        date: String,
        /// Only actions of the last N milliseconds.
        latest: u64,
        /// Maximum number of errors, default 5.
        error_size: u32,
    }
}
