//! The configuration of hosts.

use std::time::Duration;

use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::id::SpaceId;
use muster_core::status::Status;
use serde_json::{Value, json};

use crate::setting::{Server, UUID, osquery_enroll};

fn administrator(space: &str) -> OpContext {
    OpContext::administrator(Actor::System).in_space(SpaceId::trusted(space))
}

async fn set(server: &Server, space: &str, options: Option<&str>) {
    let grant = administrator(space).grant().expect("an administrator");
    server.fleet.fleetd_options().update(&grant, options.map(str::to_owned), None).await.expect("valid options");
}

async fn config(server: &Server, key: &str) -> Value {
    let got = server.osquery("config", &json!({"node_key": key})).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()
}

/// Enrolls a host of a platform; returns its key.
async fn host(server: &Server, secret: &str, platform: &str) -> String {
    let mut body = osquery_enroll(secret, platform);
    body["host_details"]["os_version"] = json!({"name": platform, "version": "1", "platform": platform});
    server.osquery("enroll", &body).await.json()["node_key"].as_str().expect("a key").to_owned()
}

#[tokio::test]
async fn m35_fl14_fl18_fl170_the_next_request_after_a_change_gets_the_new_configuration_of_its_platform() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let linux = server.osquery_key(&secret, UUID).await;
    let darwin = host(&server, &secret, "darwin").await;
    let before = server.osquery("config", &json!({"node_key": linux, "etag": ""})).await.json();
    assert_eq!(before["options"]["distributed_interval"], 10, "the default");
    set(
        &server,
        "default",
        Some("config: {options: {logger_tls_period: 7}}\noverrides: {platforms: {darwin: {schedule: {}}}}\n"),
    )
    .await;
    assert_eq!(config(&server, &linux).await, json!({"options": {"logger_tls_period": 7}}));
    assert_eq!(config(&server, &darwin).await, json!({"schedule": {}}), "an override replaces the whole");
    let after = server.osquery("config", &json!({"node_key": linux, "etag": before["etag"]})).await.json();
    assert!(after["etag"].is_string() && after["etag"] != before["etag"], "FL169");
    set(&server, "default", Some("config: null")).await;
    assert_eq!(config(&server, &linux).await, json!({}));
    let with = server.osquery("config", &json!({"node_key": linux, "etag": ""})).await.json();
    assert_eq!(with.as_object().expect("an object").len(), 1, "{with}");
    set(&server, "default", None).await;
    assert_eq!(config(&server, &linux).await["options"]["distributed_interval"], 10);
}

#[tokio::test]
async fn fl19_a_host_with_long_intervals_is_online_until_its_next_request_is_late() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    let record = async || {
        server.fleet.statuses().transition_due().await.expect("evaluated");
        server.record(Family::Osquery, UUID).await.expect("an agent")
    };
    config(&server, &key).await;
    let commits = server.commits();
    config(&server, &key).await;
    assert_eq!((server.commits(), record().await.contact_interval), (commits, 0), "usual intervals are not written");
    set(&server, "default", Some("config: {options: {distributed_interval: 900, config_refresh: 1200}}")).await;
    config(&server, &key).await;
    assert_eq!(record().await.contact_interval, 900);
    let commits = server.commits();
    let etag = server.osquery("config", &json!({"node_key": key, "etag": ""})).await.json()["etag"].clone();
    assert_eq!(server.osquery("config", &json!({"node_key": key, "etag": etag})).await.text, r#"{"etag":"ok"}"#);
    assert_eq!(server.commits(), commits, "written once");
    server.clock.advance(Duration::from_secs(960));
    assert_eq!(record().await.status, Status::Online);
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(record().await.status, Status::Offline);
    set(&server, "default", None).await;
    config(&server, &key).await;
    let back = record().await;
    assert_eq!((back.status, back.contact_interval), (Status::Online, 0));
    server.clock.advance(Duration::from_secs(301));
    assert_eq!(record().await.status, Status::Offline);
}

#[tokio::test]
async fn fl15_fl16_scheduled_queries_reach_the_hosts_of_their_space_with_their_platform() {
    let server = Server::start().await;
    let (secret, other) = (server.secret().await, server.secret_in("other").await);
    let (own, elsewhere) = (server.osquery_key(&secret, UUID).await, host(&server, &other, "ubuntu").await);
    let options = "config:\n  packs:\n    team-other:\n      queries:\n        users:\n          query: SELECT * FROM users\n          interval: 60\n          platform: windows\n";
    set(&server, "other", Some(options)).await;
    let query = &config(&server, &elsewhere).await["packs"]["team-other"]["queries"]["users"];
    assert_eq!(query, &json!({"query": "SELECT * FROM users", "interval": 60, "platform": "windows"}));
    assert_eq!(config(&server, &own).await["packs"], json!({}));
}

#[tokio::test]
async fn a_cached_configuration_needs_no_store_and_a_change_by_another_server_is_seen() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    server.osquery("distributed/write", &crate::setting::details(&key, "web-7")).await;
    config(&server, &key).await;
    let commits = server.commits();
    server.switch_off(true);
    config(&server, &key).await;
    server.switch_off(false);
    assert_eq!(server.commits(), commits);
    let other = server.beside();
    let grant = administrator("default").grant().expect("an administrator");
    let options = Some("config: {options: {a: 1}}".to_owned());
    other.fleet.fleetd_options().update(&grant, options, Some(0)).await.expect("valid options");
    for _ in 0..500 {
        if config(&server, &key).await["options"]["a"] == json!(1) {
            let error = other.fleet.fleetd_options().update(&grant, None, Some(0)).await.expect_err("an old version");
            return assert_eq!(error.code, "fleetd_options_changed");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the change did not arrive");
}
