//! Agent status (MG §3). It is stored on transitions, not computed on reads, so that lists and counts over many agents
//! use an index.

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
    /// Not seen for five minutes, or for the interval of its requests and another minute if that is longer.
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
    /// All statuses, in the order of the rules.
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

/// Time without a sighting after which an agent is offline: ten heartbeat intervals of half a minute.
pub const OFFLINE_AFTER: Duration = Duration::from_secs(300);
/// Time by which a request may be later than its interval.
const LATE: Duration = Duration::from_secs(60);
/// Time without a report after which an upgrade counts as stuck (MG §3.5).
pub const STUCK_AFTER: Duration = Duration::from_secs(7200);
/// The rules require *more* than a duration, so deadlines are one unit of [`Timestamp`] later.
const MOMENT: Duration = Duration::from_micros(1);

/// Returns the time without a sighting after which an agent is offline. One whose requests are rare gets the time until its next one (FL19).
pub fn offline_after(record: &AgentRecord) -> Duration {
    OFFLINE_AFTER.max(Duration::from_secs(record.contact_interval.into()) + LATE)
}

/// Returns the interval that is stored for an agent which sends a request at least every `seconds`: 0 if it is offline as soon as any other,
/// so that nothing is written for usual intervals.
pub fn stored_interval(seconds: u32) -> u32 {
    if Duration::from_secs(seconds.into()) + LATE > OFFLINE_AFTER { seconds } else { 0 }
}

/// Returns when the agent was last seen. `seen` is the latest sighting that the caller knows of, including presence;
/// the record may have a later one.
///
/// A stored sighting in the future was written before the clock was set back. It must not be used: an agent that is
/// gone would look present until that time.
pub fn last_sighting(record: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let seen = seen.map(|seen| seen.min(now));
    match record.last_checkin {
        Some(stored) if stored > now => seen.or(Some(now)),
        // Either can be later: memory has heartbeats that wrote nothing, and the record has sightings of other nodes.
        stored => seen.max(stored),
    }
}

/// Returns the status at `now`, and the time at which it must be evaluated again; `None` if time alone does not change
/// it.
///
/// `seen` is the latest sighting that the caller knows of, including presence.
pub fn evaluate(record: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> (Status, Option<Timestamp>) {
    if !record.active {
        return (Status::Unenrolled, None);
    }
    let sighting = last_sighting(record, seen, now);
    // An agent that never checked in goes offline and inactive like any other, counted from its enrollment.
    let last = sighting.unwrap_or(record.enrolled_at.min(now));
    let inactive_at = record.inactivity_timeout.filter(|timeout| !timeout.is_zero()).map(|t| last.plus(t).plus(MOMENT));
    // The deadline of an upgrade applies in every status.
    let given_up_at = record.upgrade.given_up_at();
    let first = |times: &[Option<Timestamp>]| times.iter().flatten().copied().chain(given_up_at).min();
    if inactive_at.is_some_and(|at| at <= now) {
        return (Status::Inactive, first(&[]));
    }
    // After "inactive", which hides agents that left long ago (MG §3.1), and before "offline", because the agent
    // announced its departure.
    if let Some(left) = record.audit.and_then(|report| left(report.reason)) {
        return (left, first(&[inactive_at]));
    }
    let offline_at = last.plus(offline_after(record)).plus(MOMENT);
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
        // These do not mean that the agent is gone from its host, so its presence decides.
        AuditReason::KeyRevoked | AuditReason::Migrated => None,
    }
}

/// Returns the status of an agent that is present, and the start of a scheduled upgrade.
fn present(record: &AgentRecord, seen: bool, now: Timestamp) -> (Status, Option<Timestamp>) {
    let upgrade_at = upgrade_begins(record);
    let later = upgrade_at.filter(|at| *at > now);
    let upgrading = upgrade_at.is_some() && later.is_none();
    // An agent without a policy waits for none, and one that could not apply its first policy has received it. Both
    // have the status that they report.
    let waits_for_first = record.policy_revision <= 0 && record.policy_failure.is_none();
    let wants_policy = seen && record.policy_id.is_some() && waits_for_first;
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

/// Maps the reported status to a known one (D13).
fn healthy(reported: &str) -> Status {
    if reported.eq_ignore_ascii_case("error") {
        Status::Error
    } else if reported.eq_ignore_ascii_case("degraded") {
        Status::Degraded
    } else {
        Status::Online
    }
}

/// Returns when the open upgrade begins or began; `None` if there is none, or if it failed.
fn upgrade_begins(record: &AgentRecord) -> Option<Timestamp> {
    let started_at = record.upgrade.started_at.filter(|_| record.upgrade.upgraded_at.is_none())?;
    match record.upgrade.details.as_deref().and_then(UpgradeDetails::stored) {
        Some(details) if details.has_failed() => None,
        Some(details) => Some(details.scheduled_at().unwrap_or(started_at)),
        None => Some(started_at),
    }
}

/// Returns whether the agent is stuck: its upgrade failed and it is present, or it has been updating for two hours
/// without details (MG §3.5).
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

/// Updates `status`, `status_since` and `status_deadline` of a record for `now`. Returns whether the status changed.
pub fn transition(record: &mut AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> bool {
    let (status, deadline) = evaluate(record, seen, now);
    // Even if the status stays the same: a later sighting moves the deadline.
    record.status_deadline = deadline;
    let changed = record.status != status;
    if changed {
        record.status = status;
        record.status_since = now;
    }
    changed
}

/// Completes a changed record: updates the status, increments the version, and sets the time of the change. Every
/// decision that changes a record must end with this.
pub fn finish(before: &AgentRecord, mut after: AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> AgentRecord {
    transition(&mut after, seen, now);
    if (after.policy_revision, &after.running_policy_id) != (before.policy_revision, &before.running_policy_id) {
        after.policy_revision_at = (after.policy_revision > 0).then_some(now);
    }
    after.version = before.version + 1;
    after.updated_at = now;
    after
}

#[cfg(test)]
mod tests;
