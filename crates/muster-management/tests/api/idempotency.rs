//! The header `Idempotency-Key`.

use std::task::Poll;

use axum::body::Body;
use axum::http::{Method, Request, request};
use muster_management::endpoints;
use serde_json::{Value, json};

use crate::scripts::disk_key;
use crate::support::{Answer, Api, administrator, column};

fn keyed(method: &Method, uri: &str, key: &str) -> request::Builder {
    Request::builder().method(method.clone()).uri(uri).extension(administrator()).header("idempotency-key", key)
}

async fn create(api: &Api, key: &str, body: &Value) -> Answer {
    let request = keyed(&Method::POST, "/api/fleet/enrollment_api_keys", key);
    api.send(request.body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test]
async fn mg15_a_repeated_post_creates_one_object_and_returns_the_same_response() {
    let api = Api::new();
    let body = json!({"name": "k"});
    let first = create(&api, "one", &body).await;
    let again = create(&api, "one", &body).await;
    assert_eq!(
        (&again.headers["idempotency-replayed"], first.headers.get("idempotency-replayed")),
        (&"true".parse().unwrap(), None)
    );
    assert_eq!(
        (again.headers["content-type"].clone(), again.body),
        (first.headers["content-type"].clone(), first.body)
    );
    assert_eq!(api.audit().await.last().unwrap(), "response.reveal", "the key was shown again");
    assert_eq!(api.get("/enrollment_api_keys").await.ok()["total"], 1);
    create(&api, "two", &body).await.refused(409);
}

#[tokio::test]
async fn a_key_is_rejected_with_another_request() {
    let api = Api::new();
    create(&api, "k", &json!({"name": "a"})).await.ok();
    assert_eq!(create(&api, "k", &json!({"name": "b"})).await.refused(422)["code"], "idempotency_key_reused");
    let other_path = keyed(&Method::POST, "/api/fleet/enrollment-api-keys", "k");
    api.send(other_path.body(Body::from(r#"{"name":"a"}"#)).unwrap()).await.refused(422);
    let blue = keyed(&Method::POST, "/s/blue/api/fleet/enrollment_api_keys", "k");
    api.v1(Method::POST, "/spaces", json!({"id": "blue"})).await.ok();
    api.send(blue.body(Body::from(r#"{"name":"a"}"#)).unwrap()).await.refused(422);
}

#[tokio::test]
async fn a_failed_request_can_be_corrected_and_sent_with_the_same_key() {
    let api = Api::new();
    create(&api, "k", &json!({"policy_id": "missing"})).await.refused(404);
    create(&api, "k", &json!({"name": "a"})).await.ok();
    assert_eq!(column(&api.get("/enrollment_api_keys").await.ok(), "/name"), ["a"]);
}

#[tokio::test]
async fn malformed_keys_are_rejected_on_every_change_and_ignored_by_reads() {
    let api = Api::new();
    for endpoint in endpoints::all() {
        let url = endpoint.url().replace(['{', '}'], "x");
        let answer = api.send(keyed(&endpoint.method, &url, "a b").body(Body::empty()).unwrap()).await;
        if endpoint.method == Method::GET {
            assert_ne!(answer.body["field"], "Idempotency-Key", "{}", endpoint.path);
        } else {
            assert_eq!(answer.refused(400)["field"], "Idempotency-Key", "{} {}", endpoint.method, endpoint.path);
        }
    }
    let twice = keyed(&Method::POST, "/api/fleet/enrollment_api_keys", "a").header("idempotency-key", "b");
    assert_eq!(api.send(twice.body(Body::empty()).unwrap()).await.refused(400)["field"], "Idempotency-Key");
}

#[tokio::test]
async fn a_disclosed_secret_is_not_stored_and_each_disclosure_is_recorded() {
    let api = Api::new();
    let host = disk_key(&api).await;
    for _ in 0..2 {
        let request = keyed(&Method::POST, &format!("/api/fleet/hosts/{host}/disk_key/reveal"), "k");
        let answer = api.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.headers.get("idempotency-replayed"), None);
        assert_eq!(answer.ok()["item"]["key"], "123-456");
    }
    assert_eq!(api.audit().await, ["disk_key.reveal", "disk_key.reveal"]);
    assert_eq!(api.fleet.store().keyed_request("local:root", "k").await.unwrap(), None);
}

/// Polls a request this many times, and then disconnects. Returns whether the response came first.
async fn is_answered_within(polls: usize, request: impl Future<Output = Answer>) -> bool {
    let mut request = std::pin::pin!(request);
    let mut done = 0;
    std::future::poll_fn(|context| {
        let is_answered = request.as_mut().poll(context).is_ready();
        done += 1;
        if is_answered || done == polls { Poll::Ready(is_answered) } else { Poll::Pending }
    })
    .await
}

#[tokio::test]
async fn a_request_is_finished_wherever_its_client_disconnects() {
    let api = Api::new();
    for polls in 1..100 {
        let (key, body) = (polls.to_string(), json!({"name": format!("key-{polls}")}));
        let is_answered = is_answered_within(polls, create(&api, &key, &body)).await;
        let mut again = create(&api, &key, &body).await;
        for _ in 0..100_000 {
            if again.status != 409 {
                break;
            }
            assert_eq!(again.refused(409)["code"], "request_pending");
            again = create(&api, &key, &body).await;
        }
        again.ok();
        let total = usize::try_from(api.get("/enrollment_api_keys").await.ok()["total"].as_u64().unwrap()).unwrap();
        assert_eq!(total, polls, "each of the requests was executed once");
        if is_answered {
            return;
        }
    }
    panic!("no request was answered");
}
