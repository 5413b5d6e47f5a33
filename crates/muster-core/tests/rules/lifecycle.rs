//! Invariants of an agent's record over any sequence of changes.

use std::time::Duration;

use muster_core::Error;
use muster_core::agent::{AgentRecord, AuditReason, AuditReport};
use muster_core::id::ActionId;
use muster_core::lifecycle;
use muster_core::status::{Status, evaluate};
use muster_core::testing::{agent, at, policy};
use muster_core::time::Timestamp;
use proptest::prelude::*;

/// A change of a record other than by a check-in.
#[derive(Clone, Debug)]
enum Event {
    Leave(AuditReason),
    BeginUnenroll,
    CancelUnenroll,
    ForceUnenroll,
    Reassign(Option<&'static str>),
    Tags(Vec<String>),
    BeginUpgrade(u64),
    CancelUpgrade,
    InactivityTimeout(Option<u64>),
}

fn event() -> impl Strategy<Value = Event> {
    let reason = prop::sample::select(vec![AuditReason::Uninstall, AuditReason::Orphaned, AuditReason::Migrated]);
    prop_oneof![
        reason.prop_map(Event::Leave),
        Just(Event::BeginUnenroll),
        Just(Event::CancelUnenroll),
        Just(Event::ForceUnenroll),
        prop::sample::select(vec![None, Some("p"), Some("q")]).prop_map(Event::Reassign),
        prop::collection::vec("[a-c]", 0..3).prop_map(Event::Tags),
        (0_u64..2000).prop_map(Event::BeginUpgrade),
        Just(Event::CancelUpgrade),
        prop::option::of(1_u64..1000).prop_map(Event::InactivityTimeout),
    ]
}

fn action() -> ActionId {
    ActionId::trusted("up")
}

fn apply(before: &AgentRecord, event: &Event, now: Timestamp) -> Result<Option<AgentRecord>, Error> {
    match event {
        Event::Leave(reason) => {
            lifecycle::report_left(before, AuditReport { reason: *reason, at: now }, None, None, now)
        }
        Event::BeginUnenroll => lifecycle::begin_unenroll(before, None, now),
        Event::CancelUnenroll => Ok(lifecycle::cancel_unenroll(before, None, now)),
        Event::ForceUnenroll => lifecycle::force_unenroll(before, "forced", now),
        Event::Reassign(to) => {
            let policy = to.map(|id| policy(id, at(0)));
            lifecycle::reassign(before, policy.as_ref(), None, None, now)
        }
        Event::Tags(tags) => Ok(lifecycle::set_tags(before, tags.clone(), None, now)),
        Event::BeginUpgrade(start) => Ok(lifecycle::begin_upgrade(before, &action(), "9.6.0", at(*start), None, now).0),
        Event::CancelUpgrade => Ok(lifecycle::cancel_upgrade(before, &action(), None, now)),
        Event::InactivityTimeout(timeout) => {
            Ok(lifecycle::set_inactivity_timeout(before, timeout.map(Duration::from_secs), None, now))
        }
    }
}

fn run(
    events: &[(Event, u64)],
    mut each: impl FnMut(&AgentRecord, &Event, Timestamp, &Result<Option<AgentRecord>, Error>),
) {
    let (mut record, mut now) = (agent(), at(0));
    for (event, later) in events {
        now = now.plus(Duration::from_secs(*later));
        let result = apply(&record, event, now);
        each(&record, event, now, &result);
        if let Ok(Some(after)) = result {
            record = after;
        }
    }
}

fn events() -> impl Strategy<Value = Vec<(Event, u64)>> {
    prop::collection::vec((event(), 0_u64..400), 1..12)
}

proptest! {
    /// The store accepts a record only if its version follows the stored one.
    #[test]
    fn a_change_increments_the_version_and_no_change_is_none(events in events()) {
        run(&events, |before, event, now, result| {
            if let Ok(Some(after)) = result {
                assert_eq!((after.version, after.updated_at), (before.version + 1, now), "{event:?}");
                let same = AgentRecord {
                    version: before.version, updated_at: before.updated_at, status: before.status,
                    status_since: before.status_since, status_deadline: before.status_deadline, ..after.clone()
                };
                assert_ne!(&same, before, "{event:?} writes without a reason");
            }
        });
    }

    /// Lists show the stored status, so it must match the rules after every event.
    #[test]
    fn the_status_matches_the_rules_after_every_event(events in events()) {
        run(&events, |_, event, now, result| {
            if let Ok(Some(after)) = result {
                assert_eq!((after.status, after.status_deadline), evaluate(after, None, now), "{event:?}");
            }
        });
    }

    #[test]
    fn ea122_an_unenrolled_agent_stays_unenrolled(events in events()) {
        run(&events, |before, event, _, result| {
            let Ok(Some(after)) = result else { return };
            assert!(before.active || !after.active, "{event:?}");
            if !after.active {
                assert_eq!((after.status, after.credentials.is_empty()), (Status::Unenrolled, true), "{event:?}");
            }
        });
    }

    #[test]
    fn unenrolling_and_reassigning_an_unenrolled_agent_is_rejected(event in event()) {
        let gone = lifecycle::force_unenroll(&agent(), "forced", at(1)).unwrap().unwrap();
        let result = apply(&gone, &event, at(2));
        let refused = result.as_ref().is_err_and(|error| error.code == "agent_unenrolled");
        let needs_enrollment = matches!(event, Event::BeginUnenroll | Event::ForceUnenroll | Event::Reassign(_));
        prop_assert_eq!(refused, needs_enrollment, "{:?}", result);
    }

    #[test]
    fn ea138_only_orphaned_is_final(events in events()) {
        run(&events, |before, event, _, result| {
            if matches!(event, Event::Leave(_)) {
                let orphaned = before.audit.is_some_and(|known| known.reason == AuditReason::Orphaned);
                assert_eq!(result.is_err(), orphaned);
            }
        });
    }

    #[test]
    fn mg132_mg133_reassignment_resets_the_revision_and_keeps_the_credentials(events in events()) {
        run(&events, |before, event, _, result| {
            if let (Event::Reassign(to), Ok(Some(after))) = (event, result) {
                assert_eq!((after.policy_id.as_ref().map(muster_core::id::PolicyId::as_str), after.policy_revision), (*to, 0));
                assert_eq!(after.credentials, before.credentials);
                assert_ne!(before.policy_id, after.policy_id);
            }
        });
    }
}
