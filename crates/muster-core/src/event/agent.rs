//! The events of an agent's record.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Event, EventKind, Subject};
use crate::agent::{AgentRecord, AuditReason};
use crate::status::Status;
use crate::time::Timestamp;

/// Returns the event of an enrollment. `before` is the record that it replaces.
pub fn of_enrollment(before: Option<&AgentRecord>, record: &AgentRecord) -> Event {
    let kind = if before.is_some() { EventKind::AgentReenrolled } else { EventKind::AgentEnrolled };
    let detail = json!({
        "enrollment_key_id": record.enrollment_key_id,
        "address": record.last_address,
        "agent_version": record.agent_version,
    });
    event(record, kind, detail)
}

/// Returns the event of an enrollment for the space in which the agent was before; `None` if that is the same one. Whoever has a key of
/// another space can enroll a machine whose hardware UUID it knows there, and thereby take it away.
pub fn left_space(before: &AgentRecord, record: &AgentRecord) -> Option<Event> {
    let detail = json!({
        "to": record.space,
        "enrollment_key_id": record.enrollment_key_id,
        "hostname": record.hostname,
        "address": record.last_address,
        "former_address": before.last_address,
    });
    (before.space != record.space)
        .then(|| Event { at: record.updated_at, ..event(before, EventKind::AgentLeftSpace, detail) })
}

/// Returns the event of the deletion of an unenrolled agent.
pub fn of_purge(record: &AgentRecord, now: Timestamp) -> Event {
    let detail = json!({"unenrolled_at": record.unenrolled_at.map(Timestamp::to_rfc3339_millis)});
    Event { at: now, ..event(record, EventKind::AgentPurged, detail) }
}

/// Returns the events of a change of a record, in the order in which a person would tell of them.
pub fn of_change(before: &AgentRecord, after: &AgentRecord) -> Vec<Event> {
    let mut events = Vec::new();
    events.extend(departure(before, after));
    events.extend(end(before, after));
    // An agent that is unenrolled has no health and does not come back.
    if after.active {
        events.extend(return_of(before, after));
        events.extend(health(before, after));
    }
    events.extend(upgrade(before, after));
    events.extend(policy_failure(before, after));
    events.extend(duplicate(before, after));
    events
}

fn event(record: &AgentRecord, kind: EventKind, detail: Value) -> Event {
    Event {
        at: record.updated_at,
        kind,
        space: Some(record.space.clone()),
        subject: Subject {
            policy_id: record.policy_id.clone(),
            tags: record.tags.clone(),
            server: record.node.clone(),
            ..Subject::new("agent", &record.id, record.hostname.clone())
        },
        before: None,
        after: None,
        detail,
    }
}

/// An event with the statuses before and after.
fn transition(before: &AgentRecord, after: &AgentRecord, kind: EventKind, detail: Value) -> Event {
    Event {
        before: Some(before.status.as_str().to_owned()),
        after: Some(after.status.as_str().to_owned()),
        ..event(after, kind, detail)
    }
}

/// The agent, or a component, reports that it left (MG166).
fn departure(before: &AgentRecord, after: &AgentRecord) -> Option<Event> {
    // Only another reason is news: agents repeat their report until it is answered.
    let report = after.audit.filter(|report| before.audit.is_none_or(|known| known.reason != report.reason))?;
    let kind = match report.reason {
        AuditReason::Uninstall => EventKind::AgentUninstalled,
        AuditReason::Orphaned => EventKind::AgentOrphaned,
        AuditReason::Migrated => EventKind::AgentMigrated,
        AuditReason::KeyRevoked => EventKind::AgentKeyRevoked,
    };
    // The report does not contain who removed the agent.
    let detail =
        json!({"reason": report.reason, "reported_at": report.at.to_rfc3339_millis(), "address": after.last_address});
    Some(transition(before, after, kind, detail))
}

/// The agent was unenrolled, or lost a credential.
fn end(before: &AgentRecord, after: &AgentRecord) -> Option<Event> {
    if before.active && !after.active {
        let reason = after.unenrolled_reason.as_deref();
        let detail = json!({"reason": reason, "forced": reason == Some("forced")});
        return Some(transition(before, after, EventKind::AgentUnenrolled, detail));
    }
    let lost: Vec<&str> = before
        .credentials
        .iter()
        // By id: a credential that was renewed in place is not lost.
        .filter(|old| !after.credentials.iter().any(|new| new.key_id == old.key_id))
        .map(|old| old.key_id.as_str())
        .collect();
    (!lost.is_empty()).then(|| event(after, EventKind::AgentKeyRevoked, json!({"key_ids": lost})))
}

fn is_away(status: Status) -> bool {
    matches!(status, Status::Offline | Status::Inactive | Status::Uninstalled | Status::Orphaned)
}

fn is_unhealthy(status: Status) -> bool {
    matches!(status, Status::Degraded | Status::Error)
}

/// The agent is back.
fn return_of(before: &AgentRecord, after: &AgentRecord) -> Option<Event> {
    let had_left = |record: &AgentRecord| {
        record.audit.is_some_and(|report| matches!(report.reason, AuditReason::Uninstall | AuditReason::Orphaned))
    };
    // Back after a departure is more than back online, so it is one event and not two.
    if had_left(before) && after.audit.is_none() {
        let reason = before.audit.map(|report| report.reason);
        return Some(transition(before, after, EventKind::AgentRecovered, json!({"after": reason})));
    }
    let is_back = matches!(before.status, Status::Offline | Status::Inactive) && !is_away(after.status);
    is_back.then(|| transition(before, after, EventKind::AgentOnline, json!({})))
}

fn health(before: &AgentRecord, after: &AgentRecord) -> Option<Event> {
    if before.status == after.status {
        return None;
    }
    let kind = match after.status {
        Status::Offline => EventKind::AgentOffline,
        Status::Inactive => EventKind::AgentInactive,
        Status::Degraded => EventKind::AgentDegraded,
        Status::Error => EventKind::AgentError,
        Status::Online if is_unhealthy(before.status) => EventKind::AgentRecovered,
        _ => return None,
    };
    let detail = match after.status {
        Status::Degraded | Status::Error => {
            json!({"message": crate::reported::shortened_to(&after.health.message, 500), "components": after.health.unhealthy_reason})
        }
        _ => json!({"last_checkin": after.last_checkin.map(Timestamp::to_rfc3339_millis)}),
    };
    Some(transition(before, after, kind, detail))
}

fn upgrade(before: &AgentRecord, after: &AgentRecord) -> Option<Event> {
    let (old, new) = (&before.upgrade, &after.upgrade);
    let reports = |details: &Option<Arc<str>>, state: &str| details.as_deref().is_some_and(|text| text.contains(state));
    let is_new = |state: &str| reports(&new.details, state) && !reports(&old.details, state);
    // Success first: the details of a former failure may still be stored.
    let kind = if new.upgraded_at.is_some() && new.upgraded_at != old.upgraded_at {
        EventKind::UpgradeSucceeded
    } else if is_new("UPG_FAILED") {
        EventKind::UpgradeFailed
    } else if is_new("UPG_ROLLBACK") {
        EventKind::UpgradeRolledBack
    } else if new.started_at.is_some() && new.started_at != old.started_at {
        EventKind::UpgradeStarted
    } else {
        return None;
    };
    // The upgrade that has just ended is in the record before only.
    let target = new.open.as_ref().or(old.open.as_ref()).map(|open| &open.version);
    Some(Event {
        before: Some(before.agent_version.clone()),
        after: target.cloned().or_else(|| Some(after.agent_version.clone())),
        ..event(after, kind, json!({}))
    })
}

fn policy_failure(before: &AgentRecord, after: &AgentRecord) -> Option<Event> {
    let failure = after.policy_failure.as_ref().filter(|_| before.policy_failure != after.policy_failure)?;
    let detail = json!({"policy_id": after.policy_id, "revision": failure.revision, "reason": failure.reason});
    Some(event(after, EventKind::AgentPolicyFailed, detail))
}

fn duplicate(before: &AgentRecord, after: &AgentRecord) -> Option<Event> {
    let known = after.duplicate_hosts.as_ref().filter(|_| before.duplicate_hosts.is_none())?;
    Some(event(after, EventKind::AgentDuplicated, json!({"hosts": known.hosts})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{AuditReport, PolicyFailure};
    use crate::id::SpaceId;
    use crate::testing::{agent, at};

    fn with(status: Status) -> AgentRecord {
        AgentRecord { status, ..agent() }
    }

    fn kinds(before: &AgentRecord, after: &AgentRecord) -> Vec<&'static str> {
        of_change(before, after).iter().map(|event| event.kind.as_str()).collect()
    }

    #[test]
    fn a_change_without_a_transition_is_no_event() {
        let after = AgentRecord { last_checkin: Some(at(99)), version: 9, ..agent() };
        assert_eq!(kinds(&agent(), &after), Vec::<&str>::new());
        assert_eq!(kinds(&with(Status::Enrolling), &with(Status::Online)), Vec::<&str>::new());
        assert_eq!(kinds(&with(Status::Online), &with(Status::Updating)), Vec::<&str>::new());
    }

    #[test]
    fn a_space_is_told_of_an_agent_that_enrolls_in_another_one() {
        let before = agent();
        assert_eq!(left_space(&before, &AgentRecord { hostname: "new".into(), ..agent() }), None);
        let after = AgentRecord { space: SpaceId::trusted("red"), hostname: "new".into(), ..agent() };
        let event = left_space(&before, &after).unwrap();
        assert_eq!((event.kind.as_str(), event.space), ("agent.left_space", Some(before.space)));
        assert_eq!((event.subject.name, &event.detail["to"]), (before.hostname, &json!("red")));
        assert_eq!(event.detail["hostname"], "new");
    }

    #[test]
    fn each_transition_of_the_status_is_its_event() {
        for (before, after, expected) in [
            (Status::Online, Status::Offline, "agent.offline"),
            (Status::Offline, Status::Inactive, "agent.inactive"),
            (Status::Offline, Status::Online, "agent.online"),
            (Status::Inactive, Status::Updating, "agent.online"),
            (Status::Online, Status::Degraded, "agent.degraded"),
            (Status::Degraded, Status::Error, "agent.error"),
            (Status::Error, Status::Online, "agent.recovered"),
        ] {
            assert_eq!(kinds(&with(before), &with(after)), [expected], "{before:?} {after:?}");
        }
        let events = of_change(&with(Status::Offline), &with(Status::Error));
        assert_eq!(
            events.iter().map(|event| event.kind).collect::<Vec<_>>(),
            [EventKind::AgentOnline, EventKind::AgentError]
        );
        assert_eq!((events[1].before.as_deref(), events[1].after.as_deref()), (Some("offline"), Some("error")));
    }

    #[test]
    fn mg166_a_departure_is_told_once_and_the_return_is_a_recovery() {
        let report = |reason| Some(AuditReport { reason, at: at(5) });
        let gone = AgentRecord { audit: report(AuditReason::Uninstall), ..with(Status::Uninstalled) };
        let events = of_change(&agent(), &gone);
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].kind, &events[0].detail["reason"]), (EventKind::AgentUninstalled, &json!("uninstall")));
        assert_eq!(events[0].detail["reported_at"], at(5).to_rfc3339_millis());
        assert_eq!(kinds(&gone, &gone), Vec::<&str>::new());
        let orphaned = AgentRecord { audit: report(AuditReason::Orphaned), ..with(Status::Orphaned) };
        assert_eq!(kinds(&gone, &orphaned), ["agent.orphaned"]);
        assert_eq!(kinds(&gone, &with(Status::Online)), ["agent.recovered"]);
    }

    #[test]
    fn an_unenrollment_says_whether_it_was_forced() {
        for (reason, forced) in [("forced", true), ("timeout", false)] {
            let after = crate::lifecycle::force_unenroll(&agent(), reason, at(60)).unwrap().unwrap();
            let events = of_change(&agent(), &after);
            assert_eq!(events.len(), 1, "{events:?}");
            let (detail, kind) = (&events[0].detail, events[0].kind);
            assert_eq!((kind, &detail["forced"]), (EventKind::AgentUnenrolled, &json!(forced)));
        }
    }

    #[test]
    fn a_policy_failure_is_told_once_for_each_revision() {
        let failed = |revision| AgentRecord {
            policy_failure: Some(Box::new(PolicyFailure { revision, reason: "no such input".into() })),
            ..agent()
        };
        assert_eq!(kinds(&agent(), &failed(2)), ["agent.policy.failed"]);
        assert_eq!(kinds(&failed(2), &failed(2)), Vec::<&str>::new());
        assert_eq!(kinds(&failed(2), &failed(3)), ["agent.policy.failed"]);
    }
}
