//! Upgrades of the agent: one at a time, in the background. The result of each is stored before what is left of it is
//! removed, so that it is reported and acknowledged once.

use std::pin::Pin;

use serde_json::value::{RawValue, to_raw_value};

use super::{Coordinator, Ending, Slot, settle};
use crate::components::Health;
use crate::homes::HomeName;
use crate::state::{Action, Kind, PendingAck, UpgradeReport};
use crate::upgrade::details::{Details, Metadata, Stage};
use crate::upgrade::record::{Record, Terms};
use crate::upgrade::{Failed, NOT_INSTALLED, PolicySource, Progress, Request, Resumed, Switch};

/// How often an upgrade is begun, if the agent is killed during each attempt.
const ATTEMPTS_MAX: u32 = 3;

/// An upgrade that is being prepared.
pub(super) struct Upgrading {
    /// `None` for a command on the host.
    action: Option<Action>,
    request: Request,
    progress: Progress,
    /// Whether the home is prepared, and the link is being changed.
    is_switching: bool,
    work: Slot<Outcome>,
}

/// Result of a part of an upgrade.
pub(super) enum Outcome {
    Prepared(Result<HomeName, Failed>),
    Switched(Result<(), Failed>),
}

impl Upgrading {
    fn action_id(&self) -> &str {
        self.action.as_ref().map_or("", |action| action.id.as_str())
    }

    pub(super) fn details(&self) -> Details {
        self.progress.details(&self.request.version, self.action_id())
    }
}

/// Waits for the end of the current part, or for progress (`None`); never returns without an upgrade.
pub(super) async fn upgrade_event(upgrading: &mut Option<Upgrading>) -> Option<Outcome> {
    let Some(upgrading) = upgrading else { return std::future::pending().await };
    let progress = upgrading.progress.clone();
    tokio::select! {
        biased;
        outcome = settle(&mut upgrading.work) => Some(outcome),
        () = progress.changed() => None,
    }
}

impl Coordinator {
    /// Continues an upgrade that was in progress when the agent started.
    pub(super) fn resume_upgrade(&mut self) {
        match self.deps.upgrades.resumed() {
            Resumed::Nothing | Resumed::Interrupted => self.forget_interrupted(),
            Resumed::Watching(record) => {
                // The action has done its part when the new version runs. What the watcher decides is in the details.
                self.acknowledge_upgrade(&record, Ok(()));
                self.report_upgrade(&record, Stage::Watching, Metadata::default());
                self.persist();
            }
            Resumed::Kept(record) => {
                self.acknowledge_upgrade(&record, Ok(()));
                self.end_upgrade();
            }
            Resumed::RolledBack(record) => {
                let reason = record.reason.clone().unwrap_or_default();
                let message = format!("rolled back to {}: {reason}", record.from.version());
                tracing::error!(version = record.to.version(), reason, "the upgrade was rolled back");
                self.acknowledge_upgrade(&record, Err(message.clone()));
                let metadata = Metadata { reason: Some(reason), error_msg: Some(message), ..Metadata::default() };
                self.report_upgrade(&record, Stage::Rollback, metadata);
                self.persist();
                self.finish_if_stored();
                // This state is for a server, and would otherwise stay.
                if !self.source.takes_reports() {
                    self.rollback_reported();
                }
            }
        }
    }

    /// Drops the report of an upgrade that a crash has ended, unless its action is still queued and runs again.
    fn forget_interrupted(&mut self) {
        let Some(report) = &self.state.upgrade else { return };
        let is_over = matches!(report.details.state, Stage::Failed | Stage::Rollback);
        let is_queued = self.state.inbox.iter().any(|action| action.id == report.details.action_id);
        if !is_over && !is_queued {
            self.state.upgrade = None;
            self.persist();
        }
    }

    fn acknowledge_upgrade(&mut self, record: &Record, outcome: Result<(), String>) {
        // An action that is no longer queued has its ack already (AG131).
        let queued = self.state.inbox.iter().find(|action| action.id == record.action_id).cloned();
        if let Some(action) = queued {
            self.state.handled(PendingAck::of(&action, self.deps.clock.now(), outcome));
        }
    }

    fn report_upgrade(&mut self, record: &Record, state: Stage, metadata: Metadata) {
        let (target_version, action_id) = (record.to.version().to_owned(), record.action_id.clone());
        let details = Details { target_version, state, action_id, metadata };
        self.state.upgrade = Some(UpgradeReport { details, attempts: 0 });
    }

    /// Ends an upgrade that the watcher has accepted.
    pub(super) fn end_upgrade(&mut self) {
        self.state.upgrade = None;
        self.persist();
        tracing::info!("the upgrade is complete");
        self.finish_if_stored();
    }

    /// Removes what is left of an upgrade. If its result could not be stored, this is left to the next start.
    fn finish_if_stored(&self) {
        if self.storage_fault.is_none() {
            self.deps.upgrades.finish();
        }
    }

    /// Begins an upgrade for an action, or for a command on the host. The error is the reason of a refusal.
    pub(super) fn begin_upgrade(&mut self, action: Option<Action>, mut request: Request) -> Result<(), String> {
        let Some(running) = self.deps.upgrades.running() else { return Err(NOT_INSTALLED.into()) };
        let is_running = running.version() == request.version;
        // Also for the version that is being watched: whether it stays is not decided.
        if self.watched().is_some() && (is_running || !request.rollback) {
            return Err("the previous upgrade is still being watched".into());
        }
        if is_running {
            self.already_runs(action);
            return Ok(());
        }
        // The switch cannot be undone by dropping it: the link may lead to the new version already.
        if let Some(current) = self.upgrading.as_ref().filter(|current| current.is_switching) {
            return Err(format!("the agent is switching to version {}", current.request.version));
        }
        // A request that cannot be carried out must not end one that can.
        self.deps.upgrades.check(&request, self.client.clone()).map_err(|failed| failed.message)?;
        if self.take_over(action.as_ref(), &request) {
            return Ok(());
        }
        let attempts = self.attempts(action.as_ref()) + 1;
        if attempts > ATTEMPTS_MAX {
            return Err(format!("the agent was killed during {ATTEMPTS_MAX} attempts of this upgrade"));
        }
        request.policy_source = self.policy_source();
        let progress = Progress::default();
        let work = self.preparation(request.clone(), progress.clone());
        let upgrading = Upgrading { action, request, progress, is_switching: false, work: Some(work) };
        tracing::info!(version = upgrading.request.version, "upgrading");
        self.background.ids.extend(upgrading.action.iter().map(|action| action.id.clone()));
        // Stored before it begins, so that attempts are counted.
        self.state.upgrade = Some(UpgradeReport { details: upgrading.details(), attempts });
        self.upgrading = Some(upgrading);
        self.persist();
        Ok(())
    }

    /// Returns the upgrade to this version, if the watcher has not decided.
    fn watched(&self) -> Option<Record> {
        match self.deps.upgrades.resumed() {
            Resumed::Watching(record) => Some(record),
            _ => None,
        }
    }

    fn already_runs(&mut self, action: Option<Action>) {
        if let Some(action) = action {
            self.state.handled(PendingAck::of(&action, self.deps.clock.now(), Ok(())));
        }
        self.state.upgrade = None;
        self.persist();
    }

    /// Handles a request while another upgrade is being prepared: the same one continues under the new action, another
    /// one is dropped (AG132). Returns whether nothing else is to do.
    fn take_over(&mut self, action: Option<&Action>, request: &Request) -> bool {
        let Some(mut current) = self.upgrading.take() else { return false };
        let name = action.map_or("a command on the host".to_owned(), |action| format!("action {}", action.id));
        let is_same = (&current.request.version, &current.request.source_uri, current.request.rollback)
            == (&request.version, &request.source_uri, request.rollback);
        if let Some(former) = current.action.take() {
            self.background.ids.remove(&former.id);
            let error = format!("replaced by {name}");
            self.state.handled(PendingAck::of(&former, self.deps.clock.now(), Err(error)));
        }
        if is_same {
            current.action = action.cloned();
            self.background.ids.extend(action.iter().map(|action| action.id.clone()));
            let details = current.details();
            self.state.upgrade = Some(UpgradeReport { details, attempts: 1 });
            self.upgrading = Some(current);
            self.persist();
        }
        is_same
    }

    /// Returns how often the upgrade of an action was begun before.
    fn attempts(&self, action: Option<&Action>) -> u32 {
        let report = self
            .state
            .upgrade
            .as_ref()
            .filter(|report| action.is_some_and(|action| action.id == report.details.action_id));
        report.map_or(0, |report| report.attempts)
    }

    fn policy_source(&self) -> Option<PolicySource> {
        let policy = serde_json::from_str(self.state.policy.as_ref()?.policy.get()).ok()?;
        PolicySource::of(&policy)
    }

    fn preparation(&self, request: Request, progress: Progress) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let (upgrades, client) = (self.deps.upgrades.clone(), self.client.clone());
        Box::pin(async move { Outcome::Prepared(upgrades.prepare(request, client, progress).await) })
    }

    pub(super) fn upgraded(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Prepared(Ok(home)) => self.switch(home),
            Outcome::Prepared(Err(failed)) | Outcome::Switched(Err(failed)) => self.upgrade_failed(&failed),
            Outcome::Switched(Ok(())) => self.become_new(),
        }
    }

    fn switch(&mut self, to: HomeName) {
        let terms = self.terms();
        let upgrades = self.deps.upgrades.clone();
        let Some(upgrading) = &mut self.upgrading else { return };
        let switch = Switch { to, action_id: upgrading.action_id().to_owned(), terms };
        upgrading.is_switching = true;
        upgrading.progress.set(Stage::Replacing, Metadata::default());
        upgrading.work = Some(Box::pin(async move { Outcome::Switched(upgrades.switch(switch).await) }));
    }

    /// Returns what the new version must achieve: no more than this one does.
    fn terms(&self) -> Terms {
        // The server that has sent the action was reachable, whatever the network does at this moment.
        let requested = self.upgrading.as_ref().is_some_and(|upgrading| upgrading.action.is_some());
        let connected = requested || self.is_held() || self.fleet_status().is_connected();
        let failed = self.deps.components.states().into_iter().filter(|state| state.state == Health::Failed);
        Terms { connected, failed: failed.map(|state| state.id).collect() }
    }

    fn become_new(&mut self) {
        let Some(upgrading) = self.upgrading.take() else { return };
        upgrading.progress.set(Stage::Restarting, Metadata::default());
        if let Some(report) = &mut self.state.upgrade {
            report.details = upgrading.details();
        }
        self.persist();
        self.leaving = Some((Ending::Restart, None));
    }

    fn upgrade_failed(&mut self, failed: &Failed) {
        let Some(upgrading) = self.upgrading.take() else { return };
        let (details, attempts) = (upgrading.details().failed(failed.stage, &failed.message), 0);
        tracing::error!(version = upgrading.request.version, error = failed.message, "upgrade failed");
        match self.watched() {
            // Only the request to go back has failed.
            Some(record) => self.report_upgrade(&record, Stage::Watching, Metadata::default()),
            None => self.state.upgrade = Some(UpgradeReport { details, attempts }),
        }
        if let Some(action) = upgrading.action {
            self.background.ids.remove(&action.id);
            self.state.handled(PendingAck::of(&action, self.deps.clock.now(), Err(failed.message.clone())));
        }
        self.persist();
    }

    /// Reports an UPGRADE that does not begin, also if it has expired (AG112). Does not persist the state.
    pub(super) fn refuse_upgrade(&mut self, action: &Action, reason: &str) {
        let details = Details {
            target_version: target_version(action),
            state: Stage::Requested,
            action_id: action.id.clone(),
            metadata: Metadata::default(),
        };
        // The report of an upgrade in progress is not replaced by that of another one.
        let is_free = self.state.upgrade.as_ref().is_none_or(|report| {
            report.details.action_id == action.id || matches!(report.details.state, Stage::Failed | Stage::Rollback)
        });
        if is_free && self.upgrading.is_none() {
            let details = details.failed(Stage::Requested, reason);
            self.state.upgrade = Some(UpgradeReport { details, attempts: 0 });
        }
    }

    /// Turns the report of a roll-back, once it was sent, into that of a failure, which ends the upgrade on the server.
    pub(super) fn rollback_reported(&mut self) {
        if !self.reports_rollback() {
            return;
        }
        let Some(report) = &mut self.state.upgrade else { return };
        let message = report.details.metadata.error_msg.clone().unwrap_or_default();
        report.details = report.details.failed(Stage::Watching, &message);
        self.persist();
    }

    /// Returns whether the report of a roll-back is being sent.
    pub(super) fn reports_rollback(&self) -> bool {
        self.state.upgrade.as_ref().is_some_and(|report| report.details.state == Stage::Rollback)
    }

    /// Returns the details to report.
    pub(super) fn upgrade_details(&self) -> Option<Details> {
        if let Some(upgrading) = &self.upgrading {
            return Some(upgrading.details());
        }
        match self.state.upgrade.as_ref().map(|report| report.details.clone()) {
            Some(details) if details.state != Stage::Failed => Some(details),
            // A scheduled upgrade replaces the report of the last failure.
            failed => self.scheduled().or(failed),
        }
    }

    fn scheduled(&self) -> Option<Details> {
        let now = self.deps.clock.now();
        let waits = |action: &&Action| action.kind == Kind::Upgrade && !action.is_due(now);
        let action = self.state.inbox.iter().find(waits)?;
        let metadata = Metadata { scheduled_at: action.start_time.clone(), ..Metadata::default() };
        let (target_version, action_id) = (target_version(action), action.id.clone());
        Some(Details { target_version, state: Stage::Scheduled, action_id, metadata })
    }

    /// Returns `upgrade` of a check-in: the versions that this agent can return to.
    pub(super) fn rollbacks(&self) -> Option<Box<RawValue>> {
        self.deps.upgrades.running()?;
        let kept = self.deps.upgrades.kept();
        let body = if kept.is_empty() { serde_json::json!({}) } else { serde_json::json!({ "rollbacks": kept }) };
        to_raw_value(&body).ok()
    }
}

/// Returns the version in the unsigned data of an action, for a report only.
fn target_version(action: &Action) -> String {
    let data: Option<Request> = action.data.as_deref().and_then(|data| serde_json::from_str(data.get()).ok());
    data.map(|request| request.version).unwrap_or_default()
}
