//! Agent status. It is stored by transitions, not computed when it is read (MG §3).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::{AgentRecord, AuditReason};
use crate::time::Timestamp;
use crate::upgrade_details::UpgradeDetails;

/// Status of an agent, from its connection, health and life cycle (MG §3.1, first match wins).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Unenrolled; its keys are revoked.
    Unenrolled,
    /// Not seen for the inactivity timeout of its policy.
    Inactive,
    /// Reported that it was uninstalled.
    Uninstalled,
    /// Reported as gone by a component.
    Orphaned,
    /// Not seen for five minutes.
    Offline,
    /// Its running policy revision is unknown, or an upgrade is running.
    Updating,
    /// Enrolled, but has never checked in.
    Enrolling,
    /// Has a pending UNENROLL action.
    Unenrolling,
    /// Reports a failure.
    Error,
    /// Reports that it is degraded.
    Degraded,
    /// Healthy.
    Online,
}

impl Status {
    /// Every status, in the order of the rules.
    pub const ALL: [Self; 11] = [
        Self::Unenrolled,
        Self::Inactive,
        Self::Uninstalled,
        Self::Orphaned,
        Self::Offline,
        Self::Updating,
        Self::Enrolling,
        Self::Unenrolling,
        Self::Error,
        Self::Degraded,
        Self::Online,
    ];

    /// Returns its name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unenrolled => "unenrolled",
            Self::Inactive => "inactive",
            Self::Uninstalled => "uninstalled",
            Self::Orphaned => "orphaned",
            Self::Offline => "offline",
            Self::Updating => "updating",
            Self::Enrolling => "enrolling",
            Self::Unenrolling => "unenrolling",
            Self::Error => "error",
            Self::Degraded => "degraded",
            Self::Online => "online",
        }
    }

    /// Parses a name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// Time since last seen after which an agent is offline: ten heartbeat intervals of half a minute.
pub const OFFLINE_AFTER: Duration = Duration::from_secs(300);
/// Time without a report after which an upgrade counts as stuck (MG §3.5).
pub const STUCK_AFTER: Duration = Duration::from_secs(7200);
/// The rules ask for *more* than a time; timestamps have microseconds.
const MOMENT: Duration = Duration::from_micros(1);

/// When the agent was last seen, as far as that can be known at `now`. `seen` is the latest sighting that the caller
/// knows of, presence included; the record may know a later one.
///
/// A stored sighting that lies in the future was written under a clock that has been set back since. Its time says
/// nothing: left as it is, an agent that is gone would look present until that day.
pub fn last_sighting(record: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let seen = seen.map(|seen| seen.min(now));
    match record.last_checkin {
        Some(stored) if stored > now => seen.or(Some(now)),
        // Either may be later: memory knows of heartbeats that wrote nothing, the record of what another node saw.
        stored => seen.max(stored),
    }
}

/// The status at `now`, and when it must be looked at again; `None`: time alone changes nothing.
///
/// `seen` is the latest sighting that the caller knows of, presence included.
pub fn evaluate(record: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> (Status, Option<Timestamp>) {
    if !record.active {
        return (Status::Unenrolled, None);
    }
    let sighting = last_sighting(record, seen, now);
    let last = sighting.unwrap_or(record.enrolled_at.min(now));
    let inactive_at = record.inactivity_timeout.filter(|timeout| !timeout.is_zero()).map(|t| last.plus(t).plus(MOMENT));
    // An upgrade is given up whatever the agent's status is.
    let given_up_at = record.upgrade.given_up_at();
    let first = |times: &[Option<Timestamp>]| times.iter().flatten().copied().chain(given_up_at).min();
    if inactive_at.is_some_and(|at| at <= now) {
        return (Status::Inactive, first(&[]));
    }
    // Behind "inactive": who left long ago is out of the way like all others (MG §3.1); before "offline", since it said so.
    if let Some(left) = record.audit.and_then(|report| left(report.reason)) {
        return (left, first(&[inactive_at]));
    }
    let offline_at = last.plus(OFFLINE_AFTER).plus(MOMENT);
    if offline_at <= now {
        return (Status::Offline, first(&[inactive_at]));
    }
    let (status, changes_at) = present(record, sighting.is_some(), now);
    (status, first(&[Some(offline_at), inactive_at, changes_at]))
}

fn left(reason: AuditReason) -> Option<Status> {
    match reason {
        AuditReason::Uninstall => Some(Status::Uninstalled),
        AuditReason::Orphaned => Some(Status::Orphaned),
        AuditReason::KeyRevoked | AuditReason::Migrated => None,
    }
}

/// The status of an agent that is not away, and when an upgrade's time comes.
fn present(record: &AgentRecord, seen: bool, now: Timestamp) -> (Status, Option<Timestamp>) {
    let upgrade_at = upgrade_begins(record);
    let later = upgrade_at.filter(|at| *at > now);
    let upgrading = upgrade_at.is_some() && later.is_none();
    // An agent without a policy has none to wait for, and is as healthy as it says.
    // One that could not apply the first one has it, and says how it is.
    let waits = record.policy_revision <= 0 && record.policy_failure.is_none();
    let wants_policy = seen && record.policy_id.is_some() && waits;
    let status = if upgrading || wants_policy {
        Status::Updating
    } else if !seen {
        Status::Enrolling
    } else if record.unenrollment_started_at.is_some() {
        Status::Unenrolling
    } else {
        healthy(&record.health.status)
    };
    (status, later)
}

/// The word that the agent says of itself, clamped to what is known (D13).
fn healthy(said: &str) -> Status {
    if said.eq_ignore_ascii_case("error") {
        Status::Error
    } else if said.eq_ignore_ascii_case("degraded") {
        Status::Degraded
    } else {
        Status::Online
    }
}

/// When the open upgrade begins or began: not before its scheduled time, and never once it failed.
fn upgrade_begins(record: &AgentRecord) -> Option<Timestamp> {
    let started_at = record.upgrade.started_at.filter(|_| record.upgrade.upgraded_at.is_none())?;
    match record.upgrade.details.as_deref().and_then(UpgradeDetails::stored) {
        Some(details) if details.has_failed() => None,
        Some(details) => Some(details.scheduled_at().unwrap_or(started_at)),
        None => Some(started_at),
    }
}

/// Whether the agent hangs: its upgrade failed while it is not away, or it is updating for two hours without a word
/// (MG §3.5).
pub fn is_stuck(record: &AgentRecord, now: Timestamp) -> bool {
    let details = record.upgrade.details.as_deref().and_then(UpgradeDetails::stored);
    match details {
        Some(details) => {
            details.has_failed() && !matches!(record.status, Status::Offline | Status::Inactive | Status::Unenrolled)
        }
        None => {
            let started_at = record.upgrade.started_at.filter(|_| record.upgrade.upgraded_at.is_none());
            record.status == Status::Updating && started_at.is_some_and(|at| now.since(at) > STUCK_AFTER)
        }
    }
}

/// Moves a record to the status that it has at `now`: sets `status`, `status_since` and `status_deadline`. Tells
/// whether the status became another one.
pub fn transition(record: &mut AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> bool {
    let (status, deadline) = evaluate(record, seen, now);
    record.status_deadline = deadline;
    let changed = record.status != status;
    if changed {
        record.status = status;
        record.status_since = now;
    }
    changed
}

/// What every decision that changes a record ends in: the status is moved, and the record gets its version and time.
pub fn finish(before: &AgentRecord, mut after: AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> AgentRecord {
    transition(&mut after, seen, now);
    after.version = before.version + 1;
    after.updated_at = now;
    after
}

#[cfg(test)]
mod tests;
