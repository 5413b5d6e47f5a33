//! Responses to bad input at each endpoint of the table: exact status and body (MG §1.1).

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::{Method, Request};
use muster_management::endpoints;
use serde_json::json;

use crate::support::{Api, administrator};
use muster_fleet::testing::golden;

/// A fleet with one object of each kind, with the id `here` except for keys and actions, whose ids are generated.
async fn inhabited() -> Api {
    let api = Api::new();
    api.post("/agent_policies", json!({"id": "here", "name": "here", "namespace": "default"})).await.ok();
    let output = json!({"id": "here", "name": "here", "type": "elasticsearch", "hosts": ["https://es:9200"]});
    api.post("/outputs", output).await.ok();
    for (path, field) in
        [("/fleet_server_hosts", "host_urls"), ("/proxies", "url"), ("/agent_download_sources", "host")]
    {
        let url = if field == "host_urls" { json!(["https://here"]) } else { json!("https://here") };
        api.post(path, json!({"id": "here", "name": "here", field: url})).await.ok();
    }
    api.agent("here", None).await;
    api.v1(Method::POST, "/users", json!({"name": "here"})).await.ok();
    api.v1(Method::POST, "/roles", json!({"name": "here", "privileges": []})).await.ok();
    api.v1(Method::POST, "/spaces", json!({"id": "here"})).await.ok();
    api
}

/// Bad requests by name: each has an invalid query or an invalid body.
fn faults(method: &Method) -> Vec<(&'static str, &'static str, &'static str)> {
    match *method {
        Method::GET | Method::DELETE => {
            vec![("a query that says nothing", "?perPage=many&page=0&kuery=(&from=x&latest=x&forceDelete=x", "")]
        }
        _ => vec![
            ("no JSON", "", "{"),
            ("JSON of another kind", "", "[]"),
            ("an unknown field", "", r#"{"nonsense":1}"#),
            ("wrong types", "", r#"{"name":1,"agents":1,"action":1,"policy_id":1,"ids":1,"revision":"x","tags":1}"#),
        ],
    }
}

#[tokio::test]
async fn mg2_mg13_bad_input_gets_the_golden_response_at_each_endpoint() {
    let mut text = String::new();
    for endpoint in endpoints::all() {
        writeln!(text, "{} {}", endpoint.method, endpoint.path).unwrap();
        let segment = |part: &str| if part.starts_with('{') { "here".to_owned() } else { part.to_owned() };
        let path = endpoint.url().split('/').map(segment).collect::<Vec<_>>().join("/");
        for (fault, query, body) in faults(&endpoint.method) {
            // Each in its own fleet, because some of the requests are valid on some endpoints and change something.
            let api = inhabited().await;
            let uri = format!("{path}{query}");
            let request = Request::builder().method(endpoint.method.clone()).uri(uri).extension(administrator());
            let answer = api.send(request.body(Body::from(body)).unwrap()).await;
            assert_ne!(answer.status, 500, "{} {path}: {fault}", endpoint.method);
            let body = if answer.status.is_success() { String::new() } else { answer.body.to_string() };
            writeln!(text, "  {fault}: {} {body}", answer.status.as_u16()).unwrap();
        }
    }
    golden::check(env!("CARGO_MANIFEST_DIR"), "api/golden/refusals.txt", &text);
}
