//! The life cycle of agents of a test-only family through the same services as every other family.

use std::time::Duration;

use muster_core::action::ActionType;
use muster_core::agent::{AgentDocuments, AgentRecord, AuditReason, AuditReport, Family};
use muster_core::authorization::{Actor, OpContext};
use muster_core::credential::{ApiKey, CredentialKind};
use muster_core::denial::Denial;
use muster_core::id::{ActionId, AgentId, SpaceId};
use muster_core::status::Status;
use muster_core::testing::online_agent;
use muster_fleet::check_in::{Delivery, Poll};
use muster_fleet::force::Force;
use muster_fleet::selection::Selected;
use muster_fleet::testing::TestFleet;
use serde_json::json;

use crate::setting::{action_ids, parked};

#[tokio::test]
async fn agent_of_another_family_goes_through_its_life_cycle() {
    let test = TestFleet::default().following_changes();
    let key = test.add_key(None, |_| {}).await;
    let body = json!({"metadata": {"local": {"host": {"hostname": "probe"}}, "tags": ["lab"]}});
    let agent = test.enroll(&key, &body).await.expect("it is let in");
    let entry = test.entry(&agent).await.expect("its key is its own");

    let held = parked(test.check_in(&entry, r#"{"status":"fine"}"#).await.expect("taken"));
    let record = test.stored(&agent.id).await;
    assert_eq!(record.family, Family::Opamp);
    assert_eq!(
        (record.status, record.hostname.as_str(), &record.tags[..]),
        (Status::Online, "probe", &["lab".to_owned()][..])
    );

    let expiration = Some(test.now().plus(Duration::from_secs(3600)));
    test.add_action("look", ActionType::Settings, &agent.id, |action| action.expiration = expiration).await;
    // With a limit, so that an action that is not delivered fails the test before the poll ends.
    let waited = tokio::time::timeout(Duration::from_secs(20), held.wait()).await.expect("woken");
    let (actions, token) = action_ids(waited.expect("an action is due"));
    assert_eq!((actions, token.as_str()), (vec!["look".to_owned()], "look"));
    assert_eq!(test.ack(&entry, &json!([{"action_id": "look", "fields": {"seen": 7}}])).await.expect("taken"), [200]);
    let results = test.store().action_results(&ActionId::trusted("look"), false, 10).await.expect("readable");
    assert_eq!(results[0].fields.as_deref(), Some(r#"{"seen":7}"#));
    let confirmed = test.check_in(&entry, r#"{"status":"fine","ack_token":"look"}"#).await.expect("taken");
    let held = parked(confirmed);

    let root = OpContext::administrator(Actor::Local { uid: 0 });
    let selected = Selected::one(&agent.id).expect("an id");
    let selection = test.fleet.agents().select(&root, &selected).await.expect("there");
    test.fleet.actions().force_unenroll(&selection, Force::No).await.expect("done");
    assert_eq!(held.wait().await.err().and_then(|error| error.denial), Some(Denial::UnknownKey));
    assert_eq!(test.entry(&agent).await.err().and_then(|error| error.denial), Some(Denial::UnknownKey));
    assert!(!matches!(test.check_in(&entry, r#"{"status":"fine"}"#).await, Ok(Poll::Due(Delivery::Policy(_)))));
}

#[tokio::test]
async fn additional_credentials_authenticate_the_agent_and_are_revoked_with_it() {
    let test = TestFleet::default();
    let key = test.add_key(None, |_| {}).await;
    let agent = test.enroll(&key, &json!({})).await.expect("it is let in");
    let entry = test.entry(&agent).await.expect("its key is its own");
    let (node, device) = (ApiKey::opaque("a node key"), ApiKey::opaque("a device token"));
    let (authentication, credentials) = (test.fleet.authentication(), test.fleet.credentials());
    assert!(authentication.any_agent(&node).await.is_err());
    credentials.issue(&entry, CredentialKind::NodeKey, &node).await.expect("issued");
    credentials.issue(&entry, CredentialKind::DeviceToken, &device).await.expect("issued");

    test.clock.advance(Duration::from_secs(60));
    for own in [&agent.key, &node] {
        let found = authentication.any_agent(own).await.expect("each opens the agent");
        assert_eq!(found.id().as_str(), agent.id);
        authentication.agent(&agent.id, own).await.expect("by its id, too");
    }
    // Each user of the host can read it, so it opens only the page of the device.
    assert!(
        authentication.any_agent(&device).await.is_err() && authentication.agent(&agent.id, &device).await.is_err()
    );
    authentication.device_token("a device token").await.expect("the page");
    assert!(authentication.any_agent(&ApiKey::opaque("another")).await.is_err());
    test.fleet.statuses().flush_presence().await.expect("written");
    let rows = test.store().agent_credentials(entry.id()).await.expect("readable");
    let used = rows.iter().filter(|row| row.last_used_at == Some(test.now())).count();
    assert_eq!((rows.len(), used), (3, 2), "{rows:?}");

    credentials.revoke(&entry, &device.id).await.expect("revoked");
    assert!(authentication.device_token("a device token").await.is_err());
    authentication.any_agent(&node).await.expect("the others stay");

    let root = OpContext::administrator(Actor::Local { uid: 0 });
    let selection = test.fleet.agents().select(&root, &Selected::one(&agent.id).expect("an id")).await.expect("there");
    test.fleet.actions().force_unenroll(&selection, Force::No).await.expect("done");
    for own in [&agent.key, &node, &device] {
        assert!(authentication.any_agent(own).await.is_err());
    }
    let rows = test.store().agent_credentials(entry.id()).await.expect("readable");
    assert!(rows.iter().all(|row| row.revoked_at.is_some()), "{rows:?}");
}

#[tokio::test]
async fn uninstallation_revokes_the_key_of_a_muster_agent_only() {
    let test = TestFleet::default();
    for (family, ends) in [(Family::Muster, true), (Family::Elastic, false), (Family::Opamp, false)] {
        let record = AgentRecord { family, ..online_agent(family.as_str(), None, test.now()) };
        let key = test.add_agent(record, AgentDocuments::default()).await;
        let entry = test.fleet.authentication().agent(family.as_str(), &key).await.expect("its own");
        let held = parked(test.check_in(&entry, r#"{"status":"online"}"#).await.expect("taken"));
        let at = test.now();
        let report = AuditReport { reason: AuditReason::Uninstall, at };
        test.fleet.check_ins().report_unenroll(&entry, report, None).await.expect("taken");
        assert_eq!(test.fleet.authentication().any_agent(&key).await.is_err(), ends, "{family:?}");
        let record = test.stored(family.as_str()).await;
        assert_eq!((record.active, record.credentials.is_empty()), (!ends, ends), "{family:?}");
        if ends {
            assert_eq!(record.unenrolled_reason.as_deref(), Some("uninstalled"));
            assert!(held.wait().await.is_err());
        }
    }
}

#[tokio::test]
async fn ag157_former_agent_id_only_groups_the_host() {
    let test = TestFleet::default();
    let key = test.add_key(None, |_| {}).await;
    let elsewhere = test.add_key(None, |key| key.space = SpaceId::trusted("other")).await;
    let record = async |key, body: serde_json::Value| {
        let agent = test.enroll(key, &body).await.expect("it is let in");
        (test.stored(&agent.id).await, agent)
    };
    let (first, agent) = record(&key, json!({"machine_id": "m-1"})).await;
    let (second, _) = record(&key, json!({"former_id": first.id})).await;
    assert_eq!((second.host_id.as_ref(), second.former_id.as_ref()), (first.host_id.as_ref(), Some(&first.id)));
    assert_eq!(test.stored(first.id.as_str()).await, first, "the former agent stays as it is");
    test.entry(&agent).await.expect("its key lives on");
    let (clone, _) = record(&key, json!({"former_id": first.id, "machine_id": "m-2"})).await;
    assert_ne!(clone.host_id, first.host_id, "machine ids that differ count more");
    let (stranger, _) = record(&elsewhere, json!({"former_id": first.id})).await;
    assert_ne!(stranger.host_id, first.host_id, "another space is another host");
    let (moved, _) = record(&key, json!({"former_id": "of-another-server"})).await;
    assert_eq!(moved.former_id.as_ref().map(AgentId::as_str), Some("of-another-server"));
    let (odd, _) = record(&key, json!({"former_id": "no id\n"})).await;
    assert_eq!(odd.former_id, None);
}

#[tokio::test]
async fn agents_with_one_machine_id_share_a_host_within_a_space() {
    let test = TestFleet::default();
    let key = test.add_key(None, |_| {}).await;
    let elsewhere = test.add_key(None, |key| key.space = SpaceId::trusted("other")).await;
    let host = async |key, body: serde_json::Value| {
        let agent = test.enroll(key, &body).await.expect("it is let in");
        test.stored(&agent.id).await.host_id.expect("every agent is on a host")
    };
    let orbit = host(&key, json!({"machine_id": "4C4C4544"})).await;
    assert_eq!(host(&key, json!({"machine_id": "4c4c4544"})).await, orbit);
    assert_ne!(host(&elsewhere, json!({"machine_id": "4c4c4544"})).await, orbit);
    assert_ne!(host(&key, json!({})).await, host(&key, json!({})).await, "who does not say shares with nobody");
    let again = json!({"machine_id": "m-2", "enrollment_id": "once"});
    let first = host(&key, again.clone()).await;
    assert_eq!(host(&key, again).await, first, "the host stays when its only agent takes its own place");
    let found = test.store().host_by_machine(&SpaceId::default(), "m-2").await.expect("readable").expect("there");
    assert_eq!(found.id, first);
}
