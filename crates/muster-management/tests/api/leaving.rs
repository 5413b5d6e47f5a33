//! Pending actions of an agent end when it is unenrolled, deleted or migrated.

use muster_core::acknowledge::Verdict;
use muster_core::action::ActionType;
use muster_core::credential::ApiKey;
use muster_core::testing::family;
use serde_json::{Value, json};

use crate::support::Api;

/// Creates an action of every type that needs an ack for both agents; returns their ids.
async fn create_actions(api: &Api, agents: [&str; 2]) -> Vec<String> {
    let wanted = [
        ("bulk_upgrade", json!({"version": "9.5.0", "force": true})),
        ("bulk_request_diagnostics", json!({})),
        ("bulk_migrate", json!({"uri": "https://other.example", "enrollment_token": "aWQ6c2VjcmV0"})),
        ("bulk_privilege_level_change", json!({})),
        ("bulk_actions", json!({"action": {"type": "SETTINGS", "data": {"log_level": "debug"}}})),
        ("bulk_actions", json!({"action": {"type": "INPUT_ACTION", "input_type": "osquery", "data": {"query": "x"}}})),
    ];
    let mut ids = Vec::new();
    for (path, mut body) in wanted {
        body["agents"] = json!(agents);
        let given = api.post(&format!("/agents/{path}"), body).await.ok();
        ids.push(given["actionId"].as_str().expect("an id").to_owned());
    }
    ids
}

async fn ack(api: &Api, agent: &str, key: &ApiKey, action: &str) {
    let entry = api.fleet.authentication().agent(agent, key).await.expect("its key");
    let acks = family::acks(&json!([{"action_id": action}]).to_string());
    assert_eq!(api.fleet.check_ins().acknowledge(&entry, &acks).await.expect("taken"), [Verdict::Taken], "{action}");
}

async fn shown(api: &Api, action: &str) -> Value {
    api.get(&format!("/agents/actions/{action}")).await.ok()["item"].clone()
}

/// `leave` removes the agent `leaves`; the other one stays and acknowledges last.
async fn check(leave: impl AsyncFnOnce(&Api, &ApiKey)) {
    let api = Api::new();
    let stays = api.agent("stays", None).await;
    let leaves = api.agent("leaves", None).await;
    let open = create_actions(&api, ["stays", "leaves"]).await;
    leave(&api, &leaves).await;
    assert!(api.fleet.authentication().agent("leaves", &leaves).await.is_err(), "its key is dead");
    for id in &open {
        let path = format!("/agents/actions/{id}/results");
        let targets = api.get(&path).await.ok()["items"].as_array().expect("targets").clone();
        let left = targets.iter().find(|target| target["agent_id"] == "leaves").expect("it stays a target");
        assert_eq!(
            (&left["state"], &left["error"]),
            (&json!("failed"), &json!("the agent was unenrolled")),
            "{}",
            shown(&api, id).await["type"]
        );
        assert_eq!(shown(&api, id).await["status"], "IN_PROGRESS", "the other agent has not answered");
    }
    // Migrated last: with that ack the agent leaves.
    for due in api.due("stays").await.iter().filter(|due| due.action.kind != ActionType::Migrate) {
        ack(&api, "stays", &stays, due.action.id.as_str()).await;
        let after = shown(&api, due.action.id.as_str()).await;
        assert_eq!((&after["status"], &after["nbAgentsFailed"]), (&json!("FAILED"), &json!(1)), "{after}");
    }
}

#[tokio::test]
async fn pending_actions_of_a_revoked_agent_end() {
    check(async |api: &Api, _: &ApiKey| {
        api.post("/agents/leaves/unenroll", json!({"revoke": true})).await.ok();
    })
    .await;
}

#[tokio::test]
async fn mg34_pending_actions_of_an_agent_that_delete_revoked_end() {
    check(async |api: &Api, _: &ApiKey| {
        api.delete("/agents/leaves").await.ok();
    })
    .await;
}

#[tokio::test]
async fn pending_actions_of_agents_deleted_in_bulk_end() {
    check(async |api: &Api, _: &ApiKey| {
        api.post("/agents/bulk_delete", json!({"agents": ["leaves"]})).await.ok();
    })
    .await;
}

#[tokio::test]
async fn pending_actions_of_an_agent_that_acks_its_unenrollment_end() {
    check(async |api: &Api, key: &ApiKey| {
        let given = api.post("/agents/leaves/unenroll", json!({})).await.ok();
        let action = given["actionId"].as_str().expect("an id").to_owned();
        ack(api, "leaves", key, &action).await;
        assert_eq!(shown(api, &action).await["status"], "COMPLETE", "that one was carried out");
    })
    .await;
}

#[tokio::test]
async fn pending_actions_of_a_migrated_agent_end() {
    check(async |api: &Api, key: &ApiKey| {
        let body = json!({"uri": "https://next.example", "enrollment_token": "aWQ6c2VjcmV0"});
        let given = api.post("/agents/leaves/migrate", body).await.ok();
        let action = given["actionId"].as_str().expect("an id").to_owned();
        ack(api, "leaves", key, &action).await;
        assert_eq!(shown(api, &action).await["status"], "COMPLETE", "that one was carried out");
    })
    .await;
}
