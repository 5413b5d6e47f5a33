//! Tests of the decision on acks.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::duplicate_hosts::{DuplicateHosts, HostMark, Reenrollment, ReenrollmentState};
use crate::id::EnrollmentKeyId;
use crate::reported::MESSAGE_BYTES;
use crate::status::Status;
use crate::testing::family::acks;
use crate::testing::{agent, at};

fn known() -> LookedUp {
    let action = |id: &str, kind, target| (ActionId::trusted(id), AckedAction { kind, is_cancelled: false, target });
    LookedUp {
        actions: [
            action("up", ActionType::Upgrade, Some(TargetState::Queued)),
            action("out", ActionType::Unenroll, Some(TargetState::Queued)),
            action("out-done", ActionType::Unenroll, Some(TargetState::Acked)),
            action("away", ActionType::Migrate, Some(TargetState::Queued)),
            action("again", ActionType::Reenroll, Some(TargetState::Queued)),
            action("diag", ActionType::RequestDiagnostics, Some(TargetState::Queued)),
            action("input", ActionType::InputAction, Some(TargetState::Queued)),
            action("set", ActionType::Settings, Some(TargetState::Queued)),
            action("foreign", ActionType::Upgrade, None),
        ]
        .into(),
        revisions: [2, 3].map(|revision| (PolicyId::trusted("p"), revision)).into(),
    }
}

fn run_on(record: &AgentRecord, events: &Value) -> Acknowledged {
    decide(record, &acks(&events.to_string()), &known(), record.last_checkin, at(60))
}

fn run(events: &Value) -> Acknowledged {
    run_on(&agent(), events)
}

/// The verdicts as HTTP statuses, which are shorter.
fn statuses(acknowledged: &Acknowledged) -> Vec<u16> {
    let status = |verdict: &Verdict| match verdict {
        Verdict::Taken => 200,
        Verdict::Refused => 400,
        Verdict::Unknown => 404,
    };
    acknowledged.verdicts.iter().map(status).collect()
}

fn upgrading() -> AgentRecord {
    let mut record = agent();
    record.upgrade = record.upgrade.begun(&ActionId::trusted("up"), "9.5.2", "9.5.0", at(1)).0;
    record
}

#[test]
fn errors_are_truncated_and_oversized_fields_dropped() {
    let answer = run(&json!([
        {"action_id": "set", "error": "x".repeat(1 << 20)},
        {"action_id": "input", "fields": vec![0; 100_000]},
    ]));
    assert_eq!(statuses(&answer), [200, 200]);
    assert!(answer.results[0].outcome.message().unwrap().len() <= MESSAGE_BYTES);
    assert_eq!(answer.results[1].fields, None);
}

#[test]
fn ea112_ea115_there_is_one_verdict_per_ack_in_order() {
    let answer = run(&json!([
        {"action_id": "set", "agent_id": "agent-1"}, {"action_id": "nobody"}, {"action_id": "set", "agent_id": "other"},
        {"action_id": "policy:p:2"}, {}, {"action_id": "set", "agent_id": ""},
    ]));
    assert_eq!(statuses(&answer), [200, 404, 400, 200, 404, 200]);
}

#[test]
fn ea111_an_empty_request_changes_nothing() {
    let answer = run(&json!([]));
    assert_eq!((answer.verdicts.len(), answer.results.len(), answer.record), (0, 0, None));
}

#[test]
fn d17_an_ack_of_another_agents_action_is_rejected_and_not_stored() {
    let answer = run_on(&upgrading(), &json!([{"action_id": "foreign"}]));
    assert_eq!(statuses(&answer), [400]);
    assert_eq!((answer.results.len(), answer.record, answer.deactivated), (0, None, false));
}

#[test]
fn ea116_ea117_policy_acks_raise_the_revision_of_the_assigned_policy_only() {
    let revision = |events: Value| run(&events).record.map(|record| record.policy_revision);
    assert_eq!(revision(json!([{"action_id": "policy:p:2"}])), Some(2));
    assert_eq!(revision(json!([{"action_id": "policy:p:2"}, {"action_id": "policy:p:3"}])), Some(3));
    for unchanged in ["policy:p:1", "policy:p:0", "policy:q:2", "policy:p:x"] {
        let answer = run(&json!([{"action_id": unchanged}]));
        assert_eq!((statuses(&answer), answer.record), (vec![200], None), "{unchanged}");
    }
    assert_eq!(revision(json!([{"action_id": "policy:p:2", "agent_id": "other"}])), None);
}

#[test]
fn ea117_the_ack_of_an_older_target_is_accepted_and_clears_a_failure() {
    let failure = Some(Box::new(crate::agent::PolicyFailure { revision: 3, reason: "e".into() }));
    let record = AgentRecord { policy_revision: 3, target_revision: Some(2), policy_failure: failure, ..agent() };
    let after = run_on(&record, &json!([{"action_id": "policy:p:3"}, {"action_id": "policy:p:2"}])).record.unwrap();
    assert_eq!((after.policy_revision, after.policy_failure), (2, None));
    let again = AgentRecord { policy_revision: 2, target_revision: Some(2), ..agent() };
    assert_eq!(run_on(&again, &json!([{"action_id": "policy:p:2"}])).record, None, "acked at each start");
}

#[test]
fn ea117_an_ack_sets_the_running_policy() {
    let record = AgentRecord { policy_revision: 0, running_policy_id: Some(PolicyId::trusted("before")), ..agent() };
    let believed = run_on(&record, &json!([{"action_id": "policy:p:3"}])).record.unwrap();
    assert_eq!((believed.running_policy_id, believed.policy_revision), (record.policy_id.clone(), 3));
    let refused = json!([{"action_id": "policy:p:3", "error": "refused"}]);
    assert!(run_on(&record, &refused).record.is_none(), "a refused policy runs nowhere");
}

#[test]
fn ea118_policy_acks_with_an_error_are_ignored() {
    let answer = run(&json!([{"action_id": "policy:p:2", "error": ""}, {"action_id": "policy:p:2", "error": "e"}]));
    assert_eq!((statuses(&answer), answer.record), (vec![200, 200], None));
}

#[test]
fn d16_an_ack_of_a_missing_revision_is_ignored() {
    let answer = run(&json!([{"action_id": "policy:p:999999"}]));
    assert_eq!((statuses(&answer), answer.record), (vec![200], None));
}

#[test]
fn d16_only_relevant_revisions_are_looked_up() {
    let text = json!([{"action_id": "policy:p:7"}, {"action_id": "policy:q:9"}, {"action_id": "up"}]).to_string();
    let wanted = acks(&text).wanted(&agent());
    assert_eq!(wanted, Wanted { actions: [ActionId::trusted("up")].into(), revisions: [7].into() });
}

#[test]
fn ea117_revisions_looked_up_for_another_policy_are_ignored() {
    let record = AgentRecord { policy_id: Some(PolicyId::trusted("q")), policy_revision: 0, ..agent() };
    assert_eq!(run_on(&record, &json!([{"action_id": "policy:q:2"}])).record, None);
}

#[test]
fn mg51_a_policy_ack_ends_the_status_updating() {
    let record = AgentRecord { policy_revision: 0, status: Status::Updating, ..agent() };
    let after = run_on(&record, &json!([{"action_id": "policy:p:2"}])).record.unwrap();
    assert_eq!((after.status, after.status_since, after.version), (Status::Online, at(60), record.version + 1));
}

#[test]
fn ea121_a_successful_upgrade_is_recorded() {
    let after = run_on(&upgrading(), &json!([{"action_id": "up"}])).record.unwrap();
    assert_eq!((after.upgrade.started_at, after.upgrade.upgraded_at), (None, Some(at(60))));
}

#[test]
fn ea121_a_failed_upgrade_with_a_retry_continues() {
    let answer = run_on(&upgrading(), &json!([{"action_id": "up", "error": "e", "retries": true}]));
    // Only the last attempt is a result, since the first result of an action is kept.
    assert_eq!((statuses(&answer), answer.results), (vec![200], Vec::new()));
    let open = answer.record.unwrap().upgrade.open.unwrap();
    assert_eq!((open.action.as_str(), open.progress_at), ("up", Some(at(60))));
}

#[test]
fn ea121_a_failed_upgrade_without_a_retry_ends() {
    for event in [json!({"action_id": "up", "error": "e"}), json!({"action_id": "up", "error": "", "retries": false})] {
        let answer = run_on(&upgrading(), &json!([event]));
        let after = answer.record.unwrap();
        assert_eq!((after.upgrade.started_at, after.upgrade.upgraded_at), (None, None));
        assert_eq!((answer.results.len(), answer.results[0].outcome.message().is_some()), (1, true));
    }
}

#[test]
fn ea122_unenroll_and_migrate_deactivate_the_agent() {
    for (id, reason) in [("out", "manual"), ("away", "migrated")] {
        let answer = run(&json!([{"action_id": id}]));
        let after = answer.record.unwrap();
        assert!(answer.deactivated && !after.active && after.credentials.is_empty());
        assert_eq!((after.unenrolled_at, after.unenrolled_reason.as_deref()), (Some(at(60)), Some(reason)));
        assert_eq!((after.status, after.status_deadline), (Status::Unenrolled, None));
    }
}

#[test]
fn the_ack_of_a_reenrolled_host_leaves_the_agent_to_the_other_host() {
    let known = |state| DuplicateHosts {
        hosts: vec!["a".into(), "b".into()],
        since: at(0),
        last: at(0),
        keeper: HostMark::of("a"),
        reenrollments: vec![Reenrollment { host: HostMark::of("b"), at: at(1), state }],
    };
    let key = EnrollmentKeyId::trusted("k");
    let pending = ReenrollmentState::Pending { action: ActionId::trusted("again"), key: key.clone() };
    let record = AgentRecord { duplicate_hosts: Some(Box::new(known(pending))), ..agent() };
    for event in [json!({"action_id": "again"}), json!({"action_id": "again", "error": "no"})] {
        let answer = run_on(&record, &json!([event]));
        let after = answer.record.unwrap();
        assert!(after.active && !answer.deactivated && answer.results.len() == 1);
        assert_eq!(after.duplicate_hosts.as_deref(), Some(&known(ReenrollmentState::Answered { key: key.clone() })));
    }
}

#[test]
fn ea122_with_an_error_the_agent_stays_active() {
    for id in ["out", "away"] {
        let answer = run(&json!([{"action_id": id, "error": "no"}]));
        assert_eq!((answer.record, answer.deactivated, answer.results.len()), (None, false, 1));
    }
}

#[test]
fn ea119_a_repeated_ack_changes_nothing() {
    let answer = run(&json!([{"action_id": "out-done"}]));
    assert_eq!((statuses(&answer), answer.record), (vec![200], None));
    let twice = run(&json!([{"action_id": "set"}, {"action_id": "set", "error": "e"}]));
    assert_eq!((twice.results.len(), twice.results[0].outcome.message()), (1, None));
}

#[test]
fn ea120_results_have_the_error_and_the_fields_of_the_ack() {
    let answer = run(&json!([
        {"action_id": "diag", "fields": {"upload_id": "u"}},
        {"action_id": "set", "error": "boom"},
    ]));
    assert_eq!(answer.results[0].fields.as_deref(), Some(r#"{"upload_id":"u"}"#));
    assert_eq!((answer.results[1].outcome.message(), &answer.results[1].fields), (Some("boom"), &None));
}

#[test]
fn ea124_timestamps_with_any_offset_and_fraction_are_accepted() {
    let time = |text: &str| run(&json!([{"action_id": "set", "timestamp": text}])).results[0].at;
    assert_eq!(time("2026-01-02T04:00:00.2+01:00"), Timestamp::parse_rfc3339("2026-01-02T03:00:00.2Z").unwrap());
    assert_eq!(time("2026-01-02T03:00:26.0279+00:00"), Timestamp::parse_rfc3339("2026-01-02T03:00:26.0279Z").unwrap());
    assert_eq!(time("yesterday"), at(60));
}

proptest! {
    #[test]
    fn ea112_every_ack_gets_a_verdict(
        events in prop::collection::vec(
            ("(up|out|set|foreign|policy:p:[0-9]{1,2}|x)", prop::option::of("[a-z]{0,3}"), "(agent-1||other)"), 0..8)
    ) {
        let events: Vec<Value> = events
            .into_iter()
            .map(|(action, error, agent)| json!({"action_id": action, "error": error, "agent_id": agent}))
            .collect();
        let answer = run(&json!(events));
        prop_assert_eq!(answer.verdicts.len(), events.len());
        prop_assert!(answer.results.len() <= answer.verdicts.iter().filter(|verdict| **verdict == Verdict::Taken).count());
        if let Some(record) = answer.record {
            prop_assert!(record.policy_revision >= agent().policy_revision);
            prop_assert_eq!(record.active, !answer.deactivated);
        }
    }
}
