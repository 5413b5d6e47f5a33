//! Migrations to another server, with kills and lost requests at any moment.

use std::time::Duration;

use muster_agent::backoff::between;
use muster_agent::coordinator::Ending;
use muster_agent::entropy::Seeded;
use muster_agent::state::Store;
use serde_json::{Value, json};

use crate::fixture::{Agent, HERE, HOUR, MINUTE, SECOND, action, level, policy, with_seeds};
use crate::server::Fault;

const THERE: &str = "https://there.example:8220";

fn migrate(id: &str, settings: &Value) -> Value {
    action(id, "MIGRATE", json!({"target_uri": THERE, "enrollment_token": "dG9rOmVu", "settings": settings}))
}

fn agent(seed: u64) -> Agent {
    let mut agent = Agent::new(seed);
    agent.migrates = true;
    agent.settings.checkin.request_backoff_init = SECOND;
    agent.settings.checkin.request_backoff_max = SECOND * 10;
    agent.settings.ack.backoff_max = SECOND * 10;
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.other.change(|server| server.policy = Some(policy(1, "db")));
    agent
}

/// Lets time pass, and reloads the enrollment as the daemon does.
async fn pass(agent: &mut Agent, time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(SECOND * 5);
        agent.pass(step).await;
        left -= step;
        if agent.running.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) {
            assert_eq!(agent.ended(SECOND).await, Ending::Reload);
            agent.resume();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_migrated_agent_is_acknowledged_here_and_runs_its_policy_there() {
    let mut agent = agent(600);
    agent.start();
    pass(&mut agent, SECOND * 10).await;
    agent.server.change(|server| server.actions = vec![level("a", "debug"), migrate("m", &json!({"tags": ["x"]}))]);
    pass(&mut agent, MINUTE * 2).await;
    assert_eq!(agent.store.enrollment().unwrap().unwrap().servers, [THERE]);
    let acks = agent.server.acks();
    assert_eq!(acks.iter().map(|ack| ack.action_id.as_str()).collect::<Vec<_>>(), ["policy:p:1", "a", "m"]);
    assert_eq!(acks[2].error, None);
    assert_eq!(agent.server.lock().audits[0]["reason"], "migrated");
    assert_eq!(agent.running(), ["process-default-db"], "nothing of the previous policy runs");
    assert_eq!(agent.other.acked(), ["policy:p:1"], "nothing of the previous server is sent to the other one");
    assert!(!agent.did().contains(&"level debug".to_owned()) || agent.state().log_level.is_none());
}

#[tokio::test(start_paused = true)]
async fn ag119_an_agent_whose_target_cannot_be_reached_or_used_stays() {
    for (seed, fault, settings, part) in [
        (601, Some(("/api/status", Fault::LoseRequest)), json!({}), "lost"),
        (
            602,
            Some(("/enroll", Fault::Answer(401, json!({"statusCode": 401, "error": "x", "message": "bad key"})))),
            json!({}),
            "bad key",
        ),
        (603, None, json!({"proxy_url": "http://proxy:3128"}), "proxy_url"),
        (604, None, json!({"ca": ["-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"]}), "certificate"),
    ] {
        let mut agent = agent(seed);
        agent.other.change(|server| server.always = fault);
        agent.server.change(|server| server.actions = vec![migrate("m", &settings)]);
        agent.start();
        pass(&mut agent, MINUTE * 5).await;
        assert_eq!(agent.store.enrollment().unwrap().unwrap().servers, [HERE]);
        let error = agent.server.acks().into_iter().find(|ack| ack.action_id == "m").unwrap().error.unwrap();
        assert!(error.contains(part), "{part}: {error}");
        assert_eq!(agent.running(), ["process-default-web"]);
    }
}

/// Any sequence of kills and lost requests during a migration: the agent ends at the other server as one agent, and the first
/// server has the ack.
#[test]
fn ag119_under_random_kills_a_migration_completes_with_one_agent() {
    with_seeds(200, storm);
}

async fn storm(seed: u64) {
    let chance = Seeded::new(seed ^ 0x319);
    let draw =
        |below: u64| u64::try_from(between(&chance, Duration::ZERO, Duration::from_millis(below)).as_millis()).unwrap();
    let mut agent = agent(seed);
    agent.start();
    for _ in 0..draw(6) {
        let fault = [Fault::LoseRequest, Fault::LoseReply][usize::try_from(draw(2)).unwrap()].clone();
        // The probe is not retried, because its failure is an answer.
        let path = ["/checkin", "/acks", "/enroll", "/audit/unenroll"][usize::try_from(draw(4)).unwrap()];
        let server = if path == "/enroll" { &agent.other } else { &agent.server };
        server.lock().faults.push_back((path, fault));
    }
    pass(&mut agent, Duration::from_millis(draw(3000))).await;
    agent.server.change(|server| server.actions.push(migrate("m", &json!({}))));
    for _ in 0..draw(5) {
        pass(&mut agent, Duration::from_millis(draw(9000))).await;
        if draw(2) == 0 {
            agent.kill().await;
            agent.start();
        }
    }
    agent.other.lock().faults.clear();
    pass(&mut agent, HOUR / 2).await;
    let (acks, others) = (agent.server.acks(), agent.other.lock().enrolled.clone());
    let acks: Vec<_> = acks.iter().filter(|ack| ack.action_id == "m").collect();
    assert!(!acks.is_empty() && acks.iter().all(|ack| ack.timestamp == acks[0].timestamp), "seed {seed}: {acks:?}");
    if acks[0].error.is_some() {
        // Three attempts to enroll were lost.
        assert_eq!(agent.store.enrollment().unwrap().unwrap().servers, [HERE], "seed {seed}: {acks:?}");
    } else {
        assert_eq!(agent.store.enrollment().unwrap().unwrap().servers, [THERE], "seed {seed}");
        assert_eq!(others.len(), 1, "seed {seed}: {others:?}");
        let did = agent.did();
        let there = did.iter().position(|line| line == "start process-default-db").unwrap();
        let here = did.iter().rposition(|line| line == "start process-default-web");
        assert!(here.is_none_or(|here| here < there), "nothing of the previous policy runs, seed {seed}: {did:?}");
        assert!(agent.state().migration.is_none(), "seed {seed}");
        let ours = agent.other.acked();
        assert!(ours.iter().all(|id| id == "policy:p:1"), "seed {seed}: {ours:?}");
    }
    agent.kill().await;
}
