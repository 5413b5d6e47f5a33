//! Delivery, held polls, and wake-ups.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_core::action::ActionType;
use muster_core::change::Change;
use muster_core::denial::Denial;
use muster_core::id::{AgentId, PolicyId};
use muster_fleet::FleetSettings;
use muster_fleet::check_in::{Delivery, Poll};
use muster_store::{AgentWrite, Write};

use crate::setting::{Setting, action_ids, parked, policy_revision};

const ONLINE: &str = r#"{"status":"online","message":"Running"}"#;

fn running(policy: &str, revision: i64) -> String {
    format!(
        r#"{{"status":"online","message":"Running","agent_policy_id":"{policy}","policy_revision_idx":{revision}}}"#
    )
}

/// Waits until this node has cached the revision.
async fn newest_is_cached(setting: &Setting, policy: &PolicyId, revision: i64) {
    while setting
        .fleet
        .inner()
        .policy_cache
        .newest(policy)
        .await
        .expect("readable")
        .is_none_or(|policy| policy.revision < revision)
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn ea88_ea89_ea95_policy_is_delivered_alone_and_then_the_poll_is_held() {
    let setting = Setting::new();
    let policy = setting.policy("web").await;
    let key = setting.agent("a", Some(&policy)).await;
    let entry = setting.entry("a", &key).await;
    assert_eq!(policy_revision(setting.check_in(&entry, ONLINE).await), 1);
    parked(setting.check_in(&entry, &running("web", 1)).await);
}

#[tokio::test]
async fn ea71_ea99_new_revision_wakes_the_poll_and_skips_intermediate_ones() {
    let setting = Setting::new();
    let policy = setting.policy("web").await;
    let key = setting.agent("a", Some(&policy)).await;
    let entry = setting.entry("a", &key).await;
    let held = tokio::spawn(parked(setting.check_in(&entry, &running("web", 1)).await).wait());
    setting.revision(&policy, 2).await;
    match held.await.unwrap().unwrap() {
        Delivery::Policy(policy) => assert_eq!(policy.revision, 2),
        _ => panic!("the policy was due"),
    }
    setting.revision(&policy, 3).await;
    setting.revision(&policy, 4).await;
    tokio::time::timeout(Duration::from_secs(5), newest_is_cached(&setting, &policy, 4)).await.unwrap();
    assert_eq!(policy_revision(setting.check_in(&entry, &running("web", 2)).await), 4);
}

#[tokio::test]
async fn mg130_an_expired_action_is_not_delivered_to_an_agent_that_returns() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let end = setting.now().plus(Duration::from_secs(3600));
    setting
        .add_action_for(&[AgentId::trusted("a")], "short", ActionType::Settings, |action| action.expiration = Some(end))
        .await;
    setting.add_action_for(&[AgentId::trusted("a")], "long", ActionType::Settings, |_| {}).await;
    // The agent is away until the first one has expired.
    setting.clock.advance(Duration::from_secs(3601));
    let entry = setting.entry("a", &key).await;
    let Poll::Due(delivery) = setting.check_in(&entry, ONLINE).await else { panic!("an action is due") };
    assert_eq!(action_ids(delivery).0, ["long"]);
    let token = r#"{"status":"online","message":"Running","ack_token":"long"}"#;
    parked(setting.check_in(&entry, token).await);
}

#[tokio::test]
async fn ea100_new_revision_is_delivered_in_waves() {
    let setting = Setting::new();
    let policy = setting.policy("web").await;
    let mut polls = tokio::task::JoinSet::new();
    for number in 0..300 {
        let id = format!("agent-{number}");
        let key = setting.agent(&id, Some(&policy)).await;
        let entry = setting.entry(&id, &key).await;
        let poll = parked(setting.check_in(&entry, &running("web", 1)).await).wait();
        polls.spawn(async { (poll.await, Instant::now()) });
    }
    setting.revision(&policy, 2).await;
    let mut woken = Vec::new();
    while let Some(ended) = polls.join_next().await {
        let (delivery, at) = ended.unwrap();
        assert!(matches!(delivery.unwrap(), Delivery::Policy(policy) if policy.revision == 2));
        woken.push(at);
    }
    woken.sort_unstable();
    // Three waves, with a pause of a few milliseconds between them.
    assert!(woken[299] - woken[0] >= Duration::from_millis(8), "{:?}", woken[299] - woken[0]);
}

#[tokio::test]
async fn ea70_ea72_ea73_action_wakes_the_poll_and_its_token_suppresses_it() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    let held = tokio::spawn(parked(setting.check_in(&entry, ONLINE).await).wait());
    setting.add_action("first", ActionType::Settings, "a").await;
    let (ids, token) = action_ids(held.await.unwrap().unwrap());
    assert_eq!((ids, token.as_str()), (vec!["first".to_owned()], "first"));
    // Without the token it is delivered again: the response may have been lost.
    let Poll::Due(again) = setting.check_in(&entry, ONLINE).await else { panic!("due") };
    assert_eq!(action_ids(again).0, ["first"]);
    let with_token = r#"{"status":"online","message":"Running","ack_token":"first"}"#;
    parked(setting.check_in(&entry, with_token).await);
    // D15: the position is on disk before the response, so it is kept if a token can't be resolved.
    assert!(setting.stored("a").await.action_position > 0);
    parked(setting.check_in(&entry, r#"{"status":"online","message":"Running","ack_token":"unknown"}"#).await);
}

#[tokio::test]
async fn ea77_undeliverable_types_are_skipped() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    setting.add_action("tags", ActionType::UpdateTags, "a").await;
    setting.add_action("real", ActionType::Settings, "a").await;
    setting.add_action("more", ActionType::ForceUnenroll, "a").await;
    let Poll::Due(delivery) = setting.check_in(&entry, ONLINE).await else { panic!("due") };
    assert_eq!(action_ids(delivery), (vec!["real".to_owned()], "more".to_owned()));
}

#[tokio::test]
async fn d10_overlapping_polls_of_one_agent_are_both_woken() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    let first = tokio::spawn(parked(setting.check_in(&entry, ONLINE).await).wait());
    let second = tokio::spawn(parked(setting.check_in(&entry, ONLINE).await).wait());
    setting.add_action("one", ActionType::Settings, "a").await;
    assert_eq!(action_ids(first.await.unwrap().unwrap()).0, ["one"]);
    assert_eq!(action_ids(second.await.unwrap().unwrap()).0, ["one"]);
}

#[tokio::test]
async fn d21_ea55_revocation_ends_the_held_poll_and_rejects_the_next_request() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    let held = tokio::spawn(parked(setting.check_in(&entry, ONLINE).await).wait());
    let before = entry.record().unwrap();
    let mut after = (*before).clone();
    (after.version, after.active) = (before.version + 1, false);
    after.credentials.revoke_all();
    let change = Change::Agent(AgentId::trusted("a"));
    let update = Write::Agent(AgentWrite::Update { before, after: Arc::new(after) });
    setting.commit(vec![update, Write::Changed(change)]).await;
    let cut = tokio::time::timeout(Duration::from_secs(1), held).await.expect("within a second").unwrap();
    assert_eq!(cut.err().and_then(|error| error.denial), Some(Denial::UnknownKey));
    let refused = setting.fleet.authentication().agent("a", &key).await;
    assert_eq!(refused.err().and_then(|error| error.denial), Some(Denial::UnknownKey));
}

#[tokio::test]
async fn ea54_foreign_key_is_rejected_with_an_audit_event_and_no_change() {
    let setting = Setting::new();
    setting.agent("a", None).await;
    let other = setting.agent("b", None).await;
    let before = setting.stored("a").await;
    for path in ["a", "nobody", "../a", "a\u{1b}[31m"] {
        let refused = setting.fleet.authentication().agent(path, &other).await;
        assert_eq!(refused.err().and_then(|error| error.denial), Some(Denial::ForeignKey), "{path:?}");
    }
    assert_eq!(setting.stored("a").await, before);
    let lines = setting.fleet.store().audit_events(0, 10).await.unwrap();
    assert_eq!(lines.len(), 1, "one line a minute for each holder");
    assert!(lines[0].1.contains("agent.identity_mismatch"));
}

#[tokio::test]
async fn heartbeats_that_change_nothing_write_nothing() {
    let setting = Setting::with(FleetSettings { long_poll: Duration::ZERO, ..FleetSettings::default() });
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    setting.check_in(&entry, ONLINE).await;
    let version = setting.stored("a").await.version;
    for _ in 0..3 {
        setting.clock.advance(Duration::from_secs(60));
        setting.check_in(&entry, ONLINE).await;
    }
    assert_eq!(setting.stored("a").await.version, version);
    assert_eq!(setting.fleet.registry().last_seen(entry.id(), setting.now()), Some(setting.now()));
}

#[tokio::test]
async fn d11_policy_that_is_not_applied_is_delivered_less_often() {
    let setting = Setting::new();
    let policy = setting.policy("web").await;
    let key = setting.agent("a", Some(&policy)).await;
    let entry = setting.entry("a", &key).await;
    for _ in 0..3 {
        assert_eq!(policy_revision(setting.check_in(&entry, ONLINE).await), 1);
    }
    parked(setting.check_in(&entry, ONLINE).await);
    setting.clock.advance(Duration::from_secs(6));
    assert_eq!(policy_revision(setting.check_in(&entry, ONLINE).await), 1);
}

#[tokio::test(start_paused = true)]
async fn ea67_poll_ends_empty_at_its_deadline() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    let held = parked(setting.check_in(&entry, ONLINE).await);
    let start = tokio::time::Instant::now();
    assert!(matches!(held.wait().await, Ok(Delivery::Nothing)));
    assert_eq!(start.elapsed().as_secs(), 300);
}

#[tokio::test]
async fn ea87_shutdown_answers_held_polls_with_an_empty_response() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    let held = tokio::spawn(parked(setting.check_in(&entry, ONLINE).await).wait());
    setting.fleet.stop();
    assert!(matches!(held.await.unwrap(), Ok(Delivery::Nothing)));
}

#[tokio::test]
async fn ea90_reassigned_agent_gets_the_new_policy_regardless_of_its_revision() {
    let setting = Setting::new();
    let (web, db) = (setting.policy("web").await, setting.policy("db").await);
    let key = setting.agent("a", Some(&web)).await;
    let entry = setting.entry("a", &key).await;
    setting.check_in(&entry, ONLINE).await;
    let held = tokio::spawn(parked(setting.check_in(&entry, &running("web", 1)).await).wait());
    let before = entry.record().unwrap();
    let mut after = (*before).clone();
    (after.version, after.policy_id, after.policy_revision) = (before.version + 1, Some(db), 0);
    let update = Write::Agent(AgentWrite::Update { before, after: Arc::new(after) });
    setting.commit(vec![update, Write::Changed(Change::Agent(AgentId::trusted("a")))]).await;
    match held.await.unwrap().unwrap() {
        Delivery::Policy(policy) => assert_eq!(policy.policy_id.as_str(), "db"),
        _ => panic!("the other policy was due"),
    }
}
