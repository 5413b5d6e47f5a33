//! Components that hang in any of their states: the fleet's loop does not notice.

use std::time::Duration;

use muster_agent::coordinator::Ending;
use muster_agent::state::{Phase, Store};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::fixture::{Agent, HOLDS, Hold, MINUTE, SECOND, action, level, policy};

/// An agent with one component that hangs.
async fn holding(seed: u64, hold: Hold) -> Agent {
    let mut agent = Agent::new(seed);
    agent.host.hold(hold);
    agent.server.change(|server| server.policy = Some(policy(1, "held")));
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(agent.running(), ["process-default-held"], "{hold:?}");
    agent
}

/// Runs `change` on the server, and returns how long the agent takes to check in with the newest policy and acks.
async fn answer(agent: &Agent, change: impl FnOnce(&mut crate::server::Inner), ack: &str) -> Duration {
    let begun = Instant::now();
    agent.server.change(change);
    while !agent.server.acked().iter().any(|id| id == ack) {
        assert!(begun.elapsed() < MINUTE, "{ack} is not acknowledged: {:?}", agent.did());
        agent.pass(Duration::from_millis(1)).await;
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn ag111_ag120_a_component_in_any_state_does_not_delay_policies_actions_and_check_ins() {
    for (seed, hold) in HOLDS.into_iter().enumerate() {
        let mut agent = holding(700 + u64::try_from(seed).unwrap(), hold).await;
        // The held component leaves the policy, and another one comes.
        agent.host.hold(Hold::Nothing);
        let took = answer(&agent, |server| server.policy = Some(policy(2, "next")), "policy:p:2").await;
        assert!(took < SECOND / 10, "{hold:?}: policy after {took:?}");
        assert_eq!(agent.running(), ["process-default-next"], "{hold:?}");
        let took = answer(&agent, |server| server.actions.push(level("a", "debug")), "a").await;
        assert!(took < SECOND * 7, "{hold:?}: action after {took:?}");
        // From now on nothing changes: check-ins follow each other as with no component at all.
        let before = agent.server.lock().check_ins.len();
        agent.pass(MINUTE * 50).await;
        let polls = agent.server.lock().check_ins.len() - before;
        assert!((9..=11).contains(&polls), "{hold:?}: {polls} polls in 50 minutes");
        let left = hold == Hold::Stop;
        let parts = agent.server.lock().check_ins.last().unwrap().body["components"].as_array().unwrap().len();
        assert_eq!(parts, 1 + usize::from(left), "a component that is stopping is still reported");
        agent.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ag64_programs_of_a_killed_agent_delay_the_components_and_not_the_fleet() {
    let mut agent = holding(730, Hold::Nothing).await;
    agent.kill().await;
    agent.host.occupied.send_replace(true);
    let before = agent.server.lock().check_ins.len();
    agent.start();
    agent.pass(SECOND / 10).await;
    assert!(agent.server.lock().check_ins.len() > before, "the first check-in waits");
    let part = agent.snapshot().await.components[0].clone();
    assert!(part.message.contains("an earlier agent"), "{part:?}");
    let took = answer(&agent, |server| server.policy = Some(policy(2, "next")), "policy:p:2").await;
    assert!(took < SECOND / 10, "policy after {took:?}");
    agent.pass(SECOND).await;
    assert_eq!(agent.did().last().unwrap(), "forget process-default-held", "nothing starts beside them");
    agent.host.occupied.send_replace(false);
    agent.pass(SECOND).await;
    assert_eq!(agent.did().last().unwrap(), "start process-default-next");
}

#[tokio::test(start_paused = true)]
async fn ag135_a_component_that_does_not_stop_delays_an_unenrollment_by_seconds_only() {
    for (seed, hold) in HOLDS.into_iter().enumerate() {
        let agent = holding(720 + u64::try_from(seed).unwrap(), hold).await;
        let unenroll = action("u", "UNENROLL", Value::Null);
        let took = answer(&agent, |server| server.actions.push(unenroll), "u").await;
        assert!(took < SECOND * 6, "{hold:?}: {took:?}");
        assert!(hold == Hold::Stop || took < SECOND, "{hold:?}: {took:?}");
        assert_eq!(agent.running(), [""; 0], "{hold:?}");
        assert_ne!(agent.state().phase, Phase::Active);
        assert!(agent.state().policy.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn ag66_ag76_only_the_component_that_leaves_the_policy_is_stopped() {
    let mut agent = Agent::new(740);
    let two = |revision: i64, programs: &[&str]| {
        let inputs: Vec<Value> =
            programs.iter().map(|id| json!({"id": id, "type": "process", "command": "/bin/true"})).collect();
        json!({"id": "p", "revision": revision, "inputs": inputs})
    };
    agent.server.change(|server| server.policy = Some(two(1, &["a", "b"])));
    agent.start();
    agent.pass(MINUTE).await;
    agent.journal.lock().unwrap().clear();
    agent.server.change(|server| server.policy = Some(two(2, &["a", "c"])));
    agent.pass(MINUTE).await;
    let mut did = agent.did();
    did.sort();
    assert_eq!(did, ["forget process-default-b", "start process-default-c", "stop process-default-b"]);
    // It comes back while it is still stopping: it is stopped and then started, once each.
    *agent.host.stop_time.lock().unwrap() = SECOND * 30;
    agent.server.change(|server| server.policy = Some(two(3, &["a"])));
    agent.pass(SECOND * 10).await;
    agent.journal.lock().unwrap().clear();
    agent.server.change(|server| server.policy = Some(two(4, &["a", "c"])));
    agent.pass(MINUTE).await;
    assert_eq!(agent.did(), ["start process-default-c"]);
    assert_eq!(agent.server.acked().last().unwrap(), "policy:p:4");
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_unchanged_components_running() {
    let mut agent = Agent::new(741);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    agent.commands.send(muster_agent::coordinator::Command::Reload).await.unwrap();
    assert_eq!(agent.ended(SECOND).await, Ending::Reload);
    agent.resume();
    agent.pass(MINUTE).await;
    assert_eq!(agent.did(), ["start process-default-web"]);
    // Enrolled elsewhere: nothing of the previous policy may run (AG82).
    agent.store.save_state(&muster_agent::state::State::default()).unwrap();
    agent.server.change(|server| server.policy = None);
    agent.commands.send(muster_agent::coordinator::Command::Reload).await.unwrap();
    assert_eq!(agent.ended(SECOND).await, Ending::Reload);
    agent.resume();
    agent.pass(MINUTE).await;
    assert_eq!(agent.running(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_tasks_of_components_end_with_their_supervisor() {
    let mut agent = Agent::new(742);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(agent.running(), ["process-default-web"]);
    agent.kill().await;
    drop(agent);
    tokio::time::sleep(SECOND).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}
