//! Rules for all endpoints (EA §1): paths, headers, credentials, errors.

use http::Method;
use muster_core::credential::ApiKey;
use serde_json::json;

use crate::setting::{AGENT, Ask, Server, online, refused};

/// A request without a key for every endpoint that requires one.
fn guarded() -> Vec<Ask> {
    let id = "2f8e6c1a-3d10-4f1e-9a55-0d6f2f9a7b11";
    vec![
        Ask::post("/api/fleet/agents/enroll"),
        Ask::post(&format!("/api/fleet/agents/{id}/checkin")),
        Ask::post(&format!("/api/fleet/agents/{id}/acks")),
        Ask::post(&format!("/api/fleet/agents/{id}/audit/unenroll")),
        Ask::get(&format!("/api/fleet/artifacts/trust/{}", "0".repeat(64))),
        Ask::post("/api/fleet/uploads"),
        Ask::put("/api/fleet/uploads/u/0"),
        Ask::post("/api/fleet/uploads/u"),
        Ask::get("/api/fleet/file/f"),
    ]
}

#[tokio::test]
async fn ea2_a_query_does_not_change_the_route() {
    let server = Server::start().await;
    assert_eq!(server.get(Ask::get("/api/status?")).await.status, 200);
    assert_eq!(server.get(Ask::get("/api/status?a=b")).await.status, 200);
    let agent = server.enrolled().await;
    let path = format!("{}?", agent.path("acks"));
    assert_eq!(server.get(Ask::post(&path).key(&agent.token).json(&json!({}))).await.status, 200);
}

#[tokio::test]
async fn ea3_unknown_paths_are_404_and_wrong_methods_405() {
    let server = Server::start().await;
    let got = server.get(Ask::get("/api/fleet/nothing")).await;
    assert_eq!((got.status, got.body.as_slice()), (404, &b"404 page not found\n"[..]));
    assert!(got.header("content-type").starts_with("text/plain"));
    assert!(!got.headers.contains_key("elastic-api-version"));
    for path in ["/api/fleet/agents/enroll", "/api/fleet/agents/a/checkin", "/api/fleet/uploads"] {
        let got = server.get(Ask::new(Method::DELETE, path)).await;
        assert_eq!((got.status, got.body.len(), got.header("allow")), (405, 0, "POST"), "{path}");
        assert!(!got.headers.contains_key("elastic-api-version"), "{path}");
    }
}

#[tokio::test]
async fn a_405_lists_the_allowed_methods() {
    let server = Server::start().await;
    for (path, allow) in [
        ("/api/status", "GET, HEAD"),
        ("/api/fleet/agents/enroll", "POST"),
        ("/api/fleet/agents/a/checkin", "POST"),
        ("/api/fleet/agents/a/acks", "POST"),
        ("/api/fleet/agents/a/audit/unenroll", "POST"),
        ("/api/fleet/artifacts/a/00", "GET, HEAD"),
        ("/api/fleet/uploads", "POST"),
        ("/api/fleet/uploads/u", "POST"),
        ("/api/fleet/uploads/u/0", "PUT"),
        ("/api/fleet/file/f", "GET, HEAD"),
        ("/api/agents/upgrades/9.6.0/pgp-public-key", "GET, HEAD"),
    ] {
        let got = server.get(Ask::new(Method::PATCH, path)).await;
        assert_eq!((got.status, got.header("allow")), (405, allow), "{path}");
    }
}

#[tokio::test]
async fn head_is_answered_like_get() {
    let server = Server::start().await;
    for path in ["/api/status", "/api/fleet/file/f", "/api/agents/upgrades/9.6.0/pgp-public-key", "/nowhere"] {
        let (get, head) = (server.get(Ask::get(path)).await, server.get(Ask::new(Method::HEAD, path)).await);
        assert_eq!(get.status, head.status, "{path}");
    }
    assert_eq!(server.get(Ask::new(Method::HEAD, "/api/fleet/agents/enroll")).await.status, 405);
}

#[tokio::test]
async fn codings_are_case_insensitive_and_unknown_ones_are_415() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let zipped = muster_listen::gzip::deflate(online().to_string().as_bytes());
    for name in ["gzip", "GZIP", "x-gzip", "X-GZip"] {
        let ask = Ask::post(&agent.path("checkin")).key(&agent.token).agent(AGENT);
        server.holds(ask.header("content-encoding", name).body(zipped.clone())).await;
    }
    server.holds(server.check_in(&agent, &online()).header("content-encoding", "identity")).await;
    for name in ["br", "deflate", "zstd", "gzip, gzip"] {
        let got = server.get(server.check_in(&agent, &online()).header("content-encoding", name)).await;
        assert_eq!(got.refusal(), refused(415, "UnsupportedMediaType"), "{name}");
        assert_eq!(got.header("accept-encoding"), "gzip");
    }
    let got = server.get(server.acks(&agent, &json!([])).gzip()).await;
    assert_eq!(got.refusal(), refused(415, "UnsupportedMediaType"), "only check-ins are decoded");
}

#[tokio::test]
async fn ea4_the_request_id_is_echoed_in_every_response() {
    let server = Server::start().await;
    for ask in [Ask::get("/api/status"), Ask::get("/nowhere"), Ask::post("/api/fleet/agents/enroll")] {
        let got = server.get(ask.clone().header("X-Request-ID", "01JDABCDEF")).await;
        assert_eq!(got.header("x-request-id"), "01JDABCDEF", "{ask:?}");
        let made = server.get(ask).await.header("x-request-id").to_owned();
        assert_eq!(made.len(), 36, "{made}");
    }
}

#[tokio::test]
async fn ea5_ea6_ea7_the_version_header_is_checked_and_returned() {
    let server = Server::start().await;
    let ask = |value: &str| Ask::get("/api/status").header("elastic-api-version", value);
    for (ask, status, word) in [
        (Ask::get("/api/status"), 200, ""),
        (ask("2023-06-01"), 200, ""),
        (ask("banana"), 400, "ErrInvalidAPIVersionFormat"),
        (ask("2020-01-01"), 400, "ErrUnsupportedAPIVersion"),
    ] {
        let got = server.get(ask).await;
        assert_eq!((got.status, got.header("elastic-api-version")), (status, "2023-06-01"));
        assert_eq!(got.json()["error"].as_str().unwrap_or_default(), word);
    }
}

#[tokio::test]
async fn ea8_unknown_fields_and_a_missing_content_type_are_accepted() {
    let server = Server::start().await;
    let token = server.enrollment_key("k", None).await;
    let body = json!({"type": "PERMANENT", "shared_id": "x", "new": {"deep": [1]}, "metadata": {"odd": true}});
    let ask = Ask::post("/api/fleet/agents/enroll").key(&token).agent(AGENT).header("kbn-xsrf", "1").json(&body);
    assert_eq!(server.get(ask).await.status, 200);
}

#[tokio::test]
async fn ea9_errors_have_the_same_format_everywhere() {
    let server = Server::start().await;
    for ask in guarded() {
        let got = server.get(ask).await;
        assert_eq!(got.header("content-type"), "application/json; charset=utf-8");
        assert_eq!(got.header("x-content-type-options"), "nosniff");
        let body = got.json();
        assert_eq!((body["statusCode"].as_u64(), body["error"].is_string()), (Some(u64::from(got.status)), true));
    }
}

#[tokio::test]
async fn ea10_ea11_ea12_ea13_each_fault_of_credentials_has_its_error_on_every_endpoint() {
    let server = Server::start().await;
    for ask in guarded() {
        assert_eq!(server.get(ask.clone()).await.refusal(), refused(401, "ErrNoAuthHeader"), "{ask:?}");
        for (header, refusal) in [
            ("Bearer x", refused(400, "ErrMalformedHeader")),
            ("apikey x", refused(400, "ErrMalformedHeader")),
            ("ApiKey %%%", refused(401, "ErrInvalidToken")),
            ("ApiKey //79", refused(401, "ErrInvalidToken")),
            ("ApiKey bm9jb2xvbg==", refused(400, "ErrMalformedToken")),
        ] {
            let got = server.get(ask.clone().header("authorization", header)).await;
            assert_eq!(got.refusal(), refusal, "{header} at {ask:?}");
        }
    }
}

#[tokio::test]
async fn ea14_invalid_keys_get_the_same_401_on_every_endpoint() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let revoked = server.enrollment_key("k", None).await;
    server.revoke_enrollment_key("k").await;
    let other_secret = ApiKey::generate(&*server.entropy).token();
    let real = ApiKey::parse(&agent.token).unwrap();
    use base64::Engine as _;
    let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    let wrong = [
        revoked,
        other_secret,
        encode(format!("{}:", real.id)),
        encode(format!("{}:wrong", real.id)),
        encode(format!("{}\0:x", real.id)),
        encode(format!("{}:x", real.id.as_str().to_uppercase())),
        encode(":".into()),
    ];
    let ids = ["2f8e6c1a-3d10-4f1e-9a55-0d6f2f9a7b11", &agent.id];
    for token in &wrong {
        for id in ids {
            for verb in ["checkin", "acks", "audit/unenroll"] {
                let ask = Ask::post(&format!("/api/fleet/agents/{id}/{verb}")).key(token).agent(AGENT).json(&online());
                let got = server.get(ask).await;
                assert_eq!(
                    (got.refusal(), got.json()["message"].as_str()),
                    (refused(401, "ErrUnauthorized"), Some("unauthorized"))
                );
            }
        }
        for ask in guarded() {
            let got = server.get(ask.clone().key(token).agent(AGENT)).await;
            assert_eq!(got.refusal(), refused(401, "ErrUnauthorized"), "{ask:?}");
        }
    }
}

#[tokio::test]
async fn ea18_d2_without_a_store_every_endpoint_returns_503_with_retry_after() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let strange = server.enrollment_key("k", None).await;
    server.store.gate().set(true);
    for ask in guarded() {
        let got = server.get(ask.clone().key(&strange).agent(AGENT).header("x-chunk-sha2", "0".repeat(64))).await;
        assert_eq!(got.refusal(), refused(503, "ServiceUnavailable"), "{ask:?}");
        assert_eq!(got.header("retry-after"), "10");
        assert!(!String::from_utf8_lossy(&got.body).contains("/secret/path"));
    }
    // Cached data can still be read. Nothing is acknowledged that can't be written.
    let ask = server.check_in(&agent, &json!({"status": "online", "local_metadata": {"host": {}}}));
    assert_eq!(server.get(ask.clone()).await.refusal(), refused(503, "ServiceUnavailable"));
    server.store.gate().set(false);
    server.holds(ask).await;
}

#[tokio::test]
async fn ea21_etags_are_ignored() {
    let server = Server::start().await;
    let policy = server.policy("p").await;
    let token = server.enrollment_key("k", Some(&policy)).await;
    let agent = server.enroll_with(&token, &json!({"type": "PERMANENT"})).await;
    let got = server.get(server.check_in(&agent, &online()).header("if-none-match", "*")).await;
    assert_eq!((got.status, got.headers.contains_key("etag")), (200, false));
}

#[tokio::test]
async fn ea54_a_key_on_another_agents_path_is_403_and_audited() {
    let server = Server::start().await;
    let (a, b) = (server.enrolled().await, server.enrolled().await);
    let before = server.stored(&b.id).await;
    let odd = ["2f8e6c1a-0000-4000-8000-000000000000", "..%2f..%2fetc", "%00", "a%0d%0ab", "%1b%5b31m", "enroll"];
    let long = "x".repeat(4096);
    for id in odd.into_iter().chain([b.id.as_str(), &long]) {
        for verb in ["checkin", "acks", "audit/unenroll"] {
            let ask = Ask::post(&format!("/api/fleet/agents/{id}/{verb}")).key(&a.token).agent(AGENT).json(&online());
            assert_eq!(server.get(ask).await.refusal(), refused(403, "ErrAgentIdentity"), "{id}/{verb}");
        }
    }
    assert_eq!(server.stored(&b.id).await, before);
    let events = server.fleet.store().audit_events(0, 1000).await.unwrap();
    let lines = events.iter().filter(|(_, json, _)| json.contains("agent.identity_mismatch")).count();
    assert!(lines >= 1, "{events:?}");
    assert!(events.iter().all(|(_, json, _)| !json.contains('\u{1b}') && !json.contains("\\u001b")));
}
