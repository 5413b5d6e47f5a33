//! What check-ins change.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::agent::{AuditReason, AuditReport};
use crate::status::Status;
use crate::testing::family::CheckIn;
use crate::testing::{agent, at};

const COMPONENTS: &str = r#"[{"id":"log-default","type":"log","status":"HEALTHY","message":"fine","units":[
    {"id":"u1","type":"input","status":"HEALTHY","message":"","payload":{"streams":{}}},
    {"id":"u2","type":"output","status":"HEALTHY","message":""}]}]"#;

/// What an agent sends; each test changes a part of it.
fn body() -> serde_json::Value {
    json!({
        "status": "online",
        "message": "Running",
        "local_metadata": {"host": {"hostname": "host"}},
        "components": serde_json::from_str::<serde_json::Value>(COMPONENTS).unwrap(),
        "agent_policy_id": "p",
        "policy_revision_idx": 1,
        "upgrade": {},
    })
}

fn with(field: &str, value: serde_json::Value) -> serde_json::Value {
    let mut body = body();
    body[field] = value;
    body
}

fn without(field: &str) -> serde_json::Value {
    let mut body = body();
    body.as_object_mut().unwrap().remove(field);
    body
}

fn circumstances() -> Circumstances<'static> {
    Circumstances {
        agent_version: "9.5.2",
        address: "192.0.2.1",
        upgrade_action_known: true,
        newest_revision: Some(1),
        ..Circumstances::default()
    }
}

fn run(
    record: &AgentRecord,
    known: KnownDocuments,
    body: &serde_json::Value,
    circumstances: &Circumstances<'_>,
) -> Result<Decision, BadCheckIn> {
    let text = body.to_string();
    decide(record, known, &CheckIn::read(&text).report(), circumstances, at(60))
}

/// The record and the fingerprints after a first check-in.
fn settled() -> (AgentRecord, KnownDocuments) {
    let decision = run(&agent(), KnownDocuments::default(), &body(), &circumstances()).unwrap();
    (decision.record.unwrap_or_else(agent), decision.known)
}

fn record_after(body: &serde_json::Value) -> Option<AgentRecord> {
    let (record, known) = settled();
    run(&record, known, body, &circumstances()).unwrap().record
}

#[test]
fn ea56_a_heartbeat_that_changes_nothing_writes_nothing() {
    let (record, known) = settled();
    let decision = run(&record, known, &body(), &circumstances()).unwrap();
    assert_eq!(decision.record, None);
    assert_eq!(decision.documents, AgentDocuments::default());
    assert_eq!(decision.known, known);
}

#[test]
fn ea56_a_change_is_written_with_the_time_of_the_check_in() {
    let record = record_after(&with("message", json!("Stopping"))).unwrap();
    assert_eq!((record.last_checkin, record.updated_at, record.version), (Some(at(60)), at(60), agent().version + 1));
    assert_eq!(record.health.message, "Stopping");
}

#[test]
fn ea50_an_empty_or_missing_status_is_refused() {
    for bad in [without("status"), with("status", json!(""))] {
        let error = run(&agent(), KnownDocuments::default(), &bad, &circumstances()).unwrap_err();
        assert_eq!(error.to_string(), "checkin status missing");
    }
}

#[test]
fn ea51_d13_any_status_is_kept_verbatim() {
    let record = record_after(&with("status", json!("DEGRADED"))).unwrap();
    assert_eq!((record.health.status.as_str(), record.status), ("DEGRADED", Status::Degraded));
    assert_eq!(record_after(&with("status", json!("Frobnicating"))).unwrap().health.status, "Frobnicating");
}

#[test]
fn ea52_ea147_sparse_requests_are_accepted() {
    for sparse in [with("components", json!(null)), with("upgrade", json!({})), json!({"status": "online"})] {
        assert!(run(&agent(), KnownDocuments::default(), &sparse, &circumstances()).is_ok(), "{sparse}");
    }
}

#[test]
fn ea53_ea68_the_decision_says_how_long_the_client_waits() {
    let decision = run(&agent(), KnownDocuments::default(), &with("poll_timeout", json!("5m")), &circumstances());
    assert_eq!(decision.unwrap().poll_timeout.unwrap().nanos, 300_000_000_000);
}

#[test]
fn ea58_documents_are_stored_when_changed_and_never_for_null() {
    let (record, known) = settled();
    let decide = |body| run(&record, known, &body, &circumstances()).unwrap();
    let metadata = decide(with("local_metadata", json!({"host": {"hostname": "other"}})));
    assert!(metadata.documents.local_metadata.is_some() && metadata.documents.components.is_none());
    assert_eq!(metadata.record.unwrap().hostname, "other");
    assert_eq!(decide(with("local_metadata", json!(null))).documents, AgentDocuments::default());
    assert_eq!(decide(with("components", json!(null))).documents, AgentDocuments::default());
    assert!(decide(with("components", json!([]))).documents.components.is_some());
}

#[test]
fn ea59_d5_reasons_come_and_go_with_the_components() {
    let failed: serde_json::Value = serde_json::from_str(&COMPONENTS.replacen("HEALTHY", "FAILED", 2)).unwrap();
    let sick = record_after(&with("components", failed)).unwrap();
    assert_eq!(sick.health.unhealthy_reason, ["input"]);
    let healed = run(&sick, KnownDocuments::default(), &body(), &circumstances()).unwrap().record.unwrap();
    assert_eq!(healed.health.unhealthy_reason, [""; 0]);
}

#[test]
fn ea59_an_agent_unwell_by_its_own_word_has_a_reason_until_it_is_well() {
    let sick = record_after(&json!({"status": "error"})).unwrap();
    assert_eq!(sick.health.unhealthy_reason, ["other"]);
    let well = run(&sick, KnownDocuments::default(), &json!({"status": "online"}), &circumstances()).unwrap();
    assert_eq!(well.record.unwrap().health.unhealthy_reason, [""; 0]);
}

#[test]
fn ea60_the_version_follows_the_user_agent() {
    let (record, known) = settled();
    let newer = Circumstances { agent_version: "9.6.0", newer_than_tested: true, ..circumstances() };
    let record = run(&record, known, &body(), &newer).unwrap().record.unwrap();
    assert_eq!((record.agent_version.as_str(), record.newer_than_tested), ("9.6.0", true));
}

#[test]
fn ea61_a_check_in_takes_the_farewell_back() {
    let mut record = agent();
    record.audit = Some(AuditReport { reason: AuditReason::Uninstall, at: at(0) });
    record.unenrolled_at = Some(at(0));
    record.status = Status::Uninstalled;
    let record = run(&record, KnownDocuments::default(), &body(), &circumstances()).unwrap().record.unwrap();
    assert_eq!((record.audit, record.unenrolled_at, record.status), (None, None, Status::Online));
}

fn upgrading() -> serde_json::Value {
    with("upgrade_details", json!({"target_version": "9.6.1", "state": "UPG_WATCHING", "action_id": "a"}))
}

#[test]
fn ea62_details_are_stored_and_their_end_is_success() {
    let (mut record, known) = settled();
    record.upgrade.started_at = Some(at(1));
    let upgraded = Circumstances { agent_version: "9.6.1", ..circumstances() };
    let running = run(&record, known, &upgrading(), &upgraded).unwrap().record.unwrap();
    assert!(running.upgrade.details.as_deref().unwrap().contains("UPG_WATCHING"));
    assert_eq!(running.status, Status::Updating);
    let done = run(&running, known, &body(), &upgraded).unwrap().record.unwrap();
    assert_eq!((done.upgrade.details, done.upgrade.started_at, done.upgrade.upgraded_at), (None, None, Some(at(60))));
    assert_eq!(done.status, Status::Online);
}

#[test]
fn ea62_a_failed_upgrade_that_is_forgotten_did_not_succeed() {
    let (record, known) = settled();
    let failed =
        with("upgrade_details", json!({"state": "UPG_FAILED", "action_id": "a", "metadata": {"error_msg": "e"}}));
    let failed = run(&record, known, &failed, &circumstances()).unwrap().record.unwrap();
    let after = run(&failed, known, &body(), &circumstances()).unwrap().record.unwrap();
    assert_eq!((after.upgrade.details, after.upgrade.upgraded_at), (None, None));
}

/// Real agents that can't upgrade ack the action without an error, and then report the failure.
#[test]
fn ea62_an_upgrade_that_was_acked_and_then_failed_did_not_succeed() {
    let (mut record, known) = settled();
    record.upgrade.upgraded_at = Some(at(1));
    let failed =
        with("upgrade_details", json!({"state": "UPG_FAILED", "action_id": "a", "metadata": {"error_msg": "e"}}));
    let failed = run(&record, known, &failed, &circumstances()).unwrap().record.unwrap();
    assert_eq!((failed.upgrade.upgraded_at, failed.status), (None, Status::Online));
}

#[test]
fn ea63_details_of_an_unknown_action_store_nothing() {
    let (record, known) = settled();
    let unknown = Circumstances { upgrade_action_known: false, ..circumstances() };
    assert_eq!(run(&record, known, &upgrading(), &unknown).unwrap().record, None);
}

#[test]
fn ea65_details_that_cannot_be_read_are_refused() {
    let bad = with("upgrade_details", json!(5));
    assert!(run(&agent(), KnownDocuments::default(), &bad, &circumstances()).is_err());
    let unknown = Circumstances { upgrade_action_known: false, ..circumstances() };
    assert!(run(&agent(), KnownDocuments::default(), &bad, &unknown).is_ok());
}

#[test]
fn ea66_rollbacks_are_stored_when_changed_and_bad_ones_ignored() {
    let offer = with("upgrade", json!({"rollbacks": [{"version": "9.5.1", "valid_until": "2026-01-09T03:04:05Z"}]}));
    let record = record_after(&offer).unwrap();
    assert!(record.upgrade.rollbacks.as_deref().unwrap().contains("9.5.1"));
    assert_eq!(record_after(&with("upgrade", json!({"rollbacks": "x"}))), None);
}

#[test]
fn ea74_d15_the_position_moves_upward_only() {
    let (mut record, known) = settled();
    record.action_position = 5;
    let position = |acknowledged: Option<i64>| {
        let acknowledged = acknowledged.map(|seq| (ActionId::trusted("t"), seq));
        let decision = run(&record, known, &body(), &Circumstances { acknowledged, ..circumstances() }).unwrap();
        decision.record.map(|record| record.action_position)
    };
    assert_eq!(position(None), None);
    assert_eq!(position(Some(4)), None);
    assert_eq!(position(Some(5)), None);
    assert_eq!(position(Some(6)), Some(6));
}

fn revision_of(record: &AgentRecord, body: &serde_json::Value, newest: Option<i64>) -> (i64, Option<i64>) {
    let circumstances = Circumstances { newest_revision: newest, ..circumstances() };
    let decision = run(record, settled().1, body, &circumstances).unwrap();
    (decision.policy_revision, decision.record.map(|record| record.policy_revision))
}

#[test]
fn ea89_the_newest_revision_is_not_due_again() {
    assert_eq!(revision_of(&settled().0, &body(), Some(1)), (1, None));
}

#[test]
fn ea90_an_agent_on_another_policy_wants_its_own_and_stays_updating() {
    let body = with("agent_policy_id", json!("old"));
    assert_eq!(revision_of(&settled().0, &body, Some(1)), (0, Some(0)));
    let record = record_after(&body).unwrap();
    assert_eq!((record.running_policy_id.unwrap().as_str(), record.status), ("old", Status::Updating));
}

#[test]
fn ea91_d16_a_revision_that_does_not_exist_is_none() {
    assert_eq!(revision_of(&settled().0, &with("policy_revision_idx", json!(999_999)), Some(1)), (0, Some(0)));
    assert_eq!(revision_of(&settled().0, &with("policy_revision_idx", json!(-3)), Some(1)), (0, Some(0)));
}

#[test]
fn ea92_the_reported_pair_is_believed_without_an_ack() {
    let record = AgentRecord { policy_revision: 0, running_policy_id: None, ..settled().0 };
    assert_eq!(revision_of(&record, &with("policy_revision_idx", json!(2)), Some(3)), (2, Some(2)));
}

/// A check-in that claims a revision of the agent's policy.
fn claim(status: &str, message: &str, revision: i64) -> serde_json::Value {
    let mut body = with("policy_revision_idx", json!(revision));
    (body["status"], body["message"]) = (json!(status), json!(message));
    body
}

#[test]
fn ag160_a_revision_that_could_not_be_applied_does_not_run_and_is_not_offered_again() {
    let (record, known) = settled();
    let newest = Circumstances { newest_revision: Some(3), ..circumstances() };
    let decide = |record: &AgentRecord, body| run(record, known, &body, &newest).unwrap();
    let failed = decide(&record, claim("error", "input log-1 has no such type", 3));
    assert_eq!(failed.policy_revision, 3, "the agent has it");
    let failed = failed.record.unwrap();
    assert_eq!((failed.policy_revision, failed.status), (1, Status::Error));
    let failure = PolicyFailure { revision: 3, reason: "input log-1 has no such type".into() };
    assert_eq!(failed.policy_failure.as_deref(), Some(&failure));
    let restarted = decide(&failed, claim("starting", "", 3)).record.unwrap();
    assert_eq!((restarted.policy_revision, restarted.policy_failure.as_deref()), (1, Some(&failure)));
    let well = decide(&restarted, claim("online", "Running", 3)).record.unwrap();
    assert_eq!((well.policy_revision, well.policy_failure), (3, None));
}

#[test]
fn ag160_an_error_under_a_revision_that_runs_is_no_failure_of_the_policy() {
    let (record, known) = settled();
    let sick = run(&record, known, &claim("error", "output down", 1), &circumstances()).unwrap().record.unwrap();
    assert_eq!((sick.policy_revision, sick.policy_failure), (1, None));
}

#[test]
fn ag160_an_agent_that_cannot_apply_its_first_policy_says_error_and_not_updating_for_ever() {
    let (record, known) = settled();
    let fresh = AgentRecord { policy_revision: 0, running_policy_id: None, ..record };
    let failed = run(&fresh, known, &claim("error", "no", 1), &circumstances()).unwrap().record.unwrap();
    assert_eq!((failed.policy_revision, failed.status), (0, Status::Error));
}

#[test]
fn ea88_ea93_without_a_reported_revision_the_acked_one_counts() {
    let record = AgentRecord { policy_revision: 4, ..settled().0 };
    assert_eq!(revision_of(&record, &without("agent_policy_id"), Some(5)), (4, None));
    let fresh = AgentRecord { policy_revision: 0, ..settled().0 };
    assert_eq!(revision_of(&fresh, &without("policy_revision_idx"), Some(5)).0, 0);
}

#[test]
fn a_first_check_in_is_always_written() {
    let record = AgentRecord { last_checkin: None, status: Status::Enrolling, policy_id: None, ..agent() };
    let after = run(&record, KnownDocuments::default(), &body(), &circumstances()).unwrap().record.unwrap();
    assert_eq!((after.status, after.last_checkin), (Status::Online, Some(at(60))));
}

#[test]
fn mg45_an_offline_agent_that_checks_in_is_online() {
    let (mut record, known) = settled();
    record.status = Status::Offline;
    let after = run(&record, known, &body(), &circumstances()).unwrap().record.unwrap();
    assert_eq!((after.status, after.status_since), (Status::Online, at(60)));
}

#[test]
fn a_long_message_is_cut_and_repeats_without_a_write() {
    let body = with("message", json!("ä".repeat(1 << 20)));
    let (record, known) = settled();
    let first = run(&record, known, &body, &circumstances()).unwrap();
    let record = first.record.unwrap();
    assert!(record.health.message.len() <= reported::MESSAGE_BYTES && record.health.message.ends_with('…'));
    assert_eq!(run(&record, first.known, &body, &circumstances()).unwrap().record, None);
}

#[test]
fn what_no_real_agent_reports_is_refused_with_its_field_and_bound() {
    let zeros = |many| json!(vec![0; many]);
    for (body, reason) in [
        (with("status", json!("x".repeat(65))), "checkin status is 65 bytes long; at most 64"),
        (with("local_metadata", json!({"a": zeros(20_000)})), "local_metadata: 20002 JSON values; at most 20000"),
        (with("local_metadata", json!({"a": "x".repeat(600_000)})), "local_metadata: 600008 bytes; at most 524288"),
        (with("components", json!([{"a": zeros(120_000)}])), "components: 120003 JSON values; at most 100000"),
    ] {
        let (record, known) = settled();
        let error = run(&record, known, &body, &circumstances()).unwrap_err();
        assert_eq!(error.to_string(), reason);
    }
}

#[test]
fn components_are_stored_without_what_exceeds_its_bound() {
    let unit = json!({"id": "u", "message": "x".repeat(100_000), "payload": vec![0; 100_000]});
    let body = with("components", json!([{"id": "a", "status": "HEALTHY", "units": [unit]}]));
    let (record, known) = settled();
    let decision = run(&record, known, &body, &circumstances()).unwrap();
    let stored = decision.documents.components.clone().unwrap();
    assert!(stored.len() < 9000, "{}", stored.len());
    let again = run(&record, decision.known, &body, &circumstances()).unwrap();
    assert_eq!(again.documents, AgentDocuments::default());
    assert_eq!(KnownDocuments::of(&decision.documents).components, decision.known.components);
}

proptest! {
    #[test]
    fn ea56_the_same_check_in_twice_writes_once(
        status in "[a-zA-Z]{1,8}", message in any::<String>(), revision in -2_i64..5, policy in "[pq]", sparse in any::<bool>(),
    ) {
        let mut body = body();
        body["status"] = json!(status);
        body["message"] = json!(message);
        body["policy_revision_idx"] = json!(revision);
        body["agent_policy_id"] = json!(policy);
        if sparse {
            body.as_object_mut().unwrap().remove("components");
        }
        let (record, known) = settled();
        let first = run(&record, known, &body, &circumstances()).unwrap();
        let record = first.record.unwrap_or(record);
        prop_assert_eq!(run(&record, first.known, &body, &circumstances()).unwrap().record, None);
    }
}
