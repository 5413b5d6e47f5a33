//! Policies with agents: deletion while in use, and delivery of changes.

use std::time::Duration;

use muster_core::Error;
use muster_core::authorization::{Actor, OpContext, PoliciesRead};
use muster_core::policy::Policy;
use muster_fleet::check_in::Delivery;
use muster_fleet::force::Force;
use muster_fleet::outputs::OutputDraft;
use muster_fleet::policies::PolicyDraft;
use serde_json::{Value, json};

use super::setting::{Setting, parked, policy_revision};

const RUNS_ONE: &str = r#"{"status":"online","agent_policy_id":"web","policy_revision_idx":1}"#;

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

async fn delete(setting: &Setting) -> Result<Policy, Error> {
    let policies = setting.fleet.policies();
    policies.delete(&policies.find(&root(), "web").await?, Force::No).await
}

async fn with_policy(config: Value) -> Setting {
    let setting = Setting::new();
    let (id, name) = (Some("web".into()), Some("web".into()));
    let draft = PolicyDraft { id, name, config: Some(config), ..PolicyDraft::default() };
    setting.fleet.policies().create(&root().grant().expect("all rights"), draft).await.expect("it compiles");
    setting
}

#[tokio::test]
async fn policy_with_an_active_agent_is_not_deleted() {
    let setting = with_policy(json!({})).await;
    let policy = setting.fleet.policies().find::<PoliciesRead>(&root(), "web").await.expect("there").into_inner().id;
    setting.agent("a", Some(&policy)).await;
    setting.agent("b", Some(&policy)).await;
    let refused = delete(&setting).await.expect_err("two are on it");
    assert_eq!(refused.code, "policy_in_use");
    assert!(refused.message.starts_with("2 enrolled agents are on the policy \"web\""), "{}", refused.message);
    for id in ["a", "b"] {
        setting.deactivate(id).await;
    }
    delete(&setting).await.expect("nobody active is on it");
}

#[tokio::test]
async fn ea71_changed_output_wakes_held_polls_with_a_new_revision() {
    let setting = with_policy(json!({})).await;
    let policy = setting.fleet.policies().find::<PoliciesRead>(&root(), "web").await.expect("there").into_inner().id;
    let key = setting.agent("a", Some(&policy)).await;
    let entry = setting.entry("a", &key).await;
    assert_eq!(policy_revision(setting.check_in(&entry, r#"{"status":"online"}"#).await), 1);

    let held = tokio::spawn(parked(setting.check_in(&entry, RUNS_ONE).await).wait());
    let output = OutputDraft {
        name: Some("es".into()),
        kind: Some("elasticsearch".into()),
        is_default: Some(true),
        fields: [("hosts".to_owned(), json!(["https://es:9200"]))].into_iter().collect(),
        ..OutputDraft::default()
    };
    setting.fleet.outputs().create(&root().grant().expect("all rights"), output).await.expect("it fits");
    let woken = tokio::time::timeout(Duration::from_secs(5), held).await.expect("woken").expect("no panic");
    match woken.expect("a delivery") {
        Delivery::Policy(policy) => assert_eq!(policy.revision, 2),
        _ => panic!("the policy was due"),
    }
}
