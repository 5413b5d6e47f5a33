//! Staged rollouts: `rollout` of `POST /agent_policies/_apply`, `GET /rollouts`, `GET /rollouts/{id}`,
//! `POST /rollouts/{id}/pause|resume|approve|rollback`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::envelope::IneligibleAgent;
use super::list_query::list_query;

/// How a change reaches the agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutPlan {
    /// The waves, in order. The last one must contain 100 percent.
    pub waves: Vec<RolloutWave>,
    /// When to halt; absent for the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<RolloutGate>,
}

/// A wave: exactly one of `percent`, `count` and `tags`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutWave {
    /// Percentage of all agents, including those of earlier waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Number of agents, including those of earlier waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The agents with one of these tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Seconds from the start of the wave to the next one.
    #[serde(default)]
    pub soak_seconds: u64,
    /// Whether a person has to approve the next wave.
    #[serde(default)]
    pub needs_approval: bool,
}

/// Limits beyond which a rollout halts, in percent of the agents that it has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutGate {
    /// Degraded or failed agents in addition to those before the wave; default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unhealthy_percent: Option<u8>,
    /// Agents that rejected the change; default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failed_percent: Option<u8>,
    /// Agents that went offline after the change; default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_silent_percent: Option<u8>,
    /// Share of the connected agents that must apply the change; default 90.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_applied_percent: Option<u8>,
    /// Seconds in which they must do so; default 1800.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply_within_seconds: Option<u64>,
}

/// A rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Rollout {
    /// Id.
    pub id: String,
    /// The policy; absent for an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<String>,
    /// The revision that is rolled out; absent for an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// The revision that other agents keep; absent for an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good_revision: Option<i64>,
    /// Target version of an upgrade; absent for a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The action of each wave of an upgrade.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub action_ids: Vec<String>,
    /// `created`, `running`, `awaiting_approval`, `awaiting_agents`, `paused`, `halted`, `completed` or `rolled_back`.
    pub state: String,
    /// Why it halted or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Number of waves that have started.
    pub started_waves: usize,
    /// When each of them started.
    pub started_at: Vec<String>,
    /// The plan.
    pub plan: RolloutPlan,
    /// The agents that it has reached; only in `GET /rollouts/{id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<RolloutAgents>,
    /// Who created it.
    pub created_by: String,
    /// When.
    pub created_at: String,
    /// Time of the last change.
    pub updated_at: String,
}

/// A created rollout of an upgrade, or what it would be in a dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct CreatedRollout {
    /// The rollout.
    pub item: Rollout,
    /// Number of agents in its waves.
    pub count: u64,
    /// Number of selected agents that are in no wave, because their programs cannot be upgraded.
    #[serde(default)]
    pub left_out: u64,
    /// Number of agents that each wave reaches, including those of earlier waves.
    pub wave_agents: Vec<u64>,
    /// Number of agents in its waves that are not eligible now.
    pub refused: u64,
    /// The first of them, with the reasons.
    pub errors: Vec<IneligibleAgent>,
}

/// The agents that a rollout has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct RolloutAgents {
    /// All of them.
    pub reached: u64,
    /// Those that are connected, or were when they got the change.
    pub reachable: u64,
    /// Those that have applied the change.
    pub applied: u64,
    /// Those of the current wave that have applied the change.
    pub wave_applied: u64,
    /// Degraded or failed ones.
    pub unhealthy: u64,
    /// Those that rejected the change.
    pub failed: u64,
    /// Those that went offline after the change.
    pub silent: u64,
}

list_query! {
    /// Query of `GET /rollouts`.
    ListRollouts, first page 1 {
        /// Only rollouts in this state, such as `halted`.
        state: String,
    }
}
