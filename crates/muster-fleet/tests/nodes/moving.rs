//! Agents that move between servers, as behind a balancer that knows nothing of agents.

use muster_core::action::ActionType;
use muster_core::denial::Denial;
use muster_core::id::AgentId;
use muster_fleet::check_in::Delivery;
use muster_fleet::testing::TestFleet;
use serde_json::{Value, json};

use crate::cluster::{Agent, Database, ONLINE, ended, eventually};

const DEGRADED: &str = r#"{"status":"degraded","message":"An input failed"}"#;

async fn settings_for(server: &TestFleet, id: &str, agent: &Agent) {
    let data = |action: &mut muster_core::action::Action| action.data = Some(r#"{"log_level":"debug"}"#.into());
    server.add_action(id, ActionType::Settings, agent.id.as_str(), data).await;
}

fn actions(delivery: &Delivery) -> Vec<String> {
    match delivery {
        Delivery::Actions { actions, .. } => actions.iter().map(|action| action.action.id.to_string()).collect(),
        _ => Vec::new(),
    }
}

/// Fails if a server takes its cached record for current although the agent reported something else elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn report_is_compared_with_what_another_server_recorded_last() {
    let (a, b) = Database::new().await.two().await;
    let agent = Agent::new(&a, "a").await;
    let health = async || a.stored("a").await.health.status;
    drop(agent.poll(&a, ONLINE).await);
    drop(agent.poll(&b, DEGRADED).await);
    assert_eq!(health().await, "degraded");
    // The same bytes as in its last request to this server.
    eventually("the news", async || agent.is_current_on(&a).await).await;
    drop(agent.poll(&a, ONLINE).await);
    assert_eq!(health().await, "online");
}

#[tokio::test(flavor = "multi_thread")]
async fn action_is_delivered_once_to_the_living_poll_after_the_agent_moved() {
    let (a, b) = Database::new().await.two().await;
    let agent = Agent::new(&a, "a").await;
    // The connection of this poll is dead, which nobody has noticed.
    let dead = tokio::spawn(agent.poll(&a, ONLINE).await.wait());
    let living = tokio::spawn(agent.poll(&b, ONLINE).await.wait());
    eventually("the news", async || agent.is_current_on(&a).await).await;
    settings_for(&a, "one", &agent).await;
    assert_eq!(actions(&ended(living).await.expect("a delivery")), ["one"]);
    assert_eq!(actions(&ended(dead).await.expect("an answer")), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn action_that_was_confirmed_on_another_server_is_not_delivered_again() {
    let (a, b) = Database::new().await.two().await;
    let agent = Agent::new(&a, "a").await;
    drop(agent.poll(&b, ONLINE).await);
    let held = tokio::spawn(agent.poll(&a, ONLINE).await.wait());
    settings_for(&a, "one", &agent).await;
    assert_eq!(actions(&ended(held).await.expect("a delivery")), ["one"]);
    let acks = json!([{"type": "ACTION_RESULT", "action_id": "one", "agent_id": "a"}]);
    assert_eq!(b.ack(&*agent.entry(&b).await, &acks).await.expect("taken"), [200]);
    // The token confirms the delivery (EA73); the other server stores the position, which this one must learn.
    drop(agent.poll(&b, r#"{"status":"online","message":"Running","ack_token":"one"}"#).await);
    eventually("the news", async || agent.is_current_on(&a).await).await;
    drop(agent.poll(&a, ONLINE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_that_was_unenrolled_by_an_ack_elsewhere_is_rejected_here() {
    let (a, b) = Database::new().await.two().await;
    let agent = Agent::new(&a, "a").await;
    let held = tokio::spawn(agent.poll(&a, ONLINE).await.wait());
    a.add_action("leave", ActionType::Unenroll, "a", |_| {}).await;
    assert_eq!(actions(&ended(held).await.expect("a delivery")), ["leave"]);
    let acks = json!([{"type": "ACTION_RESULT", "action_id": "leave", "agent_id": "a"}]);
    assert_eq!(b.ack(&*agent.entry(&b).await, &acks).await.expect("taken"), [200]);
    eventually("the rejection", async || a.fleet.authentication().agent("a", &agent.key).await.is_err()).await;
}

/// Fails if an ack that leaves the record as it is does not depend on it: the server that has not learned of the revocation answers
/// 200, and the result is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn ack_for_an_action_that_a_revocation_on_another_server_ended_is_rejected() {
    let (a, b) = Database::new().await.two_that_stand_still().await;
    let agent = Agent::new(&a, "a").await;
    drop(agent.poll(&b, ONLINE).await);
    settings_for(&a, "one", &agent).await;
    let entry = agent.entry(&b).await;
    agent.revoke(&a).await;
    let acks = json!([{"type": "ACTION_RESULT", "action_id": "one", "agent_id": "a"}]);
    let refused = b.ack(&entry, &acks).await.expect_err("the agent is revoked");
    assert_eq!(refused.denial, Some(Denial::UnknownKey));
}

/// Fails if the acks of a former enrollment are taken because the agent is active again.
#[tokio::test(flavor = "multi_thread")]
async fn ack_of_a_former_enrollment_is_rejected_by_a_server_that_knows_no_other() {
    let (a, b) = Database::new().await.two_that_stand_still().await;
    let key = a.add_key(None, |_| {}).await;
    let body = json!({"type": "PERMANENT", "id": "fixed", "replace_token": "open"});
    let first = a.enroll(&key, &body).await.expect("admitted");
    let agent = Agent { id: AgentId::trusted(first.id.as_str()), key: first.key };
    let entry = agent.entry(&b).await;
    settings_for(&a, "one", &agent).await;
    a.enroll(&key, &body).await.expect("it replaces itself");
    settings_for(&a, "two", &agent).await;
    let acks = json!([{"type": "ACTION_RESULT", "action_id": "two", "agent_id": "fixed"}]);
    let refused = b.ack(&entry, &acks).await.expect_err("the key is revoked");
    assert_eq!(refused.denial, Some(Denial::UnknownKey));
}

/// Fails if the documents of the enrollment, which this server still knows, are compared with the report.
#[tokio::test(flavor = "multi_thread")]
async fn documents_are_compared_with_those_that_another_server_stored() {
    let (a, b) = Database::new().await.two_that_stand_still().await;
    let key = a.add_key(None, |_| {}).await;
    let metadata = |host: &str| json!({"host": {"hostname": host}});
    let enrolled = a.enroll(&key, &json!({"type": "PERMANENT", "metadata": {"local": metadata("one")}})).await;
    let enrolled = enrolled.expect("admitted");
    let agent = Agent { id: AgentId::trusted(enrolled.id.as_str()), key: enrolled.key };
    let stored = async || {
        let documents = a.store().agent_documents(&agent.id).await.expect("readable").expect("there");
        serde_json::from_str::<Value>(&documents.local_metadata.expect("reported")).expect("valid JSON")
    };
    for (server, host) in [(&b, "two"), (&a, "one")] {
        let body = json!({"status": "online", "local_metadata": metadata(host)}).to_string();
        drop(agent.poll(server, &body).await);
        assert_eq!(stored().await, metadata(host));
    }
}
