//! Load balancers and gateways that cut silent connections: the agent polls in shorter turns and never backs off.

use std::time::Duration;

use muster_agent::state::{Phase, PollLimit};
use tokio::time::Instant;

use crate::fixture::{Agent, HOUR, MINUTE, SECOND, level, policy};
use crate::server::{Fault, Middlebox};

fn behind(seed: u64, middlebox: Middlebox) -> Agent {
    let agent = Agent::new(seed);
    agent.server.change(|server| {
        server.policy = Some(policy(1, "web"));
        server.middlebox = Some(middlebox);
    });
    agent
}

/// Longest time without a poll on its way, given how long each was held at most.
fn longest_pause(agent: &Agent, from: Instant, held: Duration) -> Duration {
    let times: Vec<_> = agent.server.lock().check_ins.iter().map(|poll| poll.at).filter(|at| *at >= from).collect();
    times.windows(2).map(|pair| (pair[1] - pair[0]).saturating_sub(held)).max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn polls_adapt_to_a_middlebox_that_cuts_idle_connections() {
    for (seed, cut) in [10, 45, 60, 90, 240].into_iter().enumerate() {
        let cut = SECOND * cut;
        for middlebox in [Middlebox::Resets(cut), Middlebox::Answers504(cut)] {
            let mut agent = behind(u64::try_from(seed).unwrap() + 40, middlebox);
            agent.start();
            agent.pass(MINUTE * 30).await;
            assert!(agent.server.lock().cuts.len() <= 2, "{middlebox:?}: one to learn, one to confirm");
            let status = agent.snapshot().await;
            assert_eq!((status.fleet.failures, status.state.as_str()), (0, "HEALTHY"), "{middlebox:?}: {status:?}");
            assert!(status.fleet.poll_limit_seconds.unwrap() < cut.as_secs());
            assert_eq!(agent.state().poll_limit.map(|limit| limit.confirmed), Some(true), "{middlebox:?}");
            agent.server.change(|server| server.actions.push(level("a", "debug")));
            agent.pass(SECOND * 3).await;
            assert_eq!(agent.server.acked().last().unwrap(), "a", "{middlebox:?}");
            agent.pass(HOUR * 6).await;
            assert!(agent.server.lock().cuts.len() <= 2, "{middlebox:?}: no more cuts");
            assert!(longest_pause(&agent, Instant::now() - HOUR, cut) < SECOND * 12, "{middlebox:?}");
            agent.kill().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn behind_a_cut_of_four_seconds_the_agent_is_never_out_of_reach_for_ten() {
    let cut = SECOND * 4;
    for (seed, middlebox) in (60..).zip([Middlebox::Resets(cut), Middlebox::Answers504(cut)]) {
        let mut agent = behind(seed, middlebox);
        let begun = Instant::now();
        agent.start();
        agent.pass(HOUR).await;
        assert_eq!(agent.snapshot().await.fleet.failures, 0, "{middlebox:?}");
        // From one poll to the next: none is held for longer than the cut.
        assert!(longest_pause(&agent, begun, Duration::ZERO) < SECOND * 10, "{middlebox:?}");
        agent.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_cut_the_next_poll_starts_immediately() {
    let cut = SECOND * 45;
    let mut agent = behind(50, Middlebox::Resets(cut));
    agent.start();
    agent.pass(MINUTE * 20).await;
    assert!(longest_pause(&agent, Instant::now() - MINUTE * 20, cut) < SECOND * 8);
    agent.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_drops_connections_silently_is_detected() {
    let mut agent = behind(51, Middlebox::Swallows(SECOND * 240));
    agent.start();
    agent.pass(HOUR).await;
    assert!(agent.state().poll_limit.is_some());
    let cuts = agent.server.lock().cuts.len();
    assert!((1..=3).contains(&cuts), "{cuts}");
    agent.pass(HOUR * 12).await;
    assert_eq!(agent.server.lock().cuts.len(), cuts);
    assert_eq!(agent.snapshot().await.fleet.failures, 0);
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_kept_across_a_restart() {
    let mut agent = behind(52, Middlebox::Resets(SECOND * 60));
    agent.start();
    agent.pass(MINUTE * 30).await;
    agent.kill().await;
    let cuts = agent.server.lock().cuts.len();
    assert_eq!(agent.state().poll_limit, Some(PollLimit { cut_after_ms: 60_005, confirmed: true }));
    let writes = agent.store.writes();
    agent.start();
    agent.pass(HOUR).await;
    assert_eq!(agent.server.lock().cuts.len(), cuts, "it does not learn the same again");
    assert_eq!(agent.store.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_single_crash_of_the_server_shortens_polls_only_briefly() {
    let mut agent = behind(53, Middlebox::Crashes(SECOND * 20));
    agent.start();
    agent.pass(SECOND * 23).await;
    agent.server.change(|server| server.middlebox = None);
    // The server was reached again at once: a device could have cut the poll.
    agent.pass(SECOND * 20).await;
    assert!(agent.state().poll_limit.is_some());
    agent.pass(MINUTE * 10).await;
    assert_eq!(agent.state().poll_limit, None);
    let polls = agent.server.lock().check_ins.len();
    agent.pass(HOUR).await;
    assert!(agent.server.lock().check_ins.len() - polls <= 13, "full length again");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drops_every_request_triggers_the_back_off() {
    // Cuts this soon leave no room for a shorter poll.
    let mut agent = behind(54, Middlebox::Resets(Duration::from_millis(1_500)));
    agent.start();
    agent.pass(HOUR).await;
    let polls = agent.server.lock().check_ins.len();
    assert!(polls < 20, "{polls} polls in an hour");
    assert_eq!(agent.state().phase, Phase::Active);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_crashes_is_no_device_that_cuts_polls() {
    crashes(140, Fault::Refuse).await;
    // Behind a gateway.
    crashes(141, Fault::Answer(503, "<html>no server</html>".into())).await;
}

async fn crashes(seed: u64, afterwards: Fault) {
    let mut agent = behind(seed, Middlebox::Crashes(SECOND * 8));
    agent.start();
    agent.pass(SECOND * 7).await;
    agent.server.change(|server| {
        server.always = Some(("", afterwards));
        server.middlebox = None;
    });
    agent.pass(SECOND * 20).await;
    assert_eq!(agent.server.lock().cuts.len(), 1);
    agent.server.change(|server| server.always = None);
    agent.pass(MINUTE).await;
    let polls = agent.server.lock().check_ins.len();
    agent.pass(MINUTE * 20).await;
    let polls = agent.server.lock().check_ins.len() - polls;
    assert!((3..=5).contains(&polls), "{polls} polls in 20 minutes");
    assert_eq!((agent.state().poll_limit, agent.snapshot().await.fleet.poll_limit_seconds), (None, None));
}
