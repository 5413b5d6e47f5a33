//! fleetd options, host checks, labels and packs.

use axum::body::Body;
use http::{Method, Request};
use muster_core::authorization::{Actor, OpContext};
use muster_core::id::SpaceId;
use muster_fleet::saved_queries::SavedQueryDraft;
use serde_json::{Value, json};

use crate::support::{Api, administrator, column};

#[tokio::test]
async fn options_are_replaced_with_a_precondition_and_reset() {
    let api = Api::new();
    let first = api.get("/fleetd_options").await.ok()["item"].clone();
    assert_eq!((&first["version"], &first["is_default"]), (&json!(0), &json!(true)));
    let options = json!({"options": "# ours\nconfig:\n  options: {logger_tls_period: 7}\n"});
    let tried = api.put("/fleetd_options?dryRun=true", options.clone()).await.ok()["item"].clone();
    let period = |change: &Value| change["path"] == "/config/options/logger_tls_period";
    assert!(tried["changes"].as_array().unwrap().iter().any(period), "{tried}");
    assert_eq!(api.get("/fleetd_options").await.ok()["item"], first);
    let saved = api.put("/fleetd_options", options.clone()).await.ok()["item"]["options"].clone();
    assert_eq!((&saved["version"], &saved["options"]), (&json!(1), &options["options"]));
    assert_eq!(api.audit().await, ["fleetd_options.update"]);
    assert_eq!(api.put("/fleetd_options", options.clone()).await.ok()["item"]["changes"], json!([]));
    assert_eq!(api.audit().await.len(), 1, "nothing changed");
    let stale = json!({"options": "config: {}", "expected_version": 0});
    assert_eq!(api.put("/fleetd_options", stale).await.refused(409)["code"], "fleetd_options_changed");
    let reset = api.delete("/fleetd_options").await.ok()["item"]["options"].clone();
    assert_eq!((&reset["version"], &reset["options"]), (&json!(2), &first["options"]));
}

#[tokio::test]
async fn wrong_options_are_refused_with_their_position() {
    let api = Api::new();
    let wrong = json!({"options": "config:\n  schedule:\n    users: {query: SELECT 1, interval: 0}\n"});
    let refused = api.put("/fleetd_options", wrong).await.refused(400);
    assert_eq!(refused["code"], "fleetd_options_invalid");
    let problem = &refused["problems"][0];
    assert_eq!((&problem["path"], &problem["line"]), (&json!("config.schedule.users.interval"), &json!(3)));
    let long = json!({"options": format!("# {}", "x".repeat(256 * 1024))});
    assert_eq!(api.put("/fleetd_options", long).await.refused(400)["field"], "options");
}

#[tokio::test]
async fn checks_are_created_changed_listed_and_deleted() {
    let api = Api::new();
    let new = json!({"name": "disk", "query": "SELECT 1", "platforms": ["linux"]});
    let made = api.post("/host_checks", new.clone()).await.ok()["item"].clone();
    assert_eq!((&made["version"], &made["failing"]), (&json!(1), &json!(0)));
    assert_eq!(api.post("/host_checks", new).await.refused(409)["code"], "host_check_exists");
    let bad = json!({"name": "x", "query": "SELECT 1", "platforms": ["linus"]});
    assert_eq!(api.post("/host_checks", bad).await.refused(400)["field"], "platforms");
    assert_eq!(api.post("/host_checks", json!({"name": "x"})).await.refused(400)["field"], "query");
    let path = format!("/host_checks/{}", made["id"].as_str().unwrap());
    let changed = api.put(&path, json!({"resolution": "ask IT"})).await.ok()["item"].clone();
    assert_eq!((&changed["version"], &changed["name"]), (&json!(2), &json!("disk")));
    assert_eq!(api.put(&path, json!({"resolution": "ask IT"})).await.ok()["item"], changed, "nothing changed");
    assert_eq!(column(&api.get("/host_checks").await.ok(), "/name"), ["disk"]);
    assert_eq!(api.get(&format!("{path}/hosts?response=passing")).await.ok()["items"], json!([]));
    let days = api.get(&format!("{path}/days")).await.ok();
    assert_eq!((&days["total"], &days["items"][0]["passing"]), (&json!(1), &json!(0)), "only today: {days}");
    api.get("/host_checks/none/days").await.refused(404);
    api.get(&format!("{path}/hosts?response=other")).await.refused(400);
    api.delete(&format!("{path}?dryRun=true")).await.ok();
    api.delete(&path).await.ok();
    for missing in [api.get(&path).await, api.delete(&path).await, api.put(&path, json!({})).await] {
        missing.refused(404);
    }
    assert_eq!(api.audit().await, ["host_check.create", "host_check.update", "host_check.delete"]);
}

#[tokio::test]
async fn labels_are_created_changed_and_deleted() {
    let api = Api::new();
    let new = json!({"name": "docker", "query": "SELECT 1", "platforms": ["linux"]});
    let made = api.post("/labels", new.clone()).await.ok()["item"].clone();
    assert_eq!((&made["version"], &made["kind"], &made["hosts"]), (&json!(1), &json!("dynamic"), &json!(0)));
    assert_eq!(api.post("/labels", new).await.refused(409)["code"], "label_exists");
    assert_eq!(api.post("/labels", json!({"name": "macos"})).await.refused(409)["code"], "label_exists");
    assert_eq!(api.post("/labels", json!({"name": "x", "query": " "})).await.refused(400)["field"], "query");
    let path = format!("/labels/{}", made["id"].as_str().unwrap());
    let changed = api.put(&path, json!({"description": "hosts with docker"})).await.ok()["item"].clone();
    assert_eq!((&changed["version"], &changed["name"]), (&json!(2), &json!("docker")));
    assert_eq!(api.put(&path, json!({"name": "docker"})).await.ok()["item"], changed, "nothing changed");
    let names = column(&api.get("/labels").await.ok(), "/name");
    assert_eq!((names.first().unwrap().as_str(), names.last().unwrap().as_str()), ("All Hosts", "docker"));
    assert_eq!(api.get("/labels/Docker").await.ok()["item"], changed, "by name");
    let hosts = json!({"hosts": ["web-7"]});
    assert_eq!(api.post(&format!("{path}/_add_hosts"), hosts.clone()).await.refused(400)["field"], "label");
    let manual = api.post("/labels", json!({"name": "chosen"})).await.ok()["item"]["id"].as_str().unwrap().to_owned();
    api.post(&format!("/labels/{manual}/_add_hosts"), hosts).await.refused(404);
    let none = api.post(&format!("/labels/{manual}/_remove_hosts"), json!({"hosts": []})).await.ok();
    assert_eq!(none, json!({"changed": 0}));
    assert_eq!(api.put("/labels/all-hosts", json!({"name": "x"})).await.refused(409)["code"], "built_in_label");
    api.delete(&format!("{path}?dryRun=true")).await.ok();
    api.delete(&path).await.ok();
    for missing in [api.get(&path).await, api.delete(&path).await, api.put(&path, json!({})).await] {
        missing.refused(404);
    }
    assert_eq!(api.audit().await, ["label.create", "label.update", "label.create", "label.delete"]);
}

#[tokio::test]
async fn packs_are_saved_replaced_and_deleted() {
    let api = Api::new();
    let new =
        json!({"name": "docker", "platforms": ["linux"], "pack": "queries: {q: {query: SELECT 1, interval: 60}}"});
    let made = api.post("/packs", new.clone()).await.ok()["item"].clone();
    assert_eq!((&made["version"], &made["pack"]["queries"]["q"]["interval"]), (&json!(1), &json!(60)));
    assert_eq!(api.post("/packs", new).await.ok()["item"], made, "nothing changed");
    let bad = json!({"name": "x", "pack": "queries: {q: {query: SELECT 1}}"});
    assert_eq!(api.post("/packs", bad).await.refused(400)["code"], "pack_invalid");
    assert_eq!(api.post("/packs", json!({"name": "a/b", "pack": "queries: {}"})).await.refused(400)["field"], "name");
    let changed = api.post("/packs", json!({"name": "Docker", "pack": "queries: {}"})).await.ok()["item"].clone();
    assert_eq!((&changed["id"], &changed["version"]), (&made["id"], &json!(2)));
    let path = format!("/packs/{}", made["id"].as_str().unwrap());
    assert_eq!(api.get(&path).await.ok()["item"], changed);
    assert_eq!(column(&api.get("/packs").await.ok(), "/name"), ["Docker"]);
    api.delete(&format!("{path}?dryRun=true")).await.ok();
    api.delete(&path).await.ok();
    api.delete(&path).await.refused(404);
    assert_eq!(api.audit().await, ["pack.save", "pack.save", "pack.delete"]);
}

#[tokio::test]
async fn a_space_with_contents_is_not_deleted_and_a_new_one_inherits_no_options() {
    let api = Api::new();
    let space = || async { api.v1(Method::POST, "/spaces", json!({"id": "blue"})).await.ok() };
    let blue = |method: Method, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(format!("/s/blue/api/fleet{path}"));
        let request = request.header("content-type", "application/json").extension(administrator());
        request.body(Body::from(body.to_string())).unwrap()
    };
    space().await;
    api.send(blue(Method::PUT, "/fleetd_options", json!({"options": "config: {}"}))).await.ok();
    let contents = [
        ("/host_checks", json!({"name": "c", "query": "SELECT 1"}), "host checks"),
        ("/packs", json!({"name": "p", "pack": "queries: {}"}), "packs"),
        ("/labels", json!({"name": "l"}), "labels"),
    ];
    for (path, body, named) in contents {
        let made = api.send(blue(Method::POST, path, body)).await.ok()["item"]["id"].as_str().unwrap().to_owned();
        let refused = api.v1(Method::DELETE, "/spaces/blue", Value::Null).await.refused(409);
        assert_eq!(refused["code"], "space_in_use");
        assert!(refused["remedy"].as_str().unwrap().contains(named), "{refused}");
        api.send(blue(Method::DELETE, &format!("{path}/{made}"), Value::Null)).await.ok();
    }
    let context = OpContext::administrator(Actor::System).in_space(SpaceId::trusted("blue"));
    let draft = SavedQueryDraft { name: "q".into(), sql: "SELECT 1".into(), ..SavedQueryDraft::default() };
    let saved = api.fleet.saved_queries().save(&context.grant().unwrap(), draft, None).await.unwrap();
    api.v1(Method::DELETE, "/spaces/blue", Value::Null).await.refused(409);
    api.fleet.saved_queries().delete(&context.grant().unwrap(), saved.id.as_str()).await.unwrap();
    api.v1(Method::DELETE, "/spaces/blue", Value::Null).await.ok();
    space().await;
    let options = api.send(blue(Method::GET, "/fleetd_options", Value::Null)).await.ok();
    assert_eq!(options["item"]["version"], 0);
    assert!(api.fleet.saved_queries().list(&context).await.unwrap().is_empty());
    assert_eq!(api.send(blue(Method::GET, "/host_checks", Value::Null)).await.ok()["total"], 0);
}
