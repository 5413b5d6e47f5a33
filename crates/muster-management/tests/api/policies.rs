//! MG §11.7: agent policies over REST.

use serde_json::{Value, json};

use crate::support::{Api, column};

fn config(hosts: &str) -> Value {
    json!({"outputs": {"default": {"type": "elasticsearch", "hosts": [hosts], "api_key": "$co.elastic.secret{KEY}"}},
        "inputs": [{"id": "logs", "type": "filestream", "use_output": "default",
            "streams": [{"id": "s", "data_stream": {"dataset": "generic"}, "paths": ["/var/log/*.log"]}]}]})
}

#[tokio::test]
async fn mg87_mg88_mg89_mg106_changes_create_revisions() {
    let api = Api::new();
    let body = json!({"name": "p", "namespace": "default", "config": config("https://one:9200"),
        "secrets": {"KEY": "id:value"}});
    let made = api.post("/agent_policies", body.clone()).await.ok()["item"].clone();
    let id = made["id"].as_str().unwrap();
    let path = format!("/agent_policies/{id}");
    assert_eq!((&made["revision"], &made["secret_names"]), (&json!(1), &json!(["KEY"])));
    assert!(!made.to_string().contains("id:value"), "secrets are write-only");
    assert_eq!(api.put(&path, body).await.ok()["item"]["revision"], 1, "nothing changed");
    assert_eq!(api.put(&path, json!({"name": "p"})).await.refused(400)["field"], "namespace");
    let second = json!({"name": "p", "namespace": "default", "config": config("https://two:9200"),
        "secrets": {"KEY": "id:value"}});
    assert_eq!(api.put(&path, second).await.ok()["item"]["revision"], 2);
    let revisions = api.get(&format!("{path}/revisions")).await.ok();
    assert_eq!(revisions["items"].as_array().unwrap().len(), 2);
    let diff = api.get(&format!("{path}/diff?from=1&to=2")).await.ok()["item"].clone();
    assert!(diff["changes"].to_string().contains("https://two:9200"), "{diff}");
    assert_eq!(api.post(&format!("{path}/rollback"), json!({"revision": 1})).await.ok()["item"]["revision"], 3);
    assert_eq!(api.get(&path).await.ok()["item"]["config"]["outputs"]["default"]["hosts"], json!(["https://one:9200"]));
    api.get(&format!("{path}/revisions/9")).await.refused(404);
    api.get(&format!("{path}/revisions/nine")).await.refused(404);
}

#[tokio::test]
async fn mg107_mg118_compiled_policies_can_be_read_and_downloaded() {
    let api = Api::new();
    let body = json!({"name": "p", "namespace": "default", "config": config("https://one:9200"),
        "secrets": {"KEY": "id:value"}});
    let id = api.post("/agent_policies", body).await.ok()["item"]["id"].as_str().unwrap().to_owned();
    let full = api.get(&format!("/agent_policies/{id}/full")).await.ok()["item"].clone();
    for key in ["id", "revision", "outputs", "inputs", "fleet", "agent", "signed"] {
        assert!(full.get(key).is_some(), "{key}");
    }
    assert!(!full.to_string().contains("id:value"));
    let alone = api.get(&format!("/agent_policies/{id}/full?standalone=true")).await.ok()["item"].clone();
    assert!(alone.get("fleet").is_none() && alone.get("signed").is_none());
    let download = api.get(&format!("/agent_policies/{id}/download")).await;
    assert!(download.headers["content-disposition"].to_str().unwrap().contains("elastic-agent.yml"));
    let yaml = download.ok();
    let parsed: Value = serde_saphyr::from_str(yaml.as_str().unwrap()).unwrap();
    assert_eq!(parsed, full);
}

#[tokio::test]
async fn mg12_mg97_mg98_mg99_mg100_policies_are_listed_copied_and_deleted() {
    let api = Api::new();
    let id = api.policy("p").await;
    let taken = json!({"name": "p", "namespace": "default"});
    assert_eq!(api.post("/agent_policies", taken).await.refused(409)["code"], "policy_name_taken");
    api.agent("a", Some(&id)).await;
    let copy = api.post(&format!("/agent_policies/{id}/copy"), json!({"name": "q"})).await.ok()["item"].clone();
    assert_eq!((&copy["revision"], &copy["agents"]), (&json!(1), &json!(0)));
    assert_ne!(copy["id"], id);
    let plain = api.get("/agent_policies").await.ok();
    assert_eq!(column(&plain, "/name"), ["p", "q"]);
    assert_eq!(plain["items"][0]["agents"], 0);
    assert_eq!(plain["items"][0].get("config"), None);
    let counted = api.get("/agent_policies?withAgentCount=true&perPage=100").await.ok();
    assert_eq!(counted["items"][0]["agents"], 1);
    api.get("/agent_policies?full=true&perPage=101").await.refused(400);
    api.get("/agent_policies?perPage=101").await.ok();
    let in_use = api.post("/agent_policies/delete", json!({"agentPolicyId": id})).await;
    assert!(in_use.status == 409 || in_use.status == 400, "{}", in_use.body);
    let other = copy["id"].clone();
    let gone = api.post("/agent_policies/delete", json!({"agentPolicyId": other})).await.ok();
    assert_eq!(gone, json!({"id": other, "name": "q"}));
    let keys = api.get(&format!("/enrollment_api_keys?kuery=policy_id:{}", other.as_str().unwrap())).await.ok();
    assert_eq!(keys["total"], 0);
}

#[tokio::test]
async fn mg24_policies_are_filtered_by_queries_and_text() {
    let api = Api::new();
    api.policy("Web servers").await;
    api.policy("Mail").await;
    assert_eq!(column(&api.get("/agent_policies?kuery=web").await.ok(), "/name"), ["Web servers"]);
    assert_eq!(column(&api.get("/agent_policies?kuery=name:Mail").await.ok(), "/name"), ["Mail"]);
    let found = api.get("/agent_policies?kuery=ingest-agent-policies.is_managed:false").await.ok();
    assert_eq!(found["total"], 2);
}

#[tokio::test]
async fn policies_are_read_in_bulk() {
    let api = Api::new();
    let id = api.policy("p").await;
    let found = api.post("/agent_policies/_bulk_get", json!({"ids": [id, "no"], "ignoreMissing": true})).await.ok();
    assert_eq!(column(&found, "/id"), std::slice::from_ref(&id));
    api.post("/agent_policies/_bulk_get", json!({"ids": [id, "no"]})).await.refused(404);
}

#[tokio::test]
async fn mg91_mg86_fields_of_kibana_are_preserved() {
    let api = Api::new();
    let body = json!({"name": "p", "namespace": "default", "is_protected": true, "duplicate_hosts": "reenroll", "monitoring_enabled": ["logs"]});
    let made = api.post("/agent_policies", body).await.ok()["item"].clone();
    assert_eq!(made["inactivity_timeout"], 1_209_600);
    assert_eq!(made["duplicate_hosts"], "reenroll");
    assert_eq!((&made["is_protected"], &made["monitoring_enabled"]), (&json!(true), &json!(["logs"])));
    assert_eq!(made["status"], "active");
}

#[tokio::test]
async fn a_stored_secret_of_a_policy_is_not_sent_to_another_cluster() {
    let api = Api::new();
    let file = |host: &str, name: &str| {
        format!(
            "name: web\nconfig:\n  outputs:\n    {name}:\n      type: elasticsearch\n      hosts: ['{host}']\n      \
             service_token: $co.elastic.secret{{ES}}\n  inputs: []\n"
        )
    };
    let apply = async |text: String, secrets: Value| {
        api.post("/agent_policies/_apply", json!({"policy": text, "secrets": secrets})).await
    };
    let (one, evil) = ("https://one:9200", "https://evil:9200");
    apply(file(one, "default"), json!({"ES": "TOKEN"})).await.ok();
    apply(file(one, "default"), json!({})).await.ok();
    for text in [file(evil, "default"), file(evil, "other")] {
        let refused = apply(text, json!({})).await.refused(400);
        assert_eq!((&refused["field"], &refused["remedy"]), (&json!("secrets.ES"), &json!("send the secret again")));
    }
    apply(file(evil, "default"), json!({"ES": "TOKEN"})).await.ok();
}
