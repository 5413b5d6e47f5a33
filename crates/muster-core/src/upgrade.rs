//! Beginning and end of an upgrade, by the same rule for the agent's record and for the action that requested it.
//!
//! While an upgrade is open, the record contains its action and its target version. It has succeeded once the agent
//! runs that version and reports no more details. It has failed if the agent says so, gives up, or is upgraded by
//! another action. Whatever ends it in the record returns an [`Ended`] for the target of the action, which must be
//! committed together with the record. An acknowledged upgrade without progress for two hours has failed too; otherwise
//! its action would not end.
//!
//! No single sign is sufficient. Agents ack an UPGRADE without an error before they report that it failed (observed
//! with 8.18 and 9.5), and also if another action replaces it. Details disappear after a rollback as they do after a
//! success. Agents before 8.12 send no details at all.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::canonical::is_snapshot;
use crate::id::ActionId;
use crate::status::STUCK_AFTER;
use crate::time::Timestamp;
use crate::upgrade_details::UpgradeDetails;
use crate::version::Version;

/// Time without progress after which an acknowledged upgrade has failed: the same as for a stuck one (MG §3.5).
pub const GIVEN_UP_AFTER: Duration = STUCK_AFTER;

/// Progress of an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpgradeState {
    /// Creation time of the action, or its scheduled start; `None` if completed, failed or cancelled.
    pub started_at: Option<Timestamp>,
    /// Time of the last success.
    pub upgraded_at: Option<Timestamp>,
    /// Upgrade in progress.
    pub open: Option<Box<OpenUpgrade>>,
    /// Validated report of a running upgrade as JSON (EA §4.6).
    pub details: Option<Arc<str>>,
    /// Versions to which the agent can roll back, as a JSON array (EA66).
    pub rollbacks: Option<Arc<str>>,
}

/// An upgrade in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenUpgrade {
    /// Action that requested it.
    pub action: ActionId,
    /// Target version.
    pub version: String,
    /// Version of the agent when the action was created.
    pub from: String,
    /// Time of the last progress: the ack without an error, or a later change of details; `None` until it is
    /// acknowledged.
    #[serde(default)]
    pub progress_at: Option<Timestamp>,
    /// Whether the agent has since reported that it is a snapshot; `None` if it has not said.
    #[serde(default)]
    pub is_snapshot: Option<bool>,
}

/// End of an upgrade, for its action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The action.
    pub action: ActionId,
    /// Error if it failed; `None` if it succeeded.
    pub error: Option<String>,
}

/// An agent's ack of an UPGRADE.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeAck<'a> {
    /// The action.
    pub action: &'a ActionId,
    /// The error, if there is one.
    pub error: Option<&'a str>,
    /// Whether the agent will retry.
    pub retries: bool,
}

impl OpenUpgrade {
    /// Returns whether an agent with version `runs` runs the target. A snapshot and the release of the same number are
    /// two versions, but agents name a snapshot in their metadata only.
    fn targets(&self, runs: &str) -> bool {
        let runs_snapshot = is_snapshot(runs) || self.is_snapshot == Some(true);
        is_same(&self.version, runs) && runs_snapshot == is_snapshot(&self.version)
    }

    /// Returns whether an agent with version `runs` may run the target, and has not yet said whether it is a snapshot.
    fn may_target(&self, runs: &str) -> bool {
        is_same(&self.version, runs) && self.is_snapshot.is_none() && !self.targets(runs)
    }

    /// Returns whether the agent already ran the target version. In this case the version proves nothing, and an ack is
    /// required.
    fn is_reinstall(&self) -> bool {
        // Whether the agent was a snapshot is not known.
        is_same(&self.version, &self.from)
    }
}

/// Error of an upgrade whose agent was then given another one.
fn replaced_by(action: &ActionId) -> String {
    format!("replaced by action {action}")
}

/// Compares major, minor and patch only, because agents report neither build nor suffix.
fn is_same(one: &str, other: &str) -> bool {
    Version::parse(one).is_some_and(|version| Version::parse(other) == Some(version))
}

impl UpgradeState {
    /// Returns the state after `action` requested an upgrade of an agent with version `runs` to `version`, starting at
    /// `start`, and the end of the upgrade that it replaces.
    #[must_use]
    pub fn begun(&self, action: &ActionId, version: &str, runs: &str, start: Timestamp) -> (Self, Option<Ended>) {
        let replaced = self
            .open
            .as_ref()
            .filter(|open| open.action != *action)
            .map(|open| Ended { action: open.action.clone(), error: Some(replaced_by(action)) });
        let open = OpenUpgrade {
            action: action.clone(),
            version: version.to_owned(),
            from: runs.to_owned(),
            progress_at: None,
            is_snapshot: None,
        };
        // The old details belong to the previous action; a stale failure would mark the agent as stuck (MG §3.5).
        let next = Self {
            started_at: Some(start),
            upgraded_at: None,
            open: Some(Box::new(open)),
            details: None,
            rollbacks: self.rollbacks.clone(),
        };
        (next, replaced)
    }

    /// Returns the state after `action` was cancelled. The upgrade of another action continues.
    #[must_use]
    pub fn cancelled(&self, action: &ActionId) -> Self {
        if self.open.as_ref().is_some_and(|open| open.action != *action) {
            return self.clone();
        }
        Self { started_at: None, upgraded_at: None, open: None, ..self.clone() }
    }

    /// Returns the state of an agent that was unenrolled, in which no upgrade is in progress.
    #[must_use]
    pub fn left(&self) -> Self {
        Self { started_at: None, open: None, details: None, ..self.clone() }
    }

    /// Returns the state after the agent said whether it is a snapshot; `None` if nothing changed.
    #[must_use]
    pub fn with_snapshot(&self, is_snapshot: bool) -> Option<Self> {
        let open = self.open.as_ref().filter(|open| open.is_snapshot != Some(is_snapshot))?;
        let open = OpenUpgrade { is_snapshot: Some(is_snapshot), ..(**open).clone() };
        Some(Self { open: Some(Box::new(open)), ..self.clone() })
    }

    /// Returns whether the agent reports that it is carrying out the upgrade that `action` requested.
    pub fn is_running(&self, action: &ActionId) -> bool {
        let details = self.details.as_deref().and_then(UpgradeDetails::stored);
        details.is_some_and(|details| details.action_id == action.as_str() && details.is_running())
    }

    /// Returns the state of an agent that was reinstalled and replaces its record. Its reports are cleared; its
    /// check-ins will show whether it has the target version.
    #[must_use]
    pub fn reinstalled(&self) -> Self {
        let started_at = self.started_at.filter(|_| self.open.is_some());
        Self { started_at, details: None, rollbacks: None, ..self.clone() }
    }

    /// Returns the state after a check-in with version `runs` and these `details`, and the end of the upgrade, if this
    /// is it. `None` if nothing changed.
    pub fn reported(
        &self,
        runs: &str,
        details: Option<&UpgradeDetails>,
        now: Timestamp,
    ) -> Option<(Self, Option<Ended>)> {
        // The path of nearly every check-in: no copy.
        if self.open.is_none() && self.details.is_none() && details.is_none() {
            return None;
        }
        let mut next = self.clone();
        let ended = match details {
            Some(details) => next.progress(details, now),
            None => next.without_details(runs, now),
        };
        (next != *self).then_some((next, ended))
    }

    fn progress(&mut self, details: &UpgradeDetails, now: Timestamp) -> Option<Ended> {
        // Agents repeat the failure of an earlier action until they get the next one, so it says nothing about that one.
        if self.open.as_ref().is_some_and(|open| open.action.as_str() != details.action_id) {
            return None;
        }
        let json = details.to_json();
        if self.details.as_ref() != Some(&json)
            && let Some(progress_at) = self.open.as_mut().and_then(|open| open.progress_at.as_mut())
        {
            *progress_at = now;
        }
        self.details = Some(json);
        if !details.has_failed() {
            return None;
        }
        self.upgraded_at = None;
        self.fail(details.error().unwrap_or("the upgrade failed").to_owned())
    }

    /// Handles a check-in without details. If there were details before, the upgrade has ended (EA62); if not, the
    /// version decides.
    fn without_details(&mut self, runs: &str, now: Timestamp) -> Option<Ended> {
        let details = self.details.take().and_then(|raw| UpgradeDetails::stored(&raw));
        match (&self.open, details) {
            (None, None) => None,
            (None, Some(details)) => {
                self.started_at = None;
                if !details.has_failed() && is_same(&details.target_version, runs) {
                    self.upgraded_at = Some(now);
                }
                None
            }
            // Agents before 8.12, which send no details.
            (Some(open), None) if open.targets(runs) && (open.progress_at.is_some() || !open.is_reinstall()) => {
                self.succeed(now)
            }
            (Some(_), None) => None,
            (Some(open), Some(_)) if open.targets(runs) => self.succeed(now),
            (Some(open), Some(_)) if open.may_target(runs) => None,
            (Some(open), Some(details)) => {
                let gave_up =
                    format!("not upgraded to {}: the agent runs {runs} after {}", open.version, details.state);
                self.fail(details.error().map_or(gave_up, str::to_owned))
            }
        }
    }

    /// Returns the state after an ack, and the end of the upgrade, if this is it. The ack of any action but the open
    /// one is the result of that action, and no success while another one is open.
    pub fn acked(&self, ack: UpgradeAck<'_>, runs: &str, now: Timestamp) -> (Self, Option<Ended>) {
        let mut next = self.clone();
        // The last attempt reports without `retry` (EA121).
        if let Some(error) = ack.error.filter(|_| ack.retries) {
            next.failed_attempt(ack.action, error, now);
            return (next, None);
        }
        let Some(open) = next.open.as_mut().filter(|open| open.action == *ack.action) else {
            // Agents ack without an error an upgrade that was cancelled and that another one then replaced.
            let replaced = next.open.as_ref().map(|open| replaced_by(&open.action));
            let ended = Ended { action: ack.action.clone(), error: ack.error.map(str::to_owned).or(replaced) };
            return (next, Some(ended));
        };
        let ended = match ack.error {
            Some(error) => next.fail(error.to_owned()),
            // The check-in with the new version came before the ack.
            None if self.details.is_none() && open.targets(runs) => next.succeed(now),
            None => {
                open.progress_at = Some(now);
                None
            }
        };
        (next, ended)
    }

    /// Handles the failure of an attempt that the agent will repeat, after up to an hour. Its error is shown at once, and not
    /// only when the agent reports it. The ack counts as progress, so that an agent that then falls silent has failed.
    fn failed_attempt(&mut self, action: &ActionId, error: &str, now: Timestamp) {
        let Some(open) = self.open.as_mut().filter(|open| open.action == *action) else { return };
        open.progress_at = Some(now);
        // Only in details that the agent has sent: without details in its check-ins, they would look like ones that ended.
        let details = self.details.as_deref().and_then(UpgradeDetails::stored);
        self.details = details.map(|details| details.with_retry_error(error).to_json());
    }

    /// Returns the time at which the open upgrade fails unless there is progress. `None` if no upgrade is open, or if
    /// it was not acknowledged, in which case the expiration of the action ends it.
    #[must_use]
    pub fn given_up_at(&self) -> Option<Timestamp> {
        let progress_at = self.open.as_ref()?.progress_at?;
        let details = self.details.as_deref().and_then(UpgradeDetails::stored);
        let scheduled = details.and_then(|details| details.scheduled_at());
        // An upgrade that is scheduled for tomorrow must not fail today.
        let from = [self.started_at, scheduled].into_iter().flatten().fold(progress_at, Timestamp::max);
        Some(from.plus(GIVEN_UP_AFTER))
    }

    /// Returns the state and the end of an upgrade that made no progress in time; `None` if there is time left.
    #[must_use]
    pub fn given_up(&self, runs: &str, now: Timestamp) -> Option<(Self, Ended)> {
        self.given_up_at().filter(|at| *at <= now)?;
        let mut next = self.clone();
        let version = next.open.as_ref().map(|open| open.version.clone()).unwrap_or_default();
        let details = next.details.as_deref().and_then(UpgradeDetails::stored);
        let error = details.as_ref().and_then(UpgradeDetails::error);
        let error = error.map(|error| format!("; last error: {error}")).unwrap_or_default();
        let ended =
            next.fail(format!("not upgraded to {version}: no progress for two hours, the agent runs {runs}{error}"))?;
        Some((next, ended))
    }

    fn succeed(&mut self, now: Timestamp) -> Option<Ended> {
        self.started_at = None;
        self.upgraded_at = Some(now);
        self.open.take().map(|open| Ended { action: open.action, error: None })
    }

    fn fail(&mut self, error: String) -> Option<Ended> {
        self.started_at = None;
        self.open.take().map(|open| Ended { action: open.action, error: Some(error) })
    }
}

#[cfg(test)]
mod tests;
