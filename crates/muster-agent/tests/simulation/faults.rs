//! Lost requests, lost responses, full disks, kills: no action runs twice, none is lost.

use std::collections::HashMap;
use std::time::Duration;

use muster_agent::backoff::between;
use muster_agent::entropy::Seeded;
use serde_json::json;

use crate::fixture::{Agent, HOLDS, HOUR, MINUTE, SECOND, input_action, level, policy, with_seeds};
use crate::server::{Fault, policy_change};

fn broken() -> Fault {
    Fault::Answer(500, json!({"statusCode": 500, "error": "oops"}))
}

#[tokio::test(start_paused = true)]
async fn actions_run_once_although_a_lost_response_is_repeated() {
    let mut agent = Agent::new(20);
    agent.server.change(|server| {
        server.actions = vec![level("a", "debug"), level("b", "error")];
        server.faults.push_back(("/checkin", Fault::LoseReply));
    });
    agent.start();
    agent.pass(MINUTE * 4).await;
    assert_eq!(agent.did(), ["level debug", "level error"]);
    // The server forgets that it delivered them, and delivers them once more.
    let again = json!([level("a", "debug"), level("b", "error")]);
    agent.server.change(|server| {
        server.scripted.push_back(json!({"action": "checkin", "ack_token": "", "actions": again}));
    });
    agent.pass(MINUTE).await;
    assert_eq!(agent.did(), ["level debug", "level error"]);
    assert_eq!(agent.server.acked(), ["a", "b", "a", "b"], "acknowledged again, with the same acks");
    let acks = agent.server.acks();
    assert_eq!(acks[..2], acks[2..]);
}

#[tokio::test(start_paused = true)]
async fn ag114_acks_are_retried_until_delivered_even_after_a_restart() {
    let mut agent = Agent::new(21);
    agent.server.change(|server| {
        server.actions = vec![level("a", "debug")];
        server.always = Some(("/acks", Fault::LoseRequest));
    });
    agent.start();
    agent.pass(HOUR).await;
    agent.kill().await;
    assert_eq!(agent.state().outbox.len(), 1);
    agent.server.change(|server| server.always = None);
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(agent.server.acked(), ["a"]);
    assert!(agent.state().outbox.is_empty());
}

/// Something between agent and server lets all pass but the responses to acks.
#[tokio::test(start_paused = true)]
async fn acks_without_a_response_delay_check_ins_by_seconds_and_are_reported() {
    let mut agent = Agent::new(29);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    for revision in 2..5 {
        agent.server.change(|server| {
            server.always = Some(("/acks", Fault::Hold));
            server.policy = Some(policy(revision, "web"));
        });
        agent.pass(SECOND * 5).await;
        let last = agent.server.lock().check_ins.last().unwrap().body["policy_revision_idx"].clone();
        assert_eq!(last, revision, "it is at its server again");
        let fleet = agent.snapshot().await.fleet;
        assert_eq!((fleet.state.as_str(), fleet.message.contains("acks")), ("DEGRADED", true), "{}", fleet.message);
    }
    agent.server.change(|server| server.always = None);
    agent.pass(MINUTE * 10).await;
    assert!(agent.server.acked().contains(&"policy:p:4".to_owned()));
    assert!(agent.snapshot().await.fleet.message.starts_with("Connected"));
}

/// The server takes the token as a receipt, so actions must be stored together with it.
#[tokio::test(start_paused = true)]
async fn ag115_actions_of_a_stored_response_run_after_a_kill() {
    let mut agent = Agent::new(24);
    let actions = vec![level("a", "debug"), level("b", "error")];
    // The agent asks the new server first, which takes time.
    let mut moved = policy(1, "web");
    moved["fleet"] = json!({"hosts": ["https://other.example:8220"]});
    let with_policy = json!([policy_change(&moved), actions[0], actions[1]]);
    agent.server.change(|server| {
        (server.policy, server.actions) = (Some(moved), actions);
        server.scripted.push_back(json!({"action": "checkin", "ack_token": "2", "actions": with_policy}));
    });
    agent.start();
    while agent.did().is_empty() {
        agent.pass(Duration::from_millis(1)).await;
    }
    assert_eq!(agent.did(), ["start process-default-web"], "the policy is being applied");
    agent.kill().await;
    assert_eq!(agent.state().ack_token, "2");
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(agent.did()[1..], ["start process-default-web", "level debug", "level error"]);
    assert_eq!(agent.server.acked(), ["policy:p:1", "a", "b"]);
    let asked_with = agent.server.lock().check_ins[1].body["ack_token"].clone();
    assert_eq!(asked_with, "2", "the server did not deliver them again");
}

#[tokio::test(start_paused = true)]
async fn an_ack_that_the_server_keeps_rejecting_is_dropped() {
    let mut agent = Agent::new(22);
    agent.server.change(|server| {
        server.actions = vec![level("a", "debug"), level("b", "debug")];
        server.refuse_acks = Some((["a".to_owned()].into(), 404));
    });
    agent.start();
    agent.pass(HOUR * 2).await;
    let acked = agent.server.acked();
    assert_eq!(acked.iter().filter(|id| *id == "a").count(), 5);
    assert_eq!(acked.iter().filter(|id| *id == "b").count(), 1, "other acks are not repeated");
    assert!(agent.state().outbox.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ag50_a_corrupt_state_does_not_stop_check_ins_and_is_reported_until_the_policy_is_back() {
    let mut agent = Agent::new(24);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    agent.kill().await;
    agent.store.corrupt_state();
    agent.server.change(|server| server.always = Some(("/checkin", broken())));
    agent.start();
    agent.pass(SECOND * 2).await;
    let snapshot = agent.snapshot().await;
    assert_eq!(snapshot.state.as_str(), "DEGRADED");
    assert!(snapshot.message.contains("stored state was corrupt"), "{}", snapshot.message);
    agent.server.change(|server| server.always = None);
    agent.pass(MINUTE * 4).await;
    assert_eq!(agent.snapshot().await.state.as_str(), "HEALTHY");
    assert_eq!(agent.running(), ["process-default-web"]);
    let check_ins: Vec<_> =
        agent.server.lock().check_ins.iter().map(|check_in| check_in.body["status"].clone()).collect();
    assert!(check_ins.contains(&json!("DEGRADED")), "{check_ins:?}");
}

#[tokio::test(start_paused = true)]
async fn retries_are_delayed_by_the_back_off() {
    for seed in 0..50 {
        let mut agent = Agent::new(1000 + seed);
        agent.server.change(|server| server.always = Some(("/checkin", broken())));
        agent.start();
        agent.pass(HOUR * 2).await;
        agent.kill().await;
        // The fault responds before the server records a check-in, so requests are counted.
        let count = agent.server.lock().requests.len();
        assert!((13..=30).contains(&count), "{count} requests in two hours, seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_success_the_next_check_in_follows_within_two_seconds() {
    for seed in 0..50 {
        let mut agent = Agent::new(2000 + seed);
        let empty = json!({"action": "checkin", "ack_token": ""});
        agent.server.change(|server| server.scripted.extend(vec![empty; 20]));
        agent.start();
        agent.pass(MINUTE).await;
        agent.kill().await;
        let times: Vec<_> = agent.server.lock().check_ins.iter().map(|check_in| check_in.at).collect();
        for pair in times.windows(2) {
            let gap = pair[1] - pair[0];
            let bounds = Duration::from_millis(1005)..=Duration::from_millis(1520);
            assert!(bounds.contains(&gap), "{gap:?}, seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_no_action_runs_until_there_is_space() {
    let mut agent = Agent::new(23);
    agent.start();
    agent.pass(SECOND).await;
    agent.store.set_full(true);
    agent.server.change(|server| server.actions = vec![level("a", "debug")]);
    agent.pass(SECOND * 8).await;
    let report = agent.server.lock().check_ins.last().unwrap().body.clone();
    assert_eq!(report["status"], "DEGRADED", "the server learns of it soon");
    assert!(report["message"].as_str().unwrap().contains("cannot store the state"), "{report}");
    let before = agent.server.lock().check_ins.len();
    agent.pass(MINUTE * 10).await;
    let polls = agent.server.lock().check_ins.len() - before;
    assert!((20..=40).contains(&polls), "{polls} check-ins in 10 minutes");
    assert_eq!(agent.did(), [""; 0], "what can't be stored does not run");
    assert!(agent.snapshot().await.message.contains("cannot store the state"));
    agent.store.set_full(false);
    agent.pass(SECOND * 32).await;
    assert_eq!(agent.did(), ["level debug"]);
    assert_eq!(agent.server.acked(), ["a"]);
}

/// Any sequence of lost requests, lost responses, server errors, kills, and components that hang in any state: every action
/// runs once and in order, every ack is delivered, the last policy is in effect, and no check-in claims another one.
#[test]
fn under_random_faults_each_action_runs_once_in_order_and_is_acknowledged() {
    with_seeds(400, storm);
}

async fn storm(seed: u64) {
    let chance = Seeded::new(seed);
    let draw = |below: u64| between(&chance, Duration::ZERO, Duration::from_millis(below)).as_millis();
    let mut agent = Agent::new(seed);
    agent.settings.checkin.request_backoff_init = SECOND;
    agent.settings.checkin.request_backoff_max = SECOND * 10;
    agent.start();
    for step in 0..12_i64 {
        for _ in 0..draw(3) {
            let fault = [Fault::LoseRequest, Fault::LoseReply, broken()][usize::try_from(draw(3)).unwrap()].clone();
            let path = ["/checkin", "/acks"][usize::try_from(draw(2)).unwrap()];
            agent.server.lock().faults.push_back((path, fault));
        }
        agent.host.hold(HOLDS[usize::try_from(draw(9)).unwrap()]);
        agent.variables.set("step", step);
        agent.server.change(|server| match step % 3 {
            0 => server.policy = Some(policy(step, &format!("w{step}"))),
            // Runs in the background, so that it has no place in the order of the others.
            1 if step > 6 => server.actions.push(input_action(&format!("b{step:02}"), "echo", Some(60))),
            _ => server.actions.push(level(&format!("a{step:02}"), "debug")),
        });
        agent.pass(Duration::from_millis(u64::try_from(draw(20_000)).unwrap())).await;
        if draw(3) == 0 {
            agent.kill().await;
            agent.start();
        }
    }
    agent.server.lock().faults.clear();
    agent.pass(HOUR).await;
    let state = agent.state();
    assert_eq!(state.policy.as_ref().map(|policy| policy.revision), Some(9), "seed {seed}");
    assert!(state.inbox.is_empty() && state.outbox.is_empty() && state.candidate.is_none(), "seed {seed}: {state:?}");
    let mut times: HashMap<String, Vec<String>> = HashMap::new();
    for ack in agent.server.acks() {
        times.entry(ack.action_id).or_default().push(ack.timestamp);
    }
    let mut last = String::new();
    for number in (0..12).filter(|number| number % 3 == 1 && *number > 6) {
        assert!(times.contains_key(&format!("b{number:02}")), "b{number} not acked, seed {seed}");
    }
    for number in (0..12).filter(|number| number % 3 == 2 || number % 3 == 1 && *number <= 6) {
        let done = times.get(&format!("a{number:02}")).unwrap_or_else(|| panic!("a{number} not acked, seed {seed}"));
        assert!(done.iter().all(|time| *time == done[0]), "a{number} ran twice, seed {seed}: {done:?}");
        assert!(last <= done[0], "a{number} ran before its turn, seed {seed}");
        last.clone_from(&done[0]);
    }
    for check_in in &agent.server.lock().check_ins {
        let (claimed, parts) = (&check_in.body["policy_revision_idx"], &check_in.body["components"]);
        let runs = |revision: &i64| {
            let id = format!("process-default-w{revision}");
            parts.as_array().unwrap().iter().any(|part| part["id"] == id)
        };
        // Revision 0 says that it has none.
        assert!(
            claimed.as_i64().filter(|revision| *revision != 0).as_ref().is_none_or(runs),
            "seed {seed}: {:?}",
            check_in.body
        );
    }
    assert_eq!(agent.running(), ["process-default-w9"], "seed {seed}");
    agent.kill().await;
}
