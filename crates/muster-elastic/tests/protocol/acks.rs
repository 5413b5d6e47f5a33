//! Acks over the wire (EA §5).

use muster_core::action::ActionType;
use serde_json::{Value, json};

use crate::setting::{Ask, Enrolled, Got, Server, refused};

fn event(agent: &Enrolled, action: &str) -> Value {
    json!({
        "type": "ACTION_RESULT", "subtype": "ACKNOWLEDGED", "agent_id": agent.id, "action_id": action,
        "message": "done", "timestamp": "2026-01-02T03:05:00.123456789Z",
    })
}

async fn acked(server: &Server, agent: &Enrolled, events: Value) -> Got {
    server.get(server.acks(agent, &events)).await
}

fn ok() -> Value {
    json!({"status": 200, "message": "OK"})
}

async fn with_actions(count: usize) -> (Server, Enrolled) {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    for number in 0..count {
        server.add_action(&format!("a{number}"), ActionType::Settings, &agent.id, r#"{"log_level":"info"}"#).await;
    }
    (server, agent)
}

#[tokio::test]
async fn ea111_ag158_an_empty_ack_checks_the_key() {
    let (server, agent) = with_actions(0).await;
    for body in [json!({"events": null}), json!({"events": []}), json!({})] {
        let got = server.get(Ask::post(&agent.path("acks")).key(&agent.token).json(&body)).await;
        assert_eq!((got.status, got.json()), (200, json!({"action": "acks"})), "{body}");
    }
    server.add_action("leave", ActionType::Unenroll, &agent.id, "").await;
    assert_eq!(acked(&server, &agent, json!([event(&agent, "leave")])).await.status, 200);
    assert_eq!(acked(&server, &agent, Value::Null).await.refusal(), refused(401, "ErrUnauthorized"));
}

#[tokio::test]
async fn ea112_ea113_ea114_ea115_items_are_in_order_and_the_status_is_the_largest() {
    let (server, agent) = with_actions(2).await;
    let got = acked(&server, &agent, json!([event(&agent, "a0"), event(&agent, "a1")])).await;
    assert_eq!((got.status, got.json()), (200, json!({"action": "acks", "items": [ok(), ok()]})));
    let missing = json!({"status": 404, "message": "Not Found"});
    let got = acked(&server, &agent, json!([event(&agent, "nothing"), event(&agent, "a0")])).await;
    assert_eq!((got.status, got.json()), (404, json!({"action": "acks", "errors": true, "items": [missing, ok()]})));
    let mut others = event(&agent, "a0");
    others["agent_id"] = json!("somebody-else");
    let got = acked(&server, &agent, json!([others])).await;
    assert_eq!((got.status, &got.json()["items"][0]["status"]), (400, &json!(400)));
}

#[tokio::test]
async fn ag159_ea116_ea118_ea142_a_policy_ack_needs_no_action_and_may_be_repeated() {
    let server = Server::start().await;
    let policy = server.policy("p").await;
    let token = server.enrollment_key("k", Some(&policy)).await;
    let agent = server.enroll_with(&token, &json!({"type": "PERMANENT"})).await;
    let mut failed = event(&agent, "policy:p:1");
    failed["error"] = json!("no");
    assert_eq!(acked(&server, &agent, json!([failed])).await.status, 200);
    assert_eq!(server.stored(&agent.id).await.policy_revision, 0);
    for _ in 0..3 {
        assert_eq!(acked(&server, &agent, json!([event(&agent, "policy:p:1")])).await.status, 200);
        assert_eq!(server.stored(&agent.id).await.policy_revision, 1);
    }
}

#[tokio::test]
async fn ea119_repeated_acks_are_idempotent() {
    let (server, agent) = with_actions(1).await;
    assert_eq!(acked(&server, &agent, json!([event(&agent, "a0")])).await.status, 200);
    let record = server.stored(&agent.id).await;
    let id = muster_core::id::ActionId::trusted("a0");
    let results = server.fleet.store().action_results(&id, false, 10).await.unwrap();
    let many = Value::Array(vec![event(&agent, "a0"); 100]);
    for _ in 0..10 {
        assert_eq!(acked(&server, &agent, many.clone()).await.status, 200);
    }
    assert_eq!(server.stored(&agent.id).await, record);
    assert_eq!(server.fleet.store().action_results(&id, false, 10).await.unwrap(), results);
}

#[tokio::test]
async fn ea122_d17_acks_of_actions_for_other_agents_are_rejected() {
    let (server, agent) = with_actions(0).await;
    let other = server.enrolled().await;
    server.add_action("theirs", ActionType::Unenroll, &other.id, "").await;
    let got = acked(&server, &agent, json!([event(&agent, "theirs")])).await;
    assert_eq!((got.status, &got.json()["items"][0]["status"]), (400, &json!(400)));
    assert!(server.stored(&agent.id).await.active);
}

#[tokio::test]
async fn ea123_the_user_agent_is_not_checked() {
    let (server, agent) = with_actions(1).await;
    let ask = server.acks(&agent, &json!([event(&agent, "a0")])).agent("curl/8");
    assert_eq!(server.get(ask).await.status, 200);
}

#[tokio::test]
async fn ea124_timestamps_may_have_any_offset_and_fraction() {
    let (server, agent) = with_actions(3).await;
    for (number, timestamp) in ["2026-01-02T03:05:00.2+01:00", "2026-01-02T03:05:26.0279+00:00", "2026-01-02T03:05:00Z"]
        .into_iter()
        .enumerate()
    {
        let mut event = event(&agent, &format!("a{number}"));
        event["timestamp"] = json!(timestamp);
        assert_eq!(acked(&server, &agent, json!([event])).await.status, 200, "{timestamp}");
    }
}

#[tokio::test]
async fn a_malformed_event_affects_only_its_own_item() {
    let (server, agent) = with_actions(1).await;
    let got = acked(&server, &agent, json!([17, {"action_id": 5}, event(&agent, "a0")])).await;
    let items = got.json()["items"].clone();
    assert_eq!((items.as_array().map(Vec::len), &items[2]), (Some(3), &ok()));
    assert_ne!(items[0]["status"], 200);
    assert_ne!(items[1]["status"], 200);
}

#[tokio::test]
async fn ea19_malformed_bodies_are_400() {
    let (server, agent) = with_actions(0).await;
    let ask = Ask::post(&agent.path("acks")).key(&agent.token);
    for body in ["", "[]", "{\"events\":{}}", "{", "null"] {
        let got = server.get(ask.clone().body(body)).await;
        assert_eq!(got.refusal(), refused(400, "BadRequest"), "{body}");
    }
    let long = format!(r#"{{"events":[],"x":"{}"}}"#, "x".repeat(2 << 20));
    let got = server.get(ask.body(long)).await;
    assert_eq!(got.refusal(), refused(400, "BadRequest"));
    assert!(got.json()["message"].as_str().unwrap().contains("http: request body too large"));
}
