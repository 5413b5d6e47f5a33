//! Upgrades, and the way back (MG §5.4).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::agent::AgentDetails;
use muster_core::authorization::{AgentsWrite, Grant};
use muster_core::canonical;
use muster_core::eligibility::Operation;
use muster_core::id::AgentId;
use muster_core::raw_json::{each_element, text};
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use serde_json::json;

use super::effect::Effect;
use super::give::Sorted;
use super::{Actions, Given};
use crate::authority::Authorized;
use crate::force::Force;
use crate::selection::Selection;

/// An order to upgrade.
#[derive(Clone, Debug, Default)]
pub struct UpgradeOrder {
    /// The version.
    pub version: String,
    /// Where to fetch it.
    pub source_uri: Option<String>,
    /// Skips every check that is about wisdom, not possibility.
    pub force: Force,
    /// Skips the cool-down.
    pub skip_rate_limit: bool,
    /// When to start.
    pub start_time: Option<Timestamp>,
    /// Window over which the starts are spread, seconds.
    pub rollout_seconds: Option<i64>,
}

impl UpgradeOrder {
    /// The same with its texts in the form that agents get: what is judged is what goes out.
    fn canonical(&self) -> Result<Self, Error> {
        let order = self.order()?.canonical()?;
        let text = |field: &str| order.data[field].as_str().map(str::to_owned);
        Ok(Self { version: text("version").unwrap_or_default(), source_uri: text("source_uri"), ..self.clone() })
    }

    fn order(&self) -> Result<ActionRequest, Error> {
        let mut data = json!({"version": self.version});
        if let Some(source) = self.source_uri.as_deref().filter(|source| !source.trim().is_empty()) {
            data["source_uri"] = source.into();
        }
        let window = self.rollout_seconds.map(u64::try_from).transpose();
        let window = window.map_err(|_| Error::invalid("rollout_duration_seconds", "must not be negative"))?;
        Ok(ActionRequest {
            start_time: self.start_time,
            rollout: window.map(Duration::from_secs),
            ..ActionRequest::new(ActionType::Upgrade, data)
        })
    }
}

/// The version that the agent offers first to go back to; whether the offer still stands is core's to say.
fn offered_version(agent: &AgentDetails) -> Option<String> {
    let mut version = None;
    each_element(agent.record.upgrade.rollbacks.as_deref()?, |offer| {
        version = text(offer, &["version"]).map(Cow::into_owned);
        version.is_none()
    });
    version
}

impl Actions {
    /// Orders another version.
    pub async fn upgrade(
        &self,
        selection: &Authorized<Selection, AgentsWrite>,
        wanted: &UpgradeOrder,
    ) -> Result<Given, Error> {
        // What is wrong with the order itself is told before the agents are looked at.
        let wanted = wanted.canonical()?;
        let facts = self.policy_facts(selection.grant()).await?;
        let accepted = self.accepted;
        let operation = Operation::Upgrade {
            version: &wanted.version,
            accepted: &accepted,
            force: wanted.force.is_yes(),
            skip_rate_limit: wanted.skip_rate_limit,
        };
        let sorted = self.sort_targets(selection, &|agent, now| facts.check(agent, operation, now)).await?;
        self.begin_upgrades(selection.grant(), sorted, &wanted.version, wanted.order()?).await
    }

    /// Orders agents back to the version that each had before: one action for each such version.
    pub async fn roll_back(&self, selection: &Authorized<Selection, AgentsWrite>) -> Result<Vec<Given>, Error> {
        let facts = self.policy_facts(selection.grant()).await?;
        let versions: Mutex<BTreeMap<String, Vec<AgentId>>> = Mutex::default();
        let sorted = self
            .sort_targets(selection, &|agent, now| {
                let version = offered_version(agent).ok_or("agent has no rollback")?;
                // Agents look the version up among their own, letter by letter; one bad offer must not stop the others.
                if canonical::version(&version).as_ref() != Ok(&version) {
                    return Err(format!("agent offers a rollback to {version:?}, which is not a version"));
                }
                facts.check(agent, Operation::Rollback { version: &version }, now)?;
                let mut versions = versions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                versions.entry(version).or_default().push(agent.record.id.clone());
                Ok(())
            })
            .await?;
        let versions = versions.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if versions.is_empty() {
            let reason = sorted.refused.first().map_or("no agent matches", |(_, reason)| reason.as_str());
            let message = format!("none of these agents can be rolled back: {reason}");
            return Err(Error::new(ErrorKind::Invalid, "no_agent_eligible", message));
        }
        let mut refused = Some(sorted.refused);
        let mut given = Vec::new();
        for (version, eligible) in versions {
            // Those that can't be rolled back are told with the first of the actions.
            let sorted = Sorted { eligible, refused: refused.take().unwrap_or_default() };
            let data = json!({"version": version, "rollback": true});
            let order = ActionRequest::new(ActionType::Upgrade, data);
            given.push(self.begin_upgrades(selection.grant(), sorted, &version, order).await?);
        }
        Ok(given)
    }

    async fn begin_upgrades(
        &self,
        grant: &Grant<AgentsWrite>,
        sorted: Sorted,
        version: &str,
        order: ActionRequest,
    ) -> Result<Given, Error> {
        self.give_to(grant, sorted, order, Some(Effect::BeginUpgrade(version.to_owned()))).await
    }
}
