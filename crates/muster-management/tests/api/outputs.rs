//! MG §1.5: outputs over REST.

use muster_core::id::{AgentId, ClusterId, KeyId, PolicyId};
use muster_core::output_key::{IssuedKey, KeyState, OutputCluster, OutputKey};
use muster_core::policy::bootstrap::Trial;
use muster_store::OutputKeyWrite;
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
async fn a_stored_secret_is_not_sent_to_another_cluster() {
    let api = Api::new();
    let output = json!({"id": "main", "name": "main", "type": "elasticsearch", "hosts": ["https://one:9200"],
        "service_token": "TOKEN", "proxy_url": "http://u:hunter2@proxy:3128"});
    let made = api.post("/outputs", output.clone()).await.ok()["item"].clone();
    let changed = async |change: serde_json::Value| api.put("/outputs/main", change).await;
    for change in [
        json!({"hosts": ["https://evil:9200"]}),
        json!({"ssl": {"verification_mode": "none"}}),
        json!({"ssl.verification_mode": "none"}),
        json!({"config_yaml": "ssl.verification_mode: none"}),
        json!({"ca_trusted_fingerprint": "5F2C"}),
        json!({"proxy_url": null}),
    ] {
        let refused = changed(change.clone()).await.refused(400);
        let seen = (&refused["field"], &refused["remedy"]);
        assert_eq!(seen, (&json!("service_token"), &json!("send the secret again")), "{change}");
    }
    changed(json!({"name": "renamed"})).await.ok();
    // What was read can be sent back, and so can what was sent before.
    changed(made.clone()).await.ok();
    changed(output).await.ok();
    // Each secret that would go there must be sent: the reference to the proxy's password could be sent elsewhere too.
    let moved = json!({"hosts": ["https://two:9200"], "service_token": "TOKEN"});
    assert_eq!(changed(moved).await.refused(400)["field"], "proxy_url");
    let moved =
        json!({"hosts": ["https://two:9200"], "service_token": "TOKEN", "proxy_url": "http://u:hunter2@proxy:3128"});
    changed(moved).await.ok();
    changed(json!({"hosts": ["https://three:9200"], "service_token": null, "proxy_url": null})).await.ok();
}

#[tokio::test]
async fn ag103_the_credentials_of_bootstrap_settings_are_stored_as_secrets_and_stay_where_they_are() {
    let api = Api::new();
    let block = json!({"hosts": ["https://boot:9200"], "service_token": "BOOT-TOKEN",
        "ssl": {"certificate": "C", "key": "BOOT-KEY"}, "headers": {"X-Tenant": "BOOT-HEADER"},
        "proxy_url": "http://u:BOOT-PASSWORD@proxy:3128", "proxy_headers": {"Proxy-Authorization": "Basic BOOT-PROXY"}});
    let output = json!({"id": "main", "name": "main", "type": "elasticsearch", "hosts": ["https://one:9200"], "bootstrap": block});
    let made = api.post("/outputs", output.clone()).await.ok()["item"].clone();
    assert!(!made.to_string().contains("BOOT-"), "{made}");
    let mut shown = made["bootstrap"].clone();
    for field in ["headers", "proxy_url", "proxy_headers"] {
        let reference = shown.as_object_mut().unwrap().remove(field).unwrap().to_string();
        assert!(reference.contains("$co.elastic.secret{"), "{field}: {reference}");
    }
    assert_eq!(shown, json!({"hosts": ["https://boot:9200"], "ssl": {"certificate": "C"}}));
    assert!(made["secrets"]["bootstrap"]["service_token"]["id"].is_string(), "{made}");
    for moved in [json!({"hosts": ["https://evil:9200"]}), json!({"bootstrap": {"hosts": ["https://evil:9200"]}})] {
        assert_eq!(api.put("/outputs/main", moved).await.refused(400)["field"], "bootstrap.service_token");
    }
    api.put("/outputs/main", made.clone()).await.ok();
    api.put("/outputs/main", output).await.ok();
    let bad = json!({"bootstrap": {"hosts": [], "service_token": "t"}});
    assert_eq!(api.put("/outputs/main", bad).await.refused(400)["field"], "bootstrap.hosts");
}

#[tokio::test]
async fn the_settings_of_an_output_are_tested_without_creating_it() {
    let api = Api::new();
    let output = json!({"type": "elasticsearch", "hosts": ["https://one:9200"], "service_token": "TOKEN"});
    let tested = api.post("/outputs/_test", output).await.ok();
    // This server has no client of Elasticsearch.
    assert_eq!((&tested["usable"], &tested["failure"]), (&json!(false), &json!("unusable")), "{tested}");
    assert_eq!(api.get("/outputs").await.ok()["items"], json!([]));
    for (field, value) in [
        ("hosts", json!(["one:9200"])),
        ("type", json!("elastic")),
        ("proxy_id", json!("p")),
        ("secrets", json!({"service_token": "t"})),
    ] {
        let mut output = json!({"type": "elasticsearch", "hosts": ["https://one:9200"], "service_token": "TOKEN"});
        output[field] = value;
        let refused = api.post("/outputs/_test", output).await.refused(400);
        assert!(refused["field"].as_str().unwrap().starts_with(field), "{refused}");
    }
    let other = json!({"type": "kafka", "hosts": ["one:9092"]});
    assert_eq!(api.post("/outputs/_test", other).await.refused(400)["field"], "type");
}

#[tokio::test]
async fn the_password_of_a_proxy_is_not_sent_to_another_one() {
    let api = Api::new();
    let proxy =
        json!({"name": "p", "url": "http://proxy:3128", "proxy_headers": {"Proxy-Authorization": "Basic c2VjcmV0"}});
    let made = api.post("/proxies", proxy).await.ok()["item"].clone();
    let path = format!("/proxies/{}", made["id"].as_str().unwrap());
    let moved = json!({"url": "http://evil:3128", "proxy_headers": made["proxy_headers"]});
    let refused = api.put(&path, moved).await.refused(400);
    assert_eq!(refused["field"], "proxy_headers");
    let again = json!({"url": "http://other:3128", "proxy_headers": {"Proxy-Authorization": "Basic c2VjcmV0"}});
    api.put(&path, again).await.ok();
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

#[tokio::test]
async fn keys_are_counted_and_agents_show_the_ids_of_theirs() {
    let api = Api::new();
    let output = json!({"id": "main", "name": "m", "type": "elasticsearch", "hosts": ["https://one:9200"], "service_token": "t"});
    api.post("/outputs", output).await.ok();
    assert_eq!(api.get("/outputs/main/health").await.ok().get("keys"), None, "no agent has any");
    api.agent("a", None).await;
    let id = ClusterId::trusted("c");
    let cluster = OutputCluster {
        id: id.clone(),
        output: "main".into(),
        sealed: vec![1],
        failure: None,
        trial: Trial::default(),
    };
    let key = OutputKey {
        agent_id: AgentId::trusted("a"),
        output: "default".into(),
        version: 1,
        cluster: id,
        state: KeyState::Live,
        issued: Some(IssuedKey { id: KeyId::trusted("k1"), sealed: b"sealed-key".to_vec() }),
        permissions_hash: "hash".into(),
        policy_id: PolicyId::trusted("p"),
        revision: 1,
        is_withheld: false,
        since: api.now(),
        failure: None,
    };
    api.commit(vec![OutputKeyWrite::PutCluster(Box::new(cluster)).into(), OutputKeyWrite::Put(Box::new(key)).into()])
        .await;
    let counts = json!({"issued": 1, "wanted": 0, "outdated": 0, "failed": 0, "to_invalidate": 0});
    assert_eq!(api.get("/outputs/main/health").await.ok()["keys"], counts);
    let expected = json!({"default": {"type": "elasticsearch", "api_key_id": "k1", "policy_permissions_hash": "hash"}});
    let agent = api.get("/agents/a").await.ok()["item"].clone();
    assert_eq!(agent["outputs"], expected);
    assert!(!agent.to_string().contains("sealed"), "{agent}");
}
