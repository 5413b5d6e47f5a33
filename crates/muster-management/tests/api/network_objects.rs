//! MG §1.5, §2.6–2.8: Fleet Server hosts, proxies and download sources over REST.

use serde_json::{Value, json};

use crate::support::{Api, column};

const HOSTS: &str = "/fleet_server_hosts";
const PROXIES: &str = "/proxies";
const SOURCES: &str = "/agent_download_sources";

async fn create(api: &Api, path: &str, body: Value) -> Value {
    api.post(path, body).await.ok()["item"].clone()
}

/// An inhabited API: a proxy, and policies that use the default and another one of each kind of object.
async fn inhabited() -> Api {
    let api = Api::new();
    create(&api, PROXIES, json!({"id": "p", "name": "p", "url": "http://proxy:3128"})).await;
    let output = |id: &str, is_default: bool| {
        json!({"id": id, "name": id, "type": "elasticsearch", "is_default": is_default,
            "is_default_monitoring": is_default, "hosts": ["https://es:9200"]})
    };
    for (id, is_default) in [("main", true), ("other", false)] {
        create(&api, "/outputs", output(id, is_default)).await;
        let host = json!({"id": id, "name": id, "is_default": is_default, "host_urls": [format!("https://{id}:8220")]});
        create(&api, HOSTS, host).await;
        let source = json!({"id": id, "name": id, "is_default": is_default, "host": format!("https://{id}/")});
        create(&api, SOURCES, source).await;
    }
    let config = json!({"inputs": [{"id": "i", "type": "filestream"}]});
    let of_defaults = json!({"id": "of-defaults", "name": "of defaults", "namespace": "default", "config": config});
    create(&api, "/agent_policies", of_defaults).await;
    let of_others = json!({"id": "of-others", "name": "of others", "namespace": "default", "config": config,
        "data_output_id": "other", "fleet_server_host_id": "other", "download_source_id": "other"});
    create(&api, "/agent_policies", of_others).await;
    api
}

async fn revisions(api: &Api) -> [i64; 2] {
    let of =
        async |id: &str| api.get(&format!("/agent_policies/{id}")).await.ok()["item"]["revision"].as_i64().unwrap();
    [of("of-defaults").await, of("of-others").await]
}

async fn compiled(api: &Api, id: &str) -> Value {
    api.get(&format!("/agent_policies/{id}/full")).await.ok()["item"].clone()
}

#[tokio::test]
async fn mg101_mg102_a_change_revises_exactly_the_policies_that_use_the_object() {
    let api = inhabited().await;
    assert_eq!(revisions(&api).await, [1, 1]);
    let compiled_hosts = compiled(&api, "of-others").await["fleet"]["hosts"].clone();
    assert_eq!(compiled_hosts, json!(["https://other:8220"]));

    let urls = json!({"name": "main", "host_urls": ["https://new:8220"]});
    api.put("/fleet_server_hosts/main", urls).await.ok();
    assert_eq!(revisions(&api).await, [2, 1]);
    api.put("/agent_download_sources/other", json!({"name": "other", "host": "https://new/"})).await.ok();
    assert_eq!(revisions(&api).await, [2, 2]);
    api.put("/outputs/main", json!({"hosts": ["https://new:9200"]})).await.ok();
    assert_eq!(revisions(&api).await, [3, 2]);

    // Names and descriptions are not delivered.
    api.put("/outputs/main", json!({"name": "renamed", "description": "for logs"})).await.ok();
    api.put("/fleet_server_hosts/main", json!({"name": "renamed"})).await.ok();
    api.put("/agent_download_sources/main", json!({"name": "renamed"})).await.ok();
    api.put("/proxies/p", json!({"name": "renamed", "url": "http://elsewhere:3128"})).await.ok();
    assert_eq!(revisions(&api).await, [3, 2], "no policy uses the proxy");

    api.put("/outputs/main", json!({"proxy_id": "p"})).await.ok();
    assert_eq!(revisions(&api).await, [4, 2]);
    api.put("/proxies/p", json!({"url": "http://again:3128"})).await.ok();
    assert_eq!(revisions(&api).await, [5, 2], "of its output");
    let output = compiled(&api, "of-defaults").await["outputs"]["default"].clone();
    assert_eq!((&output["proxy_url"], output.get("description")), (&json!("http://again:3128"), None));
}

#[tokio::test]
async fn mg103_policies_that_name_a_deleted_object_use_the_default() {
    let api = inhabited().await;
    for (path, field) in [
        ("/outputs/other", "data_output_id"),
        ("/fleet_server_hosts/other", "fleet_server_host_id"),
        ("/agent_download_sources/other", "download_source_id"),
    ] {
        let before = revisions(&api).await;
        assert_eq!(api.delete(path).await.ok(), json!({"id": "other"}));
        let policy = api.get("/agent_policies/of-others").await.ok()["item"].clone();
        assert_eq!(policy.get(field), None, "{path}");
        assert_eq!(revisions(&api).await, [before[0], before[1] + 1], "{path}");
    }
    let compiled = compiled(&api, "of-others").await;
    assert_eq!(compiled["fleet"]["hosts"], json!(["https://main:8220"]));
    assert_eq!(compiled["agent"]["download"]["sourceURI"], "https://main/");
    assert_eq!(compiled["outputs"]["default"]["hosts"], json!(["https://es:9200"]));
}

#[tokio::test]
async fn mg103_a_deleted_proxy_is_unset_wherever_it_is_used() {
    let api = inhabited().await;
    api.put("/outputs/other", json!({"proxy_id": "p"})).await.ok();
    for (path, body) in [(HOSTS, json!({"name": "main", "proxy_id": "p"})), (SOURCES, json!({"proxy_id": "p"}))] {
        api.put(&format!("{path}/main"), body).await.ok();
    }
    assert_eq!(compiled(&api, "of-defaults").await["fleet"]["proxy_url"], "http://proxy:3128");
    let before = revisions(&api).await;
    api.delete("/proxies/p").await.ok();
    assert_eq!(revisions(&api).await, before.map(|revision| revision + 1));
    for path in ["/outputs/other", "/fleet_server_hosts/main", "/agent_download_sources/main"] {
        assert_eq!(api.get(path).await.ok()["item"].get("proxy_id"), None, "{path}");
    }
    assert_eq!(compiled(&api, "of-defaults").await["fleet"], json!({"hosts": ["https://main:8220"]}));
}

#[tokio::test]
async fn mg104_default_objects_cannot_be_deleted_and_ids_are_taken_once() {
    let api = inhabited().await;
    assert_eq!(api.delete("/fleet_server_hosts/main").await.refused(403)["code"], "server_host_is_default");
    assert_eq!(api.delete("/agent_download_sources/main").await.refused(400)["code"], "download_source_is_default");
    assert_eq!(api.delete("/outputs/main").await.refused(400)["code"], "output_is_default");
    let taken = json!({"id": "of-others", "name": "another", "namespace": "default"});
    api.post("/agent_policies", taken).await.refused(409);
    let taken = json!({"id": "main", "name": "another", "host_urls": ["https://x"]});
    assert_eq!(api.post(HOSTS, taken).await.refused(409)["code"], "server_host_exists");
    let named = json!({"name": "other", "host_urls": ["https://x"]});
    assert_eq!(api.post(HOSTS, named).await.refused(409)["code"], "server_host_name_taken");
    assert_eq!(api.post("/agents", json!({"actionIds": ["unknown"]})).await.ok()["items"], json!([]));
}

#[tokio::test]
async fn mg105_another_default_replaces_the_previous_one_and_revises_its_users() {
    let api = inhabited().await;
    api.put("/fleet_server_hosts/other", json!({"is_default": true})).await.ok();
    assert_eq!(revisions(&api).await, [2, 1]);
    assert_eq!(compiled(&api, "of-defaults").await["fleet"]["hosts"], json!(["https://other:8220"]));
    let defaults: Vec<Value> =
        api.get(HOSTS).await.ok()["items"].as_array().unwrap().iter().map(|host| host["is_default"].clone()).collect();
    assert_eq!(defaults, [json!(null), json!(true)]);
    api.delete("/fleet_server_hosts/main").await.ok();
    assert_eq!(api.put("/proxies/p", json!({"is_default": true})).await.refused(400)["field"], "is_default");
}

#[tokio::test]
async fn mg10_lists_of_objects_are_whole() {
    let api = Api::new();
    for number in 10..35 {
        create(&api, PROXIES, json!({"name": format!("p{number}"), "url": "http://proxy"})).await;
        let output = json!({"name": format!("o{number}"), "type": "kafka", "hosts": ["k:9092"]});
        create(&api, "/outputs", output).await;
    }
    for path in [PROXIES, "/outputs"] {
        let list = api.get(&format!("{path}?page=2&perPage=5")).await.ok();
        assert_eq!(list["items"].as_array().unwrap().len(), 25, "{path}");
        assert_eq!((&list["total"], &list["page"], &list["perPage"]), (&json!(25), &json!(1), &json!(10_000)));
    }
    assert_eq!(column(&api.get(PROXIES).await.ok(), "/name")[..2], ["p10", "p11"]);
    for path in [HOSTS, SOURCES] {
        assert_eq!(api.get(path).await.ok(), json!({"items": [], "total": 0, "page": 1, "perPage": 10_000}));
    }
}

/// Bodies of the Terraform provider: 0.11.17 (hosts), 0.15.0 (proxies), 0.14.5 (download sources).
#[tokio::test]
async fn mg172_bodies_of_the_provider_are_answered_with_what_was_sent_and_no_more() {
    let api = Api::new();
    let host = json!({"host_urls": ["https://fleet:8220"], "id": "", "name": "h"});
    let made = create(&api, HOSTS, host).await;
    assert_eq!(
        made.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["created_at", "host_urls", "id", "name", "updated_at"]
    );
    let path = format!("{HOSTS}/{}", made["id"].as_str().unwrap());
    let update = json!({"host_urls": ["https://fleet:8220"], "is_default": false, "name": "h"});
    assert_eq!(api.put(&path, update).await.ok()["item"]["is_default"], false, "as it was set");

    let proxy = json!({"name": "p", "url": "http://proxy:3128", "id": "p", "certificate": "PEM", "certificate_key": "KEY",
        "certificate_authorities": "CA", "proxy_headers": {"X-A": "b"}});
    let made = create(&api, PROXIES, proxy).await;
    assert_eq!((&made["certificate"], &made["proxy_headers"]), (&json!("PEM"), &json!({"X-A": "b"})));
    assert!(made["secrets"]["certificate_key"]["id"].is_string() && !made.to_string().contains("KEY"));
    let update = json!({"name": "p", "url": "http://proxy:3129", "proxy_headers": {}});
    let changed = api.put("/proxies/p", update).await.ok()["item"].clone();
    let kept = changed.as_object().unwrap().keys().collect::<Vec<_>>();
    assert_eq!(kept, ["created_at", "id", "name", "proxy_headers", "updated_at", "url"], "what is left out is dropped");

    let source = json!({"host": "https://mirror/", "name": "s", "is_default": false, "proxy_id": "p"});
    let made = create(&api, SOURCES, source).await;
    assert_eq!((&made["is_default"], &made["proxy_id"]), (&json!(false), &json!("p")));
    let path = format!("{SOURCES}/{}", made["id"].as_str().unwrap());
    let update = json!({"host": "https://mirror/", "name": "s", "is_default": false, "proxy_id": ""});
    assert_eq!(api.put(&path, update).await.ok()["item"].get("proxy_id"), None);
}

#[tokio::test]
async fn mg13_invalid_objects_are_rejected_with_the_field() {
    let api = Api::new();
    let field = async |path: &str, body: Value| api.post(path, body).await.refused(400)["field"].clone();
    assert_eq!(field(HOSTS, json!({"name": "h", "host_urls": ["fleet"]})).await, "host_urls.0");
    assert_eq!(field(HOSTS, json!({"name": "h", "host_urls": ["https://f"], "nonsense": 1})).await, "nonsense");
    assert_eq!(field(HOSTS, json!({"name": "h", "host_urls": ["https://f"], "proxy_id": "none"})).await, "proxy_id");
    assert_eq!(field(PROXIES, json!({"name": "", "url": "http://p"})).await, "name");
    assert_eq!(field(SOURCES, json!({"name": "s"})).await, "host");
    assert_eq!(field(SOURCES, json!({"name": "s", "host": "https://m", "secrets": {"sl": {}}})).await, "secrets.sl");
    let output = json!({"name": "o", "type": "kafka", "hosts": ["k:1"], "bulk_max_size": 5});
    assert_eq!(field("/outputs", output).await, "bulk_max_size");
    let output = json!({"name": "o", "type": "kafka", "hosts": ["k:1"], "proxy_id": "none"});
    assert_eq!(field("/outputs", output).await, "proxy_id");
}

#[tokio::test]
async fn keys_of_objects_are_delivered_to_agents_only() {
    let api = Api::new();
    let host = json!({"name": "h", "is_default": true, "host_urls": ["https://f"], "ssl": {"agent_certificate": "PEM",
        "agent_key": "AGENT KEY", "key": "SERVER KEY"}});
    let made = create(&api, HOSTS, host).await;
    assert_eq!(made["ssl"], json!({"agent_certificate": "PEM"}));
    assert!(!made.to_string().contains("KEY"), "{made}");
    let policy = api.policy("p").await;
    let fleet = compiled(&api, &policy).await["fleet"].clone();
    assert_eq!(fleet["ssl"], json!({"certificate": "PEM"}));
    assert_eq!(fleet["secrets"]["ssl"]["key"], made["secrets"]["ssl"]["agent_key"]);
    let secrets: Vec<_> =
        ["agent_key", "key"].map(|key| made["secrets"]["ssl"][key]["id"].as_str().unwrap().to_owned()).into();
    let ids: Vec<_> = secrets.iter().map(|id| muster_core::id::SecretId::trusted(id.as_str())).collect();
    assert_eq!(api.fleet.store().secrets(&ids).await.unwrap().len(), 2);
    let path = format!("{HOSTS}/{}", made["id"].as_str().unwrap());
    api.put(&path, json!({"is_default": false, "secrets": {"ssl": {"key": null}}})).await.ok();
    assert_eq!(api.fleet.store().secrets(&ids).await.unwrap().len(), 1, "a removed secret is deleted");
    api.delete(&path).await.ok();
    assert_eq!(api.fleet.store().secrets(&ids).await.unwrap().len(), 0);
    let audit = api.audit().await;
    assert!(
        ["server_host.create", "server_host.update", "server_host.delete"]
            .iter()
            .all(|one| audit.iter().any(|line| line == one))
    );
}

#[tokio::test]
async fn m10_passwords_in_urls_and_headers_are_encrypted_and_delivered() {
    let api = inhabited().await;
    let proxy = json!({"id": "q", "name": "q", "url": "http://u:hunter2@proxy:3128",
        "proxy_headers": {"Proxy-Authorization": "hunter3", "X-Tenant": "a"}});
    let made = create(&api, PROXIES, proxy.clone()).await;
    assert!(!made.to_string().contains("hunter"), "{made}");
    assert!(made["url"].as_str().unwrap().starts_with("http://u:$co.elastic.secret{"), "{made}");
    assert_eq!(made["proxy_headers"]["X-Tenant"], "a");

    api.put("/fleet_server_hosts/main", json!({"proxy_id": "q"})).await.ok();
    let revision = api
        .fleet
        .store()
        .policy_newest_revision(&muster_core::id::PolicyId::trusted("of-defaults"))
        .await
        .unwrap()
        .unwrap();
    let ids: Vec<_> = muster_core::secret_refs::ids(&revision.compiled).into_iter().collect();
    assert_eq!(api.fleet.store().secrets(&ids).await.unwrap().len(), 2);
    assert_eq!(revision.compiled["fleet"]["proxy_url"], made["url"]);

    // The same request, and the object as it is shown, change nothing.
    let before = revisions(&api).await;
    let shown = json!({"name": "q", "url": made["url"], "proxy_headers": made["proxy_headers"]});
    for same in [json!({"name": "q", "url": proxy["url"], "proxy_headers": proxy["proxy_headers"]}), shown] {
        assert_eq!(api.put("/proxies/q", same).await.ok()["item"]["url"], made["url"]);
        assert_eq!(revisions(&api).await, before);
    }
    let stolen = json!({"name": "thief", "url": made["url"]});
    assert_eq!(api.post(PROXIES, stolen).await.refused(400)["field"], "url");
    // What is sealed is validated, too.
    let broken = json!({"name": "r", "url": "http://p", "proxy_headers": {"Cookie": "a\r\nX-B: c"}});
    assert_eq!(api.post(PROXIES, broken).await.refused(400)["field"], "proxy_headers.Cookie");

    api.put("/proxies/q", json!({"name": "q", "url": "http://u:hunter4@proxy:3128", "proxy_headers": {}})).await.ok();
    assert_ne!(revisions(&api).await, before);
    assert!(api.fleet.store().secrets(&ids).await.unwrap().is_empty(), "replaced and removed secrets are deleted");
}

#[tokio::test]
async fn a_proxy_through_which_secrets_are_sent_is_not_moved() {
    let api = inhabited().await;
    let moved = json!({"name": "p", "url": "http://evil:3128"});
    let output = json!({"name": "other", "type": "elasticsearch", "hosts": ["https://es:9200"], "proxy_id": "p"});
    api.put("/outputs/other", output.clone()).await.ok();
    api.put("/proxies/p", json!({"name": "p", "url": "http://proxy:3129"})).await.ok();
    let mut secret = output;
    secret["service_token"] = "TOKEN".into();
    api.put("/outputs/other", secret).await.ok();
    let refused = api.put("/proxies/p", moved.clone()).await.refused(400);
    assert_eq!(refused["field"], "url");
    assert!(refused["message"].as_str().unwrap().contains("output:other"), "{refused}");
    api.put("/proxies/p", json!({"name": "renamed", "url": "http://proxy:3129"})).await.ok();
    api.put("/outputs/other", json!({"service_token": null})).await.ok();
    api.put("/proxies/p", moved).await.ok();
}
