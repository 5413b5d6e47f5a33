//! Check-in requests (EA §4.1).

use muster_core::action::ActionType;
use serde_json::{Value, json};

use crate::setting::{AGENT, Ask, Server, online, refused};

#[tokio::test]
async fn ea30_d19_the_user_agent_is_checked_after_the_key() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let ask = Ask::post(&agent.path("checkin")).json(&online());
    assert_eq!(server.get(ask.clone().agent("curl/8")).await.refusal(), refused(401, "ErrNoAuthHeader"));
    let ask = ask.key(&agent.token);
    assert_eq!(server.get(ask.clone()).await.refusal(), refused(400, "InvalidUserAgent"));
    assert_eq!(
        server.get(ask.clone().agent("elastic agent 7.12.0")).await.refusal(),
        refused(400, "UnsupportedVersion")
    );
    server.holds(ask.agent("elastic agent 7.13.0")).await;
}

#[tokio::test]
async fn ea48_gzip_and_plain_bodies_mean_the_same() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    server.holds(server.check_in(&agent, &json!({"status": "online", "message": "plain"}))).await;
    assert_eq!(server.stored(&agent.id).await.health.message, "plain");
    server.holds(server.check_in(&agent, &json!({"status": "online", "message": "packed"})).gzip()).await;
    assert_eq!(server.stored(&agent.id).await.health.message, "packed");
}

#[tokio::test]
async fn ea48_invalid_gzip_is_refused() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    server.holds(server.check_in(&agent, &online()).header("content-encoding", "identity")).await;
    let got = server.get(server.check_in(&agent, &online()).header("content-encoding", "gzip")).await;
    assert_eq!(got.refusal(), refused(400, "BadRequest"));
}

#[tokio::test]
async fn ea49_a_body_that_inflates_beyond_the_limit_is_400() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let long = json!({"status": "online", "message": "x".repeat(21 << 20)});
    let got = server.get(server.check_in(&agent, &long).gzip()).await;
    assert_eq!(got.refusal(), refused(400, "BadRequest"));
    let message = got.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("http: request body too large: at most 20971520 bytes are accepted"), "{message}");
}

#[tokio::test]
async fn ea50_ea51_status_is_required_and_stored_verbatim() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    for bad in [json!({}), json!({"status": ""}), json!({"status": null}), json!({"message": "x"})] {
        let got = server.get(server.check_in(&agent, &bad)).await;
        assert_eq!(got.refusal(), refused(400, "BadRequest"), "{bad}");
    }
    for word in ["online", "DEGRADED", "error", "starting", "anything at all"] {
        server.holds(server.check_in(&agent, &json!({"status": word, "message": "m"}))).await;
        assert_eq!(server.stored(&agent.id).await.health.status, word);
    }
}

#[tokio::test]
async fn ea52_ea147_check_ins_of_old_agents_are_accepted() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    for body in [
        json!({"status": "online", "components": null}),
        json!({"status": "online", "upgrade": {}}),
        json!({"status": "online"}),
        json!({"status": "online", "local_metadata": null, "ack_token": "", "message": ""}),
    ] {
        let ask = Ask::post(&agent.path("checkin")).key(&agent.token).agent("elastic agent 7.13.4").json(&body);
        server.holds(ask).await;
    }
}

#[tokio::test]
async fn ea53_an_invalid_poll_timeout_is_400() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let with = |text: &str| json!({"status": "online", "poll_timeout": text});
    assert_eq!(server.get(server.check_in(&agent, &with("soon"))).await.refusal(), refused(400, "BadRequest"));
    server.holds(server.check_in(&agent, &with("5m"))).await;
}

#[tokio::test]
async fn ea55_an_unenrolled_agent_is_401() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    server.add_action("leave", ActionType::Unenroll, &agent.id, "").await;
    let event = json!([{"agent_id": agent.id, "action_id": "leave", "timestamp": "2026-01-02T03:05:00Z"}]);
    assert_eq!(server.get(server.acks(&agent, &event)).await.status, 200);
    assert_eq!(server.get(server.check_in(&agent, &online())).await.refusal(), refused(401, "ErrUnauthorized"));
}

#[tokio::test]
async fn ea56_ea60_reported_fields_are_stored() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let body = json!({"status": "error", "message": "broken", "local_metadata": {"host": {"hostname": "web-7"}}});
    server.holds(server.check_in(&agent, &body)).await;
    let record = server.stored(&agent.id).await;
    assert_eq!((record.health.status.as_str(), record.health.message.as_str()), ("error", "broken"));
    assert_eq!((record.last_address.as_str(), record.agent_version.as_str()), ("192.0.2.7", "9.5.2"));
    server.holds(Ask::post(&agent.path("checkin")).key(&agent.token).agent("Elastic Agent v9.5.3").json(&body)).await;
    assert_eq!(server.stored(&agent.id).await.agent_version, "9.5.3");
}

#[tokio::test]
async fn ea63_details_of_an_unknown_upgrade_are_ignored() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let details = json!({"target_version": "9.6.0", "state": "UPG_REQUESTED", "action_id": "nobody"});
    server.holds(server.check_in(&agent, &json!({"status": "online", "upgrade_details": details}))).await;
    assert_eq!(server.stored(&agent.id).await.upgrade.details, None);
}

#[tokio::test]
async fn ea65_details_without_the_required_metadata_are_400() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    server.add_action("up", ActionType::Upgrade, &agent.id, r#"{"version":"9.6.0"}"#).await;
    for state in ["UPG_FAILED", "UPG_SCHEDULED"] {
        let details = json!({"target_version": "9.6.0", "state": state, "action_id": "up", "metadata": {}});
        let body = json!({"status": "online", "upgrade_details": details});
        assert_eq!(server.get(server.check_in(&agent, &body)).await.refusal(), refused(400, "BadRequest"), "{state}");
    }
}

#[tokio::test]
async fn an_identical_check_in_writes_nothing() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let ask = server.check_in(&agent, &json!({"status": "online", "message": "m", "components": []})).gzip();
    server.holds(ask.clone()).await;
    let before = server.stored(&agent.id).await;
    for _ in 0..3 {
        server.holds(ask.clone()).await;
    }
    assert_eq!(server.stored(&agent.id).await, before);
}

#[tokio::test]
async fn identical_bytes_with_another_version_are_processed() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let ask = |user_agent| Ask::post(&agent.path("checkin")).key(&agent.token).agent(user_agent).json(&online());
    server.holds(ask(AGENT)).await;
    server.holds(ask("Elastic Agent v9.5.9")).await;
    assert_eq!(server.stored(&agent.id).await.agent_version, "9.5.9");
}

#[tokio::test]
async fn ea141_cut_and_concurrent_polls_lose_no_action() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let first = server.park(server.check_in(&agent, &online())).await;
    drop(first);
    let (one, two) =
        (server.park(server.check_in(&agent, &online())).await, server.park(server.check_in(&agent, &online())).await);
    server.add_action("wake", ActionType::Settings, &agent.id, r#"{"log_level":"debug"}"#).await;
    for parked in [one, two] {
        let got = crate::setting::Got::of(parked.await).await;
        assert_eq!(got.json()["actions"][0]["id"], "wake");
    }
}

#[tokio::test]
async fn malformed_components_are_400() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    for components in [json!({}), json!("x"), json!([1]), json!([{"units": {}}])] {
        let got = server.get(server.check_in(&agent, &json!({"status": "online", "components": components}))).await;
        assert_eq!(got.refusal(), refused(400, "BadRequest"), "{components}");
    }
    let _: Value = online();
}
