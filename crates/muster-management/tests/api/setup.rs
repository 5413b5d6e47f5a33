//! MG §1.4, §1.9–1.12: what tools call first, settings, and the routes of integration packages.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::support::{Api, administrator, column};

#[tokio::test]
async fn mg16_setup_can_be_repeated_and_creates_nothing_the_second_time() {
    let api = Api::new();
    let first = api.post("/setup", json!({})).await.ok();
    assert_eq!(first, json!({"isInitialized": true, "nonFatalErrors": []}));
    let audit = api.audit().await;
    assert_eq!(column(&api.get("/agent_policies").await.ok(), "/name"), ["Default policy"]);
    // ECK sends no body.
    for path in ["/setup", "/agents/setup"] {
        assert_eq!(api.call(Method::POST, path, None).await.ok(), first);
    }
    assert_eq!(api.audit().await, audit);
    let ready = api.get("/agents/setup").await.ok();
    assert_eq!((&ready["isReady"], &ready["missing_requirements"]), (&json!(true), &json!([])));
    assert_eq!(api.get("/check-permissions").await.ok(), json!({"success": true}));
    assert_eq!(api.get("/check-permissions?fleetServerSetup=true").await.ok(), json!({"success": true}));
}

/// ECK asks for pages of 20 until one is empty.
#[tokio::test]
async fn mg177_paging_until_an_empty_page_ends_and_finds_the_default_policy() {
    let api = Api::new();
    api.post("/setup", json!({})).await.ok();
    for number in 0..40 {
        api.policy(&format!("policy {number}")).await;
    }
    let (mut defaults, mut seen, mut page) = (Vec::new(), Vec::new(), 1);
    loop {
        let list = api.get(&format!("/agent_policies?perPage=20&page={page}")).await.ok();
        let rows = list["items"].as_array().unwrap().clone();
        if rows.is_empty() {
            break;
        }
        assert_eq!(list["total"], 41);
        seen.extend(column(&list, "/id"));
        let is_default = |row: &&Value| row["is_default"] == true && row["status"] == "active";
        defaults.extend(rows.iter().filter(is_default).map(|row| row["name"].clone()));
        page += 1;
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((page, seen.len(), defaults), (4, 41, vec![json!("Default policy")]));
    let keys = api.get("/enrollment_api_keys?perPage=20&page=4").await.ok();
    assert_eq!(keys["items"], json!([]));
}

#[tokio::test]
async fn settings_are_kept() {
    let api = Api::new();
    let fresh = api.get("/settings").await.ok()["item"].clone();
    assert_eq!(fresh["id"], "fleet-default-settings");
    assert_eq!(fresh["secret_storage_requirements_met"], true);
    let change = json!({"prerelease_integrations_enabled": true, "kibana_urls": ["https://old"]});
    assert_eq!(api.put("/settings", change).await.ok()["item"]["prerelease_integrations_enabled"], true);
    let audit = api.audit().await;
    assert_eq!(audit, ["settings.update"]);
    let same = api.put("/settings", json!({"prerelease_integrations_enabled": true})).await.ok()["item"].clone();
    assert_eq!(api.get("/settings").await.ok()["item"], same);
    assert_eq!(api.audit().await, audit, "nothing changed");
    let delete =
        |seconds: Option<u64>| json!({"delete_unenrolled_agents": {"enabled": true, "retention_seconds": seconds}});
    let deleting = api.put("/settings", delete(None)).await.ok()["item"]["delete_unenrolled_agents"].clone();
    assert_eq!(deleting, json!({"enabled": true, "is_preconfigured": false}));
    let later = api.put("/settings", delete(Some(3600))).await.ok()["item"]["delete_unenrolled_agents"].clone();
    assert_eq!(later["retention_seconds"], 3600);
    let refused = api.put("/settings", delete(Some(u64::MAX))).await.refused(400);
    assert_eq!(refused["field"], "delete_unenrolled_agents.retention_seconds");
    let off = json!({"delete_unenrolled_agents": {"enabled": false}});
    assert_eq!(api.put("/settings", off).await.ok()["item"]["delete_unenrolled_agents"]["enabled"], false);
    let version = api.get("/settings").await.ok()["item"]["version"].as_str().unwrap().to_owned();
    let update = async |path: &str, body: Value| {
        let request = Request::builder().method(Method::PUT).uri(format!("/api/fleet{path}"));
        let request = request.header("if-match", format!("\"{version}\"")).extension(administrator());
        api.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let prefixes = |all: &[&str]| json!({"allowed_namespace_prefixes": all});
    update("/space_settings", prefixes(&["a"])).await.ok();
    for (path, body) in [("/settings", delete(None)), ("/space_settings", prefixes(&["b"]))] {
        assert_eq!(update(path, body).await.refused(409)["code"], "settings_changed", "{path}");
    }
    api.put("/space_settings", prefixes(&[])).await.ok();
    assert_eq!(api.get("/settings").await.ok()["item"]["version"], *version, "the same settings");
    assert_eq!(api.put("/settings", json!({"nonsense": 1})).await.refused(400)["field"], "nonsense");
}

#[tokio::test]
async fn mg90_namespaces_must_have_a_prefix_that_the_space_allows() {
    let api = Api::new();
    let old = api.policy("old").await;
    let prefixes = json!({"allowed_namespace_prefixes": ["team", "prod"]});
    assert_eq!(api.put("/space_settings", prefixes.clone()).await.ok()["item"], prefixes);
    assert_eq!(api.get("/space_settings").await.ok()["item"], prefixes);
    let new = |namespace: &str| json!({"name": namespace, "namespace": namespace});
    assert_eq!(api.post("/agent_policies", new("default")).await.refused(400)["field"], "namespace");
    api.post("/agent_policies", new("team_a")).await.ok();
    let path = format!("/agent_policies/{old}");
    let kept = json!({"name": "old", "namespace": "default", "description": "d"});
    api.put(&path, kept).await.ok();
    let moved = json!({"name": "old", "namespace": "test"});
    assert_eq!(api.put(&path, moved).await.refused(400)["field"], "namespace");
    for bad in ["a-b", "A", ""] {
        let refused = api.put("/space_settings", json!({"allowed_namespace_prefixes": [bad]})).await.refused(400);
        assert_eq!(refused["field"], "allowed_namespace_prefixes", "{bad}");
    }
    api.put("/space_settings", json!({"allowed_namespace_prefixes": []})).await.ok();
    api.post("/agent_policies", new("default")).await.ok();
}

#[tokio::test]
async fn routes_of_packages_answer_as_a_server_without_packages() {
    let api = Api::new();
    let empty = json!({"items": [], "total": 0, "page": 1, "perPage": 20});
    assert_eq!(api.get("/package_policies").await.ok(), empty);
    for path in ["/epm/packages", "/epm/categories"] {
        assert_eq!(api.get(path).await.ok(), json!({"items": []}));
    }
    assert_eq!(api.get("/data_streams").await.ok(), json!({"data_streams": []}));
    let system = json!({"name": "s", "policy_ids": ["p"], "package": {"name": "system", "version": "1.0.0"}});
    let refused = api.post("/package_policies", system).await.refused(400);
    assert_eq!(refused["code"], "package_not_installed");
    assert_eq!(refused["message"], "the package \"system\" is not installed");
    api.post("/epm/packages/system/1.0.0", json!({})).await.refused(404);
    let ids = json!({"ids": ["a"]});
    api.post("/package_policies/_bulk_get", ids).await.refused(404);
    let found = api.post("/package_policies/_bulk_get", json!({"ids": ["a"], "ignoreMissing": true})).await.ok();
    assert_eq!(found, json!({"items": []}));
    let results = api.post("/package_policies/delete", json!({"packagePolicyIds": ["a", "b"]})).await.ok();
    let ids: Vec<&Value> = results.as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(results.as_array().unwrap().iter().all(|one| one["success"] == false && one["statusCode"] == 404));
}
