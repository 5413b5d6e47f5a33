//! Properties of policies that decide which actions their agents accept.

use std::collections::HashMap;

use muster_core::Error;
use muster_core::agent::AgentDetails;
use muster_core::authorization::Grant;
use muster_core::eligibility::{Candidate, Operation};
use muster_core::id::PolicyId;
use muster_core::policy::Policy;
use muster_core::time::Timestamp;

use super::Actions;
use crate::authority::System;
use crate::policies::all_in;

#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    managed: bool,
    protected: bool,
    fleet_server: bool,
}

impl Facts {
    fn of(policy: &Policy) -> Self {
        Self {
            managed: policy.is_managed,
            protected: policy.fields["is_protected"] == true,
            fleet_server: policy.fields["has_fleet_server"] == true,
        }
    }
}

/// Properties of all policies in the caller's space, read once for each request and not once for each agent.
#[derive(Debug, Default)]
pub(super) struct PolicyFacts(HashMap<PolicyId, Facts>);

impl PolicyFacts {
    /// Checks whether the agent can be a target; the error is the reason why not.
    pub(super) fn check(&self, agent: &AgentDetails, operation: Operation<'_>, now: Timestamp) -> Result<(), String> {
        let facts = agent.record.policy_id.as_ref().and_then(|id| self.0.get(id)).copied().unwrap_or_default();
        let candidate = Candidate {
            record: &agent.record,
            metadata: agent.documents.local_metadata.as_deref().unwrap_or_default(),
            managed: facts.managed,
            protected: facts.protected,
            fleet_server: facts.fleet_server,
            // Only integrations can need root, and those come with package policies, which are not supported.
            needs_root: false,
        };
        operation.check(&candidate, now).map_err(|reason| reason.to_string())
    }
}

impl Actions {
    pub(super) async fn policy_facts<P>(&self, grant: &Grant<P>) -> Result<PolicyFacts, Error> {
        // Agents in the scope may be on policies outside of it, for example with a selector by tag.
        let policies = all_in(self.store.within(&System, grant.space())).await?;
        Ok(PolicyFacts(policies.iter().map(|policy| (policy.id.clone(), Facts::of(policy))).collect()))
    }
}
