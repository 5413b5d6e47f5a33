//! Health of outputs, derived from the reports of the agents that use them.

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{Grant, PoliciesRead};
use muster_core::documents::components::failing_output;
use muster_core::id::{OutputId, PolicyId};
use muster_core::time::Timestamp;
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, Page};
use serde_json::Value;

use super::outputs::Outputs;
use super::policies::all_in;
use super::scope::Scoped;

/// Maximum agents considered: the ones that checked in last, which are enough to tell.
const MAX_AGENTS: u32 = 500;

/// Health of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputHealth {
    /// `HEALTHY`, `DEGRADED` or `UNKNOWN`.
    pub state: &'static str,
    /// Explanation.
    pub message: String,
    /// Since when an agent reports errors; for a healthy output, the time of the last check-in.
    pub since: Option<Timestamp>,
}

impl Outputs {
    /// Returns the health of an output: an output object by its id, or an output in the `config` of policies by its
    /// name.
    pub async fn health(&self, grant: &Grant<PoliciesRead>, id: &str) -> Result<OutputHealth, Error> {
        let seen = self.store.seen_by(grant);
        let policies = self.policies_with_output(seen, id).await?;
        if policies.is_empty() {
            return Ok(unknown("no policy uses it"));
        }
        let filter = AgentFilter::all([AgentCondition::Policies(policies)]);
        let page = Page { offset: 0, limit: MAX_AGENTS };
        let found = seen.agents(&filter, AgentSort::LastCheckin, true, page).await?.items;
        // Agents that enrolled but never checked in have reported nothing, good or bad.
        let heard: Vec<AgentRecord> =
            found.into_iter().map(|details| details.record).filter(|record| record.last_checkin.is_some()).collect();
        summarize(seen, &heard).await
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

async fn summarize(seen: Scoped<'_>, heard: &[AgentRecord]) -> Result<OutputHealth, Error> {
    let Some(latest) = heard.first() else { return Ok(unknown("no agent that uses it has reported yet")) };
    // A record only says that some output unit fails, not which one, so it counts against every output of its policy.
    let failing: Vec<&AgentRecord> = heard.iter().filter(|record| reports_output_error(record)).collect();
    let Some(first) = failing.first() else {
        let message = format!("none of {} agents complains", heard.len());
        return Ok(OutputHealth { state: "HEALTHY", message, since: latest.last_checkin });
    };
    let reason = output_error(seen, first).await?;
    let message = format!("{} of {} agents complain; {}: {reason}", failing.len(), heard.len(), first.id);
    // The status may have changed for another reason since, so this is the best known lower bound.
    let since = failing.iter().map(|record| record.status_since).min();
    Ok(OutputHealth { state: "DEGRADED", message, since })
}

/// Returns the error that the agent reports for its output units; its status message if it reports none.
async fn output_error(seen: Scoped<'_>, record: &AgentRecord) -> Result<String, Error> {
    let documents = seen.agent_documents(record).await?.unwrap_or_default();
    let said = documents.components.as_deref().and_then(failing_output);
    Ok(said.unwrap_or_else(|| record.health.message.clone()))
}

fn unknown(message: &str) -> OutputHealth {
    OutputHealth { state: "UNKNOWN", message: message.into(), since: None }
}

fn reports_output_error(record: &AgentRecord) -> bool {
    record.health.unhealthy_reason.iter().any(|reason| reason == "output")
}
