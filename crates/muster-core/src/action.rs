//! Actions: orders to agents, their targets and results.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{ActionId, AgentId, SpaceId};
use crate::time::Timestamp;

/// The types of EA §4.11 and of MG §5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ActionType {
    /// Withdraws another action.
    Cancel,
    /// Routed to a component.
    InputAction,
    /// Wakes the poll after a reassignment.
    PolicyReassign,
    /// Asks for a diagnostics bundle.
    RequestDiagnostics,
    /// Sets the log level.
    Settings,
    /// Orders the agent to leave.
    Unenroll,
    /// Orders another version.
    Upgrade,
    /// Orders the agent to another server.
    Migrate,
    /// Orders another privilege level.
    PrivilegeLevelChange,
    /// Server-side record of changed tags; never delivered (EA77).
    UpdateTags,
    /// Server-side record of a forced unenrol; never delivered (EA77).
    ForceUnenroll,
    /// A policy's revision as it is listed among actions; never stored, never delivered (MG §5.7).
    PolicyChange,
}

impl ActionType {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "CANCEL",
            Self::InputAction => "INPUT_ACTION",
            Self::PolicyReassign => "POLICY_REASSIGN",
            Self::RequestDiagnostics => "REQUEST_DIAGNOSTICS",
            Self::Settings => "SETTINGS",
            Self::Unenroll => "UNENROLL",
            Self::Upgrade => "UPGRADE",
            Self::Migrate => "MIGRATE",
            Self::PrivilegeLevelChange => "PRIVILEGE_LEVEL_CHANGE",
            Self::UpdateTags => "UPDATE_TAGS",
            Self::ForceUnenroll => "FORCE_UNENROLL",
            Self::PolicyChange => "POLICY_CHANGE",
        }
    }

    /// Whether agents ever see it (EA77).
    pub const fn is_delivered(self) -> bool {
        !matches!(self, Self::UpdateTags | Self::ForceUnenroll | Self::PolicyChange)
    }
}

/// Payload bytes and signature, handed on exactly as signed (EA80).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Base64 of the signed bytes.
    pub data: String,
    /// Base64 of the DER-encoded ECDSA P-256 signature over their SHA-256.
    pub signature: String,
}

/// One order to some agents.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Place in the order of creation; assigned by the store (0 before).
    pub seq: i64,
    /// The action's id; also its ack token.
    pub id: ActionId,
    /// The space that it belongs to.
    pub space: SpaceId,
    /// What is ordered.
    pub kind: ActionType,
    /// When it was given.
    pub created_at: Timestamp,
    /// From when on it is not delivered any more.
    pub expiration: Option<Timestamp>,
    /// When the agent is to run it.
    pub start_time: Option<Timestamp>,
    /// Window over which the start times of the targets are spread, seconds (EA83).
    pub rollout_seconds: Option<i64>,
    /// How long the agent may take, seconds.
    pub timeout: Option<i64>,
    /// Component type that an `INPUT_ACTION` is for.
    pub input_type: String,
    /// The order's own fields: JSON; `None` is `null`. May hold `$co.elastic.secret{ID}` references.
    pub data: Option<Arc<str>>,
    /// Signature, for the types that are signed.
    pub signed: Option<Signed>,
    /// Number of agents meant, ineligible ones included.
    pub total: i64,
    /// Who gave it.
    pub created_by: String,
    /// When it was cancelled.
    pub cancelled_at: Option<Timestamp>,
}

/// An action as due to one agent.
#[derive(Clone, Debug, PartialEq)]
pub struct DueAction {
    /// The action.
    pub action: Arc<Action>,
    /// The agent's place among the targets, for the spread of start times.
    pub position: i64,
}

/// The error of a target whose agent left before it answered, whatever the way it left.
pub const UNENROLLED: &str = "the agent was unenrolled";

/// One agent's answer to an action, or the reason why it could not be ordered.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionResult {
    /// The action.
    pub action_id: ActionId,
    /// The agent.
    pub agent_id: AgentId,
    /// When, by the agent's clock.
    pub at: Timestamp,
    /// The error text; present means failed.
    pub error: Option<String>,
    /// Type-specific fields of the ack, as one JSON object (`data`, `action_response`, `started_at` …).
    pub fields: Option<Arc<str>>,
}

/// How one target of an action stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetState {
    /// Not answered yet.
    Queued,
    /// Acked without an error.
    Acked,
    /// Acked with an error, not eligible, or unenrolled before it answered (D14).
    Failed,
}

/// How one agent stands to an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// How the target stands.
    pub state: TargetState,
    /// It was given to an earlier life of the agent's id (EA42): the agent that holds the id now can't answer it.
    pub is_former: bool,
}

/// Counts over an action's targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionCounts {
    /// Agents to which the action was addressed.
    pub created: i64,
    /// Results without an error.
    pub acked: i64,
    /// Results with one.
    pub failed: i64,
    /// Latest result's time.
    pub latest_result_at: Option<Timestamp>,
}
