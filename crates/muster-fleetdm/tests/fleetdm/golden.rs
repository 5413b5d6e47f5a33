//! Requests and responses of routes, as a file. The requests were written from reading FleetDM's documentation and the sources of
//! its client, and not recorded from programs.

use std::fmt::Write as _;

use axum::http::Method;
use muster_fleet::testing::golden;
use serde_json::{Value, json};

use crate::setting::{Api, PASSWORD};

/// Replaces what is random: ids, and what is made of them.
fn mask(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let is_random = ["uuid", "token", "author_name"].contains(&name.as_str());
                let is_id = member.as_u64().is_some_and(|number| number > 1 << 40);
                if (is_random || is_id) && !member.is_null() {
                    *member = json!("(random)");
                }
                mask(member);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

#[tokio::test]
async fn routes_answer_as_before() {
    let api = Api::new().await;
    let host = api.host("4c4c4544-0042-3510-8052-b7c04f584432", |record| record.hostname = "web-7".into()).await;
    let mut text = String::from("Read from FleetDM's documentation and its client, and not recorded.\n");
    let mut ask = async |method: Method, path: &str, body: Value| {
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        let mut answer = api.with(&api.token, method.clone(), path, body).await;
        mask(&mut answer.body);
        let shown = serde_json::to_string_pretty(&answer.body).unwrap();
        writeln!(text, "\n{method} {path}\n{sent}\n{} {shown}", answer.status).unwrap();
        answer.body
    };
    let get = Method::GET;
    ask(Method::POST, "/login", json!({"email": "ann", "password": PASSWORD})).await;
    ask(Method::POST, "/login", json!({"email": "ann", "password": "wrong"})).await;
    for path in
        ["/me", "/version", "/config", "/hosts?per_page=1", "/hosts/count", "/host_summary", "/hosts/7", "/scripts"]
    {
        ask(get.clone(), path, Value::Null).await;
    }
    ask(get.clone(), &format!("/hosts/{host}"), Value::Null).await;
    ask(Method::POST, "/queries", json!({"name": "users", "query": "SELECT * FROM users"})).await;
    ask(Method::POST, "/queries", json!({"name": "users", "query": "SELECT * FROM users"})).await;
    ask(Method::POST, "/queries", json!({"name": "users"})).await;
    ask(Method::POST, "/labels", json!({"name": "docker", "query": "SELECT 1", "platform": "linux"})).await;
    ask(Method::POST, "/global/policies", json!({"name": "disk", "query": "SELECT 1", "resolution": "ask IT"})).await;
    ask(Method::POST, "/teams", json!({"name": "Workstations"})).await;
    ask(Method::POST, "/spec/enroll_secret", json!({"spec": {"secrets": [{"secret": "x".repeat(32)}]}})).await;
    ask(Method::POST, "/queries/run", json!({"query": "SELECT 1", "selected": {"hosts": [host]}})).await;
    for path in ["/spec/enroll_secret", "/spec/queries", "/spec/labels", "/labels", "/teams", "/policies", "/software"]
    {
        ask(get.clone(), path, Value::Null).await;
    }
    ask(Method::DELETE, &format!("/hosts/{host}"), Value::Null).await;
    golden::check(env!("CARGO_MANIFEST_DIR"), "fleetdm/golden/routes.txt", &text);
}
