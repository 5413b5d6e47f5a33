//! Tests of the enrollment decision.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::id::SpaceId;
use crate::testing::family::Enrollment;
use crate::testing::{agent, api_key, at, enrollment_key};

fn applicant_of(body: &Value) -> Result<Applicant, Error> {
    let text = body.to_string();
    Applicant::read(&Enrollment::read(&text).request())
}

/// Request of a real agent.
fn body() -> Value {
    json!({
        "type": "PERMANENT", "id": "", "replace_token": "",
        "metadata": {
            "local": {"elastic": {"agent": {"id": "", "version": "9.5.2"}}, "host": {"hostname": "web-1"}},
            "user_provided": {}, "tags": ["b", "a", "b"],
        },
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut body = body();
    body[field] = value;
    body
}

fn around<'a>(key: &'a EnrollmentKey, by_id: Option<&'a AgentRecord>) -> Circumstances<'a> {
    Circumstances {
        key,
        agent_version: "9.6.0",
        newer_than_tested: true,
        address: "192.0.2.9",
        by_id,
        by_enrollment_id: None,
        twin: None,
        host: None,
    }
}

/// A replace token "fits" when it equals what is stored.
fn life(body: &Value, circumstances: &Circumstances<'_>) -> Result<Life, Error> {
    applicant_of(body).unwrap().life(circumstances, &mut |token, stored| token == stored)
}

fn enroll(body: &Value, circumstances: &Circumstances<'_>) -> Enrolled {
    let applicant = applicant_of(body).unwrap();
    let life = applicant.life(circumstances, &mut |token, stored| token == stored).unwrap();
    let placement = applicant.placement(circumstances.key, &AssignmentRules::default(), circumstances.address);
    let id = applicant.id.clone().unwrap_or_else(|| AgentId::trusted("made"));
    let host_id = HostId::trusted("host-new");
    let admitted = Admitted { life, id, host_id, access_key: &api_key(), placement, token_hash: Some("hash".into()) };
    applicant.enroll(admitted, circumstances, at(100))
}

fn replaceable() -> AgentRecord {
    AgentRecord { replace_token: Some("secret".into()), action_position: 7, tags: vec!["old".into()], ..agent() }
}

#[test]
fn ea27_the_request_of_a_real_agent_is_accepted() {
    let applicant = applicant_of(&body()).unwrap();
    assert_eq!((applicant.id.as_ref(), applicant.replace_token(), applicant.kind), (None, None, AgentType::Permanent));
    for sparse in [json!({"type": "PERMANENT"}), json!({"type": "EPHEMERAL", "metadata": {"local": null}})] {
        assert!(applicant_of(&sparse).is_ok(), "{sparse}");
    }
}

#[test]
fn d1_invalid_requests_are_rejected() {
    for bad in [
        with("id", json!("a/b")),
        with("replace_token", json!("x".repeat(1025))),
        with("metadata", json!({"local": [1]})),
        with("metadata", json!({"local": {}, "tags": ["\u{1b}[31m"]})),
        with("metadata", json!({"tags": ["x".repeat(257)]})),
    ] {
        let error = applicant_of(&bad).unwrap_err();
        assert_eq!((error.kind, error.code), (ErrorKind::Invalid, "bad_enrollment"), "{bad}");
    }
}

#[test]
fn ea33_ea37_ea44_a_new_record_has_initial_values() {
    let key = enrollment_key();
    let enrolled = enroll(&with("id", json!("mine")), &around(&key, None));
    let record = enrolled.record;
    assert_eq!((enrolled.life, record.id.as_str(), record.version), (Life::First, "mine", 1));
    assert_eq!((record.action_position, record.active, record.policy_revision), (-1, true, 0));
    assert_eq!((record.policy_id, record.space), (key.policy_id, key.space));
    assert_eq!((record.agent_version.as_str(), record.newer_than_tested), ("9.6.0", true));
    assert_eq!((record.status, record.hostname.as_str()), (Status::Enrolling, "web-1"));
    assert_eq!((record.enrollment_key_id, record.first_address.as_str()), (Some(key.id), "192.0.2.9"));
    assert_eq!(record.credentials.matching(&api_key()).unwrap().hash, api_key().hash());
}

#[test]
fn ea38_the_id_in_the_metadata_is_replaced_if_present() {
    let key = enrollment_key();
    let metadata = |local: Value| {
        let enrolled = enroll(&with("metadata", json!({"local": local})), &around(&key, None));
        serde_json::from_str::<Value>(&enrolled.documents.local_metadata.unwrap()).unwrap()
    };
    assert_eq!(metadata(json!({"elastic": {"agent": {"id": "old"}}})), json!({"elastic": {"agent": {"id": "made"}}}));
    for untouched in [json!({"elastic": {"agent": {}}}), json!({"elastic": 5}), json!({}), json!(null)] {
        assert_eq!(metadata(untouched.clone()), untouched);
    }
}

#[test]
fn ea39_tags_of_request_and_key_are_merged_without_duplicates() {
    let key = enrollment_key();
    assert_eq!(enroll(&body(), &around(&key, None)).record.tags, ["b", "a", "keyed"]);
}

#[test]
fn ea40_active_id_with_missing_or_wrong_token_or_another_policy_is_rejected() {
    let key = enrollment_key();
    let other = EnrollmentKey { policy_id: Some(PolicyId::trusted("q")), ..enrollment_key() };
    let (stored, without) = (replaceable(), agent());
    let asks = |token: &str| json!({"type": "PERMANENT", "id": "agent-1", "replace_token": token});
    for (body, circumstances) in [
        (asks("secret"), around(&key, Some(&without))),
        (asks(""), around(&key, Some(&stored))),
        (asks("wrong"), around(&key, Some(&stored))),
        (asks("secret"), around(&other, Some(&stored))),
    ] {
        let error = life(&body, &circumstances).unwrap_err();
        assert_eq!(error.denial, Some(Denial::NotReplaceable));
    }
    assert_eq!(life(&asks("secret"), &around(&key, Some(&stored))), Ok(Life::Continued));
}

#[test]
fn ea41_a_replacement_keeps_the_record_with_a_new_key() {
    let mut stored = replaceable();
    stored.unenrolled_at = Some(at(1));
    stored.upgrade.started_at = Some(at(1));
    let key = enrollment_key();
    let body = json!({"type": "PERMANENT", "id": "agent-1", "replace_token": "secret", "metadata": {"tags": ["new"]}});
    let record = enroll(&body, &around(&key, Some(&stored))).record;
    assert_eq!((record.version, record.enrolled_at, record.policy_revision), (stored.version + 1, at(0), 0));
    assert_eq!((record.replace_token.as_deref(), record.action_position), (Some("secret"), 7));
    assert_eq!(record.credentials.iter().map(|own| own.key_id.clone()).collect::<Vec<_>>(), [api_key().id]);
    assert_eq!((record.unenrolled_at, record.audit, record.upgrade.started_at), (None, None, None));
    assert_eq!((record.tags, record.status), (vec!["new".to_owned(), "keyed".to_owned()], Status::Updating));
}

#[test]
fn ea42_d14_the_id_of_an_unenrolled_agent_gets_a_new_record() {
    let stored = AgentRecord {
        active: false,
        credentials: LiveCredentials::default(),
        status: Status::Unenrolled,
        ..replaceable()
    };
    let key = enrollment_key();
    let enrolled = enroll(&json!({"type": "PERMANENT", "id": "agent-1"}), &around(&key, Some(&stored)));
    assert_eq!((enrolled.life, enrolled.record.version), (Life::Next, stored.version + 1));
    assert_eq!((enrolled.record.action_position, enrolled.record.enrolled_at), (-1, at(100)));
    assert_eq!((enrolled.record.status, enrolled.record.last_checkin), (Status::Enrolling, None));
    assert_eq!(enrolled.documents.components.as_deref(), Some("[]"));
}

fn pending(id: &str) -> AgentRecord {
    AgentRecord { id: AgentId::trusted(id), last_checkin: None, enrollment_id: Some("once".into()), ..agent() }
}

#[test]
fn ea47_an_abandoned_agent_with_the_same_enrollment_id_is_replaced() {
    let (key, stored) = (enrollment_key(), pending("pending"));
    let body = json!({"type": "PERMANENT", "enrollment_id": "once"});
    let circumstances = Circumstances { by_enrollment_id: Some(&stored), ..around(&key, None) };
    let enrolled = enroll(&body, &circumstances);
    assert_eq!((enrolled.life, enrolled.discard.as_ref().map(AgentId::as_str)), (Life::First, Some("pending")));
    assert_eq!(enrolled.record.enrollment_id.as_deref(), Some("once"));
}

#[test]
fn ea47_an_agent_that_has_checked_in_is_not_replaced() {
    let key = enrollment_key();
    let stored = AgentRecord { last_checkin: Some(at(1)), ..pending("working") };
    let circumstances = Circumstances { by_enrollment_id: Some(&stored), ..around(&key, None) };
    assert_eq!(enroll(&json!({"type": "PERMANENT", "enrollment_id": "once"}), &circumstances).discard, None);
}

#[test]
fn ea47_a_repeated_request_with_the_same_id_keeps_the_agent() {
    let (key, stored) = (enrollment_key(), pending("mine"));
    let body = json!({"type": "PERMANENT", "id": "mine", "enrollment_id": "once"});
    let circumstances = Circumstances { by_enrollment_id: Some(&stored), ..around(&key, Some(&stored)) };
    let enrolled = enroll(&body, &circumstances);
    assert_eq!((enrolled.life, enrolled.discard, enrolled.record.version), (Life::Next, None, stored.version + 1));
}

#[test]
fn ea47_an_enrollment_id_is_scoped_to_its_enrollment_key() {
    let stored = pending("mine");
    let key = EnrollmentKey { id: crate::id::EnrollmentKeyId::trusted("other"), ..enrollment_key() };
    let body = json!({"type": "PERMANENT", "id": "mine", "enrollment_id": "once"});
    let circumstances = Circumstances { by_enrollment_id: Some(&stored), ..around(&key, Some(&stored)) };
    assert!(life(&body, &circumstances).is_err());
}

#[test]
fn m11_rules_apply_if_the_key_has_no_policy() {
    let rules = json!([{"match": {"hostname": "web-*", "tags": ["keyed"]}, "policy_id": "web", "tags": ["ruled"]}]);
    let rules = AssignmentRules::read(Some(&rules.to_string())).unwrap();
    let applicant = applicant_of(&body()).unwrap();
    let unplaced = EnrollmentKey { policy_id: None, ..enrollment_key() };
    let placement = applicant.placement(&unplaced, &rules, "192.0.2.9");
    assert_eq!(placement.policy_id, Some(PolicyId::trusted("web")));
    assert_eq!(placement.tags, ["b", "a", "keyed", "ruled"]);
    let placed = applicant.placement(&enrollment_key(), &rules, "192.0.2.9");
    assert_eq!((placed.policy_id, placed.tags.len()), (Some(PolicyId::trusted("p")), 3));
}

#[test]
fn tokens_are_never_printed() {
    let applicant = applicant_of(&with("replace_token", json!("open sesame"))).unwrap();
    assert!(!format!("{applicant:?}").contains("sesame"));
}

#[test]
fn agents_of_one_machine_share_its_host_and_others_get_their_own() {
    let (key, known) = (
        enrollment_key(),
        Host {
            id: HostId::trusted("host-known"),
            space: SpaceId::default(),
            machine_id: Some("m-1".into()),
            hostname: "web-1".into(),
            created_at: at(0),
            system_id: None,
        },
    );
    let body = with("machine_id", json!("M-1"));
    let shared = enroll(&body, &Circumstances { host: Some(&known), ..around(&key, None) });
    assert_eq!((shared.record.host_id.as_ref(), shared.host.as_ref()), (Some(&known.id), Some(&known)));
    let fresh = enroll(&body, &around(&key, None));
    let host = fresh.host.unwrap();
    assert_eq!((fresh.record.host_id.as_ref(), host.machine_id.as_deref()), (Some(&host.id), Some("m-1")));
    assert_eq!((host.hostname.as_str(), host.space.as_str()), ("web-1", "default"));
    let body_of_silent = self::body();
    let silent = |stored: Option<&AgentRecord>| enroll(&body_of_silent, &around(&key, stored));
    let stored = AgentRecord { active: false, host_id: Some(known.id.clone()), ..agent() };
    assert_eq!(silent(Some(&stored)).record.host_id, Some(known.id.clone()));
    assert!(silent(None).host.unwrap().machine_id.is_none());
}

proptest! {
    /// Whatever is stored of the id: who is let in is active, has the new key and no revision, and only a matching
    /// token continues a living record.
    #[test]
    fn ea40_ea41_ea42_an_active_record_is_never_replaced_without_its_token(
        stored in prop::option::of((any::<bool>(), prop::option::of("[ab]"), "[pq]")),
        token in "[ab]?",
        tags in prop::collection::vec("[a-c]", 0..5),
    ) {
        let key = enrollment_key();
        let stored = stored.map(|(active, replace_token, policy)| {
            let policy_id = Some(PolicyId::trusted(policy));
            AgentRecord { active, replace_token, policy_id, ..agent() }
        });
        let body = json!({"type": "PERMANENT", "id": "agent-1", "replace_token": token, "metadata": {"tags": tags}});
        let circumstances = around(&key, stored.as_ref());
        let open = |stored: &AgentRecord| {
            stored.policy_id == key.policy_id && !token.is_empty() && stored.replace_token.as_ref() == Some(&token)
        };
        let admitted = stored.as_ref().is_none_or(|stored| !stored.active || open(stored));
        prop_assert_eq!(life(&body, &circumstances).is_ok(), admitted);
        if admitted {
            let record = enroll(&body, &circumstances).record;
            prop_assert!(record.active && record.policy_revision == 0 && !record.credentials.is_empty());
            prop_assert_eq!(record.version, stored.map_or(0, |stored| stored.version) + 1);
            let unique: std::collections::BTreeSet<_> = record.tags.iter().collect();
            prop_assert_eq!(unique.len(), record.tags.len());
        }
    }
}
