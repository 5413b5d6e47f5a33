//! Secrets and node keys.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::credential::ApiKey;
use muster_core::enrollment_key::KeyFamily;
use muster_core::id::SpaceId;
use muster_fleet::force::Force;
use muster_fleet::keys::NewEnrollmentKey;
use muster_fleet::selection::Selected;
use muster_listen::reply::{ListenerKind, Peer};
use serde_json::{Value, json};

use crate::setting::{Server, UUID, agent_id, orbit_enroll, osquery_enroll};

const CALLS: [&str; 4] = ["config", "distributed/read", "distributed/write", "log"];

/// All calls of orbit with a key.
const ORBIT_CALLS: [&str; 9] = [
    "config",
    "device_token",
    "scripts/request",
    "scripts/result",
    "software_install/details",
    "software_install/package?alt=media",
    "software_install/result",
    "disk_encryption_key",
    "luks_data",
];

#[tokio::test]
async fn fl1_fl3_an_unknown_secret_is_refused_on_both_prefixes() {
    let server = Server::start().await;
    for prefix in ["/api/osquery/enroll", "/api/v1/osquery/enroll"] {
        for secret in ["", "wrong"] {
            let got = server.post(prefix, &osquery_enroll(secret, UUID)).await;
            let body = got.json();
            assert_eq!((got.status, &body["node_invalid"], body["error"].is_string()), (401, &json!(true), true));
        }
    }
    let got = server.orbit("enroll", &orbit_enroll("wrong", UUID)).await;
    assert_eq!(got.status, 401);
    assert!(got.json().get("node_invalid").is_none());
}

#[tokio::test]
async fn fl5_fl53_fl54_only_the_live_node_key_of_the_family_is_accepted() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (osquery, orbit) = (server.osquery_key(&secret, UUID).await, server.orbit_key(&secret, UUID).await);
    for call in CALLS {
        for key in ["", "wrong", &orbit, &secret, &"x".repeat(5000)] {
            let got = server.osquery(call, &json!({"node_key": key, "log_type": "status"})).await;
            assert_eq!((got.status, &got.json()["node_invalid"]), (401, &json!(true)), "{call} {key}");
        }
        assert_eq!(server.osquery(call, &json!({})).await.json()["node_invalid"], true);
    }
    for call in ORBIT_CALLS {
        for key in ["", "wrong", &osquery, &secret] {
            let got = server.orbit(call, &json!({"orbit_node_key": key, "device_auth_token": "t"})).await;
            assert_eq!((got.status, got.json().get("node_invalid")), (401, None::<&Value>), "{call}");
        }
        assert_eq!(server.orbit(call, &json!({})).await.status, 401, "{call} without a key");
    }
}

#[tokio::test]
async fn fl41_the_key_may_be_in_the_header_but_not_another_one_in_the_body() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (key, other) = (server.osquery_key(&secret, UUID).await, server.osquery_key(&secret, "other").await);
    let config = async |header: String, body: Value| {
        let headers = [("authorization", header.as_str())];
        server.raw(Method::POST, "/api/osquery/config", &headers, body.to_string()).await.status
    };
    assert_eq!(config(format!("NodeKey {key}"), json!({})).await, 200);
    assert_eq!(config(format!("nodekey {key}"), json!({"node_key": key})).await, 200);
    assert_eq!(config(format!("NodeKey {key}"), json!({"node_key": other})).await, 401);
    assert_eq!(config("NodeKey wrong".into(), json!({})).await, 401);
    assert_eq!(config(format!("Bearer {key}"), json!({})).await, 401);
}

#[tokio::test]
async fn m26_fl78_a_revoked_secret_admits_nobody_and_enrolled_hosts_stay() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let record = server.record(Family::Osquery, UUID).await.unwrap();
    let context = OpContext::administrator(Actor::System);
    let id = record.enrollment_key_id.unwrap();
    let found = server.fleet.enrollment_keys().find(&context, id.as_str()).await.unwrap();
    server.fleet.enrollment_keys().revoke(&found).await.unwrap();
    assert_eq!(server.osquery("enroll", &osquery_enroll(&secret, "new")).await.status, 401);
    assert_eq!(server.osquery("config", &json!({"node_key": key})).await.status, 200);
    // Installers may contain it: the same value can be created again, but only where it was.
    let again = NewEnrollmentKey {
        family: KeyFamily::Fleetd,
        secret: Some(secret.clone().into()),
        ..NewEnrollmentKey::default()
    };
    let elsewhere = context.clone().in_space(SpaceId::trusted("red"));
    let taken = server.fleet.enrollment_keys().create(&elsewhere.grant().unwrap(), &again).await.unwrap_err();
    assert_eq!(taken.code, "secret_taken");
    server.fleet.enrollment_keys().create(&context.grant().unwrap(), &again).await.unwrap();
    assert_eq!(server.osquery("enroll", &osquery_enroll(&secret, "new")).await.status, 200);
    let old = server.store().enrollment_key(&id).await.unwrap().unwrap();
    assert!(old.revoked_at.is_some() && old.uses == 1, "the former record stays for the agents that enrolled with it");
    let taken = server.fleet.enrollment_keys().create(&context.grant().unwrap(), &again).await.unwrap_err();
    assert_eq!(taken.code, "secret_taken", "in use");
}

#[tokio::test]
async fn an_unenrolled_hosts_keys_are_refused_at_once() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (osquery, orbit) = (server.osquery_key(&secret, UUID).await, server.orbit_key(&secret, UUID).await);
    for family in [Family::Osquery, Family::Orbit] {
        let selected = Selected::one(agent_id(family, UUID).as_str()).expect("an id");
        let context = OpContext::administrator(Actor::System);
        let selection = server.fleet.agents().select(&context, &selected).await.expect("there");
        server.fleet.actions().force_unenroll(&selection, Force::No).await.expect("revoked");
    }
    assert_eq!(server.osquery("config", &json!({"node_key": osquery})).await.json()["node_invalid"], true);
    assert_eq!(server.orbit("config", &json!({"orbit_node_key": orbit})).await.status, 401);
    let again = server.osquery_key(&secret, UUID).await;
    assert_eq!(server.osquery("config", &json!({"node_key": again})).await.status, 200, "it can enroll again");
}

#[tokio::test]
async fn fl7_fl168_while_the_store_fails_no_agent_is_told_to_discard_its_key() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (osquery, orbit) = (server.osquery_key(&secret, UUID).await, server.orbit_key(&secret, UUID).await);
    server.fleet.lose_lease();
    server.switch_off(true);
    for call in CALLS {
        for key in [osquery.as_str(), "unknown"] {
            let got = server.osquery(call, &json!({"node_key": key, "log_type": "status"})).await;
            let body = got.json();
            assert_eq!((got.status, body["error"].is_string(), body.get("node_invalid")), (503, true, None), "{call}");
            assert!(!got.text.contains("/secret/path"));
        }
    }
    let got = server.osquery("enroll", &osquery_enroll(&secret, "new")).await;
    assert_eq!((got.status, got.json().get("node_invalid")), (503, None));
    for (call, body) in [("enroll", orbit_enroll(&secret, "new")), ("config", json!({"orbit_node_key": orbit}))] {
        assert_eq!(server.orbit(call, &body).await.status, 503, "{call}");
    }
    server.switch_off(false);
    assert_eq!(server.osquery("config", &json!({"node_key": osquery})).await.status, 200);
}

#[tokio::test]
async fn fl44_fl46_ping_needs_no_key_and_names_the_capabilities() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let ping = server.raw(Method::HEAD, "/api/fleet/orbit/ping", &[], "").await;
    let enroll = server.orbit("enroll", &orbit_enroll(&secret, UUID)).await;
    for got in [&ping, &enroll] {
        assert_eq!(got.status, 200);
        let named = got.headers["x-fleet-capabilities"].to_str().unwrap();
        assert!(named.contains("orbit_endpoints") && named.contains("token_rotation"));
    }
}

#[tokio::test]
async fn fl55_orbits_configuration_has_notifications_and_no_null() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.orbit_key(&secret, UUID).await;
    let got = server.orbit("config", &json!({"orbit_node_key": key})).await;
    assert!(got.json()["notifications"].is_object() && !got.text.contains("null"));
}

#[tokio::test]
async fn fl58_device_tokens_are_checked_and_belong_to_one_host() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (one, other) = (server.orbit_key(&secret, UUID).await, server.orbit_key(&secret, "other").await);
    let announce = async |key: &str, token: &str| {
        let got = server.orbit("device_token", &json!({"orbit_node_key": key, "device_auth_token": token})).await;
        assert!(!got.text.is_empty() && !got.text.contains(token) || token.is_empty());
        got.status
    };
    assert_eq!(announce(&one, "").await, 400);
    assert_eq!(announce(&one, "a/b").await, 400);
    assert_eq!(announce(&one, "0b1c6b7e-4b39").await, 400, "too short");
    let token = "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60";
    let got = server.orbit("device_token", &json!({"orbit_node_key": one, "device_auth_token": token})).await;
    assert_eq!((got.status, got.text.as_str()), (200, "{}"));
    let ping = server.raw(Method::GET, &format!("/api/latest/fleet/device/{token}/ping"), &[], "").await;
    assert_eq!(ping.status, 200, "it works at once");
    let commits = server.commits();
    assert_eq!(announce(&one, "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60").await, 200);
    assert_eq!(server.commits(), commits, "the same token is no news");
    assert_eq!(announce(&other, "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60").await, 409);
    for n in 0..12 {
        assert_eq!(
            announce(&one, &format!("0b1c6b7e-4b39-4b0e-9a7d-token{n:07}")).await,
            200,
            "rotation never runs out of room"
        );
    }
    let credentials = server.store().agent_credentials(&agent_id(Family::Orbit, UUID)).await.unwrap();
    assert!(credentials.len() <= 3, "tokens that ended leave nothing: {}", credentials.len());
}

#[tokio::test]
async fn fl54_a_device_token_is_no_node_key_and_no_secret_of_fleetd_is_an_access_key() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (osquery, orbit) = (server.osquery_key(&secret, UUID).await, server.orbit_key(&secret, UUID).await);
    let token = "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60";
    server.orbit("device_token", &json!({"orbit_node_key": orbit, "device_auth_token": token})).await;
    assert_eq!(server.orbit("config", &json!({"orbit_node_key": token})).await.status, 401);
    assert_eq!(server.osquery("config", &json!({"node_key": token})).await.status, 401);
    for (family, key) in [(Family::Orbit, token), (Family::Orbit, &orbit), (Family::Osquery, &osquery)] {
        let (id, key) = (agent_id(family, UUID), ApiKey::opaque(key));
        assert!(server.fleet.authentication().agent(id.as_str(), &key).await.is_err(), "{family:?}");
        assert!(server.fleet.authentication().any_agent(&key).await.is_err(), "{family:?}");
    }
    let secret = ApiKey::opaque(&secret);
    assert!(server.fleet.enrollment().authenticate(&secret).await.is_err());
    assert!(!server.fleet.authentication().any_key(&secret).await.expect("a store"));
}

#[tokio::test]
async fn only_a_valid_key_authenticates_a_connection() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.orbit_key(&secret, UUID).await;
    let authenticated = async |path: &str, body: Value| {
        let peer = Peer::new(ListenerKind::Agent);
        let request = Request::post(path).body(Full::new(Bytes::from(body.to_string()))).unwrap();
        server.api.handle(request, peer.clone()).await;
        peer.is_authenticated()
    };
    assert!(!authenticated("/api/fleet/orbit/ping", json!({})).await);
    assert!(!authenticated("/api/fleet/orbit/config", json!({"orbit_node_key": "wrong"})).await);
    assert!(authenticated("/api/fleet/orbit/config", json!({"orbit_node_key": key})).await);
}

#[tokio::test]
async fn an_address_that_guesses_enroll_secrets_is_refused_for_a_while() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let wrong = osquery_enroll("not a secret of this server", UUID);
    for _ in 0..1000 {
        assert_eq!(server.osquery("enroll", &wrong).await.status, 401);
    }
    let refused = server.osquery("enroll", &osquery_enroll(&secret, UUID)).await;
    assert_eq!((refused.status, &refused.headers["retry-after"]), (429, &"60".parse().unwrap()));
    assert!(refused.json()["error"].is_string());
    let orbit = server.orbit("enroll", &orbit_enroll(&secret, UUID)).await;
    assert_eq!(orbit.status, 429);
    let told = server.events("agent.secret_guessing").await;
    assert_eq!((told.len(), &told[0]["detail"]["secret"]), (1, &json!("enroll_secret")), "{told:?}");
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(server.osquery("enroll", &osquery_enroll(&secret, UUID)).await.status, 200);
}

#[tokio::test]
async fn an_enrollment_that_replaces_the_key_of_the_same_host_is_no_other_use_of_the_secret() {
    let server = Server::start().await;
    let secret = server.secret().await;
    for _ in 0..3 {
        server.orbit_key(&secret, UUID).await;
        server.osquery_key(&secret, UUID).await;
    }
    let record = server.record(Family::Osquery, UUID).await.expect("enrolled");
    let key = record.enrollment_key_id.expect("a key");
    let key = server.store().enrollment_key(&key).await.unwrap().expect("a key");
    assert_eq!(key.uses, 2, "orbit and osqueryd");
}
