//! How an upgrade begins and ends: in the agent's record and in the action that asked for it, by one rule.
//!
//! While an upgrade is open, the record names its action and the version that it leads to. It succeeded only once the
//! agent runs that version and reports no more details of it; it failed once the agent says so, gives it up, or is
//! upgraded by another action. Whatever ends it in the record gives an [`Ended`] for the action's target, to be committed
//! together with the record. An agent that acked and then shows no progress for two hours has failed too: otherwise
//! whoever waits for the action would wait for ever.
//!
//! Neither sign is enough alone. Agents ack an UPGRADE without an error before they report that it failed (seen of 8.18
//! and 9.5), and also when another action replaces it; details disappear after a roll-back as they do after a success;
//! agents before 8.12 send no details at all.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::ActionId;
use crate::status::STUCK_AFTER;
use crate::time::Timestamp;
use crate::upgrade_details::UpgradeDetails;
use crate::version::Version;

/// Time without progress after which an acked upgrade is given up: that after which it counts as stuck (MG §3.5).
pub const GIVEN_UP_AFTER: Duration = STUCK_AFTER;

/// Progress of an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpgradeState {
    /// When the action was given, or its scheduled start; `None` when done, failed or cancelled.
    pub started_at: Option<Timestamp>,
    /// Time of the last success.
    pub upgraded_at: Option<Timestamp>,
    /// The upgrade that is not over yet.
    pub open: Option<Box<OpenUpgrade>>,
    /// Validated report of a running upgrade as JSON (EA §4.6).
    pub details: Option<Arc<str>>,
    /// Versions to which the agent can roll back, as a JSON array (EA66).
    pub rollbacks: Option<Arc<str>>,
}

/// An upgrade that is not over yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenUpgrade {
    /// The action that asked for it.
    pub action: ActionId,
    /// The version that it leads to.
    pub version: String,
    /// The version that the agent ran when the action was given.
    pub from: String,
    /// Time of the last progress: the ack without an error, or details that changed since; `None`: not acked yet.
    #[serde(default)]
    pub progress_at: Option<Timestamp>,
}

/// How an upgrade ended for its action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The action.
    pub action: ActionId,
    /// Why it failed; `None`: it succeeded.
    pub error: Option<String>,
}

/// An agent's ack of an UPGRADE.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeAck<'a> {
    /// The action.
    pub action: &'a ActionId,
    /// The error, if there is one.
    pub error: Option<&'a str>,
    /// The agent says that it retries.
    pub retries: bool,
}

impl OpenUpgrade {
    fn leads_to(&self, version: &str) -> bool {
        is_same(&self.version, version)
    }

    /// An upgrade to the version that the agent ran before can't be told by the version: the ack is its sign.
    fn is_reinstall(&self) -> bool {
        self.leads_to(&self.from)
    }
}

/// Versions are the same when major, minor and patch are: agents report no build and no suffix.
fn is_same(one: &str, other: &str) -> bool {
    Version::parse(one).is_some_and(|version| Version::parse(other) == Some(version))
}

impl UpgradeState {
    /// The state after `action` asked an agent that runs `runs` for `version`, to begin at `start`; and the end of the
    /// upgrade that it replaces.
    #[must_use]
    pub fn begun(&self, action: &ActionId, version: &str, runs: &str, start: Timestamp) -> (Self, Option<Ended>) {
        let replaced = self
            .open
            .as_ref()
            .filter(|open| open.action != *action)
            .map(|open| Ended { action: open.action.clone(), error: Some(format!("replaced by action {action}")) });
        let open = OpenUpgrade {
            action: action.clone(),
            version: version.to_owned(),
            from: runs.to_owned(),
            progress_at: None,
        };
        // Details belong to the action before; a stale failure would mark the agent as stuck (MG §3.5).
        let next = Self {
            started_at: Some(start),
            upgraded_at: None,
            open: Some(Box::new(open)),
            details: None,
            rollbacks: self.rollbacks.clone(),
        };
        (next, replaced)
    }

    /// The state after `action` was cancelled; another action's upgrade goes on.
    #[must_use]
    pub fn cancelled(&self, action: &ActionId) -> Self {
        if self.open.as_ref().is_some_and(|open| open.action != *action) {
            return self.clone();
        }
        Self { started_at: None, upgraded_at: None, open: None, ..self.clone() }
    }

    /// The state of an agent that was installed anew and replaces itself: what it reported is gone. Its check-ins tell
    /// whether it is the version that was asked for.
    #[must_use]
    pub fn reinstalled(&self) -> Self {
        let started_at = self.started_at.filter(|_| self.open.is_some());
        Self { started_at, details: None, rollbacks: None, ..self.clone() }
    }

    /// The state after a check-in of an agent that now runs `runs` with these `details`, and the end of the upgrade if
    /// this is it; `None`: nothing changed.
    pub fn reported(
        &self,
        runs: &str,
        details: Option<&UpgradeDetails>,
        now: Timestamp,
    ) -> Option<(Self, Option<Ended>)> {
        // Nearly every check-in ends here.
        if self.open.is_none() && self.details.is_none() && details.is_none() {
            return None;
        }
        let mut next = self.clone();
        let ended = match details {
            Some(details) => next.goes_on(details, now),
            None => next.falls_silent(runs, now),
        };
        (next != *self).then_some((next, ended))
    }

    fn goes_on(&mut self, details: &UpgradeDetails, now: Timestamp) -> Option<Ended> {
        // Agents repeat the failure of an earlier action until they get the next one: it is no word on that one.
        if self.open.as_ref().is_some_and(|open| open.action.as_str() != details.action_id) {
            return None;
        }
        let told = details.to_json();
        if self.details.as_ref() != Some(&told)
            && let Some(progress_at) = self.open.as_mut().and_then(|open| open.progress_at.as_mut())
        {
            *progress_at = now;
        }
        self.details = Some(told);
        if !details.has_failed() {
            return None;
        }
        self.upgraded_at = None;
        self.fail(details.error().unwrap_or("the upgrade failed").to_owned())
    }

    /// Details that disappear end the upgrade, one way or the other (EA62). Without any before, the version tells.
    fn falls_silent(&mut self, runs: &str, now: Timestamp) -> Option<Ended> {
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
            (Some(open), None) if open.leads_to(runs) && (open.progress_at.is_some() || !open.is_reinstall()) => {
                self.succeed(now)
            }
            (Some(_), None) => None,
            (Some(open), Some(_)) if open.leads_to(runs) => self.succeed(now),
            (Some(open), Some(details)) => {
                let gave_up =
                    format!("not upgraded to {}: the agent runs {runs} after {}", open.version, details.state);
                self.fail(details.error().map_or(gave_up, str::to_owned))
            }
        }
    }

    /// The state after an ack, and the end of the upgrade if this is it; `None`: the ack decides nothing by itself.
    /// An action that is not the open one is answered by its ack alone.
    pub fn acked(&self, ack: UpgradeAck<'_>, runs: &str, now: Timestamp) -> (Self, Option<Ended>) {
        let mut next = self.clone();
        if ack.error.is_some() && ack.retries {
            return (next, None);
        }
        let Some(open) = next.open.as_mut().filter(|open| open.action == *ack.action) else {
            let ended = Ended { action: ack.action.clone(), error: ack.error.map(str::to_owned) };
            return (next, Some(ended));
        };
        let ended = match ack.error {
            Some(error) => next.fail(error.to_owned()),
            None if self.details.is_none() && open.leads_to(runs) => next.succeed(now),
            None => {
                open.progress_at = Some(now);
                None
            }
        };
        (next, ended)
    }

    /// The time at which the open upgrade is given up unless there is progress until then; `None`: there is none, or its
    /// agent has not acked it and its action's expiration is the end.
    #[must_use]
    pub fn given_up_at(&self) -> Option<Timestamp> {
        let progress_at = self.open.as_ref()?.progress_at?;
        let details = self.details.as_deref().and_then(UpgradeDetails::stored);
        let scheduled = details.and_then(|details| details.scheduled_at());
        let from = [self.started_at, scheduled].into_iter().flatten().fold(progress_at, Timestamp::max);
        Some(from.plus(GIVEN_UP_AFTER))
    }

    /// The state of an agent that shows no progress for too long, and the end of its upgrade; `None`: it has time left.
    #[must_use]
    pub fn given_up(&self, runs: &str, now: Timestamp) -> Option<(Self, Ended)> {
        self.given_up_at().filter(|at| *at <= now)?;
        let mut next = self.clone();
        let version = next.open.as_ref().map(|open| open.version.clone()).unwrap_or_default();
        let ended =
            next.fail(format!("not upgraded to {version}: no progress for two hours, the agent runs {runs}"))?;
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
