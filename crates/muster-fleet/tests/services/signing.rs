//! The signing key and its replacement, as agents see them.

use std::time::Duration;

use muster_core::action::{ActionType, Signed};
use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::authorization::{Actor, OpContext};
use muster_core::id::{AgentId, PolicyId};
use muster_core::signing::verify;
use muster_core::testing::online_agent;
use muster_fleet::check_in::{Delivery, Poll};
use muster_fleet::policies::PolicyDraft;
use muster_fleet::testing::TestFleet;
use serde_json::{Value, json};

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

/// A fleet with the policy `web` and an agent that runs its first revision.
async fn world() -> TestFleet {
    let test = TestFleet::default().following_changes();
    let draft = PolicyDraft { id: Some("web".into()), name: Some("web".into()), ..PolicyDraft::default() };
    test.fleet.policies().create(&root().grant().expect("all rights"), draft).await.expect("it is made");
    let mut record = online_agent("a", Some("web"), test.now());
    (record.running_policy_id, record.policy_revision) = (Some(PolicyId::trusted("web")), 1);
    test.add_agent(record, AgentDocuments::default()).await;
    test
}

async fn rotate(test: &TestFleet) -> String {
    let grant = root().grant().expect("all rights");
    assert_eq!(test.fleet.policies().rotate_signing_key(&grant).await.expect("it is replaced"), 1);
    refresh(test).await;
    test.fleet.inner().signing.current().public_key().to_owned()
}

/// What the change feed does.
async fn refresh(test: &TestFleet) {
    test.fleet.inner().policy_cache.refresh(&PolicyId::trusted("web")).await.expect("it renders");
}

/// What a check-in of the agent brings, which runs this revision of its policy.
async fn check_in(test: &TestFleet, revision: i64) -> Delivery {
    let entry = test.fleet.entry(&AgentId::trusted("a")).await.expect("it is there");
    let body = json!({"status": "online", "agent_policy_id": "web", "policy_revision_idx": revision});
    match test.check_in(&entry, &body.to_string()).await.expect("it is taken") {
        Poll::Due(delivery) => delivery,
        Poll::Held(_) => Delivery::Nothing,
    }
}

/// The revision and the key in a delivered policy that is signed with `key`.
fn policy(delivery: &Delivery, key: &str) -> (i64, String) {
    let Delivery::Policy(policy) = delivery else { panic!("the policy is due") };
    let bytes: Vec<u8> = policy.plain("a", &policy.keys).concat();
    let whole: Value = serde_json::from_slice(&bytes).expect("JSON");
    let policy = &whole["actions"][0]["data"]["policy"];
    let signed: Signed = serde_json::from_value(policy["signed"].clone()).expect("it is signed");
    let inner: Value = serde_json::from_slice(&verify(key, &signed).expect("by that key")).expect("JSON");
    let next = inner["agent"]["protection"]["signing_key"].as_str().expect("a key").to_owned();
    (policy["revision"].as_i64().expect("a number"), next)
}

/// Whether the only action of a delivery is signed with `key`.
fn is_signed_with(delivery: &Delivery, key: &str) -> bool {
    let Delivery::Actions { actions, .. } = delivery else { panic!("an action is due") };
    verify(key, actions[0].action.signed.as_ref().expect("it is signed")).is_ok()
}

/// Adds a signed action; returns what the next check-in brings after the server has heard of it.
async fn unenroll(test: &TestFleet, id: &str, revision: i64) -> Delivery {
    test.add_action(id, ActionType::Unenroll, "a", |_| {}).await;
    let delivered = async {
        loop {
            match check_in(test, revision).await {
                delivery @ Delivery::Actions { .. } => return delivery,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), delivered).await.expect("it is delivered")
}

#[tokio::test]
async fn mg115_an_agent_gets_a_new_key_signed_with_the_key_that_it_has() {
    let test = world().await;
    let first = test.fleet.inner().signing.current().public_key().to_owned();
    let second = rotate(&test).await;
    assert_ne!(first, second);
    // An action is delivered before the policy, and the agent verifies it with the key that it has.
    assert!(is_signed_with(&unenroll(&test, "early", 1).await, &first));
    let acked = json!({"status": "online", "agent_policy_id": "web", "policy_revision_idx": 1, "ack_token": "early"});
    let entry = test.fleet.entry(&AgentId::trusted("a")).await.expect("it is there");
    let Poll::Due(due) = test.check_in(&entry, &acked.to_string()).await.expect("it is taken") else {
        panic!("the policy is due")
    };
    assert_eq!(policy(&due, &first), (2, second.clone()));
    assert!(matches!(check_in(&test, 2).await, Delivery::Nothing));
    assert!(is_signed_with(&unenroll(&test, "late", 2).await, &second));
}

#[tokio::test]
async fn mg115_an_agent_that_was_away_during_two_rotations_gets_the_newest_key() {
    let test = world().await;
    let first = test.fleet.inner().signing.current().public_key().to_owned();
    rotate(&test).await;
    let third = rotate(&test).await;
    assert_eq!(policy(&check_in(&test, 1).await, &first), (3, third.clone()));
    // A server that starts now knows the former keys, too.
    let other = test.beside();
    assert_eq!(other.fleet.policies().revise_outdated().await.expect("compiled"), 0);
    refresh(&other).await;
    assert_eq!(policy(&check_in(&other, 1).await, &first), (3, third));
}

#[tokio::test]
async fn a_new_agent_gets_the_policy_signed_with_the_key_in_it() {
    let test = world().await;
    let second = rotate(&test).await;
    let record =
        AgentRecord { running_policy_id: None, policy_revision: 0, ..online_agent("b", Some("web"), test.now()) };
    test.add_agent(record, AgentDocuments::default()).await;
    let entry = test.fleet.entry(&AgentId::trusted("b")).await.expect("it is there");
    let Poll::Due(due) = test.check_in(&entry, r#"{"status":"online"}"#).await.expect("it is taken") else {
        panic!("the policy is due")
    };
    assert_eq!(policy(&due, &second), (2, second.clone()));
}
