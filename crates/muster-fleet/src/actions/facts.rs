//! What policies say about whether their agents can be ordered something.

use std::collections::HashMap;

use muster_core::Error;
use muster_core::agent::AgentDetails;
use muster_core::eligibility::{Candidate, Wish};
use muster_core::id::PolicyId;
use muster_core::policy::Policy;
use muster_core::time::Timestamp;
use muster_store::query::Page;

use super::Actions;

const READ_AT_ONCE: u32 = 500;

#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    hosted: bool,
    protected: bool,
    fleet_server: bool,
}

impl Facts {
    fn of(policy: &Policy) -> Self {
        Self {
            hosted: policy.is_managed,
            protected: policy.fields["is_protected"] == true,
            fleet_server: policy.fields["has_fleet_server"] == true,
        }
    }
}

/// The facts of all policies.
#[derive(Debug, Default)]
pub(super) struct PolicyFacts(HashMap<PolicyId, Facts>);

impl PolicyFacts {
    /// Whether the agent can be ordered that; if not, why.
    pub(super) fn check(&self, agent: &AgentDetails, wish: Wish<'_>, now: Timestamp) -> Result<(), String> {
        let facts = agent.record.policy_id.as_ref().and_then(|id| self.0.get(id)).copied().unwrap_or_default();
        let candidate = Candidate {
            record: &agent.record,
            metadata: agent.documents.local_metadata.as_deref().unwrap_or_default(),
            hosted: facts.hosted,
            protected: facts.protected,
            fleet_server: facts.fleet_server,
            // Integrations, which may need root, come with package policies.
            needs_root: false,
        };
        wish.suits(&candidate, now).map_err(|reason| reason.to_string())
    }
}

impl Actions {
    pub(super) async fn policy_facts(&self) -> Result<PolicyFacts, Error> {
        let mut facts = HashMap::new();
        let mut page = Page { offset: 0, limit: READ_AT_ONCE };
        loop {
            let policies = self.store.policies(None, page).await?.items;
            if policies.is_empty() {
                return Ok(PolicyFacts(facts));
            }
            facts.extend(policies.iter().map(|policy| (policy.id.clone(), Facts::of(policy))));
            page.offset += READ_AT_ONCE;
        }
    }
}
