//! Housekeeping against a store.

use muster_core::action::{ActionType, TargetState};
use muster_core::agent::AgentRecord;
use muster_core::authorization::{Actor, OpContext};
use muster_core::change::Change;
use muster_core::credential::ApiKey;
use muster_core::file::Upload;
use muster_core::id::{ActionId, AgentId, FileId, PolicyId};
use muster_core::policy::Policy;
use muster_core::status::Status;
use muster_store::PolicyWrite;
use muster_store::query::AgentFilter;

use super::enrollment_keys::KEYS_KEPT;
use super::*;
use crate::observation::BACK_OFF;
use crate::registry::PollSlot;
use crate::space_settings::SpaceSettings;
use crate::testing::TestFleet;

const HOUR: Duration = Duration::from_secs(3600);

async fn enrolled(test: &TestFleet, policy: &str) -> AgentId {
    let key = test.add_key(Some(policy), |_| {}).await;
    let item = test.enroll(&key, &json!({"type": "PERMANENT"})).await.unwrap();
    test.entry(&item).await.unwrap().id().clone()
}

async fn record(test: &TestFleet, id: &AgentId) -> AgentRecord {
    test.stored(id.as_str()).await
}

/// Changes a policy like the service, but without compiling it.
async fn change_policy(test: &TestFleet, id: &str, change: impl FnOnce(&mut Policy)) {
    let before = test.store().policy(&PolicyId::trusted(id)).await.unwrap().unwrap();
    let mut after = before.clone();
    change(&mut after);
    let update = Write::Policy(PolicyWrite::Update {
        before_revision: before.revision,
        before_updated_at: before.updated_at,
        policy: Box::new(after),
    });
    test.commit(vec![update, Write::Changed(Change::Policy(before.id))]).await;
}

async fn add_action(test: &TestFleet, id: &str, kind: ActionType, expiration: Option<Timestamp>, target: &AgentId) {
    test.add_action(id, kind, target.as_str(), |action| action.expiration = expiration).await;
}

async fn has_action(test: &TestFleet, id: &str) -> bool {
    test.store().action(&ActionId::trusted(id)).await.unwrap().is_some()
}

async fn audited(test: &TestFleet, action: &str) -> Vec<String> {
    let lines = test.store().audit_events(0, 10_000).await.unwrap();
    let word = format!("\"{action}\"");
    lines.into_iter().map(|(_, event, _)| event).filter(|event| event.contains(&word)).collect()
}

#[tokio::test]
async fn actions_are_deleted_a_month_after_their_expiration() {
    let test = TestFleet::new().await;
    let agent = enrolled(&test, "p").await;
    let end = test.now().plus(HOUR);
    for n in 0..25 {
        add_action(&test, &format!("old-{n}"), ActionType::Settings, Some(end), &agent).await;
    }
    add_action(&test, "young", ActionType::Settings, Some(end.plus(HOUR)), &agent).await;
    add_action(&test, "endless", ActionType::Settings, None, &agent).await;
    test.clock.advance(HOUR + ACTIONS_KEPT);
    assert_eq!(test.fleet.housekeeping().collect_actions().await.unwrap(), 0);
    test.clock.advance(Duration::from_secs(1));
    test.fleet.housekeeping().run().await;
    assert!(!has_action(&test, "old-0").await && !has_action(&test, "old-24").await);
    assert!(has_action(&test, "young").await && has_action(&test, "endless").await);
    assert_eq!(test.store().action_target(&ActionId::trusted("old-0"), &agent).await.unwrap(), None);
}

#[tokio::test]
async fn enrollment_keys_are_deleted_a_month_after_their_expiration() {
    let test = TestFleet::new().await;
    let end = test.now().plus(HOUR);
    let key = test.add_key(None, |key| key.expires_at = Some(end)).await;
    let endless = test.add_key(None, |_| {}).await;
    let is_there = async |key: &ApiKey| test.store().enrollment_key_by_key_id(&key.id).await.unwrap().is_some();
    test.clock.advance(HOUR + KEYS_KEPT);
    test.fleet.housekeeping().run().await;
    assert!(is_there(&key).await, "kept for the whole retention");
    test.clock.advance(Duration::from_secs(1));
    test.fleet.housekeeping().run().await;
    assert!(!is_there(&key).await && is_there(&endless).await);
    assert_eq!(audited(&test, "enrollment_key.delete").await.len(), 1);
}

async fn log_changes(test: &TestFleet, count: usize) -> i64 {
    test.commit(vec![Write::Changed(Change::Setting("x".into())); count]).await;
    *test.store().changes().borrow()
}

async fn oldest_change(test: &TestFleet) -> i64 {
    test.store().changes_since(0, 1).await.unwrap()[0].0
}

#[tokio::test]
async fn changes_are_pruned_when_old_handled_and_above_the_minimum() {
    let test = TestFleet::new().await;
    let first_day = log_changes(&test, 50).await;
    let handled = |seq| test.fleet.feed.set_handled(seq);
    handled(first_day);
    assert_eq!(test.fleet.housekeeping().prune_changes(10).await.unwrap(), 0, "younger than a day");
    test.clock.advance(DAY + Duration::from_secs(1));
    let second_day = log_changes(&test, 50).await;
    assert_eq!(test.fleet.housekeeping().prune_changes(second_day).await.unwrap(), 0, "not many");
    handled(20);
    test.fleet.housekeeping().prune_changes(10).await.unwrap();
    assert_eq!(oldest_change(&test).await, 21, "what this node has not handled stays");
    handled(second_day);
    test.fleet.housekeeping().prune_changes(second_day - 30).await.unwrap();
    assert_eq!(oldest_change(&test).await, 31, "the newest stay");
    test.fleet.housekeeping().prune_changes(10).await.unwrap();
    assert_eq!(oldest_change(&test).await, first_day + 1, "the last day stays");
}

#[tokio::test]
async fn number_of_change_log_marks_is_bounded() {
    let test = TestFleet::new().await;
    for _ in 0..100 {
        test.clock.advance(HOUR);
        log_changes(&test, 1).await;
        test.fleet.housekeeping().prune_changes(i64::MAX).await.unwrap();
    }
    let marks = test.store().setting("housekeeping.change_marks").await.unwrap().unwrap();
    let marks: Vec<(i64, i64)> = serde_json::from_str(&marks).unwrap();
    assert!(marks.is_sorted() && (24..=26).contains(&marks.len()), "{marks:?}");
}

async fn begin(test: &TestFleet, name: &str, status: FileStatus) {
    let upload = Upload {
        id: FileId::trusted(name),
        action_id: ActionId::trusted(name),
        agent_id: AgentId::trusted("a"),
        source: "agent".into(),
        name: "diagnostics.zip".into(),
        mime_type: "application/zip".into(),
        size: 5,
        status,
        started_at: test.now(),
        transit_hash: None,
    };
    let chunk = Write::File(FileWrite::PutChunk {
        file: FileId::trusted(name),
        number: 0,
        sha256: [1; 32],
        data: b"bytes".to_vec(),
    });
    test.commit(vec![Write::File(FileWrite::InsertUpload(Box::new(upload))), chunk]).await;
}

/// State of an upload, and the number of its chunks.
async fn upload(test: &TestFleet, name: &str) -> (FileStatus, usize) {
    let id = FileId::trusted(name);
    let status = test.store().upload(&id).await.unwrap().unwrap().status;
    (status, test.store().chunks(&id).await.unwrap().len())
}

#[tokio::test]
async fn ea134_expired_and_old_uploads_are_deleted() {
    let test = TestFleet::new().await;
    for n in 0..25 {
        begin(&test, &format!("late-{n}"), FileStatus::AwaitingUpload).await;
    }
    begin(&test, "ready", FileStatus::Ready).await;
    test.clock.advance(DAY);
    begin(&test, "young", FileStatus::AwaitingUpload).await;
    test.fleet.housekeeping().run().await;
    assert_eq!(upload(&test, "late-0").await, (FileStatus::AwaitingUpload, 1), "its time is not over");
    test.clock.advance(HOUR);
    test.fleet.housekeeping().run().await;
    for n in 0..25 {
        assert_eq!(upload(&test, &format!("late-{n}")).await, (FileStatus::Deleted, 0));
    }
    assert_eq!(upload(&test, "young").await, (FileStatus::AwaitingUpload, 1));
    assert_eq!(upload(&test, "ready").await, (FileStatus::Ready, 1));
    test.clock.advance(UPLOADS_KEPT - DAY);
    test.fleet.housekeeping().run().await;
    assert_eq!(upload(&test, "ready").await, (FileStatus::Deleted, 0));
    assert_eq!(audited(&test, "file.delete").await.len(), 27);
}

/// An agent of policy `p` that was seen and has then been away for `absence`.
async fn away(test: &TestFleet, policy: &str, time: Duration) -> AgentId {
    // Absences count once this server has watched for a full back-off.
    test.clock.advance(BACK_OFF);
    let id = enrolled(test, policy).await;
    let entry = test.fleet.registry().get(&id).unwrap();
    drop(PollSlot::new(test.fleet.registry(), entry, test.clock.clone()));
    test.clock.advance(time);
    test.fleet.statuses().transition_due().await.unwrap();
    id
}

#[tokio::test]
async fn mg149_inactive_agents_are_unenrolled_after_the_timeout() {
    let test = TestFleet::new().await;
    change_policy(&test, "p", |policy| policy.unenroll_timeout = Some(7200)).await;
    let gone = away(&test, "p", HOUR + HOUR / 2).await;
    add_action(&test, "settings", ActionType::Settings, None, &gone).await;
    let young = enrolled(&test, "p").await;
    assert_eq!(record(&test, &gone).await.status, Status::Inactive);
    test.fleet.housekeeping().run().await;
    assert!(record(&test, &gone).await.active, "inactive, but not for long enough");
    test.clock.advance(HOUR / 2);
    test.fleet.housekeeping().run().await;
    assert!(record(&test, &gone).await.active, "long enough is more than the timeout");
    let newest = *test.store().changes().borrow();
    test.clock.advance(Duration::from_secs(1));
    test.fleet.housekeeping().run().await;
    let after = record(&test, &gone).await;
    assert_eq!((after.active, after.status, after.credentials.is_empty()), (false, Status::Unenrolled, true));
    assert_eq!(after.unenrolled_reason.as_deref(), Some("timeout"));
    assert!(record(&test, &young).await.active);
    let target = test.store().action_target(&ActionId::trusted("settings"), &gone).await.unwrap();
    assert_eq!(target.map(|target| target.state), Some(TargetState::Failed));
    let results = test.store().action_results(&ActionId::trusted("settings"), true, 10).await.unwrap();
    assert_eq!(results[0].outcome.message(), Some("the agent was unenrolled"));
    let lines = audited(&test, "agent.unenroll").await;
    assert!(lines.len() == 1 && lines[0].contains(gone.as_str()) && lines[0].contains("timeout"), "{lines:?}");
    let changes = test.store().changes_since(newest, 10).await.unwrap();
    assert_eq!(changes.into_iter().map(|(_, change)| change.unwrap()).collect::<Vec<_>>(), [Change::Agent(gone)]);
    test.fleet.housekeeping().run().await;
    assert_eq!(audited(&test, "agent.unenroll").await.len(), 1, "once");
}

#[tokio::test]
async fn mg149_agents_without_a_timeout_and_offline_agents_are_not_unenrolled() {
    let test = TestFleet::new().await;
    let gone = away(&test, "p", HOUR * 10).await;
    for timeout in [None, Some(0)] {
        change_policy(&test, "p", |policy| policy.unenroll_timeout = timeout).await;
        test.fleet.housekeeping().run().await;
        assert!(record(&test, &gone).await.active);
    }
    // Without an inactivity timeout it never becomes inactive, and so is never unenrolled.
    change_policy(&test, "p", |policy| (policy.inactivity_timeout, policy.unenroll_timeout) = (0, Some(60))).await;
    test.fleet.housekeeping().run().await;
    let after = record(&test, &gone).await;
    assert_eq!((after.active, after.status), (true, Status::Offline));
}

#[tokio::test]
async fn mg150_agent_that_reconnected_is_not_unenrolled() {
    let test = TestFleet::new().await;
    change_policy(&test, "p", |policy| policy.unenroll_timeout = Some(7200)).await;
    let (back, gone) = (enrolled(&test, "p").await, away(&test, "p", HOUR * 3).await);
    assert_eq!(record(&test, &back).await.status, Status::Inactive);
    // The agent is back, but only in memory.
    let entry = test.fleet.registry().get(&back).unwrap();
    let _poll = PollSlot::new(test.fleet.registry(), entry, test.clock.clone());
    test.fleet.housekeeping().run().await;
    assert!(record(&test, &back).await.active);
    assert!(!record(&test, &gone).await.active);
}

#[tokio::test]
async fn mg151_agents_of_managed_policies_are_not_unenrolled() {
    let test = TestFleet::new().await;
    change_policy(&test, "p", |policy| (policy.is_managed, policy.unenroll_timeout) = (true, Some(60))).await;
    let gone = away(&test, "p", HOUR * 3).await;
    test.fleet.housekeeping().run().await;
    assert!(record(&test, &gone).await.active);
}

#[tokio::test]
async fn mg42_mg43_changed_inactivity_timeout_is_copied_to_agents() {
    let test = TestFleet::new().await;
    test.revised_policy("q", |_| {}).await;
    let (gone, other) = (away(&test, "p", Duration::from_secs(600)).await, enrolled(&test, "q").await);
    assert_eq!(record(&test, &gone).await.status, Status::Offline);
    for (seconds, timeout, status) in
        [(60, Some(Duration::from_secs(60)), Status::Inactive), (0, None, Status::Offline)]
    {
        change_policy(&test, "p", |policy| policy.inactivity_timeout = seconds).await;
        assert_eq!(test.fleet.statuses().correct_inactivity().await.unwrap(), 1);
        assert_eq!(test.fleet.statuses().correct_inactivity().await.unwrap(), 0, "nothing is left to correct");
        let after = record(&test, &gone).await;
        assert_eq!((after.inactivity_timeout, after.status), (timeout, status));
    }
    assert_eq!(record(&test, &other).await.inactivity_timeout, Some(HOUR));
}

#[tokio::test]
async fn mg44_the_timeouts_of_two_thousand_policies_are_honored() {
    let test = TestFleet::new().await;
    let minutes = |number: i64| 10 + number % 2;
    let mut writes = Vec::new();
    for number in 0..2000 {
        let mut policy = muster_core::testing::policy(&format!("p{number}"), test.now());
        policy.inactivity_timeout = minutes(number) * 60;
        writes.push(Write::Policy(PolicyWrite::Insert(Box::new(policy))));
        let mut agent =
            muster_core::testing::online_agent(&format!("a{number}"), Some(&format!("p{number}")), test.now());
        agent.last_checkin = Some(test.now());
        writes.push(test.insertion(agent, muster_core::agent::AgentDocuments::default()).0);
    }
    test.commit(writes).await;
    assert_eq!(test.fleet.statuses().correct_inactivity().await.unwrap(), 2000);
    test.clock.advance(Duration::from_secs(10 * 60 + 30));
    while test.fleet.statuses().transition_due().await.unwrap() > 0 {}
    let counts = test.store().agent_counts(&AgentFilter::default()).await.unwrap();
    let count = |status| counts.iter().find(|(found, _)| *found == status).map_or(0, |(_, count)| *count);
    assert_eq!((count(Status::Inactive), count(Status::Offline)), (1000, 1000), "{counts:?}");
    test.clock.advance(Duration::from_secs(60));
    while test.fleet.statuses().transition_due().await.unwrap() > 0 {}
    let counts = test.store().agent_counts(&AgentFilter::default()).await.unwrap();
    assert_eq!(counts, [(Status::Inactive, 2000)]);
}

#[tokio::test]
async fn mg42_changed_inactivity_timeout_is_copied_without_housekeeping() {
    let test = TestFleet::new().await;
    let agents = [enrolled(&test, "p").await, enrolled(&test, "p").await];
    let background = tokio::spawn(Arc::clone(&test.fleet).run_background());
    // The feed must start before the change, since it reads only from its start.
    while test.fleet.feed.handled() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    change_policy(&test, "p", |policy| policy.inactivity_timeout = 60).await;
    let changed = async {
        for agent in &agents {
            while record(&test, agent).await.inactivity_timeout != Some(Duration::from_secs(60)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), changed).await.unwrap();
    test.fleet.stop();
    background.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn first_run_is_after_one_minute_and_then_every_ten() {
    let test = TestFleet::new().await;
    let agent = enrolled(&test, "p").await;
    let long_over = test.now().minus(ACTIONS_KEPT + HOUR);
    add_action(&test, "first", ActionType::Settings, Some(long_over), &agent).await;
    // The paused clock advances whenever the store is awaited, so the counted time is at least one interval and less
    // than two.
    let start = tokio::time::Instant::now();
    let house = tokio::spawn(Arc::clone(&test.fleet.housekeeping).run_periodically());
    for (id, next, earliest) in [("first", "second", FIRST), ("second", "third", FIRST + EVERY)] {
        while has_action(&test, id).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let passed = start.elapsed();
        assert!(passed >= earliest && passed < earliest + EVERY * 2, "{id} {passed:?}");
        add_action(&test, next, ActionType::Settings, Some(long_over), &agent).await;
    }
    test.fleet.stop();
    house.await.unwrap();
}

/// Sets the retention of the default space.
async fn retain(test: &TestFleet, seconds: Option<u64>) {
    let grant = OpContext::administrator(Actor::Local { uid: 0 }).grant().unwrap();
    let change = |settings: &mut SpaceSettings| settings.delete_unenrolled_after = seconds;
    test.fleet.space_settings().update(&grant, None, change).await.unwrap();
}

#[tokio::test]
async fn mg153_unenrolled_agents_are_deleted_after_their_retention_if_the_space_has_one() {
    let test = TestFleet::new().await;
    change_policy(&test, "p", |policy| policy.unenroll_timeout = Some(3600)).await;
    let gone = away(&test, "p", HOUR * 3).await;
    let live = enrolled(&test, "p").await;
    test.fleet.housekeeping().run().await;
    assert!(!record(&test, &gone).await.active);
    test.clock.advance(HOUR * 24 * 400);
    test.fleet.housekeeping().run().await;
    assert!(test.store().agent(&gone).await.unwrap().is_some(), "it is kept without a setting");

    retain(&test, Some(500 * 24 * 3600)).await;
    test.fleet.housekeeping().run().await;
    assert!(test.store().agent(&gone).await.unwrap().is_some(), "not yet");
    retain(&test, Some(0)).await;
    test.fleet.housekeeping().run().await;
    assert_eq!(test.store().agent(&gone).await.unwrap(), None);
    assert!(test.store().agent(&live).await.unwrap().is_some());
    let lines = audited(&test, "agent.delete").await;
    assert!(lines.len() == 1 && lines[0].contains("retention"), "{lines:?}");
}
