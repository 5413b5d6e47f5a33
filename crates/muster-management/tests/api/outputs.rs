//! MG §1.5: outputs over REST.

use muster_core::id::PolicyId;
use serde_json::json;

use crate::support::{Api, column};

fn logstash() -> serde_json::Value {
    json!({"name": "ship", "type": "logstash", "hosts": ["one:5044"]})
}

#[tokio::test]
async fn mg105_outputs_are_created_updated_and_deleted() {
    let api = Api::new();
    let made = api.post("/outputs", logstash()).await.ok()["item"].clone();
    let path = format!("/outputs/{}", made["id"].as_str().unwrap());
    assert_eq!((&made["type"], &made["hosts"]), (&json!("logstash"), &json!(["one:5044"])));
    let changed = api.put(&path, json!({"name": "ship", "hosts": ["two:5044"]})).await.ok()["item"].clone();
    assert_eq!(changed["hosts"], json!(["two:5044"]));
    // The response of a read can be sent back unchanged.
    assert_eq!(api.put(&path, changed.clone()).await.ok()["item"], changed);
    assert_eq!(column(&api.get("/outputs").await.ok(), "/name"), ["ship"]);
    assert_eq!(api.delete(&path).await.ok(), json!({"id": made["id"]}));
    api.get(&path).await.refused(404);
    assert_eq!(api.post("/outputs", json!({"name": 5})).await.refused(400)["field"], "name");
}

#[tokio::test]
async fn health_is_derived_from_the_agents_that_use_the_output() {
    let api = Api::new();
    let config = json!({"outputs": {"ours": {"type": "elasticsearch", "hosts": ["https://one:9200"]}}, "inputs": []});
    let policy = json!({"name": "p", "namespace": "default", "config": config});
    let id = api.post("/agent_policies", policy).await.ok()["item"]["id"].as_str().unwrap().to_owned();
    assert_eq!(api.get("/outputs/ours/health").await.ok()["state"], "UNKNOWN");
    api.agent("well", Some(&id)).await;
    assert_eq!(api.get("/outputs/ours/health").await.ok()["state"], "HEALTHY");
    api.agent_with("ill", Some(&id), |agent| {
        agent.policy_id = Some(PolicyId::trusted(id.as_str()));
        agent.health.status = "degraded".into();
        agent.health.message = "can't connect".into();
        agent.health.unhealthy_reason = vec!["output".into()];
    })
    .await;
    let health = api.get("/outputs/ours/health").await.ok();
    assert_eq!(health["state"], "DEGRADED");
    assert!(health["message"].as_str().unwrap().contains("can't connect"), "{health}");
    assert!(health["since"].is_string());
    api.get("/outputs/unheard-of/health").await.refused(404);
}
