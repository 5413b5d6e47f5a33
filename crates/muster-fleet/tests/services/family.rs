//! A family of agents that only tests have lives its whole life through the same services as every other.

use std::time::Duration;

use muster_core::action::ActionType;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::denial::Denial;
use muster_core::id::{ActionId, SpaceId};
use muster_core::status::Status;
use muster_fleet::check_in::{CheckInOutcome, Delivery};
use muster_fleet::force::Force;
use muster_fleet::selection::Selected;
use muster_fleet::testing::TestFleet;
use serde_json::json;

use crate::setting::{action_ids, parked};

#[tokio::test]
async fn an_agent_of_another_family_enrols_checks_in_acts_acks_and_is_revoked() {
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
    test.order("look", ActionType::Settings, &agent.id, |action| action.expiration = expiration).await;
    let (actions, token) = action_ids(held.wait().await.expect("an action is due"));
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
    assert!(!matches!(
        test.check_in(&entry, r#"{"status":"fine"}"#).await,
        Ok(CheckInOutcome::Deliver(Delivery::Policy(_)))
    ));
}

#[tokio::test]
async fn agents_of_one_machine_share_a_host_in_their_space() {
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
