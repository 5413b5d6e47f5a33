//! Actions, their targets and their results.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{ActionId, AgentId, SpaceId};
use crate::time::Timestamp;

/// Type of an action (EA §4.11, MG §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ActionType {
    /// Cancels another action.
    Cancel,
    /// Routed to a component.
    InputAction,
    /// Wakes the poll after a reassignment.
    PolicyReassign,
    /// Requests a diagnostics bundle.
    RequestDiagnostics,
    /// Sets the log level.
    Settings,
    /// Unenrolls the agent.
    Unenroll,
    /// Upgrades the agent.
    Upgrade,
    /// Moves the agent to another server.
    Migrate,
    /// Tells the second host behind the agent's key to enroll again; that host alone gets it, as a `MIGRATE` (EA §10.8).
    Reenroll,
    /// Changes the privilege level.
    PrivilegeLevelChange,
    /// Server-side record of a tag change; never delivered (EA77).
    UpdateTags,
    /// Server-side record of a forced unenroll; never delivered (EA77).
    ForceUnenroll,
    /// A policy revision in a list of actions; never stored, never delivered (MG §5.7).
    PolicyChange,
}

impl ActionType {
    /// Returns its name on the wire.
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
            Self::Reenroll => "REENROLL",
            Self::PrivilegeLevelChange => "PRIVILEGE_LEVEL_CHANGE",
            Self::UpdateTags => "UPDATE_TAGS",
            Self::ForceUnenroll => "FORCE_UNENROLL",
            Self::PolicyChange => "POLICY_CHANGE",
        }
    }

    /// Returns whether it is delivered to agents under its own name (EA77).
    pub const fn is_delivered(self) -> bool {
        // These exist so that the history shows them; agents do not know their types.
        !matches!(self, Self::Reenroll | Self::UpdateTags | Self::ForceUnenroll | Self::PolicyChange)
    }
}

/// Signed bytes and signature, passed on unchanged (EA80).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Base64 of the signed bytes.
    pub data: String,
    /// Base64 of the DER-encoded ECDSA P-256 signature over their SHA-256.
    pub signature: String,
}

/// An action for some agents.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Sequence number in the order of creation, assigned by the store on commit; 0 until then.
    // Positions and ack tokens refer to this number, so it must ascend in commit order for every reader (EA75).
    pub seq: i64,
    /// Id, which is also its ack token.
    pub id: ActionId,
    /// The space that it belongs to.
    pub space: SpaceId,
    /// Type.
    pub kind: ActionType,
    /// Creation time.
    pub created_at: Timestamp,
    /// Expiration time, after which it is no longer delivered.
    // Never `None` for actions that this server creates (D4).
    pub expiration: Option<Timestamp>,
    /// Start time.
    pub start_time: Option<Timestamp>,
    /// Window in seconds over which the start times of targets are spread (EA83).
    pub rollout_seconds: Option<i64>,
    /// Timeout of the agent in seconds.
    pub timeout: Option<i64>,
    /// Component type of an `INPUT_ACTION`.
    pub input_type: String,
    /// Type-specific fields as JSON; `None` is `null`. May hold `$co.elastic.secret{ID}` references.
    // Text, and shared: one action can be delivered to 100,000 agents.
    pub data: Option<Arc<str>>,
    /// Signature, for types that are signed.
    pub signed: Option<Signed>,
    /// Number of target agents, ineligible ones included.
    // Fixed at creation. The start times of a rollout are computed from it, so it must not change afterwards (EA83).
    pub total: i64,
    /// User who created it.
    pub created_by: String,
    /// Time of cancellation.
    pub cancelled_at: Option<Timestamp>,
}

impl Action {
    /// Whether it may still be delivered to an agent that has confirmed everything up to number `position`.
    pub fn is_deliverable(&self, position: i64, now: Timestamp) -> bool {
        self.seq > position && self.cancelled_at.is_none() && self.expiration.is_none_or(|end| end > now)
    }
}

/// An action that is due to an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct DueAction {
    /// The action.
    pub action: Arc<Action>,
    /// Position of the agent among the targets, for the spread of start times.
    pub position: i64,
}

/// Error of a target whose agent was unenrolled before it acknowledged the action. Without it, an action with such a
/// target would stay in progress until it expires.
pub const UNENROLLED: &str = "the agent was unenrolled";
/// Error of the target of an UNENROLL whose agent enrolled again before it acknowledged the action (D14).
pub const REINSTALLED: &str = "the agent enrolled again";
/// Error of a target whose agent enrolled in another space.
pub const LEFT_SPACE: &str = "the agent enrolled in another space";

/// Result that an agent reported, or the reason why the agent is not eligible.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionResult {
    /// The action.
    pub action_id: ActionId,
    /// The agent.
    pub agent_id: AgentId,
    /// Time by the agent's clock.
    // May be wrong by any amount, since it is the agent's clock.
    pub at: Timestamp,
    /// How the action ended for the agent.
    pub outcome: Outcome,
    /// Type-specific fields of the ack, as one JSON object (`data`, `action_response`, `started_at` …).
    pub fields: Option<Arc<str>>,
}

/// How an action ended for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The agent carried it out.
    Acked,
    /// It failed, with this error.
    Failed(String),
    /// It was cancelled, and the agent answered nevertheless, as the message says.
    Cancelled(String),
}

impl Outcome {
    /// Returns the error or the message.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Acked => None,
            Self::Failed(message) | Self::Cancelled(message) => Some(message),
        }
    }

    /// Returns the state of the target.
    pub fn state(&self) -> TargetState {
        match self {
            Self::Acked => TargetState::Acked,
            Self::Failed(_) => TargetState::Failed,
            Self::Cancelled(_) => TargetState::Cancelled,
        }
    }
}

impl From<Option<String>> for Outcome {
    /// Converts an error.
    fn from(error: Option<String>) -> Self {
        error.map_or(Self::Acked, Self::Failed)
    }
}

/// State of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetState {
    /// Pending.
    Queued,
    /// Acknowledged without an error.
    Acked,
    /// Acknowledged with an error, not eligible, or unenrolled first (D14).
    Failed,
    /// Cancelled before the agent had carried it out.
    Cancelled,
}

/// A target as seen by its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// State of the target.
    pub state: TargetState,
    /// It belongs to an earlier enrollment under the same agent id (EA42), so the current agent can't acknowledge it.
    pub is_former: bool,
}

impl Target {
    // Whoever enrolled earlier under this id can no longer act on it, so its target must not keep an action in
    // progress.
    /// Whether the action is still to be carried out by the agent that has this id now.
    pub fn is_open(self) -> bool {
        self.state == TargetState::Queued && !self.is_former
    }
}

/// Counts over the targets of an action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionCounts {
    /// Number of agents that it was created for.
    pub created: i64,
    /// Number of results without an error.
    pub acked: i64,
    /// Number of results with an error.
    pub failed: i64,
    /// Time of the latest result.
    pub latest_result_at: Option<Timestamp>,
}
