//! Disk keys that orbit reports.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::disk_key::{ASK_AGAIN, AgentDiskKey, MAX_ASKED};
use serde_json::{Value, json};

use crate::setting::{Server, UUID};

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

async fn server() -> (Server, String, String) {
    let server = Server::start().await;
    let key = server.orbit_key(&server.secret().await, UUID).await;
    server.orbit("config", &json!({"orbit_node_key": key})).await;
    let record = server.record(Family::Orbit, UUID).await.expect("as expected");
    let host = record.host_id.expect("as expected").to_string();
    (server, key, host)
}

async fn stored(server: &Server, host: &str) -> AgentDiskKey {
    server.fleet.disk_keys().find(&root(), host).await.expect("as expected").into_inner()
}

async fn revealed(server: &Server, host: &str) -> String {
    let found = server.fleet.disk_keys().find(&root(), host).await.expect("as expected");
    server.fleet.disk_keys().reveal(&found).await.expect("as expected").key.clone()
}

#[tokio::test]
async fn fl64_an_error_of_the_host_keeps_the_key() {
    let (server, key, host) = server().await;
    let send = async |members: Value| {
        let mut body = members;
        body["orbit_node_key"] = json!(key);
        let got = server.orbit("disk_encryption_key", &body).await;
        (got.status, got.text)
    };
    let secret = "123456-654321";
    assert_eq!(
        send(json!({"encryption_key": STANDARD.encode(secret), "client_error": ""})).await,
        (204, String::new())
    );
    assert_eq!(revealed(&server, &host).await, secret);
    let sealed = stored(&server, &host).await.key.sealed.expect("as expected");
    assert!(!sealed.windows(6).any(|part| part == b"123456"), "encrypted at rest");
    assert_eq!(send(json!({"encryption_key": null, "client_error": "no TPM"})).await.0, 204);
    let after = stored(&server, &host).await.key;
    assert_eq!((after.error.as_deref(), revealed(&server, &host).await.as_str()), (Some("no TPM"), secret));
    for bad in [json!({}), json!({"encryption_key": "%"}), json!({"encryption_key": STANDARD.encode([0xff])})] {
        assert_eq!(send(bad).await.0, 400);
    }
    assert_eq!(send(json!({"encryption_key": STANDARD.encode("new")})).await.0, 204);
    let after = stored(&server, &host).await.key;
    assert_eq!((after.error, revealed(&server, &host).await.as_str()), (None, "new"));
    let refused = server.orbit("disk_encryption_key", &json!({"orbit_node_key": "x", "encryption_key": ""})).await;
    assert_eq!(refused.status, 401, "FL53");
}

#[tokio::test]
async fn fl56_a_host_is_told_to_ask_for_the_passphrase_until_it_answers() {
    let (server, key, host) = server().await;
    let config = async || server.orbit("config", &json!({"orbit_node_key": key})).await.json()["notifications"].clone();
    let found = server.fleet.disk_keys().find(&root(), &host).await.expect("as expected");
    assert!(server.fleet.disk_keys().reveal(&found).await.is_err(), "none was reported");
    server.fleet.disk_keys().escrow(&found).await.expect("as expected");
    let told = json!({"run_disk_encryption_escrow": true});
    assert_eq!(config().await, told);
    assert_eq!(config().await, json!({}), "its user is being asked");
    let (reads, commits) = (server.reads(), server.commits());
    assert_eq!(config().await, json!({}));
    assert_eq!((server.reads(), server.commits()), (reads, commits), "a configuration without work reads nothing");
    // The response did not reach the host, or its user has closed the dialog.
    for _ in 1..MAX_ASKED {
        server.clock.advance(ASK_AGAIN);
        assert_eq!(config().await, told, "again");
        assert_eq!(config().await, json!({}));
    }
    server.clock.advance(ASK_AGAIN);
    assert_eq!(config().await, json!({}), "the user has not answered {MAX_ASKED} times");
    let request = stored(&server, &host).await.key.escrow.expect("as expected");
    assert!(request.is_given_up() && request.asked == MAX_ASKED);

    server.fleet.disk_keys().escrow(&found).await.expect("as expected");
    assert_eq!(config().await, told, "somebody asks again");
    let body = json!({"orbit_node_key": key, "passphrase": "correct horse", "salt": "s", "key_slot": 1});
    assert_eq!(server.orbit("luks_data", &body).await.status, 204);
    server.clock.advance(ASK_AGAIN);
    assert_eq!(config().await, json!({}), "it has answered");
    let found = server.fleet.disk_keys().find(&root(), &host).await.expect("as expected");
    let secret = server.fleet.disk_keys().reveal(&found).await.expect("as expected");
    assert_eq!((secret.key.as_str(), secret.salt.as_deref(), secret.key_slot), ("correct horse", Some("s"), Some(1)));
    let error = json!({"orbit_node_key": key, "client_error": "the user declined"});
    assert_eq!(server.orbit("luks_data", &error).await.status, 204);
    let nothing = server.orbit("luks_data", &json!({"orbit_node_key": error["orbit_node_key"]})).await;
    assert!(nothing.status == 400 && nothing.text.contains("passphrase"), "{nothing:?}");
    assert_eq!(revealed(&server, &host).await, "correct horse");
}

#[tokio::test]
async fn fl56_another_server_tells_a_host_again_that_did_not_get_the_request() {
    let (server, key, host) = server().await;
    let config = async |server: &Server| {
        server.orbit("config", &json!({"orbit_node_key": key})).await.json()["notifications"].clone()
    };
    let other = server.restarted();
    assert_eq!(config(&other).await, json!({}));
    let found = server.fleet.disk_keys().find(&root(), &host).await.expect("as expected");
    server.fleet.disk_keys().escrow(&found).await.expect("as expected");
    let told = json!({"run_disk_encryption_escrow": true});
    assert_eq!(config(&server).await, told);
    assert_eq!(config(&other).await, json!({}), "its user is being asked");
    other.clock.advance(ASK_AGAIN);
    let end = Instant::now() + Duration::from_secs(10);
    while config(&other).await != told {
        assert!(Instant::now() < end, "the other server has not learned of the request");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
