//! MG §11.1: conventions of all routes.

use axum::body::Body;
use axum::http::{Method, Request, request};
use muster_listen::body::RequestBodyError;
use muster_listen::reply::{ListenerKind, Peer};
use serde_json::json;

use crate::support::{Api, administrator};

fn to(uri: &str) -> request::Builder {
    Request::builder().uri(uri).extension(administrator())
}

#[tokio::test]
async fn mg1_success_is_200_including_create_and_delete() {
    let api = Api::new();
    let key = api.post("/enrollment_api_keys", json!({})).await.ok();
    api.delete(&format!("/enrollment_api_keys/{}", key["item"]["id"].as_str().unwrap())).await.ok();
}

#[tokio::test]
async fn mg2_errors_have_the_same_format_on_unknown_routes() {
    let api = Api::new();
    assert_eq!(api.get("/nonsense").await.refused(404)["error"], "Not Found");
    assert_eq!(api.put("/agents", json!({})).await.refused(405)["code"], "method_not_allowed");
    let body = api.post("/enrollment_api_keys", json!({"policy_id": "none"})).await.refused(404);
    assert_eq!(body["code"], "not_found");
}

#[tokio::test]
async fn mg3_kbn_xsrf_is_optional() {
    let api = Api::new();
    api.post("/enrollment_api_keys", json!({"name": "a"})).await.ok();
    let request = to("/api/fleet/enrollment_api_keys").method(Method::POST).header("kbn-xsrf", "whatever");
    api.send(request.body(Body::from(r#"{"name": "b"}"#)).unwrap()).await.ok();
}

#[tokio::test]
async fn mg5_mg6_the_api_version_is_echoed_and_unknown_ones_are_refused() {
    let api = Api::new();
    let plain = api.get("/agents").await;
    assert_eq!(plain.headers["elastic-api-version"], "2023-10-31");
    let request = |version| to("/api/fleet/agents").header("elastic-api-version", version).body(Body::empty()).unwrap();
    let same = api.send(request("2023-10-31")).await;
    assert_eq!(same.headers["elastic-api-version"], "2023-10-31");
    assert_eq!(same.ok(), plain.ok());
    api.send(request("2020-01-01")).await.refused(400);
}

#[tokio::test]
async fn mg8_the_default_space_is_accepted_and_unknown_spaces_are_404() {
    let api = Api::new();
    api.agent("a", None).await;
    let in_space = api.send(to("/s/default/api/fleet/agents").body(Body::empty()).unwrap()).await.ok();
    assert_eq!(in_space, api.get("/agents").await.ok());
    api.send(to("/s/unknown/api/fleet/agents").body(Body::empty()).unwrap()).await.refused(404);
}

#[tokio::test]
async fn mg9_the_api_level_needs_no_authentication() {
    let api = Api::new();
    let unauthenticated = || Request::builder().uri("/api/status").body(Body::empty()).unwrap();
    let status = api.send(unauthenticated()).await.ok();
    let number = status["version"]["number"].as_str().unwrap();
    assert_eq!(number.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3);
    assert_ne!(status["version"]["build_flavor"], "serverless");
    assert_eq!(status["status"]["overall"]["level"], "available");
    assert_eq!(api.send(unauthenticated()).await.ok()["uuid"], status["uuid"]);
}

#[tokio::test]
async fn mg10_a_page_past_the_end_is_empty_with_the_right_total() {
    let api = Api::new();
    for number in 0..25 {
        api.agent(&format!("agent-{number}"), None).await;
    }
    let first = api.get("/agents").await.ok();
    assert_eq!(
        (first["items"].as_array().unwrap().len(), &first["perPage"], &first["page"]),
        (20, &json!(20), &json!(1))
    );
    let past = api.get("/agents?page=9&perPage=10").await.ok();
    assert_eq!((&past["items"], &past["total"], &past["page"]), (&json!([]), &json!(25), &json!(9)));
}

#[tokio::test]
async fn mg13_an_unknown_field_is_named() {
    let api = Api::new();
    let cases = [
        ("/enrollment_api_keys", json!({"nmae": "x"}), "nmae"),
        ("/agents/bulk_unenroll", json!({"agents": [], "revok": true}), "revok"),
        ("/agent_policies", json!({"name": "x", "is_protectd": true}), "is_protectd"),
        ("/agents/bulk_reassign", json!({"agents": []}), "policy_id"),
    ];
    for (path, body, field) in cases {
        assert_eq!(api.post(path, body).await.refused(400)["field"], field, "{path}");
    }
}

#[tokio::test]
async fn another_user_of_the_host_is_forbidden() {
    let api = Api::new();
    let uid = Some(nix::unistd::Uid::effective().as_raw() + 4711);
    let peer = Peer { uid, ..Peer::new(ListenerKind::Socket) };
    let request = Request::builder().uri("/api/fleet/agents").extension(peer).body(Body::empty()).unwrap();
    api.send(request).await.refused(403);
}

/// A body for which the connection layer reports an error.
struct Given(RequestBodyError);

impl http_body::Body for Given {
    type Data = axum::body::Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Ready(Some(Err(self.0.clone())))
    }
}

#[tokio::test]
async fn a_late_body_is_408_and_a_broken_one_400() {
    let api = Api::new();
    for (error, status) in [(RequestBodyError::Late, 408), (RequestBodyError::Broken("cut off".into()), 400)] {
        for path in ["/api/fleet/enrollment_api_keys", "/api/fleet/artifacts?name=a"] {
            let body = Body::new(Given(error.clone()));
            let request = Request::builder().uri(path).method(Method::POST).extension(administrator());
            api.send(request.body(body).unwrap()).await.refused(status);
        }
    }
}

#[tokio::test]
async fn an_encoded_body_is_415() {
    let api = Api::new();
    for (coding, status) in [("gzip", 415), ("br", 415), ("Identity", 400)] {
        let request = Request::builder().uri("/api/fleet/enrollment_api_keys").method(Method::POST);
        let request = request.extension(administrator()).header("content-encoding", coding);
        api.send(request.body(Body::from("x")).unwrap()).await.refused(status);
    }
}

#[tokio::test]
async fn a_405_lists_the_allowed_methods() {
    let api = Api::new();
    let answer = api.call(Method::PATCH, "/agents/a", None).await;
    assert_eq!(answer.headers["allow"], "GET,HEAD,PUT,DELETE");
    answer.refused(405);
}

#[tokio::test]
async fn oversized_bodies_are_refused() {
    let api = Api::new();
    let long = format!(r#"{{"name": "{}"}}"#, "x".repeat(9 << 20));
    let request = to("/api/fleet/enrollment_api_keys").method(Method::POST).body(Body::from(long)).unwrap();
    api.send(request).await.refused(413);
}
