//! The health gate: what stops a rollout by itself.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Baseline;
use crate::Error;
use crate::time::Timestamp;

/// Limits beyond which a rollout halts. Shares are in percent of the agents that the rollout has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// Degraded or failed agents in addition to those before the wave started.
    pub max_unhealthy_percent: u8,
    /// Agents that rejected the change.
    pub max_failed_percent: u8,
    /// Agents that fell silent after they got the change.
    pub max_silent_percent: u8,
    /// Share of the connected agents that must have applied the change.
    pub min_applied_percent: u8,
    /// Time in which they must have done so, in seconds.
    pub apply_within: u64,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            max_unhealthy_percent: 5,
            max_failed_percent: 5,
            max_silent_percent: 5,
            min_applied_percent: 90,
            apply_within: 1_800,
        }
    }
}

/// The agents that a rollout has reached, as they are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// All of them.
    pub agents: u64,
    /// Those that are connected, or were when they got the change.
    pub reachable: u64,
    /// Those that have applied the change.
    pub applied: u64,
    /// Agents of the current wave that have applied the change. Of a wave by share or number, those that the waves
    /// before did not reach; all that have been reached if the wave adds none.
    pub wave_applied: u64,
    /// Those that are degraded or failed.
    pub unhealthy: u64,
    /// Those that rejected the change.
    pub failed: u64,
    /// Those that applied the change and are offline now.
    pub silent: u64,
}

/// Why a rollout was halted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Breach {
    /// Too many agents turned unhealthy.
    Unhealthy {
        /// Unhealthy agents now.
        now: u64,
        /// Unhealthy agents before the wave.
        before: u64,
        /// Agents that the rollout has reached.
        of: u64,
    },
    /// Too many agents rejected the change.
    Failed {
        /// Agents that rejected it.
        agents: u64,
        /// Agents that the rollout has reached.
        of: u64,
    },
    /// Too many agents fell silent.
    Silent {
        /// Silent agents.
        agents: u64,
        /// Agents that the rollout has reached.
        of: u64,
    },
    /// Too few agents applied the change in time.
    NotApplied {
        /// Agents that applied it.
        agents: u64,
        /// Connected agents.
        of: u64,
    },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unhealthy { now, before, of } => {
                write!(f, "{now} of {of} agents are degraded or failed; {before} were before the wave")
            }
            Self::Failed { agents, of } => write!(f, "{agents} of {of} agents rejected the change"),
            Self::Silent { agents, of } => write!(f, "{agents} of {of} agents went offline after the change"),
            Self::NotApplied { agents, of } => {
                write!(f, "only {agents} of {of} connected agents applied the change in time")
            }
        }
    }
}

impl Gate {
    /// Checks the limits.
    pub fn check(&self) -> Result<(), Error> {
        let shares = [
            ("max_unhealthy_percent", self.max_unhealthy_percent),
            ("max_failed_percent", self.max_failed_percent),
            ("max_silent_percent", self.max_silent_percent),
            ("min_applied_percent", self.min_applied_percent),
        ];
        match shares.into_iter().find(|(_, percent)| *percent > 100) {
            Some((name, percent)) => Err(Error::invalid(format!("gate.{name}"), format!("{percent}; at most 100"))),
            None if self.apply_within == 0 => Err(Error::invalid("gate.apply_within", "must be at least one second")),
            None => Ok(()),
        }
    }

    /// Returns why the rollout must halt. `elapsed` is the time since the current wave started.
    pub fn breach(&self, seen: &Observation, before: &Baseline, elapsed: Duration) -> Option<Breach> {
        let of = seen.agents;
        // Compared with the wave's own agents before it: a fleet that was unhealthy already can still be updated.
        let turned = seen.unhealthy.saturating_sub(before.unhealthy);
        if exceeds(turned, of, self.max_unhealthy_percent) {
            return Some(Breach::Unhealthy { now: seen.unhealthy, before: before.unhealthy, of });
        }
        if exceeds(seen.failed, of, self.max_failed_percent) {
            return Some(Breach::Failed { agents: seen.failed, of });
        }
        if exceeds(seen.silent, of, self.max_silent_percent) {
            return Some(Breach::Silent { agents: seen.silent, of });
        }
        let is_late = elapsed >= Duration::from_secs(self.apply_within) && !self.is_applied(seen);
        is_late.then_some(Breach::NotApplied { agents: seen.applied, of: seen.reachable })
    }

    /// Returns whether enough of the connected agents have applied the change.
    pub fn is_applied(&self, seen: &Observation) -> bool {
        // Agents that are offline can't apply anything: they get the change when they return.
        seen.applied.saturating_mul(100) >= seen.reachable.saturating_mul(self.min_applied_percent.into())
    }

    /// Returns the time by which the agents of a wave that started `at` must have applied the change.
    pub fn deadline(&self, at: Timestamp) -> Timestamp {
        at.plus(Duration::from_secs(self.apply_within))
    }
}

/// Returns whether `part` is more than `percent` of `all`.
fn exceeds(part: u64, all: u64, percent: u8) -> bool {
    part.saturating_mul(100) > all.saturating_mul(percent.into())
}
