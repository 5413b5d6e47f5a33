//! Tests of every endpoint, over the table that the router is built from.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::{Method, Request};
use muster_core::authorization::{PrivilegeName, PrivilegeSet, Reach};
use muster_core::id::AgentId;
use muster_listen::reply::{ListenerKind, Peer};
use muster_management::endpoints::{self, Endpoint, Needs};
use serde_json::json;

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
        "_add_hosts" | "_remove_hosts" => r#"{"hosts": ["web-7"]}"#,
        "password" => r#"{"password": "correct horse battery"}"#,
        "identity" => r#"{"provider": "p", "subject": "s"}"#,
        _ if path == "/v1/roles/{id}" => r#"{"name": "n", "privileges": []}"#,
        _ if path == "/v1/spaces/{id}" => r#"{"name": "n"}"#,
        _ if path.starts_with("/agent_policies/{id}/rollback") => r#"{"revision": 1}"#,
        _ if path == "/agent_policies/{id}" => r#"{"name": "n", "namespace": "default"}"#,
        _ => "{}",
    }
}

fn request(method: &Method, path: &str, peer: Option<Peer>, body: &'static str) -> Request<Body> {
    let named = if path.ends_with("/files") { "?name=x" } else { "" };
    let mut request = Request::builder()
        .method(method.clone())
        .uri(format!("{}{named}", with_ids(path)))
        .body(Body::from(body))
        .unwrap();
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    request
}

/// A request over TCP with this token.
fn with_token(method: &Method, url: &str, token: Option<&str>) -> Request<Body> {
    let peer = Peer { address: Some("192.0.2.1:50000".parse().unwrap()), ..Peer::new(ListenerKind::Admin) };
    let request = Request::builder().method(method.clone()).uri(with_ids(url)).extension(peer);
    let request = match token {
        Some(token) => request.header("authorization", format!("ApiKey {token}")),
        None => request,
    };
    request.body(Body::from("{}")).unwrap()
}

/// Tokens of users with the given privileges in the given place.
struct Tokens<'a> {
    api: &'a Api,
    made: HashMap<(PrivilegeSet, Option<&'static str>), String>,
}

impl Tokens<'_> {
    async fn of(&mut self, privileges: PrivilegeSet, space: Option<&'static str>) -> String {
        let number = self.made.len();
        if let Some(token) = self.made.get(&(privileges, space)) {
            return token.clone();
        }
        let (user, role) = (format!("user{number}"), format!("role{number}"));
        let names: Vec<&str> = privileges.iter().map(PrivilegeName::as_str).collect();
        let post = async |path: &str, body| self.api.v1(Method::POST, path, body).await.ok();
        post("/service_accounts", json!({"name": user})).await;
        post("/roles", json!({"name": role, "privileges": names})).await;
        post("/bindings", json!({"user": user, "role": role, "space": space})).await;
        let token = post("/tokens", json!({"owner": user})).await["item"]["token"].as_str().unwrap().to_owned();
        self.made.insert((privileges, space), token.clone());
        token
    }
}

fn set(names: &[PrivilegeName]) -> PrivilegeSet {
    names.iter().copied().collect()
}

/// The privileges that an endpoint needs; none for endpoints about what is the caller's own.
fn stated(endpoint: &Endpoint) -> &[PrivilegeName] {
    match &endpoint.needs {
        Needs::Unstated => panic!("{} {} does not state what it needs", endpoint.method, endpoint.path),
        Needs::Privileges(names) | Needs::OneOf(names) => names,
        Needs::Everywhere(name) => std::slice::from_ref(name),
        Needs::Nothing | Needs::Credentials => &[],
    }
}

#[tokio::test]
async fn mg7_every_endpoint_rejects_requests_without_or_with_wrong_credentials() {
    let api = Api::new();
    for endpoint in endpoints::all().iter().filter(|endpoint| endpoint.needs != Needs::Nothing) {
        let none = api.send(with_token(&endpoint.method, &endpoint.url(), None)).await.refused(401);
        assert!(none["remedy"].as_str().unwrap().contains("admin.sock"), "{}", endpoint.path);
        let wrong = api.send(with_token(&endpoint.method, &endpoint.url(), Some("aWQ6c2VjcmV0"))).await;
        // Many wrong tokens of one address turn into 429.
        assert!([401, 429].contains(&wrong.status.as_u16()), "{} {}", endpoint.path, wrong.body);
    }
    assert!(api.audit().await.is_empty());
}

#[tokio::test]
async fn every_endpoint_needs_each_of_its_privileges_and_no_more() {
    let api = Api::new();
    let mut tokens = Tokens { api: &api, made: HashMap::new() };
    for endpoint in endpoints::all() {
        let (method, url, names) = (&endpoint.method, endpoint.url(), stated(&endpoint));
        // Of an endpoint that needs one of several, a caller without any of them is refused, and one is enough.
        let is_choice = matches!(endpoint.needs, Needs::OneOf(_));
        let lacking: Vec<&[PrivilegeName]> =
            if is_choice { vec![names] } else { names.iter().map(std::slice::from_ref).collect() };
        for names in lacking {
            let lacking = tokens.of(PrivilegeSet::all().without(set(names)), None).await;
            let body = api.send(with_token(method, &url, Some(&lacking))).await.refused(403);
            assert!(body["message"].as_str().unwrap().contains(names[0].as_str()), "{method} {url}: {body}");
        }
        let enough = tokens.of(set(if is_choice { &names[..1] } else { names }), None).await;
        let answer = api.send(with_token(method, &url, Some(&enough))).await;
        let own = endpoint.needs == Needs::Credentials && answer.status == 403;
        // Without privileges, a token of somebody else is not even looked up.
        let is_admitted = ![401, 403].contains(&answer.status.as_u16()) || own;
        assert!(
            is_admitted && (!answer.status.is_server_error() || answer.status == 503),
            "{method} {url}: {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn mg8_privileges_in_one_space_give_nothing_in_another() {
    let api = Api::new();
    let agent = "agent-of-the-default-space";
    api.agent(agent, None).await;
    for id in ["blue", "red"] {
        api.v1(Method::POST, "/spaces", json!({"id": id})).await.ok();
    }
    let token = Tokens { api: &api, made: HashMap::new() }.of(PrivilegeSet::all(), Some("blue")).await;
    for endpoint in endpoints::all() {
        let (method, url, names) = (&endpoint.method, endpoint.url(), stated(&endpoint));
        let red = api.send(with_token(method, &format!("/s/red{url}"), Some(&token))).await;
        if endpoint.needs == Needs::Nothing {
            continue;
        }
        assert_eq!(red.status, 404, "{method} {url}: {}", red.body);
        if names.is_empty() {
            continue;
        }
        api.send(with_token(method, &url, Some(&token))).await.refused(403);
        // In its own space, the caller does not see the objects of another one, and privileges over the whole
        // installation are not given by a role in a space.
        let own = url.replace("{id}", agent).replace("{action_id}", agent).replace("{file_id}", agent);
        let answer = api.send(with_token(method, &format!("/s/blue{own}"), Some(&token))).await;
        let is_system =
            matches!(endpoint.needs, Needs::Everywhere(_)) || names.iter().any(|name| name.reach() == Reach::System);
        let hidden = if is_system {
            vec![403]
        } else if has_id(&url) {
            vec![404, 400, 415]
        } else {
            vec![200, 400, 404]
        };
        assert!(hidden.contains(&answer.status.as_u16()), "{method} {own}: {} {}", answer.status, answer.body);
        assert!(!answer.body.to_string().contains("host-agent"), "{method} {own}: {}", answer.body);
    }
    assert!(api.record(agent).await.is_some());
}

#[tokio::test]
async fn mg11_every_endpoint_returns_404_for_an_unknown_id() {
    let api = Api::new();
    for endpoint in endpoints::all().into_iter().filter(|endpoint| has_id(endpoint.path)) {
        let body = plausible_body(endpoint.path);
        let answer = api.send(request(&endpoint.method, &endpoint.url(), Some(administrator()), body)).await;
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
        // The server makes the ids of hosts by itself.
        if *family == "hosts" {
            continue;
        }
        if takes_ids(&format!("/{family}")) && !word.starts_with('{') {
            assert!(AgentId::propose(word).is_err(), "{}", endpoint.path);
        }
    }
}
