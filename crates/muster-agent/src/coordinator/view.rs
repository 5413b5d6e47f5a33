//! Reports of the coordinator: the check-in body and the status.

use std::borrow::Cow;
use std::time::Duration;

use muster_core::Timestamp;
use muster_protocol::elastic::check_in::CheckInRequest;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;

use super::Coordinator;
use super::poll_length::{self, HELD_AFTER};
use super::report::{AgentState, FleetStatus, Parts, PolicyStatus, Snapshot, overall};
use crate::components::ComponentState;
use crate::components::bounded::within_limits;
use crate::host::Own;
use crate::model::Level;
use crate::settings::Mode;
use crate::state::Phase;
use crate::upgrade::details::Details;
use crate::version;

/// An owned check-in body.
pub(super) struct Report {
    status: AgentState,
    message: String,
    ack_token: String,
    metadata: Box<RawValue>,
    components: Box<RawValue>,
    policy: Option<(String, i64)>,
    upgrade: Option<Box<RawValue>>,
    rollbacks: Option<Box<RawValue>>,
}

impl Report {
    pub(super) fn request(&self, poll_timeout: Option<Duration>) -> CheckInRequest<'_> {
        CheckInRequest {
            status: Some(self.status.wire().into()),
            message: Some(self.message.as_str().into()),
            ack_token: (!self.ack_token.is_empty()).then(|| self.ack_token.as_str().into()),
            local_metadata: Some(&self.metadata),
            components: Some(&self.components),
            poll_timeout: poll_timeout.map(|wish| Cow::Owned(format!("{}s", wish.as_secs()))),
            upgrade_details: self.upgrade.as_deref(),
            agent_policy_id: self.policy.as_ref().map(|(id, _)| id.as_str().into()),
            policy_revision_idx: self.policy.as_ref().map(|(_, revision)| *revision),
            upgrade: self.rollbacks.as_deref(),
        }
    }
}

impl Coordinator {
    pub(super) fn report(&self) -> Report {
        let components = self.deps.components.states();
        let (status, message) = self.overall(&components);
        // Without these fields, servers assume the revision that they recorded (EA §4.7). An agent that has lost its policy
        // would not get it again: the empty id is that of no policy.
        let policy = match &self.state.policy {
            // The route of the policy in effect is not in effect yet.
            Some(_) if let Some(trial) = &self.trial => Some(trial.reported()),
            None => Some((String::new(), 0)),
            Some(policy) if policy.id.is_empty() => None,
            Some(policy) => Some((policy.id.clone(), policy.revision)),
        };
        Report {
            status,
            message,
            ack_token: self.state.ack_token.clone(),
            metadata: self.metadata(),
            components: within_limits(&components),
            policy,
            upgrade: self.upgrade_details().and_then(|details| to_raw_value(&details).ok()),
            rollbacks: self.rollbacks(),
        }
    }

    pub(super) fn metadata(&self) -> Box<RawValue> {
        let upgradeable = self.deps.upgrades.running().is_some();
        let own = Own { agent_id: &self.enrollment.agent_id, log_level: self.log_level(), upgradeable };
        self.deps.facts.local_metadata(own)
    }

    /// Returns the part of the report whose changes interrupt a held check-in.
    pub(super) fn gist(&self) -> String {
        let components = self.deps.components.states();
        // Metadata and payloads are not included: a changed address can wait for the next check-in.
        let bare: Vec<_> = components.iter().map(ComponentState::without_payloads).collect();
        let upgrade = self.upgrade_details();
        format!("{:?} {bare:?} {:?}", self.overall(&components), upgrade.as_ref().map(Details::gist))
    }

    /// Returns whether the check-in in progress reports outdated facts.
    pub(super) fn news(&self) -> bool {
        // A trial ends with the response to its check-in, which changes must not postpone.
        self.deps.settings.checkin.mode == Mode::OnStateChange
            && self.poll.is_some()
            && self.trial.is_none()
            && self.gist() != self.reported
    }

    /// Returns whether the check-in in progress should also be interrupted now.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        now >= self.last_poll + self.deps.settings.checkin.state_change_gap && self.news()
    }

    pub(super) fn log_level(&self) -> &str {
        let own = self.deps.settings.log.level.as_str();
        self.state.log_level.as_deref().or(self.policy_log_level.as_deref()).unwrap_or(own)
    }

    /// Returns the level of units in a policy with this level (AG78).
    pub(super) fn level_with(&self, of_policy: Option<&str>) -> Level {
        self.state.log_level.as_deref().or(of_policy).and_then(Level::parse).unwrap_or_default()
    }

    pub(super) fn set_log_level(&self) {
        self.deps.log_level.set(self.log_level());
    }

    fn overall(&self, components: &[ComponentState]) -> (AgentState, String) {
        let upgrading_to = self.upgrading.as_ref().map(|upgrading| upgrading.details().target_version);
        overall(&Parts {
            revoked: self.state.phase == Phase::Revoked,
            leaving: matches!(self.state.phase, Phase::Unenrolling | Phase::Unenrolled),
            upgrading_to: upgrading_to.as_deref(),
            has_policy: self.state.policy.is_some(),
            rejection: self.state.rejected.as_ref().map(|rejected| (rejected.reason.as_str(), rejected.fault)),
            model_fault: self.components.fault(),
            left_out: self.components.left_out(),
            blocked: self.components.blocked(),
            lost_state: self.lost_state && self.state.policy.is_none(),
            storage_fault: self.storage_fault.as_deref(),
            servers: self.servers_message.as_deref(),
            variables: &self.deps.variables.faults(),
            components,
        })
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let components = self.deps.components.states();
        let (state, message) = self.overall(&components);
        let policy = self.state.policy.as_ref();
        Snapshot {
            agent_id: self.enrollment.agent_id.clone(),
            version: version::agent_version().into(),
            pid: std::process::id(),
            started_at: self.started_at.to_rfc3339_millis(),
            state,
            message,
            fleet: self.fleet_status(),
            policy: policy.map(|policy| PolicyStatus { id: policy.id.clone(), revision: policy.revision }),
            components,
            blocked: self.components.blocked().to_vec(),
            queued_actions: self.state.inbox.len(),
            pending_acks: self.state.outbox.len(),
            log_level: self.log_level().to_owned(),
            signing_key_pinned: self.enrollment.signing_key.is_some(),
            upgrade: self.upgrade_details(),
        }
    }

    pub(super) fn tell_watchers(&mut self) {
        let mut watchers = std::mem::take(&mut self.watchers);
        watchers.tell(|| self.snapshot());
        self.watchers = watchers;
    }

    /// Returns whether a server holds the check-in: it received the request and did not reject it immediately.
    pub(super) fn is_held(&self) -> bool {
        self.poll.is_some() && self.reached.held().is_some_and(|held| held >= HELD_AFTER)
    }

    pub(super) fn fleet_status(&self) -> FleetStatus {
        if let Some(status) = self.source.fleet_status() {
            return status;
        }
        let failures = self.poll_backoff.failures();
        // A held check-in has no response for minutes. It must not look like an agent that is still connecting.
        let held = "Connected; the server holds the check-in".to_owned();
        let on_trial = "Trying other servers or connection settings".to_owned();
        let acks = self.acks_message();
        let (state, message) = match (&self.fleet_message, &self.servers_message) {
            _ if self.trial.is_some() => (AgentState::Starting, &on_trial),
            // A warning of the last response stays while the next check-in is held (AG58).
            (Err(warning), _) if failures == 0 => (AgentState::Degraded, warning),
            (Ok(_), None) if let Some(acks) = &acks => (AgentState::Degraded, acks),
            // A held check-in proves that the connection works, regardless of earlier failures.
            (_, None) if self.is_held() && !self.is_unanswered => (AgentState::Healthy, &held),
            (Err(error), _) => (AgentState::Failed, error),
            (Ok(_), Some(why)) => (AgentState::Degraded, why),
            (Ok(message), None) if self.last_check_in.is_none() => (AgentState::Starting, message),
            (Ok(message), None) => (AgentState::Healthy, message),
        };
        FleetStatus {
            state,
            message: message.clone(),
            last_check_in: self.last_check_in.map(Timestamp::to_rfc3339_seconds),
            failures,
            servers: self.enrollment.servers.clone(),
            poll_limit_seconds: self.state.poll_limit.map(|limit| poll_length::longest(limit).as_secs()),
        }
    }
}
