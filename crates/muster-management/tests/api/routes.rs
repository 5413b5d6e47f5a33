//! Routes that are variants of others: each has the same effect, on the selected agents only.

use axum::http::Method;
use muster_core::action::{ActionType, DueAction};
use serde_json::{Value, json};

use crate::support::{Api, column};

/// The due actions of an agent of one type.
async fn due(api: &Api, agent: &str, kind: ActionType) -> Vec<DueAction> {
    api.due(agent).await.into_iter().filter(|one| one.action.kind == kind).collect()
}

fn data(due: &[DueAction]) -> Value {
    due[0].action.data.as_deref().map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

async fn pair() -> Api {
    let api = Api::new();
    for id in ["a", "b", "out"] {
        api.agent_with(id, None, |agent| agent.agent_version = "9.6.0".into()).await;
    }
    api
}

#[tokio::test]
async fn mg136_tags_of_one_agent_are_changed_by_its_route() {
    let api = pair().await;
    let body = json!({"tagsToAdd": ["web", "prod"]});
    let id = api.post("/agents/a/tags", body).await.ok()["actionId"].clone();
    assert_eq!(api.record("a").await.unwrap().tags, ["web", "prod"]);
    assert!(api.record("b").await.unwrap().tags.is_empty());
    let shown = api.get(&format!("/agents/actions/{}", id.as_str().unwrap())).await.ok()["item"].clone();
    assert_eq!((&shown["type"], &shown["status"]), (&json!("UPDATE_TAGS"), &json!("COMPLETE")));
    assert_eq!(api.post("/agents/a/tags", json!({})).await.refused(400)["field"], "tagsToAdd");
}

#[tokio::test]
async fn mg132_reassignment_accepts_put_and_post() {
    let api = pair().await;
    let policy = api.policy("p").await;
    api.put("/agents/a/reassign", json!({"policy_id": policy})).await.ok();
    assert_eq!(api.record("a").await.unwrap().policy_id.unwrap().as_str(), policy);
    assert_eq!(api.record("b").await.unwrap().policy_id, None);
}

#[tokio::test]
async fn mg138_one_agent_is_rolled_back_to_the_version_that_it_offers() {
    let api = Api::new();
    let until = api.now().plus(std::time::Duration::from_secs(60)).to_rfc3339_seconds();
    let offers = json!([{"version": "9.4.0", "valid_until": until}]).to_string();
    api.agent_with("a", None, |agent| agent.upgrade.rollbacks = Some(offers.into())).await;
    api.post("/agents/a/rollback", json!({})).await.ok();
    assert_eq!(data(&due(&api, "a", ActionType::Upgrade).await), json!({"version": "9.4.0", "rollback": true}));
}

#[tokio::test]
async fn a_bulk_migration_reaches_the_selected_agents() {
    let api = pair().await;
    let body = json!({"agents": ["a", "b"], "uri": "https://other:8220", "enrollment_token": "aWQ6c2VjcmV0",
        "settings": {"insecure": true}});
    api.post("/agents/bulk_migrate", body.clone()).await.ok();
    for agent in ["a", "b"] {
        let data = data(&due(&api, agent, ActionType::Migrate).await);
        assert_eq!(data["target_uri"], "https://other:8220");
        assert_eq!(data["settings"]["insecure"], true);
        assert_ne!(data["enrollment_token"], "aWQ6c2VjcmV0", "sealed");
    }
    assert!(due(&api, "out", ActionType::Migrate).await.is_empty());
    let mut replacing = body;
    replacing["settings"] = json!({"replace_token": "r"});
    assert_eq!(api.post("/agents/bulk_migrate", replacing).await.refused(400)["field"], "settings.replace_token");
}

#[tokio::test]
async fn privilege_levels_are_changed_for_one_and_many_agents() {
    let api = pair().await;
    api.post("/agents/a/privilege_level_change", json!({"user_info": {"username": "u", "groupname": "g"}})).await.ok();
    let one = data(&due(&api, "a", ActionType::PrivilegeLevelChange).await);
    assert_eq!(one, json!({"unprivileged": true, "user_info": {"username": "u", "groupname": "g"}}));
    api.post("/agents/bulk_privilege_level_change", json!({"agents": ["b"]})).await.ok();
    assert_eq!(data(&due(&api, "b", ActionType::PrivilegeLevelChange).await)["unprivileged"], true);
    assert!(due(&api, "out", ActionType::PrivilegeLevelChange).await.is_empty());
}

#[tokio::test]
async fn any_action_can_be_created_for_many_agents() {
    let api = pair().await;
    let action = json!({"agents": ["a", "b"], "action": {"type": "SETTINGS", "data": {"log_level": "debug"}}});
    let id = api.post("/agents/bulk_actions", action).await.ok()["actionId"].clone();
    for agent in ["a", "b"] {
        let due = due(&api, agent, ActionType::Settings).await;
        assert_eq!(
            (due[0].action.id.as_str(), data(&due)["log_level"].as_str()),
            (id.as_str().unwrap(), Some("debug"))
        );
    }
    assert!(due(&api, "out", ActionType::Settings).await.is_empty());
}

#[tokio::test]
async fn mg119_a_bulk_upgrade_is_delivered_with_its_source() {
    let api = pair().await;
    let body = json!({"agents": ["a"], "version": "9.7.0", "source_uri": "https://mirror.example/"});
    api.post("/agents/bulk_upgrade", body).await.ok();
    let sent = data(&due(&api, "a", ActionType::Upgrade).await);
    assert_eq!(sent, json!({"version": "9.7.0", "source_uri": "https://mirror.example/"}));
    assert!(due(&api, "b", ActionType::Upgrade).await.is_empty());
}

#[tokio::test]
async fn an_old_revision_can_be_read_unchanged() {
    let api = Api::new();
    let policy = api.policy("p").await;
    let path = format!("/agent_policies/{policy}");
    let config = json!({"inputs": [{"id": "i", "type": "process", "command": "/x"}]});
    api.put(&path, json!({"name": "p", "namespace": "default", "config": config})).await.ok();
    let first = api.get(&format!("{path}/revisions/1")).await.ok()["item"].clone();
    let second = api.get(&format!("{path}/revisions/2")).await.ok()["item"].clone();
    assert_eq!((&first["revision"], &second["revision"]), (&json!(1), &json!(2)));
    assert_ne!(first, second);
    assert!(second.to_string().contains("\"i\""), "{second}");
}

#[tokio::test]
async fn mg148_agents_of_several_actions_are_listed_without_duplicates() {
    let api = pair().await;
    let mut ids = Vec::new();
    for agents in [json!(["a"]), json!(["a", "b"])] {
        let made = api.post("/agents/bulk_request_diagnostics", json!({"agents": agents})).await.ok();
        ids.push(made["actionId"].clone());
    }
    let found = api.call(Method::POST, "/agents", Some(json!({"actionIds": ids}))).await.ok();
    let mut agents: Vec<&str> = found["items"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    agents.sort_unstable();
    assert_eq!(agents, ["a", "b"]);
}

#[tokio::test]
async fn an_enrollment_key_is_readable_under_both_spellings_of_its_path() {
    let api = Api::new();
    let made = api.post("/enrollment-api-keys", json!({"name": "k"})).await.ok()["item"].clone();
    let id = made["id"].as_str().unwrap();
    for stem in ["/enrollment_api_keys", "/enrollment-api-keys"] {
        assert_eq!(api.get(&format!("{stem}/{id}")).await.ok()["item"]["name"], "k");
        assert_eq!(column(&api.get(stem).await.ok(), "/id"), [id]);
    }
    api.post(&format!("/enrollment-api-keys/{id}/replace"), json!({})).await.ok();
    api.delete(&format!("/enrollment-api-keys/{id}")).await.ok();
}
