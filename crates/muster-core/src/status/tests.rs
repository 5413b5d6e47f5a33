//! Tests of the status rules. The MG numbers refer to the management API reference.

use proptest::prelude::*;

use super::*;
use crate::agent::AuditReport;
use crate::testing::{agent, at};

fn status(record: &AgentRecord, seconds: u64) -> Status {
    evaluate(record, None, at(seconds)).0
}

fn reported_departure(reason: AuditReason) -> AgentRecord {
    AgentRecord { audit: Some(AuditReport { reason, at: at(0) }), ..agent() }
}

#[test]
fn mg38_unenrolled_outranks_everything() {
    let mut record = reported_departure(AuditReason::Uninstall);
    record.active = false;
    record.upgrade.started_at = Some(at(0));
    assert_eq!(evaluate(&record, Some(at(1)), at(1)), (Status::Unenrolled, None));
}

#[test]
fn time_since_which_a_revision_runs_changes_with_the_revision_only() {
    let before = AgentRecord { policy_revision: 1, policy_revision_at: Some(at(5)), ..agent() };
    let since = |after: AgentRecord| finish(&before, after, None, at(60)).policy_revision_at;
    assert_eq!(since(AgentRecord { hostname: "renamed".into(), ..before.clone() }), Some(at(5)));
    assert_eq!(since(AgentRecord { policy_revision: 2, ..before.clone() }), Some(at(60)));
    assert_eq!(since(AgentRecord { policy_revision: 0, running_policy_id: None, ..before.clone() }), None);
}

#[test]
fn mg39_agents_are_offline_after_five_minutes() {
    assert_eq!(status(&agent(), 299), Status::Online);
    assert_eq!(status(&agent(), 300), Status::Online);
    assert_eq!(status(&agent(), 301), Status::Offline);
}

#[test]
fn mg40_presence_counts_as_a_sighting() {
    assert_eq!(evaluate(&agent(), Some(at(3580)), at(3600)).0, Status::Online);
    assert_eq!(evaluate(&agent(), Some(at(3000)), at(3600)).0, Status::Offline);
}

#[test]
fn mg41_an_agent_never_seen_is_offline_after_six_minutes() {
    let record = AgentRecord { last_checkin: None, policy_revision: 0, ..agent() };
    assert_eq!(status(&record, 60), Status::Enrolling);
    assert_eq!(status(&record, 360), Status::Offline);
}

#[test]
fn mg42_mg45_inactive_outranks_offline_and_ends_with_a_check_in() {
    let mut record = agent();
    record.inactivity_timeout = Some(Duration::from_secs(60));
    assert_eq!(status(&record, 60), Status::Online);
    assert_eq!(evaluate(&record, None, at(61)), (Status::Inactive, None));
    assert_eq!(evaluate(&record, Some(at(61)), at(61)).0, Status::Online);
}

#[test]
fn mg43_without_a_timeout_an_agent_is_never_inactive() {
    for timeout in [None, Some(Duration::ZERO)] {
        let record = AgentRecord { inactivity_timeout: timeout, ..agent() };
        assert_eq!(evaluate(&record, None, at(100_000_000)), (Status::Offline, None));
    }
}

#[test]
fn mg46_mg47_a_reported_departure_outranks_offline() {
    assert_eq!(status(&reported_departure(AuditReason::Uninstall), 1), Status::Uninstalled);
    assert_eq!(status(&reported_departure(AuditReason::Orphaned), 1), Status::Orphaned);
    assert_eq!(status(&reported_departure(AuditReason::Uninstall), 600), Status::Uninstalled);
    assert_eq!(status(&reported_departure(AuditReason::Migrated), 600), Status::Offline);
    assert_eq!(status(&reported_departure(AuditReason::Uninstall), 2_000_000), Status::Inactive);
}

#[test]
fn mg51_an_agent_without_a_revision_is_updating() {
    let record = AgentRecord { policy_revision: 0, ..agent() };
    assert_eq!(status(&record, 1), Status::Updating);
    let unassigned = AgentRecord { policy_revision: 0, policy_id: None, ..agent() };
    assert_eq!(status(&unassigned, 1), Status::Online);
}

#[test]
fn mg52_a_running_upgrade_outranks_errors() {
    let mut record = agent();
    record.health.status = "error".into();
    record.upgrade.started_at = Some(at(0));
    assert_eq!(status(&record, 1), Status::Updating);
    record.upgrade.upgraded_at = Some(at(1));
    assert_eq!(status(&record, 1), Status::Error);
}

#[test]
fn mg53_reported_health_is_case_insensitive() {
    for (word, expected) in [
        ("error", Status::Error),
        ("ERROR", Status::Error),
        ("DEGRADED", Status::Degraded),
        ("starting", Status::Online),
        ("d13 strange", Status::Online),
    ] {
        let mut record = agent();
        record.health.status = word.into();
        assert_eq!(status(&record, 1), expected, "{word}");
    }
}

#[test]
fn mg54_an_agent_with_a_pending_unenroll_is_unenrolling() {
    let record = AgentRecord { unenrollment_started_at: Some(at(0)), ..agent() };
    assert_eq!(status(&record, 1), Status::Unenrolling);
}

#[test]
fn mg57_a_future_upgrade_is_not_updating() {
    let mut record = agent();
    record.upgrade.started_at = Some(at(86_400));
    assert_eq!(evaluate(&record, Some(at(86_300)), at(86_300)), (Status::Online, Some(at(86_400))));
    assert_eq!(evaluate(&record, Some(at(86_399)), at(86_400)).0, Status::Updating);
}

#[test]
fn mg57_a_scheduled_upgrade_is_updating_from_its_start() {
    let mut record = agent();
    record.upgrade.started_at = Some(at(0));
    let scheduled_at = at(200).to_rfc3339_seconds();
    let details = format!(r#"{{"state":"UPG_SCHEDULED","metadata":{{"scheduled_at":"{scheduled_at}"}}}}"#);
    record.upgrade.details = Some(details.into());
    assert_eq!(evaluate(&record, None, at(100)), (Status::Online, Some(at(200))));
    assert_eq!(status(&record, 200), Status::Updating);
}

#[test]
fn mg58_a_failed_upgrade_is_stuck_unless_the_agent_is_away() {
    let mut record = agent();
    record.upgrade.started_at = Some(at(0));
    record.upgrade.details = Some(r#"{"state":"UPG_FAILED","metadata":{"error_msg":"e"}}"#.into());
    transition(&mut record, None, at(1));
    assert_eq!(record.status, Status::Online);
    assert!(is_stuck(&record, at(1)));
    transition(&mut record, None, at(1000));
    assert!(!is_stuck(&record, at(1000)));
}

#[test]
fn mg59_updating_without_details_is_stuck_after_two_hours() {
    let mut record = agent();
    record.upgrade.started_at = Some(at(0));
    transition(&mut record, Some(at(7100)), at(7140));
    assert!(!is_stuck(&record, at(7140)));
    transition(&mut record, Some(at(7200)), at(7260));
    assert!(is_stuck(&record, at(7260)));
}

#[test]
fn a_transition_to_the_same_status_keeps_its_time() {
    let mut record = agent();
    assert!(!transition(&mut record, Some(at(100)), at(100)));
    assert_eq!(record.status_since, at(0));
    assert!(transition(&mut record, Some(at(100)), at(500)));
    assert_eq!((record.status, record.status_since), (Status::Offline, at(500)));
    assert_eq!(record.status_deadline, Some(at(100 + 1_209_600).plus(MOMENT)));
}

prop_compose! {
    fn any_agent()(
        active in proptest::bool::weighted(0.9),
        seen in proptest::option::of(0_u64..1000),
        inactivity in proptest::option::of(0_u64..1000),
        audit in proptest::option::of(0_usize..4),
        started in proptest::option::of(0_u64..2000),
        revision in 0_i64..3,
        unenrolling in any::<bool>(),
    ) -> AgentRecord {
        let reasons = [AuditReason::Uninstall, AuditReason::Orphaned, AuditReason::KeyRevoked, AuditReason::Migrated];
        let mut record = AgentRecord {
            active,
            last_checkin: seen.map(at),
            inactivity_timeout: inactivity.map(Duration::from_secs),
            audit: audit.map(|i| AuditReport { reason: reasons[i], at: at(0) }),
            policy_revision: revision,
            unenrollment_started_at: unenrolling.then(|| at(0)),
            ..agent()
        };
        record.upgrade.started_at = started.map(at);
        record
    }
}

proptest! {
    /// The timer evaluates the status only at its deadline, so it must not change before.
    #[test]
    fn status_does_not_change_before_its_deadline(record in any_agent(), now in 0_u64..3000, later in 0_u64..3000) {
        let (status, deadline) = evaluate(&record, None, at(now));
        let probe = at(now.max(later));
        if deadline.is_none_or(|deadline| probe < deadline) {
            prop_assert_eq!(evaluate(&record, None, probe).0, status);
        }
    }

    #[test]
    fn deadlines_are_in_the_future(record in any_agent(), now in 0_u64..3000) {
        if let (_, Some(deadline)) = evaluate(&record, None, at(now)) {
            prop_assert!(deadline > at(now));
        }
    }
}
