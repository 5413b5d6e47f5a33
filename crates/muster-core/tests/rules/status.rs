//! Status over time (MG §3).

use std::time::Duration;

use muster_core::agent::{AgentRecord, AuditReason, AuditReport, ReportedHealth};
use muster_core::status::{Status, evaluate, transition};
use muster_core::testing::{agent, at};
use proptest::prelude::*;

prop_compose! {
    fn record()(
        active in prop::bool::weighted(0.9),
        seen in prop::option::of(0_u64..600),
        inactivity in prop::option::of(0_u64..2000),
        audit in prop::option::of(prop::sample::select(vec![
            AuditReason::Uninstall, AuditReason::Orphaned, AuditReason::KeyRevoked, AuditReason::Migrated,
        ])),
        upgrade in prop::option::of(0_u64..1500),
        revision in 0_i64..3,
        leaving in any::<bool>(),
        health in "(online|ERROR|Degraded|starting|)",
        contact_interval in prop::sample::select(vec![0_u32, 241, 900]),
    ) -> AgentRecord {
        let mut record = AgentRecord {
            active,
            last_checkin: seen.map(at),
            inactivity_timeout: inactivity.map(Duration::from_secs),
            audit: audit.map(|reason| AuditReport { reason, at: at(0) }),
            policy_revision: revision,
            unenrollment_started_at: leaving.then(|| at(0)),
            health: ReportedHealth { status: health, ..ReportedHealth::default() },
            contact_interval,
            ..agent()
        };
        record.upgrade.started_at = upgrade.map(at);
        record
    }
}

proptest! {
    /// The timer wakes only at deadlines, so evaluating at deadlines must give the same status as evaluating at any
    /// time.
    #[test]
    fn a_timer_that_wakes_at_deadlines_misses_no_transition(record in record(), until in 0_u64..4000) {
        let mut followed = record.clone();
        transition(&mut followed, None, at(0));
        while let Some(deadline) = followed.status_deadline.filter(|deadline| *deadline <= at(until)) {
            transition(&mut followed, None, deadline);
        }
        prop_assert_eq!(followed.status, evaluate(&record, None, at(until)).0);
    }

    #[test]
    fn a_repeated_transition_changes_nothing(record in record(), now in 0_u64..4000) {
        let mut once = record;
        transition(&mut once, None, at(now));
        let mut twice = once.clone();
        prop_assert!(!transition(&mut twice, None, at(now)));
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn mg38_an_inactive_record_is_unenrolled(record in record(), now in 0_u64..4000) {
        let (status, deadline) = evaluate(&record, None, at(now));
        prop_assert_eq!(status == Status::Unenrolled, !record.active);
        prop_assert!(record.active || deadline.is_none());
    }

    /// An agent that was just seen is neither offline nor inactive.
    #[test]
    fn mg45_an_agent_seen_now_is_neither_offline_nor_inactive(record in record(), now in 600_u64..4000) {
        let (status, _) = evaluate(&record, Some(at(now)), at(now));
        prop_assert!(!matches!(status, Status::Offline | Status::Inactive | Status::Enrolling));
    }

}

/// Agents send `online`, `error`, `starting` and, in upper case, `DEGRADED`; any other string is possible.
#[test]
fn d13_reported_health_maps_to_a_status() {
    for (reported, expected) in [
        ("online", Status::Online),
        ("starting", Status::Online),
        ("error", Status::Error),
        ("ERROR", Status::Error),
        ("DEGRADED", Status::Degraded),
        ("degraded", Status::Degraded),
        ("degraded ", Status::Online),
        ("errors", Status::Online),
        ("", Status::Online),
        ("\u{1f4a5}", Status::Online),
    ] {
        let health = ReportedHealth { status: reported.to_owned(), ..ReportedHealth::default() };
        let (status, _) = evaluate(&AgentRecord { health, ..agent() }, None, at(0));
        assert_eq!(status, expected, "{reported:?}");
    }
}

/// The names are part of the API (MG §3.1), and scripts filter by them.
#[test]
fn status_names_are_stable() {
    let names = [
        "unenrolled",
        "inactive",
        "uninstalled",
        "orphaned",
        "offline",
        "updating",
        "enrolling",
        "unenrolling",
        "error",
        "degraded",
        "online",
    ];
    assert_eq!(Status::ALL.map(Status::as_str), names);
    assert_eq!(names.map(|name| Status::parse(name).unwrap()), Status::ALL);
    assert!(["", "Online", "online ", "healthy"].iter().all(|name| Status::parse(name).is_none()));
}
