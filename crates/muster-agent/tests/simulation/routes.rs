//! Policies that change how the server is reached.

use std::time::Duration;

use muster_agent::backoff::between;
use muster_agent::coordinator::Ending;
use muster_agent::entropy::Seeded;
use muster_agent::state::Store;
use serde_json::{Value, json};

use crate::fixture::{Agent, HERE, HOUR, MINUTE, SECOND, action, level, policy, with_seeds};
use crate::server::policy_change;

/// A policy with this section `fleet`.
fn reached(revision: i64, fleet: Value) -> Value {
    let mut policy = policy(revision, "web");
    policy["fleet"] = fleet;
    policy
}

fn through(revision: i64, proxy: &str) -> Value {
    reached(revision, json!({"hosts": [HERE], "proxy_url": proxy}))
}

/// Applies a policy, and returns the proxy of the last check-in.
async fn apply(agent: &Agent, policy: Value) -> Option<String> {
    agent.server.change(|server| server.policy = Some(policy));
    agent.pass(MINUTE * 3).await;
    way(agent)
}

/// Returns the proxy through which the agent receives actions.
fn way(agent: &Agent) -> Option<String> {
    let inner = agent.server.lock();
    inner.ways.iter().rev().find(|(path, _)| path.ends_with("/checkin")).unwrap().1.clone()
}

async fn message(agent: &Agent) -> String {
    agent.snapshot().await.fleet.message
}

#[tokio::test(start_paused = true)]
async fn ag110_a_proxy_of_a_policy_is_used_after_a_test_and_removed_with_it() {
    let mut agent = Agent::new(40);
    agent.server.lock().broken_proxies.insert("http://dead:1".into(), "");
    agent.start();
    assert_eq!(apply(&agent, through(1, "http://dead:1")).await, None);
    assert!(message(&agent).await.contains("servers responds"), "{}", message(&agent).await);
    assert_eq!(agent.state().policy.unwrap().revision, 1, "the rest of the policy is in effect");
    assert_eq!(apply(&agent, through(2, "http://good:1")).await.as_deref(), Some("http://good:1"));
    assert!(message(&agent).await.starts_with("Connected"));
    agent.kill().await;
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(way(&agent).as_deref(), Some("http://good:1"), "also after a restart");
    assert_eq!(apply(&agent, through(3, "socks5://good:1")).await.as_deref(), Some("http://good:1"));
    assert!(message(&agent).await.contains("fleet.proxy_url: the scheme must be http"));
    assert_eq!(apply(&agent, reached(4, json!({"hosts": [HERE]}))).await, None);
    assert_eq!(agent.store.enrollment().unwrap().unwrap().overrides, None);
    assert!(message(&agent).await.starts_with("Connected"));
    apply(&agent, reached(5, json!({"hosts": ["http://127.0.0.1:1"]}))).await;
    assert!(message(&agent).await.contains("plain HTTP"), "{}", message(&agent).await);
    assert_eq!(agent.snapshot().await.state.as_str(), "DEGRADED");
}

#[tokio::test(start_paused = true)]
async fn ag110_a_way_on_which_check_ins_fail_is_left_within_two_minutes() {
    let mut agent = Agent::new(41);
    agent.server.lock().broken_proxies.insert("http://half:1".into(), "/checkin");
    agent.start();
    assert_eq!(apply(&agent, through(1, "http://half:1")).await, None);
    assert!(message(&agent).await.contains("do not accept this agent"), "{}", message(&agent).await);
    agent.server.change(|server| server.actions.push(level("a", "debug")));
    agent.pass(SECOND * 10).await;
    assert!(agent.server.acked().contains(&"a".to_owned()));
    assert_eq!(agent.store.enrollment().unwrap().unwrap().overrides, None);
}

/// A load balancer with a green health page whose backend is stuck holds check-ins, and cuts them or not.
#[tokio::test(start_paused = true)]
async fn ag110_a_way_on_which_check_ins_are_held_without_a_response_is_left_within_two_minutes() {
    for (seed, cut) in (43..).zip([None, Some(SECOND * 3), Some(SECOND * 30)]) {
        let mut agent = Agent::new(seed);
        agent.server.lock().stuck_proxies.insert("http://stuck:1".into(), cut);
        agent.start();
        agent.pass(SECOND * 30).await;
        agent.server.change(|server| server.policy = Some(through(1, "http://stuck:1")));
        agent.pass(SECOND * 10).await;
        assert_eq!(way(&agent).as_deref(), Some("http://stuck:1"));
        let status = agent.snapshot().await;
        assert!(status.fleet.message.starts_with("Trying"), "{cut:?}: {}", status.fleet.message);
        agent.pass(MINUTE * 2).await;
        assert_eq!(way(&agent), None, "{cut:?}");
        assert!(message(&agent).await.contains("do not accept this agent"), "{cut:?}: {}", message(&agent).await);
        assert_eq!(agent.store.enrollment().unwrap().unwrap().overrides, None, "{cut:?}");
        let last = agent.server.lock().check_ins.last().unwrap().body.clone();
        assert_eq!((&last["status"], &last["policy_revision_idx"]), (&json!("DEGRADED"), &json!(1)), "{cut:?}");
        assert!(last["message"].as_str().unwrap().contains("do not accept this agent"), "the server is told: {last}");
        agent.server.change(|server| server.actions.push(level("a", "debug")));
        agent.pass(SECOND * 10).await;
        assert!(agent.server.acked().contains(&"a".to_owned()), "{cut:?}");
        // Repaired, and tried again with the next start.
        agent.server.lock().stuck_proxies.clear();
        agent.kill().await;
        agent.start();
        agent.pass(MINUTE).await;
        assert_eq!(way(&agent).as_deref(), Some("http://stuck:1"), "{cut:?}");
        agent.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_working_way_is_accepted_at_once_although_nothing_else_is_due() {
    let mut agent = Agent::new(46);
    agent.start();
    agent.pass(SECOND * 30).await;
    agent.server.change(|server| server.policy = Some(through(1, "http://good:1")));
    agent.pass(SECOND).await;
    assert!(agent.store.enrollment().unwrap().unwrap().overrides.is_some());
    agent.pass(SECOND * 2).await;
    assert_eq!(agent.server.acked(), ["policy:p:1"]);
    let last = agent.server.lock().check_ins.last().unwrap().body.clone();
    assert_eq!(last["policy_revision_idx"], 1, "in effect with its way");
    let starts = agent.did().iter().filter(|line| *line == "start process-default-web").count();
    assert_eq!(starts, 1, "it is applied once");
}

/// The way of a policy worked and does not any more: the agent finds its server on the previous one.
#[tokio::test(start_paused = true)]
async fn ag110_a_stored_way_that_fails_is_left_for_the_previous_one() {
    for (seed, stuck) in [(47, false), (48, true)] {
        let mut agent = Agent::new(seed);
        agent.start();
        assert_eq!(apply(&agent, through(1, "http://good:1")).await.as_deref(), Some("http://good:1"));
        agent.server.change(|server| {
            let broken = "http://good:1".to_owned();
            if stuck {
                server.stuck_proxies.insert(broken, None);
            } else {
                server.broken_proxies.insert(broken, "");
            }
        });
        agent.pass(MINUTE * 45).await;
        assert_eq!(way(&agent), None, "stuck: {stuck}");
        let fallback = message(&agent).await;
        assert!(fallback.contains("do not respond; using the previous ones"), "{fallback}");
        agent.server.change(|server| server.actions.push(level("a", "debug")));
        agent.pass(SECOND * 10).await;
        assert!(agent.server.acked().contains(&"a".to_owned()), "stuck: {stuck}");
        agent.kill().await;
        agent.start();
        agent.pass(MINUTE * 2).await;
        assert_eq!(way(&agent), None, "stuck: {stuck}");
        let fleet = agent.snapshot().await.fleet;
        assert_eq!(fleet.state.as_str(), "DEGRADED", "{}", fleet.message);
        assert_eq!(apply(&agent, through(2, "http://next:1")).await.as_deref(), Some("http://next:1"));
        assert!(message(&agent).await.starts_with("Connected"));
        agent.kill().await;
    }
}

/// An agent that is told to leave while it tries the way of a policy leaves.
#[tokio::test(start_paused = true)]
async fn ag135_an_unenrollment_ends_a_trial() {
    let mut agent = Agent::new(49);
    agent.server.lock().stuck_proxies.insert("http://stuck:1".into(), None);
    agent.start();
    agent.pass(SECOND * 30).await;
    let moved = through(1, "http://stuck:1");
    let actions = json!([policy_change(&moved), action("u", "UNENROLL", Value::Null)]);
    let response = json!({"action": "checkin", "ack_token": "1", "actions": actions});
    agent.server.change(|server| server.scripted.push_back(response));
    assert_eq!(agent.ended(MINUTE).await, Ending::Unenrolled);
    assert!(agent.server.acked().contains(&"u".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_returns_to_an_earlier_way_is_followed() {
    let mut agent = Agent::new(42);
    // Acks fail over the second way, from which the agent returns to the first one.
    let policies = [through(1, "http://good:1"), through(2, "http://half:1"), through(3, "http://good:1")];
    agent.server.lock().broken_proxies.insert("http://half:1".into(), "/acks");
    agent.start();
    assert_eq!(apply(&agent, policies[0].clone()).await.as_deref(), Some("http://good:1"));
    agent.server.change(|server| server.policy = Some(policies[1].clone()));
    agent.pass(Duration::from_millis(500)).await;
    assert_eq!(apply(&agent, policies[2].clone()).await.as_deref(), Some("http://good:1"));
    assert_eq!(agent.state().policy.unwrap().revision, 3);
    assert!(agent.server.acked().contains(&"policy:p:3".to_owned()));
}

/// Policies with any way, proxies that break at any moment, and kills: the agent never loses its server, and uses the way of
/// the last policy if that works.
#[test]
fn ag110_under_random_ways_and_kills_the_agent_never_loses_its_server() {
    with_seeds(200, storm);
}

async fn storm(seed: u64) {
    let chance = Seeded::new(seed);
    let draw = |below: u64| between(&chance, Duration::ZERO, Duration::from_millis(below)).as_millis();
    let mut agent = Agent::new(seed);
    agent.settings.checkin.request_backoff_init = SECOND;
    agent.settings.checkin.request_backoff_max = SECOND * 10;
    agent.start();
    let mut revision = 0;
    for _ in 0..8 {
        revision += 1;
        let proxy = format!("http://p{}:1", draw(3));
        let broken = ["", "/checkin", "/acks", "/api/status", "none"][usize::try_from(draw(5)).unwrap()];
        let stuck = [None, None, Some(None), Some(Some(SECOND * 3))][usize::try_from(draw(4)).unwrap()];
        agent.server.change(|server| {
            server.broken_proxies.clear();
            server.stuck_proxies.clear();
            // Only the way of the next policy: a proxy that is in use and breaks has to be repaired.
            server.broken_proxies.insert(format!("http://new{revision}:1"), broken);
            server.stuck_proxies.extend(stuck.map(|cut| (format!("http://new{revision}:1"), cut)));
            server.policy = Some(match draw(4) {
                0 => reached(revision, json!({"hosts": [HERE]})),
                1 => through(revision, &proxy),
                _ => through(revision, &format!("http://new{revision}:1")),
            });
        });
        agent.pass(Duration::from_millis(u64::try_from(draw(90_000)).unwrap())).await;
        if draw(3) == 0 {
            agent.kill().await;
            agent.start();
        }
        // Whatever the policy, the agent hears from its server again soon.
        agent.pass(MINUTE * 2).await;
        let heard = agent.server.lock().check_ins.last().unwrap().at;
        agent.server.change(|server| server.actions.push(level(&format!("a{revision}"), "debug")));
        agent.pass(SECOND * 15).await;
        let inner = agent.server.lock();
        let token = &inner.check_ins.last().unwrap().body["ack_token"];
        assert_eq!(token.as_str(), Some(revision.to_string().as_str()), "seed {seed}, {revision}, {heard:?}");
    }
    agent.server.lock().broken_proxies.clear();
    agent.server.lock().stuck_proxies.clear();
    let last = format!("http://last{seed}:1");
    agent.server.change(|server| server.policy = Some(through(revision + 1, &last)));
    agent.pass(HOUR).await;
    assert_eq!(way(&agent).as_deref(), Some(last.as_str()), "seed {seed}");
    assert_eq!(agent.state().policy.unwrap().revision, revision + 1, "seed {seed}");
    assert!(agent.server.acked().contains(&format!("policy:p:{}", revision + 1)), "seed {seed}");
    agent.kill().await;
}
