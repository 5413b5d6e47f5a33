//! Which operations are possible on a selection, before somebody chooses one (MG185).

use std::borrow::Cow;
use std::collections::BTreeMap;

use muster_core::Error;
use muster_core::authorization::{AgentsRead, OpContext};
use muster_core::eligibility::{Operation, RECENT};
use muster_core::id::AgentId;
use muster_core::time::Timestamp;
use muster_store::query::{AgentCondition, AgentFilter, EligibilityCount};

use super::Actions;
use super::facts::PolicyFacts;
use super::upgrade::offered_version;
use crate::selection::Selected;

/// Maximum number of reasons that are told apart for each operation.
const MAX_REASONS: usize = 20;

/// An operation on a selection, as far as its eligibility does not depend on what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Surveyed {
    /// Change of tags.
    Tags,
    /// Upgrade; the version may exclude more agents.
    Upgrade,
    /// Rollback to the version before.
    Rollback,
    /// Request for diagnostics.
    Diagnostics,
    /// Change of settings, or of the policy.
    Other,
    /// Unenrollment that the agent confirms.
    Unenroll,
    /// Unenrollment by the server alone.
    Revoke,
}

impl Surveyed {
    /// All operations.
    pub const ALL: [Self; 7] =
        [Self::Tags, Self::Upgrade, Self::Rollback, Self::Diagnostics, Self::Other, Self::Unenroll, Self::Revoke];
}

/// How many agents of a selection are eligible for an operation, and why the others are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eligible {
    /// Number of eligible agents.
    pub agents: u64,
    /// The reasons of the others, with their numbers.
    pub reasons: BTreeMap<String, u64>,
}

impl Eligible {
    fn count(&mut self, agents: u64, outcome: Result<(), String>) {
        let Err(reason) = outcome else {
            self.agents += agents;
            return;
        };
        let is_new = !self.reasons.contains_key(&reason);
        // A reason may contain a version: what agents report must not decide how much memory this takes.
        let key = if is_new && self.reasons.len() >= MAX_REASONS { "for another reason".to_owned() } else { reason };
        *self.reasons.entry(key).or_default() += agents;
    }
}

/// What is possible on a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Number of agents of the selection.
    pub agents: u64,
    /// The eligible agents of each operation.
    pub operations: BTreeMap<Surveyed, Eligible>,
}

impl Actions {
    /// Counts the eligible agents of each operation. Agents that are alike are checked once, so that no record is read.
    pub async fn survey(&self, context: &OpContext, selected: &Selected) -> Result<Survey, Error> {
        let grant = context.grant::<AgentsRead>()?;
        let named = |ids: &[AgentId]| AgentFilter::all([AgentCondition::Ids(ids.to_vec())]);
        let named = match selected {
            Selected::One(id) => Cow::Owned(named(std::slice::from_ref(id))),
            Selected::Ids(ids) => Cow::Owned(named(ids)),
            Selected::Matching(filter) => Cow::Borrowed(&**filter),
        };
        let facts = self.policy_facts(&grant).await?;
        let now = self.clock.now();
        let mut found =
            Survey { agents: 0, operations: Surveyed::ALL.map(|one| (one, Eligible::default())).into_iter().collect() };
        for alike in self.store.seen_by(&grant).agents_by_eligibility(&named, now.minus(RECENT)).await? {
            found.agents += alike.agents;
            for (one, eligible) in &mut found.operations {
                eligible.count(alike.agents, self.surveyed(&facts, &alike, *one, now));
            }
        }
        Ok(found)
    }

    fn surveyed(
        &self,
        facts: &PolicyFacts,
        alike: &EligibilityCount,
        one: Surveyed,
        now: Timestamp,
    ) -> Result<(), String> {
        let version;
        let operation = match one {
            Surveyed::Tags => Operation::Tags,
            Surveyed::Upgrade => {
                // A build of the agent's own version, which counts as newer: what remains does not depend on the version.
                version = format!("{}+build", alike.agent_version);
                Operation::Upgrade { version: &version, accepted: &self.accepted, force: false, skip_rate_limit: false }
            }
            Surveyed::Rollback => {
                version = offered_version(&alike.upgrade).ok_or("agent has no rollback")?;
                Operation::Rollback { version: &version }
            }
            Surveyed::Diagnostics => Operation::Diagnostics,
            Surveyed::Other => Operation::Other,
            Surveyed::Unenroll => Operation::Unenroll { force: false },
            Surveyed::Revoke => Operation::Revoke { force: false },
        };
        facts.check_candidate(alike.candidate(), operation, now)
    }
}
