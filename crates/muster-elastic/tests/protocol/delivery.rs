//! Responses to check-ins (EA §4.9–§4.13).

use std::time::Duration;

use muster_core::action::ActionType;
use muster_elastic::limits::Operation;
use muster_listen::gzip::inflate;
use serde_json::{Value, json};

use crate::setting::{Got, Server, online};

/// The response without signatures, which differ each time.
fn unsigned(reply: &[u8]) -> Value {
    let mut reply: Value = serde_json::from_slice(reply).expect("JSON");
    for action in reply["actions"].as_array_mut().into_iter().flatten() {
        action.as_object_mut().expect("an action").remove("signed");
    }
    reply
}

const NOTHING: &[u8] = br#"{"action":"checkin","ack_token":""}"#;

#[tokio::test(start_paused = true)]
async fn ea67_ea86_a_poll_is_parked_for_five_minutes_and_returns_no_actions() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let parked = server.park(server.check_in(&agent, &online()).header("x-request-id", "held-1")).await;
    let begun = tokio::time::Instant::now();
    let got = Got::of(parked.await).await;
    assert_eq!(begun.elapsed().as_secs(), 300);
    assert_eq!((got.status, got.body.as_slice()), (200, NOTHING));
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!((got.header("x-request-id"), got.header("elastic-api-version")), ("held-1", "2023-06-01"));
}

#[tokio::test(start_paused = true)]
async fn ea68_the_client_may_request_another_poll_timeout() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    for (asked, seconds) in [("10m", 480), ("30s", 60), ("48h", 3600)] {
        let parked = server.park(server.check_in(&agent, &json!({"status": "online", "poll_timeout": asked}))).await;
        let begun = tokio::time::Instant::now();
        Got::of(parked.await).await;
        assert_eq!(begun.elapsed().as_secs(), seconds, "{asked}");
    }
}

#[tokio::test]
async fn ea69_ea75_ea78_ea79_ea82_ea145_pending_actions_are_delivered_with_all_fields() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    server.add_action("first", ActionType::Settings, &agent.id, r#"{"log_level":"debug"}"#).await;
    server.add_action("second", ActionType::Unenroll, &agent.id, "").await;
    let got = server.get(server.check_in(&agent, &online())).await;
    let reply = got.json();
    assert_eq!((&reply["action"], &reply["ack_token"]), (&json!("checkin"), &json!("second")));
    let actions = reply["actions"].as_array().unwrap();
    assert_eq!(actions.len(), 2);
    assert_eq!(actions[0]["id"], "first");
    assert_eq!(actions[0]["data"], json!({"log_level": "debug"}));
    for (action, kind) in actions.iter().zip(["SETTINGS", "UNENROLL"]) {
        assert_eq!((&action["agent_id"], &action["type"]), (&json!(agent.id), &json!(kind)));
        assert_eq!(action["input_type"], "");
        assert!(action["created_at"].is_string() && action.get("data").is_some());
    }
    assert_eq!(actions[1]["data"], Value::Null);
}

#[tokio::test]
async fn ea70_ea72_a_new_action_wakes_a_held_poll() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let parked = server.park(server.check_in(&agent, &online())).await;
    server.add_action("now", ActionType::Settings, &agent.id, r#"{"log_level":"info"}"#).await;
    let got = tokio::time::timeout(Duration::from_secs(2), parked).await.expect("woken");
    assert_eq!(Got::of(got).await.json()["ack_token"], "now");
}

#[tokio::test]
async fn ea71_ea88_ea89_ea94_ea95_a_new_revision_wakes_a_held_poll() {
    let server = Server::start().await;
    let policy = server.policy("p").await;
    let token = server.enrollment_key("k", Some(&policy)).await;
    let agent = server.enroll_with(&token, &json!({"type": "PERMANENT"})).await;
    let got = server.get(server.check_in(&agent, &online())).await.json();
    assert_eq!((got["ack_token"].as_str(), got["actions"].as_array().map(Vec::len)), (Some(""), Some(1)));
    assert_eq!((&got["actions"][0]["id"], &got["actions"][0]["type"]), (&json!("policy:p:1"), &json!("POLICY_CHANGE")));
    assert_eq!(got["actions"][0]["agent_id"], json!(agent.id));
    let running = json!({"status": "online", "agent_policy_id": "p", "policy_revision_idx": 1});
    let parked = server.park(server.check_in(&agent, &running)).await;
    server.revision_with(&policy, 2, json!({"id": "p", "revision": 2, "outputs": {}, "inputs": []})).await;
    let woken = tokio::time::timeout(Duration::from_secs(2), parked).await.expect("woken");
    assert_eq!(Got::of(woken).await.json()["actions"][0]["id"], "policy:p:2");
}

#[tokio::test]
async fn ea73_ea74_d15_actions_confirmed_by_the_token_are_not_delivered_again() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    server.add_action("a", ActionType::Settings, &agent.id, r#"{"log_level":"info"}"#).await;
    let with = |token: &str| json!({"status": "online", "ack_token": token});
    let delivered = server.get(server.check_in(&agent, &online())).await.json();
    for unknown in ["", "never-heard-of", "../..", "\u{1b}[31m"] {
        let again = server.get(server.check_in(&agent, &with(unknown))).await.json();
        assert_eq!(again["actions"], delivered["actions"], "{unknown:?}");
    }
    server.holds(server.check_in(&agent, &with("a"))).await;
    // The position is kept, whatever token follows.
    server.holds(server.check_in(&agent, &with(""))).await;
}

#[tokio::test]
async fn ea85_d7_large_responses_are_compressed_if_accepted() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    server.add_action("short", ActionType::Settings, &agent.id, r#"{"log_level":"info"}"#).await;
    let got = server.get(server.check_in(&agent, &online()).header("accept-encoding", "gzip")).await;
    assert_eq!(got.header("content-encoding"), "");
    let uri = "https://example.invalid/".to_owned() + &"x".repeat(2000);
    let data = json!({"version": "9.6.0", "source_uri": uri}).to_string();
    server.add_action("long", ActionType::Upgrade, &agent.id, &data).await;
    let plain = server.get(server.check_in(&agent, &online())).await;
    assert!(plain.header("content-encoding").is_empty() && plain.body.len() > 1024);
    for takes in ["gzip", "deflate, gzip;q=0.5"] {
        let got = server.get(server.check_in(&agent, &online()).header("accept-encoding", takes)).await;
        assert_eq!((got.status, got.header("content-encoding")), (200, "gzip"), "{takes}");
        let text = inflate(&got.body, 1 << 20).expect("gzip");
        assert_eq!(unsigned(&text), unsigned(&plain.body));
    }
    let got = server.get(server.check_in(&agent, &online()).header("accept-encoding", "gzip;q=0")).await;
    assert_eq!(got.header("content-encoding"), "");
}

#[tokio::test]
async fn ea85_a_large_policy_is_compressed() {
    let server = Server::start().await;
    let inputs = json!([{"id": "x".repeat(4000), "type": "log"}]);
    for (id, inputs, encoding) in [("small", json!([]), ""), ("large", inputs, "gzip")] {
        let policy = server.policy_with(id, json!({"id": id, "revision": 1, "outputs": {}, "inputs": inputs})).await;
        let token = server.enrollment_key(id, Some(&policy)).await;
        let agent = server.enroll_with(&token, &json!({"type": "PERMANENT"})).await;
        let got = server.get(server.check_in(&agent, &online()).header("accept-encoding", "gzip")).await;
        assert_eq!(got.header("content-encoding"), encoding, "{id}");
        let body = if encoding.is_empty() { got.body } else { inflate(&got.body, 1 << 20).unwrap() };
        let reply: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(reply["actions"][0]["agent_id"], json!(agent.id));
    }
}

#[tokio::test]
async fn ea87_shutdown_releases_every_poll_with_200() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let parked = server.park(server.check_in(&agent, &online())).await;
    server.fleet.stop();
    let got = tokio::time::timeout(Duration::from_secs(2), parked).await.expect("let go");
    let got = Got::of(got).await;
    assert_eq!((got.status, got.body.as_slice()), (200, NOTHING));
    let got = server.get(server.check_in(&agent, &online())).await;
    assert_eq!((got.status, got.body.as_slice()), (200, NOTHING));
}

#[tokio::test]
async fn an_ack_of_an_upgrade_ends_the_held_poll_so_that_the_agent_reports() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let parked = server.park(server.check_in(&agent, &online())).await;
    let id = server.upgrade(&agent, "9.5.3").await;
    assert_eq!(Got::of(parked.await).await.status, 200);
    let token = json!({"status": "online", "ack_token": id});
    let parked = server.park(server.check_in(&agent, &token)).await;
    let event = json!([{"agent_id": agent.id, "action_id": id, "timestamp": "2026-01-02T03:05:00Z"}]);
    assert_eq!(server.get(server.acks(&agent, &event)).await.status, 200);
    let ended = tokio::time::timeout(Duration::from_secs(1), parked).await.expect("ended");
    assert_eq!(Got::of(ended).await.body.as_slice(), NOTHING);
    server.holds(server.check_in(&agent, &token)).await;
    assert!(server.fleet.refusals().latest().is_empty());
}

#[tokio::test]
async fn ea144_d21_a_held_poll_of_a_revoked_agent_ends_with_401() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let parked = server.park(server.check_in(&agent, &online())).await;
    server.add_action("leave", ActionType::Unenroll, &agent.id, "").await;
    let woken = tokio::time::timeout(Duration::from_secs(2), parked).await.expect("woken");
    assert_eq!(Got::of(woken).await.status, 200);
    let token = json!({"status": "online", "ack_token": "leave"});
    let parked = server.park(server.check_in(&agent, &token)).await;
    let event = json!([{"agent_id": agent.id, "action_id": "leave", "timestamp": "2026-01-02T03:05:00Z"}]);
    assert_eq!(server.get(server.acks(&agent, &event)).await.status, 200);
    let cut = tokio::time::timeout(Duration::from_secs(1), parked).await.expect("cut");
    assert_eq!(Got::of(cut).await.refusal(), (401, "ErrUnauthorized".to_owned()));
    assert_eq!(server.api.running(Operation::CheckIn), 0);
}

#[tokio::test]
async fn ea143_a_failed_lookup_releases_a_held_poll_without_an_error() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let parked = server.park(server.check_in(&agent, &online())).await;
    let entry = server.fleet.entry(&muster_core::id::AgentId::trusted(agent.id.as_str())).await.unwrap();
    server.store.gate().set(true);
    entry.wake();
    let got = tokio::time::timeout(Duration::from_secs(2), parked).await.expect("let go");
    let got = Got::of(got).await;
    assert_eq!((got.status, got.body.as_slice()), (200, NOTHING));
}

#[tokio::test]
async fn a_parked_check_in_takes_a_few_hundred_bytes() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let parked = server.park(server.check_in(&agent, &online())).await;
    assert!(size_of_val(&*parked) <= 832, "{} bytes", size_of_val(&*parked));
}
