//! Variables and invalid policies: the model is built again, or the previous one is kept.

use std::time::Duration;

use muster_agent::variables::used::Used;
use serde_json::{Value, json};

use crate::fixture::{Agent, MINUTE, SECOND, action, input_action, policy};
use crate::server::Fault;

/// A policy with an input of a type that is not installed, which is therefore only reported.
fn with_input(revision: i64, input: &Value) -> Value {
    let mut policy = policy(revision, "web");
    policy["outputs"] = json!({"default": {"type": "elasticsearch"}});
    policy["inputs"].as_array_mut().unwrap().push(input.clone());
    policy
}

fn parts(agent: &Agent) -> Vec<String> {
    let last = agent.server.lock().check_ins.last().unwrap().body.clone();
    let ids = last["components"].as_array().unwrap().iter().map(|part| part["id"].as_str().unwrap().to_owned());
    ids.collect()
}

#[tokio::test(start_paused = true)]
async fn ag74_an_input_follows_the_variables_that_it_needs() {
    let mut agent = Agent::new(800);
    let input = json!({"id": "a", "type": "fake", "path": "${local.path}"});
    agent.server.change(|server| server.policy = Some(with_input(1, &input)));
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(parts(&agent), ["process-default-web"]);
    agent.variables.set("path", "/x");
    agent.pass(MINUTE).await;
    assert_eq!(parts(&agent), ["fake-default", "process-default-web"]);
    agent.variables.unset("path");
    agent.pass(MINUTE).await;
    assert_eq!(parts(&agent), ["process-default-web"]);
    assert_eq!(agent.did(), ["start process-default-web", "forget fake-default"], "the program was not disturbed");
}

/// Values such as secrets of a cluster must be asked for.
#[tokio::test(start_paused = true)]
async fn ag74_a_policy_waits_for_its_variables_while_check_ins_go_on() {
    let mut agent = Agent::new(803);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(agent.variables.observed(), Used::default());
    agent.variables.set_late(SECOND * 4, "k");
    let mut next = with_input(2, &json!({"id": "a", "type": "fake"}));
    next["outputs"]["default"]["api_key"] = json!("${local.late}");
    agent.server.change(|server| server.policy = Some(next));
    agent.pass(SECOND * 3).await;
    assert_eq!(agent.variables.observed().of_provider("local").collect::<Vec<_>>(), ["late"]);
    assert_eq!(parts(&agent), ["process-default-web"], "the former components run meanwhile");
    agent.pass(MINUTE).await;
    assert_eq!(parts(&agent), ["fake-default", "process-default-web"]);
    let ack = agent.server.acks().into_iter().find(|ack| ack.action_id == "policy:p:2").unwrap();
    assert_eq!(ack.error, None, "it was not rejected");

    // After a restart, the stored policy is no fault while its variables are being asked for.
    agent.kill().await;
    agent.variables.unset("late");
    agent.variables.set_unknown(true);
    agent.start();
    agent.pass(SECOND * 2).await;
    assert_ne!(agent.snapshot().await.state.as_str(), "FAILED");
    agent.variables.set_unknown(false);
    agent.pass(SECOND * 2).await;
    assert_eq!(agent.snapshot().await.state.as_str(), "FAILED", "they are known to be missing");
    agent.variables.set("late", "k");
    agent.pass(MINUTE).await;
    assert_eq!(parts(&agent), ["fake-default", "process-default-web"]);
    agent.server.change(|server| server.policy = Some(policy(3, "web")));
    agent.pass(MINUTE).await;
    assert_eq!(agent.variables.observed(), Used::default());
}

#[tokio::test(start_paused = true)]
async fn ag75_twenty_changes_within_100_ms_are_one_or_two_updates() {
    let mut agent = Agent::new(801);
    let input = json!({"id": "a", "type": "fake", "path": "${local.path}"});
    agent.server.change(|server| server.policy = Some(with_input(1, &input)));
    agent.start();
    agent.pass(MINUTE).await;
    let reads = agent.variables.reads();
    for count in 0..20 {
        agent.variables.set("path", count);
        agent.pass(Duration::from_millis(5)).await;
    }
    agent.pass(SECOND).await;
    let updates = agent.variables.reads() - reads;
    assert!((1..=2).contains(&updates), "{updates} updates");
}

#[tokio::test(start_paused = true)]
async fn ag55_ag73_an_invalid_policy_fails_and_the_previous_components_keep_running() {
    let mut agent = Agent::new(802);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    let mut twice = policy(2, "web");
    let input = twice["inputs"][0].clone();
    twice["inputs"].as_array_mut().unwrap().push(input);
    agent.server.change(|server| server.policy = Some(twice));
    agent.pass(MINUTE).await;
    assert_eq!(
        (agent.did(), agent.snapshot().await.state.as_str()),
        (vec!["start process-default-web".into()], "FAILED")
    );
    let last = agent.server.lock().check_ins.last().unwrap().body.clone();
    assert_eq!((&last["status"], &last["policy_revision_idx"]), (&json!("error"), &json!(1)));
    let ack = agent.server.acks().into_iter().find(|ack| ack.action_id == "policy:p:2").unwrap();
    assert!(ack.error.unwrap().contains("another input has the id"));
    agent.server.change(|server| server.policy = Some(policy(3, "web")));
    agent.pass(MINUTE * 6).await;
    assert_eq!(agent.snapshot().await.state.as_str(), "HEALTHY");
}

#[tokio::test(start_paused = true)]
async fn ag54_ag60_a_failed_component_degrades_the_agent_and_is_named() {
    let mut agent = Agent::new(803);
    agent.server.change(|server| server.policy = Some(with_input(1, &json!({"id": "a", "type": "fake"}))));
    agent.start();
    agent.pass(MINUTE).await;
    let snapshot = agent.snapshot().await;
    assert_eq!(snapshot.state.as_str(), "DEGRADED");
    assert!(snapshot.message.starts_with("fake-default is FAILED: unsupported input type"), "{snapshot:?}");
}

#[tokio::test(start_paused = true)]
async fn an_output_that_loses_a_variable_keeps_the_previous_components() {
    let mut agent = Agent::new(804);
    agent.variables.set("host", "es");
    let mut policy = policy(1, "web");
    policy["outputs"] = json!({"default": {"type": "elasticsearch", "hosts": ["${local.host}"]}});
    agent.server.change(|server| server.policy = Some(policy));
    agent.start();
    agent.pass(MINUTE).await;
    agent.variables.unset("host");
    agent.pass(MINUTE).await;
    let snapshot = agent.snapshot().await;
    assert_eq!((snapshot.state.as_str(), agent.running()), ("FAILED", vec!["process-default-web".into()]));
    assert!(snapshot.message.contains("${local.host}"), "{}", snapshot.message);
    agent.variables.set("host", "other");
    agent.pass(SECOND).await;
    assert_eq!(agent.snapshot().await.state.as_str(), "HEALTHY");
}

#[tokio::test(start_paused = true)]
async fn ag78_ag118_the_level_of_settings_precedes_the_policy_and_survives_restart_and_policy() {
    let mut agent = Agent::new(805);
    let with_level = |revision: i64, level: &str| {
        let mut policy = policy(revision, "web");
        policy["agent"] = json!({"logging": {"level": level}});
        policy
    };
    agent.server.change(|server| server.policy = Some(with_level(1, "error")));
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(agent.snapshot().await.log_level, "error");
    agent.server.change(|server| server.actions.push(action("a", "SETTINGS", json!({"log_level": "debug"}))));
    agent.pass(MINUTE).await;
    agent.server.change(|server| server.policy = Some(with_level(2, "warning")));
    agent.pass(MINUTE).await;
    agent.kill().await;
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(agent.snapshot().await.log_level, "debug");
    agent.server.change(|server| server.actions.push(action("b", "SETTINGS", json!({"log_level": ""}))));
    agent.pass(MINUTE).await;
    assert_eq!(agent.snapshot().await.log_level, "warning");
}

#[tokio::test(start_paused = true)]
async fn ag116_ag164_an_input_action_runs_beside_policies_and_is_acknowledged_with_its_result() {
    let mut agent = Agent::new(806);
    agent.server.change(|server| {
        server.policy = Some(policy(1, "web"));
        server.actions = vec![
            input_action("hang", "hang", Some(900)),
            input_action("default", "hang", None),
            input_action("long", "echo", Some(3601)),
            input_action("nobody", "none", None),
            input_action("echo", "echo", Some(30)),
        ];
    });
    agent.start();
    agent.pass(SECOND * 30).await;
    agent.server.change(|server| server.policy = Some(policy(2, "next")));
    agent.pass(SECOND * 10).await;
    assert_eq!(agent.running(), ["process-default-next"], "a component that hangs does not delay a policy");
    agent.pass(MINUTE * 20).await;
    let acks = agent.server.acks();
    let error = |id: &str| acks.iter().find(|ack| ack.action_id == id).unwrap().error.clone();
    assert_eq!(error("echo"), None);
    for (id, word) in
        [("hang", "in time"), ("default", "in time"), ("long", "hour"), ("nobody", "no running component")]
    {
        assert!(error(id).unwrap().contains(word), "{id}: {:?}", error(id));
    }
    let events = agent.server.lock().ack_events.clone();
    let echo = events.iter().find(|event| event["action_id"] == "echo").unwrap();
    assert_eq!((&echo["action_input_type"], &echo["action_data"]), (&json!("fake"), &json!({"command": "echo"})));
    let params = json!({"id": "echo", "type": "INPUT_ACTION", "input_type": "fake", "timeout": 30,
        "data": {"command": "echo"}});
    assert_eq!(echo["action_response"], params);
    let hang = events.iter().find(|event| event["action_id"] == "default").unwrap();
    let minute = (hang["started_at"].as_str().unwrap(), hang["completed_at"].as_str().unwrap());
    assert!(minute.0 < minute.1 && hang["action_response"].is_null(), "{hang}");
}

#[tokio::test(start_paused = true)]
async fn ag147_a_bundle_contains_no_payload_and_no_data_of_an_action() {
    let mut agent = Agent::new(807);
    let mut echo = input_action("echo", "echo", None);
    echo["data"]["word"] = "s3cret-data".into();
    agent.server.change(|server| {
        server.policy = Some(policy(1, "web"));
        server.always = Some(("/acks", Fault::LoseRequest));
        server.actions = vec![echo];
    });
    agent.start();
    agent.pass(MINUTE).await;
    agent.host.pay("process-default-web", json!({"x": "s3cret-payload"}));
    agent.server.change(|server| server.actions.push(action("d", "REQUEST_DIAGNOSTICS", Value::Null)));
    agent.pass(MINUTE).await;
    let uploads = agent.server.lock().uploads.clone();
    let whole: Vec<u8> = uploads.split_last().unwrap().1.iter().flat_map(|(_, chunk)| chunk.clone()).collect();
    let document = muster_agent::net::gzip::decompress(&whole, 1 << 20).unwrap().unwrap();
    let text = String::from_utf8(document).unwrap();
    assert!(text.contains("process-default-web") && text.contains("\"echo\""), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    let last = agent.server.lock().check_ins.last().unwrap().body.clone();
    assert_eq!(last["components"][0]["units"][1]["payload"]["x"], "s3cret-payload", "the server gets it");
}

#[tokio::test(start_paused = true)]
async fn ag57_ag161_the_state_of_the_connection_is_visible_at_once_and_does_not_affect_the_agent() {
    let mut agent = Agent::new(808);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    let fleet = agent.snapshot().await.fleet;
    assert_eq!((fleet.state.as_str(), fleet.message.contains("holds the check-in")), ("HEALTHY", true), "{fleet:?}");
    agent.kill().await;
    agent.server.change(|server| server.always = Some(("/checkin", Fault::LoseRequest)));
    agent.start();
    agent.pass(SECOND * 5).await;
    let snapshot = agent.snapshot().await;
    assert_eq!((snapshot.state.as_str(), snapshot.fleet.state.as_str()), ("HEALTHY", "FAILED"));
    assert!(snapshot.fleet.message.contains("lost"), "{snapshot:?}");
}

#[tokio::test(start_paused = true)]
async fn ag112_a_scheduled_action_survives_a_restart_and_runs_once_but_not_after_its_expiry() {
    let mut agent = Agent::new(809);
    let scheduled = |id: &str, start: &str, end: &str| {
        let mut action = action(id, "SETTINGS", json!({"log_level": id}));
        (action["start_time"], action["expiration"]) = (start.into(), end.into());
        action
    };
    let once = scheduled("debug", "2026-06-01T00:10:00Z", "2026-06-01T01:00:00Z");
    let late = scheduled("error", "2026-06-01T00:20:00Z", "2026-06-01T00:30:00Z");
    agent.server.change(|server| server.actions = vec![once, late]);
    agent.start();
    agent.pass(MINUTE * 5).await;
    agent.kill().await;
    agent.start();
    agent.pass(MINUTE * 6).await;
    assert_eq!(agent.did(), ["level debug"]);
    agent.kill().await;
    // The host is off while the other one is due.
    agent.pass(MINUTE * 30).await;
    agent.start();
    agent.pass(MINUTE * 10).await;
    let acks = agent.server.acks();
    let error =
        |id: &str| acks.iter().filter(|ack| ack.action_id == id).map(|ack| ack.error.clone()).collect::<Vec<_>>();
    assert_eq!((error("debug"), error("error").len()), (vec![None], 1));
    assert!(error("error")[0].as_ref().unwrap().contains("expired"));
}
