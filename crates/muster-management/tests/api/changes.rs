//! `/api/v1/changes`.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request, Response, request};
use futures_util::StreamExt as _;
use muster_listen::reply::{ListenerKind, Peer};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{Api, administrator};

/// Maximum time to wait for something that is sent at once.
const PATIENCE: Duration = Duration::from_secs(20);

async fn newest(api: &Api) -> i64 {
    api.v1(Method::GET, "/changes", Value::Null).await.ok()["next"].as_i64().unwrap()
}

async fn since(api: &Api, after: i64) -> Value {
    api.v1(Method::GET, &format!("/changes?after={after}"), Value::Null).await.ok()
}

fn to_stream(query: &str) -> request::Builder {
    Request::builder().uri(format!("/api/v1/changes/_stream{query}"))
}

async fn open(api: &Api, request: Request<Body>) -> Response<Body> {
    api.router.clone().oneshot(request).await.unwrap()
}

async fn open_locally(api: &Api, query: &str) -> BodyDataStream {
    let response = open(api, to_stream(query).extension(administrator()).body(Body::empty()).unwrap()).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    response.into_body().into_data_stream()
}

/// The next piece of a stream; `None` at its end.
async fn piece(stream: &mut BodyDataStream) -> Option<String> {
    let piece = tokio::time::timeout(PATIENCE, stream.next()).await.expect("the stream is silent")?;
    Some(String::from_utf8(piece.unwrap().to_vec()).unwrap())
}

/// Like [`piece`], while the time is paused: it advances by itself as soon as nothing else can be done.
async fn piece_in_time(stream: &mut BodyDataStream) -> Option<String> {
    stream.next().await.map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap())
}

/// The data of the events of a piece.
fn events(piece: &str) -> Vec<Value> {
    piece
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test]
async fn changes_since_a_number_name_the_changed_objects() {
    let api = Api::new();
    let start = newest(&api).await;
    let policy = api.policy("p").await;
    let key = api.post("/enrollment_api_keys", json!({"policy_id": policy})).await.ok()["item"]["id"].clone();
    let page = since(&api, start).await;
    let named: Vec<(&Value, &Value)> =
        page["items"].as_array().unwrap().iter().map(|one| (&one["kind"], &one["id"])).collect();
    assert!(named.contains(&(&json!("policy"), &json!(policy))), "{page}");
    assert!(named.contains(&(&json!("enrollment_key"), &key)), "{page}");
    let after = page["next"].as_i64().unwrap();
    api.delete(&format!("/enrollment_api_keys/{}?forceDelete=true", key.as_str().unwrap())).await.ok();
    let page = since(&api, after).await;
    assert_eq!(page["items"], json!([{"seq": page["next"], "kind": "enrollment_key", "id": key, "deleted": true}]));
    assert_eq!(since(&api, page["next"].as_i64().unwrap()).await["items"], json!([]));
}

#[tokio::test]
async fn invalid_numbers_are_rejected() {
    let api = Api::new();
    for (path, field) in [
        ("/changes?after=-1", "after"),
        ("/changes?after=0&limit=0", "limit"),
        ("/changes?after=0&limit=1001", "limit"),
    ] {
        assert_eq!(api.v1(Method::GET, path, Value::Null).await.refused(400)["field"], field, "{path}");
    }
    for path in ["/changes?after=999999", "/changes/_stream?after=999999"] {
        assert_eq!(api.v1(Method::GET, path, Value::Null).await.refused(409)["code"], "changes_pruned", "{path}");
    }
    let request = to_stream("").extension(administrator()).header("last-event-id", "x").body(Body::empty()).unwrap();
    assert_eq!(api.send(request).await.refused(400)["field"], "Last-Event-ID");
}

#[tokio::test]
async fn a_stream_sends_each_change_and_continues_after_the_last_event() {
    let api = Api::new();
    let mut stream = open_locally(&api, "").await;
    assert!(piece(&mut stream).await.unwrap().starts_with("retry: 1000\n: heartbeat\nid: "));
    let first = api.policy("first").await;
    let seen = events(&piece(&mut stream).await.unwrap());
    assert!(seen.iter().any(|event| event["kind"] == "policy" && event["id"] == json!(first)), "{seen:?}");
    let last = seen.last().unwrap()["seq"].to_string();
    drop(stream);

    // What happens while the client is away is sent when it reconnects.
    let second = api.policy("second").await;
    let request = to_stream("?after=0").extension(administrator()).header("last-event-id", &last);
    let mut stream = open(&api, request.body(Body::empty()).unwrap()).await.into_body().into_data_stream();
    piece(&mut stream).await.unwrap();
    let seen = events(&piece(&mut stream).await.unwrap());
    assert!(
        seen.iter().any(|event| event["id"] == json!(second)) && !seen.iter().any(|event| event["id"] == json!(first))
    );
}

#[tokio::test]
async fn an_idle_stream_sends_heartbeats_and_ends_with_the_server() {
    let api = Api::new();
    let mut stream = open_locally(&api, "").await;
    piece(&mut stream).await.unwrap();
    tokio::time::pause();
    assert!(piece_in_time(&mut stream).await.unwrap().starts_with(": heartbeat\nid: "));
    tokio::time::resume();
    api.fleet.stop();
    assert_eq!(piece(&mut stream).await, None);
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked() {
    let api = Api::new();
    api.v1(Method::POST, "/service_accounts", json!({"name": "watcher"})).await.ok();
    api.v1(Method::POST, "/bindings", json!({"user": "watcher", "role": "auditor"})).await.ok();
    let token = api.v1(Method::POST, "/tokens", json!({"owner": "watcher"})).await.ok()["item"].clone();
    let peer = Peer { address: Some("192.0.2.1:50000".parse().unwrap()), ..Peer::new(ListenerKind::Admin) };
    let request =
        to_stream("").extension(peer).header("authorization", format!("ApiKey {}", token["token"].as_str().unwrap()));
    let response = open(&api, request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    let mut stream = response.into_body().into_data_stream();
    piece(&mut stream).await.unwrap();
    api.v1(Method::DELETE, &format!("/tokens/{}", token["id"].as_str().unwrap()), Value::Null).await.ok();
    // The next heartbeat, at the latest, finds the token revoked.
    tokio::time::pause();
    assert_eq!(piece_in_time(&mut stream).await, None);
}

#[tokio::test]
async fn streams_of_a_caller_are_limited() {
    let api = Api::new();
    let mut open_ones = Vec::new();
    for _ in 0..10 {
        open_ones.push(open_locally(&api, "").await);
    }
    let request = || to_stream("").extension(administrator()).body(Body::empty()).unwrap();
    assert_eq!(api.send(request()).await.refused(429)["code"], "too_many_streams");
    open_ones.pop();
    assert_eq!(open(&api, request()).await.status(), 200);
}
