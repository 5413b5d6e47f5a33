//! Who may do what, and the form of errors.

use axum::http::Method;
use muster_fleetdm::entry::PUBLIC;
use muster_fleetdm::routes;
use serde_json::{Value, json};

use crate::setting::{Api, PASSWORD, in_space};

/// Returns a path of a route.
fn filled(path: &str) -> String {
    path.replace("{identifier}", "x").replace("{name}", "x").replace("{id}", "7").replace("{team}", "7")
}

#[tokio::test]
async fn every_route_requires_a_token_and_says_so_in_fleetdms_form() {
    let api = Api::new().await;
    for route in routes::all().into_iter().filter(|route| !PUBLIC.contains(&route.path)) {
        for token in ["", "aWQ6c2VjcmV0", "session.aWQ6c2VjcmV0", "!"] {
            let answer = api.with(token, route.method.clone(), &filled(route.path), Value::Null).await;
            assert!([401, 429].contains(&answer.status.as_u16()), "{} {} {token:?}", route.method, route.path);
            assert!(answer.body["errors"][0]["reason"].is_string());
        }
    }
}

#[tokio::test]
async fn no_change_is_made_for_a_reader() {
    let api = Api::new().await;
    let host = api.host("m-1", |_| {}).await;
    let query = api.post("/queries", json!({"name": "q", "query": "SELECT 1"})).await.ok()["query"]["id"].clone();
    let label = api.post("/labels", json!({"name": "l", "query": "SELECT 1"})).await.ok()["label"]["id"].clone();
    let policy = api.post("/global/policies", json!({"name": "p", "query": "SELECT 1"})).await.ok();
    let (policy, team) = (policy["policy"]["id"].clone(), api.team("blue").await);
    let pack = api.post("/packs", json!({"name": "p", "label_ids": [label]})).await.ok()["pack"]["id"].clone();
    let reader = api.user("rob", "auditor", None).await;
    let before = api.audit().await.len();
    for (method, path, body) in [
        (Method::DELETE, format!("/hosts/{host}"), Value::Null),
        (Method::POST, "/hosts/delete".into(), json!({"ids": [host]})),
        (Method::POST, "/hosts/delete".into(), json!({"filters": {"query": "m"}})),
        (Method::POST, format!("/hosts/{host}/refetch"), Value::Null),
        (Method::POST, "/queries".into(), json!({"name": "r", "query": "SELECT 1"})),
        (Method::PATCH, format!("/queries/{query}"), json!({"name": "r"})),
        (Method::DELETE, "/queries/q".into(), Value::Null),
        (Method::DELETE, format!("/queries/id/{query}"), Value::Null),
        (Method::POST, "/queries/delete".into(), json!({"ids": [query]})),
        (Method::POST, "/queries/run".into(), json!({"query": "SELECT 1", "selected": {"hosts": [host]}})),
        (Method::POST, "/queries/run_by_names".into(), json!({"query": "x", "selected": {"hosts": ["m-1"]}})),
        (Method::POST, format!("/queries/{query}/run"), json!({"host_ids": [host]})),
        (Method::POST, format!("/hosts/{host}/query"), json!({"query": "SELECT 1"})),
        (Method::POST, "/labels".into(), json!({"name": "m", "query": "SELECT 1"})),
        (Method::PATCH, format!("/labels/{label}"), json!({"name": "m"})),
        (Method::DELETE, "/labels/l".into(), Value::Null),
        (Method::DELETE, format!("/labels/id/{label}"), Value::Null),
        (Method::POST, "/global/policies".into(), json!({"name": "r", "query": "SELECT 1"})),
        (Method::PATCH, format!("/policies/{policy}"), json!({"name": "r"})),
        (Method::POST, "/policies/delete".into(), json!({"ids": [policy]})),
        (Method::POST, format!("/teams/{team}/policies"), json!({"name": "r", "query": "SELECT 1"})),
        (Method::POST, "/packs".into(), json!({"name": "r", "label_ids": [label]})),
        (Method::PATCH, format!("/packs/{pack}"), json!({"description": "r"})),
        (Method::DELETE, "/packs/p".into(), Value::Null),
        (Method::DELETE, format!("/packs/id/{pack}"), Value::Null),
        (Method::POST, "/spec/packs".into(), json!({"specs": [{"name": "r", "targets": {"labels": ["l"]}}]})),
        (Method::POST, "/teams".into(), json!({"name": "red"})),
        (Method::PATCH, format!("/teams/{team}"), json!({"name": "red"})),
        (Method::DELETE, format!("/teams/{team}"), Value::Null),
        (Method::GET, "/spec/enroll_secret".into(), Value::Null),
        (Method::POST, "/spec/enroll_secret".into(), json!({"spec": {"secrets": [{"secret": "x".repeat(32)}]}})),
        (Method::PATCH, format!("/teams/{team}/secrets"), json!({"secrets": [{"secret": "x".repeat(32)}]})),
        (Method::POST, "/spec/queries".into(), json!({"specs": [{"name": "r", "query": "SELECT 1"}]})),
        (Method::POST, "/spec/labels".into(), json!({"specs": [{"name": "r", "query": "SELECT 1"}]})),
        (Method::POST, "/spec/policies".into(), json!({"specs": [{"name": "r", "query": "SELECT 1"}]})),
        (Method::POST, "/spec/teams".into(), json!({"specs": [{"name": "red"}]})),
    ] {
        let answer = api.with(&reader, method.clone(), &path, body).await;
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.body);
        assert_eq!(answer.body["message"], "Permission Denied");
    }
    assert_eq!(api.audit().await.len(), before);
}

#[tokio::test]
async fn who_has_rights_in_a_space_sees_its_team_alone() {
    let api = Api::new().await;
    let team = api.team("blue").await;
    let (own, other) = (api.host("m-1", in_space("blue")).await, api.host("m-2", |_| {}).await);
    let token = api.user("bob", "fleet-operator", Some("blue")).await;
    let get = async |path: String| api.with(&token, Method::GET, &path, Value::Null).await;
    let hosts = get("/hosts".into()).await.ok();
    assert_eq!((&hosts["count"], &hosts["hosts"][0]["id"]), (&json!(1), &json!(own)));
    assert_eq!(get(format!("/hosts/{own}")).await.ok()["host"]["team_id"], team);
    get(format!("/hosts/{other}")).await.refused(404);
    get("/hosts/identifier/m-2.example".into()).await.refused(404);
    get("/hosts?team_id=0".into()).await.refused(403);
    assert_eq!(get("/teams".into()).await.ok()["teams"][0]["id"], team);
    let me = get("/me".into()).await.ok()["user"].clone();
    assert_eq!((&me["global_role"], &me["teams"][0]["id"]), (&Value::Null, &json!(team)), "no role in other teams");
    let refused = api.with(&token, Method::POST, "/hosts/delete", json!({"ids": [other]})).await;
    refused.refused(404);
    let run = json!({"query": "SELECT 1", "selected": {"teams": [team]}});
    let campaign = api.with(&token, Method::POST, "/queries/run", run).await.ok();
    assert_eq!(campaign["campaign"]["Metrics"]["TotalHosts"], 1);
}

#[tokio::test]
async fn a_login_returns_a_token_that_ends_with_the_log_out() {
    let api = Api::new().await;
    let wrong = api.post("/login", json!({"email": "ann", "password": "wrong"})).await;
    assert_eq!(wrong.body["message"], "Authentication failed");
    wrong.refused(401);
    let made = api.post("/login", json!({"email": "ann", "password": PASSWORD})).await.ok();
    let token = made["token"].as_str().unwrap().to_owned();
    let me = api.with(&token, Method::GET, "/me", Value::Null).await.ok();
    assert_eq!((&me["user"]["email"], &me["user"]["global_role"]), (&json!("ann"), &json!("admin")));
    assert_eq!(
        (&me["user"], &me["available_teams"]),
        (&made["user"], &made["available_teams"]),
        "the login has the role, too"
    );
    api.with(&token, Method::POST, "/logout", Value::Null).await.ok();
    api.with(&token, Method::GET, "/me", Value::Null).await.refused(401);
    api.post("/logout", Value::Null).await.refused(400);
    assert_eq!(api.get("/version").await.ok()["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(api.get("/config").await.ok()["license"]["tier"], "premium");
}

#[tokio::test]
async fn unknown_paths_methods_bodies_and_parameters_are_refused_or_ignored_as_in_fleetdm() {
    let api = Api::new().await;
    let (_, reason) = api.get("/scripts").await.refused(404);
    assert!(reason.contains("docs/fleetdm-api.md"), "{reason}");
    api.delete("/version").await.refused(405);
    assert_eq!(api.post("/queries", Value::Null).await.refused(400).1, "Expected JSON Body");
    api.post("/queries", json!({"name": 7})).await.refused(400);
    assert_eq!(api.post("/queries", json!({"name": "q"})).await.refused(422).0, "query");
    assert_eq!(api.get("/hosts?unknown=1&vulnerable=x").await.ok()["hosts"], json!([]));
    for (path, status) in [
        ("/hosts?page=x", 400),
        ("/hosts?per_page=10001", 422),
        ("/hosts?order_key=uptime", 422),
        ("/hosts?order_key=id&order_direction=up", 422),
        ("/hosts?status=on", 422),
        ("/hosts?populate_software=true", 422),
        ("/hosts?after=7", 422),
        ("/hosts?team_id=7", 404),
        ("/hosts?policy_id=7", 404),
        ("/hosts?label_id=7", 404),
        ("/hosts?dry_run=maybe", 400),
        ("/hosts/x", 404),
        ("/hosts/18446744073709551615", 404),
        ("/software?order_key=hosts_count", 422),
    ] {
        assert_eq!(api.get(path).await.status, status, "{path}");
    }
    let long = json!({"name": "x".repeat(2 << 20), "query": "SELECT 1"});
    api.post("/queries", long).await.refused(413);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let api = Api::new().await;
    let host = api.host("m-1", |_| {}).await;
    let before = api.audit().await.len();
    api.post("/spec/queries?dry_run=true", json!({"specs": [{"name": "q", "query": "SELECT 1"}]})).await.ok();
    api.post("/spec/enroll_secret?dry_run=true", json!({"spec": {"secrets": [{"secret": "x".repeat(32)}]}})).await.ok();
    api.post("/global/policies?dry_run=true", json!({"name": "p", "query": "SELECT 1"})).await.ok();
    api.delete(&format!("/hosts/{host}?dry_run=true")).await.ok();
    assert_eq!(api.audit().await.len(), before);
    assert_eq!(api.get("/queries").await.ok()["count"], 0);
    api.get(&format!("/hosts/{host}")).await.ok();
}
