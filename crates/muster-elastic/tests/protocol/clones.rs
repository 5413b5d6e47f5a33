//! Hosts that share one agent's key: the second one is told to enroll again, if the policy says so (EA §10.8).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::id::PolicyId;
use muster_listen::reply::{Answer, Parked};
use muster_store::query::AgentFilter;
use serde_json::{Value, json};

use crate::setting::{AGENT, Ask, Enrolled, Got, Server};

const URL: &str = "https://muster.example:8220";
const CA: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

/// A server, a policy with these fields, and an agent of it.
async fn shared(fields: Value) -> (Server, Enrolled) {
    let server = Server::with(|_| {}, |settings| settings.urls.configured = vec![URL.to_owned()]).await;
    server.fleet.check_ins().set_own_ca(CA);
    let policy: PolicyId = server.add_policy("shared", |policy| policy.fields = fields).await;
    let token = server.enrollment_key("first", Some(&policy)).await;
    let body = json!({"type": "PERMANENT", "metadata": {"user_provided": {}, "local": {}, "tags": ["web"]}});
    let agent = server.enroll_with(&token, &body).await;
    (server, agent)
}

async fn reenrolling() -> (Server, Enrolled) {
    shared(json!({"duplicate_hosts": "reenroll"})).await
}

fn reported(host: &str, more: &Value) -> Value {
    let mut metadata = json!({"host": {"id": host, "hostname": "web"}});
    for (key, value) in more.as_object().into_iter().flatten() {
        metadata["host"][key] = value.clone();
    }
    json!({"status": "online", "message": "Running", "local_metadata": metadata})
}

/// What a check-in of a host comes to.
enum Told {
    Held(Parked),
    Actions(Vec<Value>),
}

impl Told {
    fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }

    /// The data of the one MIGRATE that it is.
    fn migrate(self) -> Value {
        match self {
            Self::Actions(actions) => match &actions[..] {
                [action] if action["type"] == "MIGRATE" => action.clone(),
                other => panic!("{other:?}"),
            },
            Self::Held(_) => panic!("held"),
        }
    }
}

async fn answered(server: &Server, ask: Ask) -> Told {
    match server.ask(ask).await {
        Answer::Park(parked) => Told::Held(parked),
        Answer::Reply(reply) => {
            let got = Got::of(reply).await;
            assert_eq!(got.status, 200, "{got:?}");
            Told::Actions(got.json()["actions"].as_array().cloned().unwrap_or_default())
        }
        Answer::Upgrade(_) => panic!("upgraded"),
    }
}

async fn checks_in(server: &Server, agent: &Enrolled, host: &str) -> Told {
    answered(server, server.check_in(agent, &reported(host, &Value::Null))).await
}

/// The host enrolls again as it was told, and acknowledges with the key that it shared.
async fn migrates(server: &Server, agent: &Enrolled, action: &Value) -> Enrolled {
    let token = action["data"]["enrollment_token"].as_str().expect("a token");
    let new = server.enroll_with(token, &json!({"type": "PERMANENT"})).await;
    let event = json!([{"action_id": action["id"], "agent_id": agent.id, "message": "migrated"}]);
    assert_eq!(server.get(server.acks(agent, &event)).await.status, 200);
    new
}

async fn audited(server: &Server, action: &str) -> usize {
    let lines = server.store().audit_events(0, 1000).await.expect("readable");
    lines.iter().filter(|(_, json, _)| json.contains(&format!("\"{action}\""))).count()
}

#[tokio::test]
async fn the_second_of_two_hosts_that_alternate_gets_an_agent_of_its_own() {
    let (server, agent) = reenrolling().await;
    for host in ["a", "b", "a"] {
        assert!(checks_in(&server, &agent, host).await.is_held(), "{host}");
    }
    let action = checks_in(&server, &agent, "b").await.migrate();
    assert!(checks_in(&server, &agent, "a").await.is_held(), "the first host is left alone");
    let data = &action["data"];
    assert_eq!((&data["target_uri"], &data["settings"]), (&json!(URL), &json!({"ca": [CA]})));
    let signed = STANDARD.decode(action["signed"]["data"].as_str().expect("signed")).unwrap();
    let signed: Value = serde_json::from_slice(&signed).unwrap();
    assert_eq!((&signed["type"], &signed["agents"]), (&json!("MIGRATE"), &json!([agent.id])));
    assert_eq!((&signed["data"]["host"], &data["host"]), (&Value::Null, &Value::Null));

    let new = migrates(&server, &agent, &action).await;
    assert_ne!(new.id, agent.id);
    let (old, record) = (server.stored(&agent.id).await, server.stored(&new.id).await);
    assert_eq!((record.policy_id.as_ref(), &record.tags), (old.policy_id.as_ref(), &old.tags));
    assert!(old.active && record.active && checks_in(&server, &new, "b").await.is_held());
    assert!(checks_in(&server, &agent, "a").await.is_held());
}

#[tokio::test]
async fn a_reenrollment_token_admits_one_agent_within_ten_minutes() {
    let (server, agent) = reenrolling().await;
    for host in ["a", "b", "a"] {
        checks_in(&server, &agent, host).await;
    }
    let action = checks_in(&server, &agent, "b").await.migrate();
    migrates(&server, &agent, &action).await;
    let token = action["data"]["enrollment_token"].as_str().unwrap();
    let enroll = || Ask::post("/api/fleet/agents/enroll").key(token).agent(AGENT).json(&json!({"type": "PERMANENT"}));
    assert_eq!(server.get(enroll()).await.status, 401, "used");
    assert!(checks_in(&server, &agent, "a").await.is_held());
    let action = checks_in(&server, &agent, "c").await.migrate();
    server.clock.advance(Duration::from_secs(600));
    let token = action["data"]["enrollment_token"].as_str().unwrap();
    let late = Ask::post("/api/fleet/agents/enroll").key(token).agent(AGENT).json(&json!({"type": "PERMANENT"}));
    assert_eq!(server.get(late).await.status, 401, "expired");
}

#[tokio::test]
async fn a_host_that_polls_beside_the_first_one_is_told_alone() {
    let (server, agent) = reenrolling().await;
    let Told::Held(first) = checks_in(&server, &agent, "a").await else { panic!("answered") };
    let action = checks_in(&server, &agent, "b").await.migrate();
    let first = tokio::time::timeout(Duration::from_millis(200), first).await;
    assert!(first.is_err(), "the poll of the first host stays held");
    assert!(checks_in(&server, &agent, "c").await.is_held(), "one host at a time");
    migrates(&server, &agent, &action).await;
    checks_in(&server, &agent, "c").await.migrate();
}

#[tokio::test]
async fn ea61_the_report_that_the_second_host_has_migrated_is_not_the_first_hosts() {
    let (server, agent) = reenrolling().await;
    let _held = checks_in(&server, &agent, "a").await;
    let action = checks_in(&server, &agent, "b").await.migrate();
    migrates(&server, &agent, &action).await;
    let body = json!({"reason": "migrated", "timestamp": "2026-01-02T03:04:05.678Z"});
    let report = Ask::post(&agent.path("audit/unenroll")).key(&agent.token).json(&body);
    assert_eq!(server.get(report).await.status, 200);
    let record = server.stored(&agent.id).await;
    assert_eq!((record.audit, record.active), (None, true));
}

#[tokio::test]
async fn the_duplicate_mark_clears_after_a_day_with_one_host() {
    let (server, agent) = reenrolling().await;
    let _held = checks_in(&server, &agent, "a").await;
    let action = checks_in(&server, &agent, "b").await.migrate();
    migrates(&server, &agent, &action).await;
    checks_in(&server, &agent, "a").await;
    checks_in(&server, &agent, "a").await;
    assert!(server.stored(&agent.id).await.duplicate_hosts.is_some());
    server.clock.advance(Duration::from_secs(24 * 3600 + 1));
    checks_in(&server, &agent, "a").await;
    assert_eq!(server.stored(&agent.id).await.duplicate_hosts, None, "though it reports the same as before");
}

#[tokio::test]
async fn by_default_nobody_is_told() {
    for fields in [json!({}), json!({"duplicate_hosts": "warn"})] {
        let (server, agent) = shared(fields).await;
        for host in ["a", "b", "a", "b", "a", "b"] {
            assert!(checks_in(&server, &agent, host).await.is_held());
        }
        assert_eq!(audited(&server, "agent.duplicate_hosts").await, 1);
    }
}

#[tokio::test]
async fn hosts_that_cannot_migrate_are_left_to_people() {
    let setting = |more: Value| {
        let mut fields = json!({"duplicate_hosts": "reenroll"});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fields
    };
    for (fields, version, host) in [
        (setting(json!({})), "Elastic Agent v8.18.8", json!({})),
        (setting(json!({})), AGENT, json!({"containerized": true})),
        (setting(json!({"is_protected": true})), AGENT, json!({})),
    ] {
        let (server, agent) = shared(fields).await;
        for id in ["a", "b", "a", "b", "a", "b"] {
            let ask = server.check_in(&agent, &reported(id, &host)).agent_instead(version);
            assert!(answered(&server, ask).await.is_held(), "{version} {host}");
        }
        assert_eq!(
            (audited(&server, "agent.reenroll_by_hand").await, audited(&server, "agent.reenroll").await),
            (1, 0)
        );
    }
}

#[tokio::test]
async fn a_failed_reenrollment_is_a_failed_action_and_is_tried_again_after_an_hour() {
    let (server, agent) = reenrolling().await;
    let _held = checks_in(&server, &agent, "a").await;
    let action = checks_in(&server, &agent, "b").await.migrate();
    let event = json!([{"action_id": action["id"], "agent_id": agent.id, "error": "no route to host"}]);
    assert_eq!(server.get(server.acks(&agent, &event)).await.status, 200);
    for host in ["a", "b"] {
        let token = action["id"].clone();
        let mut body = reported(host, &Value::Null);
        body["ack_token"] = token;
        assert!(answered(&server, server.check_in(&agent, &body)).await.is_held());
    }
    server.clock.advance(Duration::from_secs(3600));
    assert!(checks_in(&server, &agent, "a").await.is_held());
    let again = checks_in(&server, &agent, "b").await.migrate();
    assert_ne!(again["id"], action["id"]);
}

#[tokio::test]
async fn a_hundred_clones_of_one_image_end_as_a_hundred_agents() {
    const CLONES: usize = 100;
    let (server, image) = reenrolling().await;
    let mut clones: Vec<(String, Option<Parked>)> =
        (0..CLONES).map(|number| (format!("clone-{number}"), None)).collect();
    let mut agents = Vec::new();
    for _round in 0..40 {
        let mut waiting = Vec::new();
        for (host, _) in std::mem::take(&mut clones) {
            match checks_in(&server, &image, &host).await {
                Told::Held(parked) => waiting.push((host, Some(parked))),
                told => agents.push(migrates(&server, &image, &told.migrate()).await),
            }
        }
        clones = waiting;
        let known = server.stored(&image.id).await.duplicate_hosts.expect("several hosts");
        assert!(known.reenrollments.len() <= 12 && known.hosts.len() <= 8, "what is kept has limits");
        if clones.len() == 1 {
            break;
        }
        server.clock.advance(Duration::from_secs(1200));
    }
    assert_eq!((agents.len(), clones.len()), (CLONES - 1, 1), "one of them keeps the agent");
    let stored = server.store().agent_ids(&AgentFilter::default(), None, 1000).await.expect("readable");
    assert_eq!(stored.len(), CLONES);
    assert!(server.stored(&image.id).await.active);
    let keys = audited(&server, "enrollment_key.create").await;
    assert_eq!(keys, CLONES - 1, "one token for each");
}
