//! Upgrades and rollbacks (MG §5.4).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::agent::AgentDetails;
use muster_core::authorization::{AgentsUpgrade, Grant};
use muster_core::canonical;
use muster_core::eligibility::Operation;
use muster_core::id::AgentId;
use muster_core::raw_json::{each_element, text};
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use serde_json::json;

use super::effect::Effect;
use super::submit::CheckedTargets;
use super::{Actions, Submitted};
use crate::authority::Authorized;
use crate::force::Force;
use crate::selection::Selection;

/// A request to upgrade agents.
#[derive(Clone, Debug, Default)]
pub struct UpgradeRequest {
    /// The target version.
    pub version: String,
    /// Base URL of the downloads; the agent's default if absent.
    pub source_uri: Option<String>,
    /// Skips the checks that `force` may override.
    pub force: Force,
    /// Skips the cool-down after the last upgrade.
    pub skip_rate_limit: bool,
    /// When to start.
    pub start_time: Option<Timestamp>,
    /// Window in seconds over which the starts are spread.
    pub rollout_seconds: Option<i64>,
}

impl UpgradeRequest {
    /// Returns the request with canonical strings. What is validated must be exactly what is signed and sent:
    /// ` 9.5.0` parses, but agents would not find a download of that name.
    fn canonical(&self) -> Result<Self, Error> {
        let request = self.request()?.canonical()?;
        let text = |field: &str| request.data[field].as_str().map(str::to_owned);
        Ok(Self { version: text("version").unwrap_or_default(), source_uri: text("source_uri"), ..self.clone() })
    }

    fn request(&self) -> Result<ActionRequest, Error> {
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

/// Returns the first version that the agent offers for a rollback. Core decides whether the offer is still valid.
pub(super) fn offered_version(agent: &AgentDetails) -> Option<String> {
    let mut version = None;
    each_element(agent.record.upgrade.rollbacks.as_deref()?, |offer| {
        version = text(offer, &["version"]).map(Cow::into_owned);
        version.is_none()
    });
    version
}

impl Actions {
    /// Upgrades agents to another version.
    pub async fn upgrade(
        &self,
        selection: &Authorized<Selection, AgentsUpgrade>,
        wanted: &UpgradeRequest,
    ) -> Result<Submitted, Error> {
        // First, so that a malformed request is reported as such and not as a list of ineligible agents.
        let wanted = wanted.canonical()?;
        let checked = self.checked_upgrade(selection, &wanted).await?;
        self.begin_upgrades(selection.grant(), checked, &wanted.version, wanted.request()?).await
    }

    async fn checked_upgrade(
        &self,
        selection: &Authorized<Selection, AgentsUpgrade>,
        wanted: &UpgradeRequest,
    ) -> Result<CheckedTargets, Error> {
        let facts = self.policy_facts(selection.grant()).await?;
        let accepted = self.accepted;
        let operation = Operation::Upgrade {
            version: &wanted.version,
            accepted: &accepted,
            force: wanted.force.is_yes(),
            skip_rate_limit: wanted.skip_rate_limit,
        };
        self.check_targets(selection, &|agent, now| facts.check(agent, operation, now)).await
    }

    /// Returns the agents that cannot be upgraded, with the reasons. Creates nothing.
    pub(crate) async fn try_upgrade(
        &self,
        selection: &Authorized<Selection, AgentsUpgrade>,
        wanted: &UpgradeRequest,
    ) -> Result<Vec<(AgentId, String)>, Error> {
        Ok(self.checked_upgrade(selection, &wanted.canonical()?).await?.refused)
    }

    /// Rolls agents back to the version that each had before; creates one action for each version. `no_agent_eligible` if
    /// none of them can be.
    pub async fn roll_back(&self, selection: &Authorized<Selection, AgentsUpgrade>) -> Result<Vec<Submitted>, Error> {
        self.roll_back_eligible(selection).await?.map_err(|reason| {
            let message = format!("none of these agents can be rolled back: {reason}");
            Error::new(ErrorKind::Invalid, "no_agent_eligible", message)
        })
    }

    /// Like [`roll_back`](Self::roll_back); the inner error is the reason why no agent is eligible.
    pub(crate) async fn roll_back_eligible(
        &self,
        selection: &Authorized<Selection, AgentsUpgrade>,
    ) -> Result<Result<Vec<Submitted>, String>, Error> {
        let facts = self.policy_facts(selection.grant()).await?;
        let versions: Mutex<BTreeMap<String, Vec<AgentId>>> = Mutex::default();
        let checked = self
            .check_targets(selection, &|agent, now| {
                let version = offered_version(agent).ok_or("agent has no rollback")?;
                // Agents compare the version with their installed ones as a string, so it can't be normalized here. One
                // agent with a malformed offer must not fail the request for the others.
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
            let refused = checked.refused.into_iter().next();
            return Ok(Err(refused.map_or_else(|| "no agent matches".to_owned(), |(_, reason)| reason)));
        }
        let (single, kuery, mut refused) = (checked.single, checked.kuery, Some(checked.refused));
        let mut submitted = Vec::new();
        for (version, eligible) in versions {
            // Reported once, with the first action, so that an agent does not count as failed in each of them.
            let checked = CheckedTargets {
                eligible,
                refused: refused.take().unwrap_or_default(),
                single: single.clone(),
                kuery: kuery.clone(),
            };
            let data = json!({"version": version, "rollback": true});
            let request = ActionRequest::new(ActionType::Upgrade, data);
            submitted.push(self.begin_upgrades(selection.grant(), checked, &version, request).await?);
        }
        Ok(Ok(submitted))
    }

    async fn begin_upgrades(
        &self,
        grant: &Grant<AgentsUpgrade>,
        checked: CheckedTargets,
        version: &str,
        request: ActionRequest,
    ) -> Result<Submitted, Error> {
        self.submit_checked(grant, checked, request, Some(Effect::BeginUpgrade(version.to_owned()))).await
    }
}
