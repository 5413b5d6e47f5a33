//! Which operations are possible on a selection, before somebody chooses one (MG185).

use std::collections::BTreeMap;

use muster_core::Error;
use muster_core::agent::AgentDetails;
use muster_core::authorization::AgentsRead;
use muster_core::eligibility::Operation;
use muster_core::time::Timestamp;

use super::facts::PolicyFacts;
use super::upgrade::offered_version;
use super::{Actions, READ_BATCH};
use crate::authority::Authorized;
use crate::selection::Selection;

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
    fn count(&mut self, outcome: Result<(), String>) {
        let Err(reason) = outcome else {
            self.agents += 1;
            return;
        };
        let is_new = !self.reasons.contains_key(&reason);
        // A reason may contain a version: what agents report must not decide how much memory this takes.
        let key = if is_new && self.reasons.len() >= MAX_REASONS { "for another reason".to_owned() } else { reason };
        *self.reasons.entry(key).or_default() += 1;
    }
}

impl Actions {
    /// Counts the eligible agents of each operation, in one pass over the selection.
    pub async fn survey(
        &self,
        selection: &Authorized<Selection, AgentsRead>,
    ) -> Result<BTreeMap<Surveyed, Eligible>, Error> {
        let facts = self.policy_facts(selection.grant()).await?;
        let now = self.clock.now();
        let mut found: BTreeMap<_, _> = Surveyed::ALL.map(|one| (one, Eligible::default())).into_iter().collect();
        for chunk in selection.ids.chunks(READ_BATCH) {
            for agent in self.records.read(chunk).await? {
                for (one, eligible) in &mut found {
                    eligible.count(self.surveyed(&facts, &agent, *one, now));
                }
            }
        }
        Ok(found)
    }

    fn surveyed(&self, facts: &PolicyFacts, agent: &AgentDetails, one: Surveyed, now: Timestamp) -> Result<(), String> {
        let version;
        let operation = match one {
            Surveyed::Tags => Operation::Tags,
            Surveyed::Upgrade => {
                // A build of the agent's own version, which counts as newer: what remains does not depend on the version.
                version = format!("{}+build", agent.record.agent_version);
                Operation::Upgrade { version: &version, accepted: &self.accepted, force: false, skip_rate_limit: false }
            }
            Surveyed::Rollback => {
                version = offered_version(agent).ok_or("agent has no rollback")?;
                Operation::Rollback { version: &version }
            }
            Surveyed::Diagnostics => Operation::Diagnostics,
            Surveyed::Other => Operation::Other,
            Surveyed::Unenroll => Operation::Unenroll { force: false },
            Surveyed::Revoke => Operation::Revoke { force: false },
        };
        facts.check(agent, operation, now)
    }
}
