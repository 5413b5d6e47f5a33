//! MG §11.7, §11.8: rules of agent policies and their compiled form, over REST.

use axum::body::Body;
use axum::http::{Method, Request};
use muster_core::action::Signed;
use muster_core::signing::verify;
use serde_json::{Value, json};

use crate::support::{Api, administrator, column};

fn named(name: &str, more: Value) -> Value {
    let mut body = json!({"name": name, "namespace": "default"});
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

async fn refused(api: &Api, more: Value) -> String {
    let body = api.post("/agent_policies", named("p", more)).await.refused(400);
    body["field"].as_str().unwrap().to_owned()
}

async fn compiled(api: &Api, id: &str) -> Value {
    api.get(&format!("/agent_policies/{id}/full")).await.ok()["item"].clone()
}

/// A fleet with a default output, and a policy with these fields.
async fn with_policy(more: Value) -> (Api, String) {
    let api = Api::new();
    let output = json!({"id": "es", "name": "es", "type": "elasticsearch", "is_default": true,
        "is_default_monitoring": true, "hosts": ["https://es:9200"], "secrets": {"password": "OUTPUT SECRET"}});
    api.post("/outputs", output).await.ok();
    let made = api.post("/agent_policies", named("p", more)).await.ok();
    let id = made["item"]["id"].as_str().unwrap().to_owned();
    (api, id)
}

#[tokio::test]
async fn mg90_namespaces_with_upper_case_or_hyphens_are_rejected() {
    let api = Api::new();
    for namespace in ["Prod", "a-b", "a b", ""] {
        assert_eq!(refused(&api, json!({"namespace": namespace})).await, "namespace", "{namespace}");
    }
}

#[tokio::test]
async fn mg92_required_versions_are_valid_unique_and_at_most_100_percent() {
    let api = Api::new();
    let of = |rows: &[(&str, i64)]| {
        let rows: Vec<Value> =
            rows.iter().map(|(version, share)| json!({"version": version, "percentage": share})).collect();
        json!({"required_versions": rows})
    };
    assert_eq!(refused(&api, of(&[("9.5.2", 60), ("9.6.0", 41)])).await, "required_versions");
    assert_eq!(refused(&api, of(&[("9.5.2", 10), ("9.5.2", 10)])).await, "required_versions.1.version");
    for invalid in ["nine", "9", "9.x.1", "9.5.2.1"] {
        assert_eq!(refused(&api, of(&[(invalid, 10)])).await, "required_versions.0.version", "{invalid}");
    }
    let valid = of(&[("9.5.2", 60), ("9.6.0-SNAPSHOT", 40)]);
    let made = api.post("/agent_policies", named("p", valid.clone())).await.ok();
    assert_eq!(made["item"]["required_versions"], valid["required_versions"]);
}

#[tokio::test]
async fn mg93_mg94_invalid_tags_and_overrides_are_rejected() {
    let api = Api::new();
    let tags = |names: [&str; 2]| json!({"global_data_tags": names.map(|name| json!({"name": name, "value": 1}))});
    assert_eq!(refused(&api, tags(["a b", "c"])).await, "global_data_tags.0.name");
    assert_eq!(refused(&api, tags(["a", "a"])).await, "global_data_tags.1.name");
    assert_eq!(refused(&api, json!({"overrides": {"inputs": []}})).await, "overrides.inputs");
}

#[tokio::test]
async fn mg95_managed_policies_are_changed_with_force_except_for_their_namespace() {
    let (api, id) = with_policy(json!({"is_managed": true})).await;
    let path = format!("/agent_policies/{id}");
    let managed = |more: Value| named("p", more);
    let refused = api.put(&path, managed(json!({"description": "d"}))).await.refused(400);
    assert_eq!(refused["code"], "managed_policy");
    let moved = api.put(&path, managed(json!({"namespace": "prod"}))).await.ok();
    assert_eq!((&moved["item"]["namespace"], &moved["item"]["revision"]), (&json!("prod"), &json!(2)));
    let both = json!({"namespace": "test", "description": "d"});
    api.put(&path, managed(both.clone())).await.refused(400);
    let mut forced = managed(both);
    forced["force"] = true.into();
    assert_eq!(api.put(&path, forced).await.ok()["item"]["description"], "d");
    api.post("/agent_policies/delete", json!({"agentPolicyId": id})).await.refused(400);
}

#[tokio::test]
async fn mg96_inactive_agents_prevent_the_deletion_and_are_counted_and_linked() {
    let (api, id) = with_policy(json!({"inactivity_timeout": 60})).await;
    api.agent("here", Some(&id)).await;
    api.agent_with("away", Some(&id), |agent| {
        agent.inactivity_timeout = Some(std::time::Duration::from_secs(60));
        agent.last_checkin = Some(muster_core::Timestamp::from_micros(1));
        agent.enrolled_at = muster_core::Timestamp::from_micros(1);
    })
    .await;
    assert_eq!(api.status_of("away").await, "inactive");
    let refused = api.post("/agent_policies/delete", json!({"agentPolicyId": id})).await.refused(409);
    assert_eq!(refused["message"], "2 enrolled agents are on the policy \"p\", of which 1 inactive");
    let link = refused["remedy"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned();
    let listed = api.get(link.strip_prefix("/api/fleet").unwrap()).await.ok();
    let mut ids = column(&listed, "/id");
    ids.sort_unstable();
    assert_eq!(ids, ["away", "here"]);
}

#[tokio::test]
async fn mg98_a_copy_has_its_own_uninstall_token() {
    let (api, id) = with_policy(json!({})).await;
    let copy = api.post(&format!("/agent_policies/{id}/copy"), json!({"name": "q"})).await.ok()["item"].clone();
    let hash = async |id: &str| compiled(&api, id).await["agent"]["protection"]["uninstall_token_hash"].clone();
    assert_ne!(hash(&id).await, hash(copy["id"].as_str().unwrap()).await);
}

#[tokio::test]
async fn mg108_the_default_output_is_called_default_and_others_have_their_ids() {
    let inputs =
        json!({"inputs": [{"id": "a", "type": "filestream"}, {"id": "b", "type": "filestream", "use_output": "k"}]});
    let (api, _) = with_policy(json!({})).await;
    api.post("/outputs", json!({"id": "k", "name": "kafka", "type": "kafka", "hosts": ["k:9092"]})).await.ok();
    let made = api.post("/agent_policies", named("two", json!({"config": inputs}))).await.ok();
    let full = compiled(&api, made["item"]["id"].as_str().unwrap()).await;
    assert_eq!(full["outputs"].as_object().unwrap().keys().collect::<Vec<_>>(), ["default", "k"]);
    // The default output under its own id, too, is `default`.
    let of_default = json!({"config": {"inputs": [{"id": "a", "type": "filestream", "use_output": "es"}]}});
    let made = api.post("/agent_policies", named("three", of_default)).await.ok();
    let full = compiled(&api, made["item"]["id"].as_str().unwrap()).await;
    assert_eq!(full["inputs"][0]["use_output"], "default");
}

#[tokio::test]
async fn mg110_monitoring_is_enabled_if_it_is_only_kept_alive() {
    for (fields, enabled) in [
        (json!({"keep_monitoring_alive": true, "monitoring_enabled": []}), true),
        (json!({"monitoring_enabled": []}), false),
        (json!({"monitoring_enabled": ["metrics"]}), true),
        (json!({"monitoring_http": {"enabled": true}}), true),
    ] {
        let (api, id) = with_policy(fields.clone()).await;
        let monitoring = compiled(&api, &id).await["agent"]["monitoring"].clone();
        assert_eq!(monitoring["enabled"], enabled, "{fields}: {monitoring}");
    }
}

#[tokio::test]
async fn mg111_global_tags_become_one_processor_of_ordinary_inputs() {
    let inputs: Vec<Value> = ["filestream", "endpoint", "fleet-server", "apm"]
        .into_iter()
        .map(|kind| json!({"id": kind, "type": kind}))
        .collect();
    let tags = json!([{"name": "team", "value": "web"}, {"name": "cost.center", "value": 7}]);
    let (api, id) = with_policy(json!({"config": {"inputs": inputs}, "global_data_tags": tags})).await;
    let full = compiled(&api, &id).await;
    let adder = json!([{"add_fields": {"target": "", "fields": {"team": "web", "cost.center": 7}}}]);
    assert_eq!(full["inputs"][0]["processors"], adder);
    for input in &full["inputs"].as_array().unwrap()[1..] {
        assert_eq!(input.get("processors"), None, "{input}");
    }
}

#[tokio::test]
async fn mg112_the_signed_payload_names_what_is_protected_and_verifies() {
    let inputs = json!({"inputs": [{"id": "logs", "type": "filestream", "name": "Logs"}]});
    let (api, id) = with_policy(json!({"is_protected": true, "config": inputs,
        "agent_features": [{"name": "fqdn", "enabled": true}]}))
    .await;
    let full = compiled(&api, &id).await;
    let signed: Signed = Signed {
        data: full["signed"]["data"].as_str().unwrap().into(),
        signature: full["signed"]["signature"].as_str().unwrap().into(),
    };
    let key = full["agent"]["protection"]["signing_key"].as_str().unwrap();
    let payload: Value = serde_json::from_slice(&verify(key, &signed).unwrap()).unwrap();
    assert_eq!(payload["id"], id);
    assert_eq!(
        payload["agent"],
        json!({"features": {"fqdn": {"enabled": true}}, "protection": full["agent"]["protection"]})
    );
    assert_eq!(payload["inputs"], json!([{"id": "logs", "name": "Logs", "revision": 1, "type": "filestream"}]));
}

#[tokio::test]
async fn mg116_compiled_policies_contain_no_secret() {
    let config = json!({"inputs": [{"id": "h", "type": "httpjson", "password": "$co.elastic.secret{PW}"}]});
    let (api, id) = with_policy(json!({"config": config, "secrets": {"PW": "POLICY SECRET"}})).await;
    let host =
        json!({"name": "h", "is_default": true, "host_urls": ["https://f"], "ssl": {"agent_key": "HOST SECRET"}});
    api.post("/fleet_server_hosts", host).await.ok();
    let source = json!({"name": "s", "is_default": true, "host": "https://m", "auth": {"api_key": "SOURCE SECRET"}});
    api.post("/agent_download_sources", source).await.ok();
    let full = compiled(&api, &id).await;
    assert!(full["outputs"]["default"]["secrets"]["password"]["id"].is_string(), "{full}");
    assert!(full["fleet"]["secrets"]["ssl"]["key"]["id"].is_string(), "{full}");
    assert!(full["agent"]["download"]["secrets"]["auth"]["api_key"]["id"].is_string(), "{full}");
    assert!(!full.to_string().contains("SECRET") && !full.to_string().contains("PRIVATE KEY"), "{full}");
}

#[tokio::test]
async fn an_update_resets_the_inactivity_timeout_and_empty_ids_are_not_given() {
    let (api, id) = with_policy(json!({"inactivity_timeout": 60, "id": ""})).await;
    assert!(!id.is_empty());
    let path = format!("/agent_policies/{id}");
    let shown = api.get(&path).await.ok()["item"].clone();
    assert_eq!((&shown["inactivity_timeout"], shown.get("description")), (&json!(60), None));
    let nulls = json!({"data_output_id": null, "monitoring_output_id": null, "fleet_server_host_id": null,
        "download_source_id": null});
    let changed = api.put(&path, named("p", nulls)).await.ok()["item"].clone();
    assert_eq!(changed["inactivity_timeout"], 1_209_600);
    assert_eq!(changed.get("data_output_id"), None);
    let refused = api.post("/agent_policies?sys_monitoring=true", named("q", json!({}))).await.refused(400);
    assert_eq!(refused["field"], "sys_monitoring");
    api.post("/agent_policies?sys_monitoring=false", named("q", json!({}))).await.ok();
}

#[tokio::test]
async fn mg24_invalid_queries_of_policies_are_rejected() {
    let api = Api::new();
    api.policy("Web servers").await;
    for query in ["(web", "nonsense:1", "name%3E3"] {
        assert_eq!(
            api.get(&format!("/agent_policies?kuery={query}")).await.refused(400)["code"],
            "kql_syntax",
            "{query}"
        );
    }
    assert_eq!(column(&api.get("/agent_policies?kuery=web").await.ok(), "/name"), ["Web servers"]);
}

/// Provider 0.11.17 of Terraform shows the whole response and gives up, later ones repeat the request.
#[tokio::test]
async fn mg180_a_conflict_of_two_updates_says_what_to_do() {
    let api = Api::new();
    let policy = api.policy("web").await;
    let path = format!("/agent_policies/{policy}");
    let read = api.get(&path).await.ok()["item"]["version"].as_str().unwrap().to_owned();
    let update = async |description: &str, version: &str| {
        let body = json!({"name": "web", "namespace": "default", "description": description}).to_string();
        let request = Request::builder().method(Method::PUT).uri(format!("/api/fleet{path}"));
        let request = request.header("if-match", format!("\"{version}\"")).extension(administrator());
        api.send(request.body(Body::from(body)).unwrap()).await
    };
    update("first", &read).await.ok();
    let late = update("second", &read).await.refused(409);
    assert_eq!((&late["code"], &late["remedy"]), (&json!("policy_changed"), &json!("read it again and retry")));
    assert!(late["message"].as_str().unwrap().contains("has changed"), "{late}");
    let again = api.get(&path).await.ok()["item"]["version"].as_str().unwrap().to_owned();
    update("second", &again).await.ok();
}
