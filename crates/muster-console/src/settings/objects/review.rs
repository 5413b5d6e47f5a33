//! What a change of an object does to policies, which is shown before it is saved (MG188).

use std::hash::{Hash as _, Hasher as _};

use muster_core::Error;
use muster_core::authorization::AgentsRead;
use muster_core::id::PolicyId;
use muster_core::plural::counted;
use muster_core::status::Status;
use muster_fleet::Fleet;
use muster_store::query::{AgentCondition, AgentFilter};

use super::form::Fields;
use crate::visitor::Visitor;

/// Maximum number of policies that are named.
const NAMED: usize = 20;

/// What a person confirms.
pub struct Review {
    /// How many policies and agents the change reaches.
    pub text: String,
    /// The first policies: id and name.
    pub policies: Vec<(String, String)>,
    /// Number of further ones.
    pub more: usize,
    /// Identifies the change that was reviewed.
    pub seal: String,
}

impl Review {
    /// Reviews a change; `None` if it reaches no policy.
    pub async fn of(
        fleet: &Fleet,
        visitor: &Visitor,
        fields: &Fields,
        revised: Vec<(PolicyId, String)>,
    ) -> Result<Option<Self>, Error> {
        if revised.is_empty() {
            return Ok(None);
        }
        let ids: Vec<PolicyId> = revised.iter().map(|(id, _)| id.clone()).collect();
        let mut hasher = std::hash::DefaultHasher::new();
        (fields.typed(), &ids).hash(&mut hasher);
        let number = revised.len();
        let policies = if number == 1 { "1 policy".to_owned() } else { format!("{number} policies") };
        let reached = match visitor.context.grant::<AgentsRead>() {
            Ok(grant) => {
                let filter = [AgentCondition::Policies(ids), !AgentCondition::Statuses(vec![Status::Unenrolled])];
                let counts = fleet.agents().count(&grant, &AgentFilter::all(filter)).await?;
                let agents: u64 = counts.iter().map(|(_, count)| count).sum();
                format!("{} will apply {}", counted(agents, "agent"), if number == 1 { "it" } else { "them" })
            }
            // Somebody who may not see agents.
            Err(_) => "their agents will apply it".to_owned(),
        };
        Ok(Some(Self {
            text: format!("Saving gives a new revision to {policies}; {reached}."),
            more: number.saturating_sub(NAMED),
            policies: revised.into_iter().take(NAMED).map(|(id, name)| (id.to_string(), name)).collect(),
            seal: format!("{number}-{:x}", hasher.finish()),
        }))
    }
}
