//! The calls of `fleetctl`, in the order in which it makes them. Read from its sources, and not recorded.

use axum::http::Method;
use serde_json::{Value, json};

use crate::live::Client;
use crate::setting::{Api, PASSWORD, column};

#[tokio::test]
async fn fleetctl_logs_in_applies_gets_and_queries() {
    let api = Api::new().await;
    api.host("m-1", |_| {}).await;
    // fleetctl login
    let login = api.with("", Method::POST, "/login", json!({"email": "ann", "password": PASSWORD})).await.ok();
    let token = login["token"].as_str().unwrap().to_owned();
    let get = async |path: &str| api.with(&token, Method::GET, path, Value::Null).await.ok();
    let post = async |path: &str, body: Value| api.with(&token, Method::POST, path, body).await.ok();
    // fleetctl apply -f: each kind has its request; the configuration is read before.
    assert!(get("/config").await["license"]["tier"].is_string());
    let teams =
        post("/spec/fleets", json!({"specs": [{"name": "Workstations", "secrets": [{"secret": "w".repeat(32)}]}]}))
            .await;
    let team = teams["team_ids_by_name"]["Workstations"].as_u64().unwrap();
    post("/spec/reports", json!({"specs": [{"name": "users", "query": "SELECT * FROM users"}]})).await;
    post(
        "/spec/labels",
        json!({"specs": [
            {"name": "All Hosts", "label_type": "builtin"},
            {"name": "with docker", "query": "SELECT 1 FROM apps", "label_membership_type": "dynamic"},
            {"name": "mine", "label_membership_type": "manual", "hosts": ["m-1.example"]},
        ]}),
    )
    .await;
    post("/spec/policies", json!({"specs": [{"name": "disk", "query": "SELECT 1", "team": "Workstations"}]})).await;
    let scheduled = json!([{"query": "users", "name": "", "description": "", "interval": 60, "snapshot": true}]);
    let pack = json!({"name": "it", "targets": {"labels": ["All Hosts"]}, "queries": scheduled});
    post("/spec/packs", json!({"specs": [pack]})).await;
    post("/spec/enroll_secret", json!({"spec": {"secrets": [{"secret": "s".repeat(32)}]}})).await;
    // Again, as fleetctl does whenever a file changes.
    post("/spec/policies", json!({"specs": [{"name": "disk", "query": "SELECT 2", "team": "Workstations"}]})).await;
    post("/spec/labels", json!({"specs": [{"name": "mine", "description": "one", "hosts": []}]})).await;
    // fleetctl get …
    assert_eq!(get("/hosts").await["hosts"][0]["hostname"], "m-1.example");
    assert_eq!(get("/hosts/identifier/m-1.example").await["host"]["osquery_version"], "5.21.0");
    assert_eq!(column(&get("/reports").await["queries"], "name"), ["users"]);
    assert_eq!(get("/spec/reports/users").await["spec"]["query"], "SELECT * FROM users");
    let labels = get("/spec/labels").await["specs"].clone();
    assert_eq!(
        column(&labels, "name").iter().filter(|name| ["with docker", "mine"].map(Value::from).contains(name)).count(),
        2
    );
    assert_eq!(get("/spec/labels/mine").await["spec"]["description"], "one");
    assert_eq!(get("/fleets").await["teams"][0]["id"], team);
    assert_eq!(get("/spec/packs").await["specs"][0]["queries"][0]["query"], "users");
    let policies = get(&format!("/teams/{team}/policies")).await["policies"].clone();
    assert_eq!((policies.as_array().unwrap().len(), &policies[0]["query"]), (1, &json!("SELECT 2")));
    assert_eq!(get(&format!("/fleets/{team}/secrets")).await["secrets"][0]["secret"], "w".repeat(32));
    assert_eq!(get("/spec/enroll_secret").await["spec"]["secrets"][0]["secret"], "s".repeat(32));
    assert!(get("/software/versions").await["software"].is_array());
    // fleetctl query --hosts m-1.example --query 'SELECT 1' --exit
    let run = json!({"query": "SELECT 1", "query_id": null, "selected": {"labels": [""], "hosts": ["m-1.example"]}});
    let campaign = post("/reports/run_by_identifiers", run).await["campaign"]["id"].clone();
    let mut client = Client::connect(&api).await;
    client.select(&token, &campaign).await;
    let query = api.running().await;
    api.answer("m-1", &query, r#"[{"1":"1"}]"#).await;
    assert_eq!(client.data("result").await["rows"][0]["1"], "1");
    // fleetctl delete, logout
    api.with(&token, Method::DELETE, "/labels/mine", Value::Null).await.ok();
    api.with(&token, Method::DELETE, "/reports/users", Value::Null).await.ok();
    post("/logout", json!({})).await;
}

#[tokio::test]
async fn what_a_specification_cannot_set_is_refused() {
    let api = Api::new().await;
    let options = json!({"specs": [{"name": "t", "agent_options": {"config": {}}}]});
    assert_eq!(api.post("/spec/teams", options).await.refused(422).0, "agent_options");
    let scheduled =
        json!({"specs": [{"name": "a", "query": "SELECT 1"}, {"name": "b", "query": "SELECT 1", "interval": 60}]});
    assert_eq!(api.post("/spec/queries", scheduled).await.refused(422).0, "interval");
    assert_eq!(api.get("/queries").await.ok()["count"], 0, "nothing of it was saved");
    let unknown = json!({"specs": [{"name": "a", "query": "SELECT 1", "team": "nowhere"}]});
    api.post("/spec/queries", unknown).await.refused(404);
}
