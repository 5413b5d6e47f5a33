//! Staged rollouts (M8): a new revision of a policy, or an action, reaches the agents in waves, and stops by itself if a
//! wave turns unhealthy.
//!
//! The planner, [`Rollout::decide`], is a pure function of the rollout, an observation of the agents that it has reached
//! so far, and the time. It never starts a wave unless the observation that it is called with passes the gate. People
//! pause, resume, approve and roll back by the other transitions, which are checked here too.

mod gate;
mod plan;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::gate::{Breach, Gate, Observation};
pub use self::plan::{Members, Place, Plan, Wave};
use crate::agent::AgentRecord;
use crate::id::{ActionId, AgentId, PolicyId, RolloutId, SpaceId};
use crate::time::Timestamp;
use crate::{Error, ErrorKind};

/// What is rolled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A revision of a policy.
    Policy {
        /// The policy.
        policy: PolicyId,
        /// The revision that is rolled out.
        revision: i64,
        /// The revision that agents keep which are not reached yet, and to which a rollback returns.
        last_good: i64,
    },
    /// An upgrade of the agents that were selected when the rollout was created.
    Upgrade {
        /// Target version.
        version: String,
        /// Base URL of the package; `None` for the one of the agents' policies.
        source_uri: Option<String>,
        /// The action of each started wave; `None` if the wave reached no further agent. The last one is missing until it
        /// is created.
        actions: Vec<Option<ActionId>>,
    },
}

/// A staged rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Id.
    pub id: RolloutId,
    /// The space.
    pub space: SpaceId,
    /// What is rolled out.
    pub subject: Subject,
    /// Waves and gate.
    pub plan: Plan,
    /// The waves that have started, in order.
    pub started: Vec<StartedWave>,
    /// State.
    pub state: State,
    /// Number of changes, for preconditions.
    pub version: i64,
    /// Creation time.
    pub created_at: Timestamp,
    /// The actor that created it.
    pub created_by: String,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

/// A wave that has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedWave {
    /// When it started.
    pub at: Timestamp,
    /// The places below this one belong to the waves that have started, for waves by share or number.
    pub below: Option<Place>,
    /// Its agents, and how many of them were unhealthy before it started.
    pub baseline: Baseline,
}

/// The agents of a wave before it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Number of agents that the rollout reaches with this wave, with those of the waves before.
    pub agents: u64,
    /// How many of them were degraded or failed.
    pub unhealthy: u64,
}

/// State of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// No wave has started.
    Created,
    /// The current wave has started; it is followed by the next one when it has soaked.
    Running,
    /// The current wave has soaked; a person has to approve the next one.
    AwaitingApproval,
    /// The current wave has soaked, but none of its agents has applied the change. The next wave starts when one has, or
    /// when a person approves it.
    AwaitingAgents,
    /// Stopped by a person. The agents that have been reached keep what they got.
    Paused,
    /// Stopped by the gate.
    Halted {
        /// Why.
        breach: Breach,
        /// When.
        at: Timestamp,
    },
    /// All agents have been reached.
    Completed,
    /// Taken back: the agents that had been reached return to the last good revision.
    RolledBack {
        /// Why the gate had stopped it before.
        halted: Option<Breach>,
    },
}

impl State {
    /// All words, those that need a person first.
    pub const WORDS: [&str; 8] =
        ["halted", "awaiting_approval", "awaiting_agents", "paused", "running", "created", "completed", "rolled_back"];

    /// Returns the word for the API and lists.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::AwaitingApproval => "awaiting_approval",
            Self::AwaitingAgents => "awaiting_agents",
            Self::Paused => "paused",
            Self::Halted { .. } => "halted",
            Self::Completed => "completed",
            Self::RolledBack { .. } => "rolled_back",
        }
    }

    /// Returns whether the rollout is over.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack { .. })
    }
}

/// What the planner wants to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time, or until a person acts.
    Wait {
        /// When to look again.
        until: Option<Timestamp>,
    },
    /// Start this wave, counted from 0.
    Start {
        /// Its number.
        wave: usize,
    },
    /// Ask a person for approval of the next wave.
    AskApproval,
    /// Hold the next wave until an agent of the current one has applied the change.
    AwaitAgents,
    /// Stop: the gate is closed.
    Halt {
        /// Why.
        breach: Breach,
    },
    /// All waves have soaked.
    Complete,
}

impl Rollout {
    /// Returns the current wave: the last one that has started.
    pub fn current(&self) -> Option<(&Wave, &StartedWave)> {
        let started = self.started.last()?;
        Some((self.plan.waves.get(self.started.len() - 1)?, started))
    }

    /// Returns whether the rollout has reached an agent at this place and with these tags.
    pub fn reaches(&self, place: Place, tags: &[String]) -> bool {
        match self.state {
            State::Completed => true,
            // Whoever was reached gets a new revision with the content of the last good one.
            State::RolledBack { .. } => false,
            _ => self.started.iter().zip(&self.plan.waves).any(|(started, wave)| match &wave.members {
                Members::Tags(wanted) => tags.iter().any(|tag| wanted.contains(tag)),
                Members::Percent(_) | Members::Count(_) => started.below.is_some_and(|below| place < below),
            }),
        }
    }

    /// Returns the revision that an agent should run which follows the policy, whose newest revision is `newest`.
    pub fn revision_for(&self, agent: &AgentId, tags: &[String], newest: i64) -> i64 {
        match &self.subject {
            Subject::Policy { last_good, .. } if !self.reaches(Place::of(agent), tags) => *last_good,
            Subject::Policy { .. } | Subject::Upgrade { .. } => newest,
        }
    }

    /// Returns the revision that an agent should run: its own target, or what it follows. `rollout` is the one of its policy that has not
    /// ended.
    pub fn wanted_revision(rollout: Option<&Self>, record: &AgentRecord, newest: i64) -> i64 {
        let followed = || rollout.map_or(newest, |rollout| rollout.revision_for(&record.id, &record.tags, newest));
        record.target_revision.unwrap_or_else(followed)
    }

    /// Decides what happens next. `seen` describes the agents that have been reached.
    pub fn decide(&self, seen: &Observation, now: Timestamp) -> Step {
        let Some((wave, started)) = self.current() else {
            return match self.state {
                State::Created => Step::Start { wave: 0 },
                _ => Step::Wait { until: None },
            };
        };
        // The gate comes first, whatever else is due: an unhealthy wave is never followed by another one.
        let elapsed = match self.state {
            State::Running | State::AwaitingApproval => Some(now.since(started.at)),
            // Agents that return long after the start of their wave have not been late to apply the change.
            State::AwaitingAgents => Some(Duration::ZERO),
            _ => None,
        };
        if let Some(breach) = elapsed.and_then(|elapsed| self.plan.gate.breach(seen, &started.baseline, elapsed)) {
            return Step::Halt { breach };
        }
        match self.state {
            State::Running => self.after(wave, started, seen, now),
            State::AwaitingAgents if seen.wave_applied == 0 => Step::Wait { until: None },
            State::AwaitingAgents => self.after(wave, started, seen, now),
            State::Created
            | State::AwaitingApproval
            | State::Paused
            | State::Halted { .. }
            | State::Completed
            | State::RolledBack { .. } => Step::Wait { until: None },
        }
    }

    /// Decides what follows the current wave, whose agents are healthy.
    fn after(&self, wave: &Wave, started: &StartedWave, seen: &Observation, now: Timestamp) -> Step {
        let soaked_at = started.at.plus(wave.soak);
        if now < soaked_at {
            return Step::Wait { until: Some(soaked_at.min(self.plan.gate.deadline(started.at))) };
        }
        // A wave whose agents have not applied the change proves nothing about it.
        if !self.plan.gate.is_applied(seen) {
            return Step::Wait { until: Some(self.plan.gate.deadline(started.at)) };
        }
        match self.plan.waves.get(self.started.len()) {
            None => Step::Complete,
            Some(_) if wave.needs_approval => Step::AskApproval,
            // No agents, or all of them offline: the gate has nothing to judge.
            Some(_) if seen.wave_applied == 0 => Step::AwaitAgents,
            Some(_) => Step::Start { wave: self.started.len() },
        }
    }

    /// Pauses the rollout: no further wave starts.
    pub fn pause(&mut self) -> Result<(), Error> {
        match self.state {
            State::Running | State::AwaitingApproval | State::AwaitingAgents | State::Created => {
                self.state = State::Paused;
                Ok(())
            }
            _ => Err(self.wrong_state("paused")),
        }
    }

    /// Resumes a paused or halted rollout. The current wave soaks once more, and the gate compares with its baseline as
    /// before: a rollout that is still unhealthy halts again.
    pub fn resume(&mut self, now: Timestamp) -> Result<(), Error> {
        match self.state {
            State::Paused | State::Halted { .. } => {
                self.state = if self.started.is_empty() { State::Created } else { State::Running };
                if let Some(newest) = self.started.last_mut() {
                    newest.at = now;
                }
                Ok(())
            }
            _ => Err(self.wrong_state("resumed")),
        }
    }

    /// Returns the step that an approval leads to: the next wave, unless the gate has closed since. The caller observes
    /// the agents once more.
    pub fn approve(&self, seen: &Observation, now: Timestamp) -> Result<Step, Error> {
        if !matches!(self.state, State::AwaitingApproval | State::AwaitingAgents) {
            return Err(self.wrong_state("approved"));
        }
        let breach = self
            .current()
            .and_then(|(_, started)| self.plan.gate.breach(seen, &started.baseline, now.since(started.at)));
        Ok(match breach {
            Some(breach) => Step::Halt { breach },
            None => Step::Start { wave: self.started.len() },
        })
    }

    /// Returns the number of the started wave whose action is missing, of a rollout of an upgrade.
    pub fn wave_without_action(&self) -> Option<usize> {
        match &self.subject {
            Subject::Upgrade { actions, .. } if actions.len() < self.started.len() => Some(actions.len()),
            Subject::Upgrade { .. } | Subject::Policy { .. } => None,
        }
    }

    /// Takes the rollout back.
    pub fn roll_back(&mut self) -> Result<(), Error> {
        // A completed one is rolled back as a policy: its revision is that of all agents.
        if self.state.is_final() {
            return Err(self.wrong_state("rolled back"));
        }
        let halted = match &self.state {
            State::Halted { breach, .. } => Some(breach.clone()),
            _ => None,
        };
        self.state = State::RolledBack { halted };
        Ok(())
    }

    /// Records that a wave has started.
    pub fn start(&mut self, wave: StartedWave) {
        self.started.push(wave);
        self.state = State::Running;
    }

    fn wrong_state(&self, verb: &str) -> Error {
        let message = format!("rollout {}: a rollout that is {} cannot be {verb}", self.id, self.state.as_str());
        Error::new(ErrorKind::Conflict, "wrong_rollout_state", message)
            .remedy("see `muster rollout show` for its state")
    }
}

/// Longest time that a wave may soak.
pub const MAX_SOAK: Duration = Duration::from_secs(30 * 86_400);
