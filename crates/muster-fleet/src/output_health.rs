//! Health of outputs, derived from the reports of the agents that use them, and from the creation of their keys.

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{Grant, OutputsRead};
use muster_core::documents::components::failing_output;
use muster_core::id::{OutputId, PolicyId};
use muster_core::output_key::KeyCounts;
use muster_core::plural::counted;
use muster_core::policy::issuers;
use muster_core::time::Timestamp;
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, Page};
use serde_json::Value;

use super::outputs::Outputs;
use super::policies::all_in;
use super::scope::Scoped;

/// Maximum number of failing agents that are read: the ones that checked in last. All of them are counted.
const MAX_FAILING: u32 = 500;

/// Health of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputHealth {
    /// `HEALTHY`, `DEGRADED` or `UNKNOWN`.
    pub state: &'static str,
    /// Explanation.
    pub message: String,
    /// Time since which an agent has reported errors, or keys can't be created; for a healthy output, the time of the
    /// last check-in.
    pub since: Option<Timestamp>,
    /// Keys of agents at the output; `None` if it creates none.
    pub keys: Option<KeyCounts>,
}

/// The creation of keys at an output.
struct Keys {
    counts: KeyCounts,
    /// What is wrong, and since when: some can't be created, or only with the bootstrap settings.
    failure: Option<(String, Option<Timestamp>)>,
}

impl Outputs {
    /// Returns the health of an output: an output object by its id, or an output in the `config` of policies by its
    /// name.
    pub async fn health(&self, grant: &Grant<OutputsRead>, id: &str) -> Result<OutputHealth, Error> {
        let seen = self.objects.store.seen_by(grant);
        let (policies, outputs) = self.uses(seen, id).await?;
        let keys = keys_at(seen, &outputs).await?;
        if policies.is_empty() {
            return Ok(with_keys(unknown("no policy uses it"), keys));
        }
        Ok(with_keys(summarize(seen, policies).await?, keys))
    }

    /// Returns the policies that use an output, and its names as clusters have them.
    async fn uses(&self, seen: Scoped<'_>, id: &str) -> Result<(Vec<PolicyId>, Vec<String>), Error> {
        if let Ok(output) = OutputId::parse(id)
            && seen.output(&output).await?.is_some()
        {
            let users = self.objects.policies.output_users(seen).await?.remove(&output).unwrap_or_default();
            return Ok((users.into_iter().map(|policy| policy.id).collect(), vec![id.to_owned()]));
        }
        let named = |config: &Value| config.get("outputs").is_some_and(|outputs| outputs.get(id).is_some());
        let policies = all_in(seen).await?.into_iter().filter(|policy| named(&policy.config));
        let policies: Vec<PolicyId> = policies.map(|policy| policy.id).collect();
        if policies.is_empty() {
            return Err(Error::not_found("output", id));
        }
        let outputs = policies.iter().map(|policy| issuers::source(policy, id, None)).collect();
        Ok((policies, outputs))
    }
}

/// Sums up the keys at all clusters of an output: those of its present hosts, and of former ones.
async fn keys_at(seen: Scoped<'_>, outputs: &[String]) -> Result<Option<Keys>, Error> {
    let mut keys: Option<Keys> = None;
    for cluster in seen.output_clusters(outputs).await? {
        let (counts, rejected) = seen.output_key_counts(&cluster).await?;
        let keys = keys.get_or_insert(Keys { counts: KeyCounts::default(), failure: None });
        keys.counts += counts;
        let no_keys = |reason: &str| format!("the agents' API keys cannot be created or updated: {reason}");
        let failure = cluster.failure.map(|failure| (no_keys(&failure.reason), Some(failure.since)));
        let rejected = rejected.map(|reason| format!("{} rejected: {reason}", counted(counts.failed, "key")));
        let rejected = rejected.map(|reason| (no_keys(&reason), None));
        let fallback = cluster.trial.fallback.map(|fallback| {
            let why =
                format!("the bootstrap settings are in use, because those of the output fail: {}", fallback.reason);
            (why, Some(fallback.since))
        });
        keys.failure = keys.failure.take().or(failure).or(rejected).or(fallback);
    }
    Ok(keys)
}

fn with_keys(health: OutputHealth, keys: Option<Keys>) -> OutputHealth {
    let Some(Keys { counts, failure }) = keys else { return health };
    let keys = Some(counts);
    let Some((mut message, since)) = failure else { return OutputHealth { keys, ..health } };
    if health.state == "DEGRADED" {
        message = format!("{message}; {}", health.message);
    }
    OutputHealth { state: "DEGRADED", message, since: since.or(health.since), keys }
}

async fn summarize(seen: Scoped<'_>, policies: Vec<PolicyId>) -> Result<OutputHealth, Error> {
    let mut filter = AgentFilter::all([AgentCondition::Policies(policies), AgentCondition::HasCheckedIn]);
    let first_of = async |filter: &AgentFilter, limit| {
        seen.agents(filter, AgentSort::LastCheckin, true, Page { offset: 0, limit }).await
    };
    // Agents that enrolled but never checked in have reported nothing, good or bad.
    let heard = first_of(&filter, 1).await?;
    let Some(latest) = heard.items.first() else { return Ok(unknown("no agent with this output has reported yet")) };
    // A record only says that some output unit fails, not which one, so it counts against every output of its policy.
    filter.conditions.push(AgentCondition::HasFailingOutput);
    let failing = first_of(&filter, MAX_FAILING).await?;
    let Some(first) = failing.items.first() else {
        let message = format!("no errors from {}", counted(heard.total, "agent"));
        let since = latest.record.last_checkin;
        return Ok(OutputHealth { state: "HEALTHY", message, since, keys: None });
    };
    let reason = output_error(seen, &first.record).await?;
    let message = format!(
        "errors from {} of {}; agent {}: {reason}",
        failing.total,
        counted(heard.total, "agent"),
        first.record.id
    );
    // The status may have changed for another reason since, so this is the best known lower bound.
    let since = failing.items.iter().map(|failing| failing.record.status_since).min();
    Ok(OutputHealth { state: "DEGRADED", message, since, keys: None })
}

/// Returns the error that the agent reports for its output units; its status message if it reports none.
async fn output_error(seen: Scoped<'_>, record: &AgentRecord) -> Result<String, Error> {
    let documents = seen.agent_documents(record).await?.unwrap_or_default();
    let said = documents.components.as_deref().and_then(failing_output);
    Ok(said.unwrap_or_else(|| record.health.message.clone()))
}

fn unknown(message: &str) -> OutputHealth {
    OutputHealth { state: "UNKNOWN", message: message.into(), since: None, keys: None }
}
