//! Server outages, and clocks that are set.

use std::sync::Arc;

use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::id::{AgentId, PolicyId};
use muster_core::status::finish;
use muster_core::testing::{TestClock, at, bare_agent};
use muster_store::{AgentWrite, Write};

use super::*;
use crate::registry::PollSlot;
use crate::testing::TestFleet;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const AGENT: &str = "gone";

/// A fleet with a policy whose agents become inactive after an hour and are unenrolled after a day, and an agent that
/// was only seen at its enrollment.
async fn fleet() -> TestFleet {
    let test = TestFleet::default();
    test.revised_policy("p", |policy| policy.unenroll_timeout = Some(86_400)).await;
    let record = AgentRecord {
        policy_id: Some(PolicyId::trusted("p")),
        inactivity_timeout: Some(HOUR),
        last_checkin: Some(test.now()),
        status_deadline: Some(test.now().plus(HOUR)),
        ..bare_agent(AGENT, test.now())
    };
    test.add_agent(record, AgentDocuments::default()).await;
    test
}

async fn run_timers(test: &TestFleet) -> AgentRecord {
    test.fleet.statuses().follow_clock().await.unwrap();
    test.fleet.statuses().transition_due().await.unwrap();
    test.fleet.housekeeping().run().await;
    test.stored(AGENT).await
}

#[test]
fn slewed_clock_is_not_a_step() {
    let clock = TestClock::new(at(0));
    let observation = Observation::new(&clock);
    for _ in 0..100 {
        clock.advance(HOUR);
        clock.set(clock.now().plus(Duration::from_secs(20)));
        assert_eq!(observation.detect_step(&clock), None);
    }
    assert_eq!(observation.absences_count_from(&clock), clock.now().minus(HOUR * 100).plus(BACK_OFF));
}

#[test]
fn setting_the_clock_restarts_the_observation() {
    let clock = TestClock::new(at(0));
    let observation = Observation::new(&clock);
    for (to, step) in [(clock.now().plus(HOUR), 3_600_000_000), (clock.now(), -3_600_000_000)] {
        clock.set(to);
        assert_eq!(observation.detect_step(&clock), Some(step));
        assert_eq!(observation.detect_step(&clock), None);
        assert_eq!(observation.absences_count_from(&clock), clock.now().plus(BACK_OFF));
    }
}

#[tokio::test]
async fn agent_keeps_its_status_for_a_full_back_off_after_a_restart() {
    let test = fleet().await;
    let before = test.stored(AGENT).await.status;
    test.clock.advance(HOUR * 2);
    let restarted = test.beside();
    for wait in [Duration::from_secs(60), BACK_OFF - Duration::from_secs(61)] {
        test.clock.advance(wait);
        assert_eq!(run_timers(&restarted).await.status, before, "it may still be waiting for its next attempt");
    }
    test.clock.advance(Duration::from_secs(1));
    assert_eq!(run_timers(&restarted).await.status, Status::Inactive);
}

#[tokio::test]
async fn change_of_many_agents_right_after_a_start_moves_none_of_them_to_offline() {
    let test = fleet().await;
    let before = test.stored(AGENT).await.status;
    test.clock.advance(HOUR * 2);
    let restarted = test.beside();
    let change = async |tag: &str| {
        let decide = |record: &AgentRecord, now| {
            let after = AgentRecord { tags: vec![tag.to_owned()], ..record.clone() };
            let seen = restarted.fleet.registry().last_seen(&record.id, now);
            AgentChange { record: Some(finish(record, after, seen, now)), writes: Vec::new() }
        };
        let ids = [AgentId::trusted(AGENT)];
        restarted.fleet.inner.records.change_many(&System, &ids, Basis::Store, &decide).await.unwrap();
        restarted.stored(AGENT).await
    };
    let changed = change("first").await;
    assert_eq!((changed.status, changed.tags.as_slice()), (before, &["first".to_owned()][..]));
    assert_eq!(changed.status_deadline, Some(restarted.now().plus(BACK_OFF)), "it is looked at again");
    test.clock.advance(BACK_OFF);
    assert_eq!(change("second").await.status, Status::Inactive, "it had its time");
}

#[tokio::test]
async fn absence_that_this_server_saw_needs_no_back_off() {
    let test = fleet().await;
    test.clock.advance(Duration::from_secs(301));
    let after = run_timers(&test).await;
    assert_eq!(after.status_deadline, Some(test.now().minus(Duration::from_secs(301)).plus(HOUR)), "not due yet");
    test.clock.advance(HOUR);
    assert_eq!(run_timers(&test).await.status, Status::Inactive);
}

#[tokio::test]
async fn server_downtime_does_not_count_as_absence() {
    let test = fleet().await;
    test.clock.advance(DAY * 3);
    let restarted = test.beside();
    let before = run_timers(&restarted).await;
    assert!(before.active, "three days without a server");
    test.clock.advance(DAY);
    let after = run_timers(&restarted).await;
    assert_eq!(
        (after.active, after.status),
        (true, Status::Inactive),
        "a day since the start, but no full back-off more"
    );
    test.clock.advance(BACK_OFF);
    assert!(run_timers(&restarted).await.active);
    test.clock.advance(Duration::from_secs(1));
    assert!(!run_timers(&restarted).await.active, "it had its time");
}

#[tokio::test]
async fn clock_set_forward_unenrolls_no_agent() {
    let test = fleet().await;
    test.clock.advance(HOUR * 2);
    assert_eq!(run_timers(&test).await.status, Status::Inactive);
    test.clock.set(test.now().plus(DAY * 30));
    assert!(run_timers(&test).await.active);
    test.clock.advance(DAY);
    assert!(run_timers(&test).await.active);
    test.clock.advance(BACK_OFF + Duration::from_secs(1));
    assert!(!run_timers(&test).await.active);
}

#[tokio::test]
async fn agent_last_seen_in_the_future_turns_offline_after_the_clock_is_set_back() {
    let test = fleet().await;
    let today = test.now();
    test.clock.set(today.plus(DAY * 5));
    run_timers(&test).await;
    let entry = test.fleet.registry().get(&AgentId::trusted(AGENT)).unwrap();
    drop(PollSlot::new(test.fleet.registry(), Arc::clone(&entry), test.clock.clone()));
    test.fleet.statuses().flush_presence().await.unwrap();
    assert_eq!(test.stored(AGENT).await.last_checkin, Some(today.plus(DAY * 5)));

    test.clock.set(today);
    let after = run_timers(&test).await;
    assert_eq!((after.last_checkin, entry.last_seen(today)), (Some(today), Some(today)));
    test.clock.advance(Duration::from_secs(301));
    assert_eq!(run_timers(&test).await.status, Status::Offline);
    test.clock.advance(HOUR);
    assert_eq!(run_timers(&test).await.status, Status::Inactive);
}

#[tokio::test]
async fn connected_agent_stays_online_when_the_clock_is_set() {
    let test = fleet().await;
    let entry = test.fleet.inner.records.entry(&AgentId::trusted(AGENT)).await.unwrap().unwrap();
    let poll = PollSlot::new(test.fleet.registry(), entry, test.clock.clone());
    for to in [test.now().plus(DAY * 9), test.now(), test.now().minus(DAY * 9)] {
        test.clock.set(to);
        assert!(run_timers(&test).await.active);
        assert_ne!(run_timers(&test).await.status, Status::Offline);
    }
    drop(poll);
    test.clock.advance(Duration::from_secs(301));
    assert_eq!(run_timers(&test).await.status, Status::Offline);
}

/// The clock was corrected before the server started: there is no step to detect, only the stored times.
#[tokio::test]
async fn future_sightings_are_corrected_at_startup() {
    let test = fleet().await;
    let seen = vec![(AgentId::trusted(AGENT), test.now().plus(DAY * 100))];
    test.commit(vec![Write::Agent(AgentWrite::Seen { seen })]).await;
    let restarted = test.beside();
    assert_eq!(run_timers(&restarted).await.last_checkin, Some(test.now()));
    test.clock.advance(Duration::from_secs(301));
    assert_eq!(run_timers(&restarted).await.status, Status::Offline);
}
