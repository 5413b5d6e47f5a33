//! Limits over the wire (EA §1.12).

use std::time::Duration;

use muster_elastic::limits::Operation;
use serde_json::Value;

use crate::setting::{Ask, Server, online, refused};

#[tokio::test]
async fn ea15_an_empty_bucket_is_429_with_retry_after() {
    let server = Server::with(
        |options| {
            let limit = options.limits.of_mut(Operation::Status);
            (limit.interval, limit.burst) = (Duration::from_secs(3600), 2);
        },
        |_| {},
    )
    .await;
    let ask = Ask::get("/api/status");
    assert_eq!(server.get(ask.clone()).await.status, 200);
    assert_eq!(server.get(ask.clone()).await.status, 200);
    let got = server.get(ask).await;
    assert_eq!(got.refusal(), refused(429, "RateLimit"));
    assert!(got.header("retry-after").parse::<u32>().unwrap() > 3000);
    assert!(!got.headers.contains_key("elastic-api-version"), "refused before the version is looked at");
    // Other operations and other listeners have their own buckets.
    let agent = server.enrolled().await;
    assert_eq!(server.get(server.acks(&agent, &Value::Null)).await.status, 200);
}

#[tokio::test]
async fn ea15_ea16_a_parked_check_in_keeps_its_slot() {
    let server = Server::with(|options| options.limits.of_mut(Operation::CheckIn).max = 1, |_| {}).await;
    let agent = server.enrolled().await;
    let parked = server.park(server.check_in(&agent, &online())).await;
    assert_eq!(server.api.running(Operation::CheckIn), 1);
    let got = server.get(server.check_in(&agent, &online())).await;
    assert_eq!((got.refusal(), got.header("retry-after")), (refused(429, "MaxLimit"), "1"));
    drop(parked);
    server.holds(server.check_in(&agent, &online())).await;
}

#[tokio::test]
async fn every_listener_has_its_own_limits() {
    let server = Server::with(|options| options.limits.of_mut(Operation::CheckIn).max = 1, |_| {}).await;
    let agent = server.enrolled().await;
    let _parked = server.park(server.check_in(&agent, &online())).await;
    let local = muster_elastic::AgentApi::new(server.fleet.clone(), server.options.clone());
    let (request, peer) = server.check_in(&agent, &online()).into_parts();
    assert!(matches!(local.handle(request, peer).await.answer, muster_listen::reply::Answer::Park(_)));
}

#[tokio::test]
async fn a_third_poll_of_an_agent_releases_the_oldest() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let poll = || server.park(server.check_in(&agent, &online()));
    let (mut first, mut second) = (poll().await, poll().await);
    let is_held = |poll: &mut muster_listen::reply::Parked| {
        let waker = std::task::Waker::noop();
        poll.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending()
    };
    assert!(is_held(&mut first) && is_held(&mut second));
    let mut third = poll().await;
    let answered = crate::setting::Got::of(first.await).await;
    assert_eq!((answered.status, answered.json()["action"].as_str()), (200, Some("checkin")));
    assert!(is_held(&mut second) && is_held(&mut third));
    assert_eq!(server.api.running(Operation::CheckIn), 2);
    // The limit is per agent: polls of another agent are held.
    let other = server.enrolled().await;
    server.holds(server.check_in(&other, &online())).await;
    assert!(is_held(&mut second));
}
