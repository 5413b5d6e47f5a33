//! Tests of every endpoint, over the table that the router is built from.

use axum::body::Body;
use axum::http::{Method, Request};
use muster_core::id::AgentId;
use muster_listen::reply::{ListenerKind, Peer};
use muster_management::endpoints;

use crate::support::{Api, administrator};

/// Returns whether the path contains the id of an object that must exist.
fn has_id(path: &str) -> bool {
    path.contains('{')
}

fn with_ids(path: &str) -> String {
    let segment = |part: &str| if part.starts_with('{') { "nothing-of-that-id".to_owned() } else { part.to_owned() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// A body that is valid for the route.
fn plausible_body(path: &str) -> &'static str {
    match path.rsplit('/').next().unwrap_or_default() {
        "reassign" => r#"{"policy_id": null}"#,
        "upgrade" => r#"{"version": "9.6.0"}"#,
        "tags" => r#"{"tagsToAdd": ["a"]}"#,
        "migrate" => r#"{"uri": "https://other", "enrollment_token": "aWQ6c2VjcmV0"}"#,
        "actions" => r#"{"action": {"type": "SETTINGS", "data": {"log_level": "debug"}}}"#,
        "copy" => r#"{"name": "copy"}"#,
        _ if path.starts_with("/agent_policies/{id}/rollback") => r#"{"revision": 1}"#,
        _ if path == "/agent_policies/{id}" => r#"{"name": "n", "namespace": "default"}"#,
        _ => "{}",
    }
}

fn request(method: &Method, path: &str, peer: Option<Peer>, body: &'static str) -> Request<Body> {
    let named = if path.ends_with("/files") { "?name=x" } else { "" };
    let mut request = Request::builder()
        .method(method.clone())
        .uri(format!("/api/fleet{}{named}", with_ids(path)))
        .body(Body::from(body))
        .unwrap();
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    request
}

#[tokio::test]
async fn mg7_every_endpoint_rejects_unauthenticated_requests() {
    let api = Api::new();
    let over_tcp = Peer { address: Some("127.0.0.1:50000".parse().unwrap()), ..Peer::new(ListenerKind::Admin) };
    for endpoint in endpoints::all() {
        for peer in [None, Some(over_tcp.clone())] {
            let answer = api.send(request(&endpoint.method, endpoint.path, peer, "{}")).await;
            let body = answer.refused(401);
            assert!(body["remedy"].as_str().unwrap().contains("admin.sock"), "{}", endpoint.path);
        }
    }
    assert!(api.audit().await.is_empty());
}

#[tokio::test]
async fn mg11_every_endpoint_returns_404_for_an_unknown_id() {
    let api = Api::new();
    for endpoint in endpoints::all().into_iter().filter(|endpoint| has_id(endpoint.path)) {
        let body = plausible_body(endpoint.path);
        let answer = api.send(request(&endpoint.method, endpoint.path, Some(administrator()), body)).await;
        assert_eq!(answer.status, 404, "{} {}: {}", endpoint.method, endpoint.path, answer.body);
        answer.refused(404);
    }
}

/// Scripts depend on the routes, so a removed or changed one must be visible in a review. `UPDATE_GOLDEN=1` rewrites the list.
#[test]
fn the_routes_match_the_golden_list() {
    let mut rows: Vec<_> = endpoints::all().into_iter().map(|one| format!("{} {}", one.path, one.method)).collect();
    rows.sort_unstable();
    assert!(rows.windows(2).all(|pair| pair[0] != pair[1]), "a route is listed twice");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/golden/routes.txt");
    let listed = rows.join("\n") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &listed).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), listed, "UPDATE_GOLDEN=1 rewrites {path}");
}

/// An object with the id `files` could not be addressed, because `/agents/files` is another route.
#[test]
fn words_of_paths_are_not_valid_ids() {
    let all = endpoints::all();
    let takes_ids = |prefix: &str| all.iter().any(|other| other.path.starts_with(&format!("{prefix}/{{")));
    for endpoint in &all {
        let steps: Vec<&str> = endpoint.path.split('/').skip(1).collect();
        let [family, word, ..] = steps.as_slice() else { continue };
        if takes_ids(&format!("/{family}")) && !word.starts_with('{') {
            assert!(AgentId::propose(word).is_err(), "{}", endpoint.path);
        }
    }
}
