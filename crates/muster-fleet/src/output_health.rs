//! How outputs do, by what the agents that use them say.

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{Grant, PoliciesRead};
use muster_core::documents::components::failing_output;
use muster_core::id::{OutputId, PolicyId};
use muster_core::time::Timestamp;
use muster_store::query::{AgentFilter, AgentSort, Page};
use serde_json::Value;

use super::outputs::Outputs;
use super::policies::all_in;
use super::scope::Scoped;

/// Agents that are asked: those that checked in last.
const ASKED: u32 = 500;

/// How an output does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputHealth {
    /// `HEALTHY`, `DEGRADED` or `UNKNOWN`.
    pub state: &'static str,
    /// What is known.
    pub message: String,
    /// Since when some agent complains, or the last word of those that don't.
    pub since: Option<Timestamp>,
}

impl Outputs {
    /// How an output does: one of the objects by id, or one inside policies' `config` by name.
    pub async fn health(&self, grant: &Grant<PoliciesRead>, id: &str) -> Result<OutputHealth, Error> {
        let seen = self.store.seen_by(grant);
        let policies = self.policies_with_output(seen, id).await?;
        if policies.is_empty() {
            return Ok(unknown("no policy uses it"));
        }
        let filter = AgentFilter { policy_ids: Some(policies), ..AgentFilter::default() };
        let page = Page { offset: 0, limit: ASKED };
        let found = seen.agents(&filter, AgentSort::LastCheckin, true, page).await?.items;
        let heard: Vec<AgentRecord> =
            found.into_iter().map(|details| details.record).filter(|record| record.last_checkin.is_some()).collect();
        summed_up(seen, &heard).await
    }

    async fn policies_with_output(&self, seen: Scoped<'_>, id: &str) -> Result<Vec<PolicyId>, Error> {
        if let Ok(output) = OutputId::parse(id)
            && seen.output(&output).await?.is_some()
        {
            let users = self.policies.output_users(seen).await?.remove(&output).unwrap_or_default();
            return Ok(users.into_iter().map(|policy| policy.id).collect());
        }
        let named = |config: &Value| config.get("outputs").is_some_and(|outputs| outputs.get(id).is_some());
        let policies = all_in(seen).await?.into_iter().filter(|policy| named(&policy.config));
        let policies: Vec<PolicyId> = policies.map(|policy| policy.id).collect();
        if policies.is_empty() { Err(Error::not_found("output", id)) } else { Ok(policies) }
    }
}

async fn summed_up(seen: Scoped<'_>, heard: &[AgentRecord]) -> Result<OutputHealth, Error> {
    let Some(latest) = heard.first() else { return Ok(unknown("no agent that uses it has reported yet")) };
    let complaining: Vec<&AgentRecord> = heard.iter().filter(|record| complains(record)).collect();
    let Some(first) = complaining.first() else {
        let message = format!("none of {} agents complains", heard.len());
        return Ok(OutputHealth { state: "HEALTHY", message, since: latest.last_checkin });
    };
    let reason = complaint(seen, first).await?;
    let message = format!("{} of {} agents complain; {}: {reason}", complaining.len(), heard.len(), first.id);
    let since = complaining.iter().map(|record| record.status_since).min();
    Ok(OutputHealth { state: "DEGRADED", message, since })
}

/// What the agent says of its output units.
async fn complaint(seen: Scoped<'_>, record: &AgentRecord) -> Result<String, Error> {
    let documents = seen.agent_documents(record).await?.unwrap_or_default();
    let said = documents.components.as_deref().and_then(failing_output);
    Ok(said.unwrap_or_else(|| record.health.message.clone()))
}

fn unknown(message: &str) -> OutputHealth {
    OutputHealth { state: "UNKNOWN", message: message.into(), since: None }
}

fn complains(record: &AgentRecord) -> bool {
    record.health.unhealthy_reason.iter().any(|reason| reason == "output")
}
