//! `GET /api/status` (EA §2).

use std::time::Duration;

use muster_fleet::health::ServerState;
use muster_store::{SettingWrite, Write};
use serde_json::json;

use crate::setting::{Ask, Server};

const PATH: &str = "/api/status";

#[tokio::test]
async fn ea22_ea23_status_needs_no_key_and_only_a_healthy_server_returns_200() {
    let server = Server::start().await;
    for (state, status, word) in [
        (ServerState::Healthy, 200, "HEALTHY"),
        (ServerState::Starting, 503, "STARTING"),
        (ServerState::Degraded, 503, "DEGRADED"),
        (ServerState::Stopping, 503, "STOPPING"),
    ] {
        server.options.health.set(state);
        let got = server.get(Ask::get(PATH)).await;
        assert_eq!((got.status, got.json()), (status, json!({"name": "fleet-server", "status": word})));
        assert_eq!(got.header("content-type"), "application/json");
    }
}

#[tokio::test]
async fn ea24_the_version_is_reported_to_valid_keys_only() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let enrollment = server.enrollment_key("k", None).await;
    for token in [&agent.token, &enrollment] {
        let got = server.get(Ask::get(PATH).key(token)).await;
        assert_eq!((got.status, got.json()["version"]["number"].as_str()), (200, Some(env!("CARGO_PKG_VERSION"))));
    }
    server.revoke_enrollment_key("k").await;
    let got = server.get(Ask::get(PATH).key(&enrollment)).await;
    assert_eq!((got.status, got.json().get("version")), (200, None));
}

#[tokio::test]
async fn ea25_an_invalid_key_gets_the_short_response() {
    let server = Server::start().await;
    for header in ["ApiKey eDp5", "Bearer x", "ApiKey %%%", "ApiKey bm9jb2xvbg=="] {
        let got = server.get(Ask::get(PATH).header("authorization", header)).await;
        assert_eq!((got.status, got.json()), (200, json!({"name": "fleet-server", "status": "HEALTHY"})), "{header}");
    }
}

#[tokio::test]
async fn ea26_status_is_returned_without_a_store() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    server.store.gate().set(true);
    let answering = server.get(Ask::get(PATH).key(&agent.token));
    let got = tokio::time::timeout(Duration::from_secs(5), answering).await.expect("in time");
    assert_eq!((got.status, got.json().get("version")), (200, None));
}

#[tokio::test]
async fn a_store_without_writes_is_reported_until_a_write_succeeds() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let word = async || {
        let got = server.get(Ask::get(PATH).key(&agent.token)).await;
        assert!(got.json().get("version").is_some(), "it still reads");
        (got.status, got.json()["status"].as_str().unwrap().to_owned())
    };
    server.store.gate().set_read_only(true);
    assert_eq!(word().await, (200, "HEALTHY".into()), "nobody has written yet");
    let put = Write::Setting(SettingWrite::Put { name: "a".into(), value: "b".into() });
    server.fleet.commit(vec![put]).await.unwrap_err();
    assert_eq!(word().await, (503, "DEGRADED".into()));
    server.store.gate().set_read_only(false);
    assert_eq!(word().await, (503, "DEGRADED".into()), "until a write went through");
    server.enrollment_key("k", None).await;
    assert_eq!(word().await, (200, "HEALTHY".into()));
}
