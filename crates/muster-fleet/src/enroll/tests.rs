//! Enrollments against a store.

use std::time::Duration;

use muster_core::action::{ActionType, Target, TargetState};
use muster_core::id::{ActionId, PolicyId};
use muster_core::status::Status;
use muster_store::SettingWrite;
use muster_store::query::AgentFilter;

use super::*;
use crate::authority::System;
use crate::registry::AgentEntry;
use crate::testing::TestFleet;

const UNKNOWN_KEY: Denial = Denial::UnknownKey;
const NOT_REPLACEABLE: Denial = Denial::NotReplaceable;
const HOUR: Duration = Duration::from_secs(3600);

fn plain() -> Value {
    json!({"type": "PERMANENT", "metadata": {"local": {"host": {"hostname": "web-1"}}, "tags": ["a"]}})
}

async fn agents(test: &TestFleet) -> usize {
    test.store().agent_ids(&AgentFilter::default(), None, 1000).await.unwrap().len()
}

#[tokio::test]
async fn ea28_ea34_ea36_key_of_an_enrolled_agent_works_immediately() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |_| {}).await;
    let item = test.enroll(&key, &plain()).await.unwrap();
    assert_eq!(item.policy_id, "p");
    let record = test.entry(&item).await.unwrap().record().unwrap();
    assert_eq!((record.status, record.inactivity_timeout), (Status::Enrolling, Some(Duration::from_secs(3600))));
    assert_eq!(test.store().agent(&record.id).await.unwrap().as_ref(), Some(&*record));
    let stored = test.store().enrollment_key_by_key_id(&key.id).await.unwrap().unwrap();
    assert_eq!((stored.uses, record.enrollment_key_id.clone()), (1, Some(stored.id)));
    let lines = test.store().audit_events(0, 10).await.unwrap();
    assert!(lines.iter().any(|(_, event, _)| event.contains("agent.enroll")));
}

#[tokio::test]
async fn ea28_ea29_d1_d20_invalid_enrollment_keys_are_rejected() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |_| {}).await;
    let item = test.enroll(&key, &plain()).await.unwrap();
    let now = test.now();
    let revoked = test.add_key(Some("p"), |key| key.revoked_at = Some(now)).await;
    let expired = test.add_key(Some("p"), |key| key.expires_at = Some(now)).await;
    let access = item.key.clone();
    for dead in [revoked, expired, access, ApiKey::generate(test.fleet.entropy())] {
        let error = test.enroll(&dead, &plain()).await.unwrap_err();
        assert_eq!(error.denial, Some(UNKNOWN_KEY));
    }
    assert_eq!(agents(&test).await, 1);
}

#[tokio::test]
async fn mg75_single_use_key_enrolls_one_of_many_concurrent_agents() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |key| key.max_uses = Some(1)).await;
    let body = plain();
    let outcomes = tokio::join!(test.enroll(&key, &body), test.enroll(&key, &body), test.enroll(&key, &body));
    let admitted = [outcomes.0, outcomes.1, outcomes.2].iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!((admitted, agents(&test).await), (1, 1));
}

#[tokio::test]
async fn ea47_mg75_agent_whose_response_was_lost_enrolls_again_with_a_used_up_key() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |key| key.max_uses = Some(1)).await;
    let retried = json!({"type": "PERMANENT", "enrollment_id": "once"});
    let first = test.enroll(&key, &retried).await.unwrap();
    let second = test.enroll(&key, &retried).await.unwrap();
    assert!(test.entry(&first).await.is_err() && test.entry(&second).await.is_ok());
    assert_eq!(test.enroll(&key, &plain()).await.unwrap_err().denial, Some(UNKNOWN_KEY));
    assert_eq!(agents(&test).await, 1);
}

#[tokio::test]
async fn ea46_concurrent_enrollments_of_one_enrollment_id_on_two_nodes_create_one_agent() {
    let one = TestFleet::new().await;
    let two = one.beside();
    let key = one.add_key(Some("p"), |_| {}).await;
    for round in 0..20 {
        let body = json!({"type": "PERMANENT", "enrollment_id": format!("handle {round}")});
        let (here, there) = tokio::join!(one.enroll(&key, &body), two.enroll(&key, &body));
        let ids = [here.unwrap().id, there.unwrap().id];
        let left = one.store().agent_ids(&AgentFilter::default(), None, 1000).await.unwrap();
        assert_eq!(left.len(), round + 1);
        assert!(left.iter().any(|id| ids.contains(&id.to_string())));
    }
}

#[tokio::test]
async fn ea41_mg75_agent_replaces_itself_with_a_used_up_key() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |key| key.max_uses = Some(1)).await;
    let own = json!({"type": "PERMANENT", "id": "fixed", "replace_token": "open"});
    test.enroll(&key, &own).await.unwrap();
    test.enroll(&key, &own).await.unwrap();
    assert_eq!(test.enroll(&key, &plain()).await.unwrap_err().denial, Some(UNKNOWN_KEY));
}

#[tokio::test]
async fn ea40_ea41_ea43_only_the_replace_token_replaces_an_agent() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |_| {}).await;
    let with = |token: &str| json!({"type": "PERMANENT", "id": "fixed", "replace_token": token});
    let first = test.enroll(&key, &with("open")).await.unwrap();
    let stored = test.store().agent(&AgentId::trusted("fixed")).await.unwrap().unwrap();
    assert!(stored.replace_token.unwrap().starts_with("$pbkdf2-sha512$210000$"));
    for wrong in ["", "close"] {
        assert_eq!(test.enroll(&key, &with(wrong)).await.unwrap_err().denial, Some(NOT_REPLACEABLE));
    }
    assert!(test.entry(&first).await.is_ok());
    test.clock.advance(Duration::from_secs(60));
    let second = test.enroll(&key, &with("open")).await.unwrap();
    assert_eq!((&second.id, &second.enrolled_at), (&first.id, &first.enrolled_at));
    assert!(test.entry(&first).await.is_err());
    assert!(test.entry(&second).await.is_ok());
}

#[tokio::test]
async fn ea41_replacement_ends_the_poll_held_under_the_old_key() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |_| {}).await;
    let body = json!({"type": "PERMANENT", "id": "fixed", "replace_token": "open"});
    let held = test.entry(&test.enroll(&key, &body).await.unwrap()).await.unwrap();
    let generation = held.generation();
    test.enroll(&key, &body).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), held.woken_after(generation)).await.unwrap();
    assert!(held.record().is_none());
}

async fn add_action(test: &TestFleet, id: &str) {
    let expiration = test.now().plus(Duration::from_secs(3600));
    test.add_action(id, ActionType::Unenroll, "fixed", |action| action.expiration = Some(expiration)).await;
}

#[tokio::test]
async fn ea42_d14_reenrolled_agent_gets_no_pending_actions() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |_| {}).await;
    let body = json!({"type": "PERMANENT", "id": "fixed"});
    let first = test.enroll(&key, &body).await.unwrap();
    add_action(&test, "old-action").await;
    let entry = test.entry(&first).await.unwrap();
    let end = |record: &Arc<AgentRecord>, now| {
        let record = muster_core::lifecycle::force_unenroll(record, "forced", now)?;
        Ok(super::super::update::AgentChange { record, writes: Vec::new() })
    };
    test.fleet.inner.records.update(&System, &entry, end).await.unwrap();
    let second = test.enroll(&key, &body).await.unwrap();
    let record = test.entry(&second).await.unwrap().record().unwrap();
    assert_eq!((record.action_position, record.active), (-1, true));
    let due = test.store().actions_due(&record.id, -1, test.now(), 10).await.unwrap();
    assert!(due.is_empty(), "{due:?}");
    let state = test.store().action_target(&ActionId::trusted("old-action"), &record.id).await.unwrap();
    assert_eq!(state, Some(Target { state: TargetState::Failed, is_former: true }));
}

#[tokio::test]
async fn ea42_d14_reenrolled_agent_gets_no_acked_actions() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |_| {}).await;
    let body = json!({"type": "PERMANENT", "id": "fixed"});
    let first = test.entry(&test.enroll(&key, &body).await.unwrap()).await.unwrap();
    for (id, kind) in [("settings", ActionType::Settings), ("leave", ActionType::Unenroll)] {
        test.add_action(id, kind, "fixed", |action| action.expiration = Some(test.now().plus(HOUR))).await;
    }
    assert_eq!(ack(&test, &first, &["settings", "leave"]).await, [200, 200]);
    assert!(!test.stored("fixed").await.active);
    let second = test.entry(&test.enroll(&key, &body).await.unwrap()).await.unwrap();
    let position = second.record().unwrap().action_position;
    assert_eq!(test.store().actions_due(second.id(), position, test.now(), 10).await.unwrap(), []);
    // Agents keep acks that got no response and send them later, with the key they have then.
    assert_eq!(ack(&test, &second, &["leave"]).await, [400]);
    assert!(test.stored("fixed").await.active);
    test.add_action("now", ActionType::Settings, "fixed", |_| {}).await;
    let due = test.store().actions_due(second.id(), position, test.now(), 10).await.unwrap();
    assert_eq!(due.iter().map(|due| due.action.id.as_str()).collect::<Vec<_>>(), ["now"]);
}

async fn ack(test: &TestFleet, entry: &AgentEntry, actions: &[&str]) -> Vec<u16> {
    let events: Vec<_> = actions.iter().map(|id| json!({"action_id": id})).collect();
    test.ack(entry, &json!(events)).await.unwrap()
}

#[tokio::test]
async fn ea46_ea47_concurrent_enrollments_with_one_enrollment_id_create_one_agent() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |_| {}).await;
    let body = json!({"type": "PERMANENT", "enrollment_id": "once"});
    let (a, b, c, d) = tokio::join!(
        test.enroll(&key, &body),
        test.enroll(&key, &body),
        test.enroll(&key, &body),
        test.enroll(&key, &body)
    );
    let items = [a, b, c, d].map(Result::unwrap);
    assert_eq!(agents(&test).await, 1);
    let mut alive = 0;
    for item in &items {
        alive += usize::from(test.entry(item).await.is_ok());
    }
    assert_eq!(alive, 1);
}

#[tokio::test]
async fn ea46_concurrent_enrollments_with_one_id_create_one_agent() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |_| {}).await;
    let body = json!({"type": "PERMANENT", "id": "fixed"});
    let outcomes = tokio::join!(test.enroll(&key, &body), test.enroll(&key, &body), test.enroll(&key, &body));
    let outcomes = [outcomes.0, outcomes.1, outcomes.2];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    assert!(refused.into_iter().all(|error| error.denial == Some(NOT_REPLACEABLE)));
    assert_eq!(agents(&test).await, 1);
}

#[tokio::test]
async fn ea45_rejected_enrollment_stores_nothing() {
    let test = TestFleet::new().await;
    let key = test.add_key(Some("p"), |_| {}).await;
    let error = test.enroll(&key, &json!({"type": "PERMANENT", "id": "a/b"})).await.unwrap_err();
    assert_eq!(error.code, "bad_enrollment");
    let stored = test.store().enrollment_key_by_key_id(&key.id).await.unwrap().unwrap();
    assert_eq!((agents(&test).await, stored.uses), (0, 0));
}

#[tokio::test]
async fn m11_key_without_a_policy_uses_the_rules_and_then_the_default_policy() {
    let test = TestFleet::new().await;
    let key = test.add_key(None, |_| {}).await;
    let policy = async |body| test.enroll(&key, &body).await.unwrap().policy_id;
    assert_eq!(policy(plain()).await, "");
    test.revised_policy("fallback", |policy| policy.is_default = true).await;
    assert_eq!(policy(plain()).await, "fallback");
    let rules = r#"[{"match": {"hostname": "web-*"}, "policy_id": "p", "tags": ["ruled"]}]"#.to_owned();
    test.commit(vec![Write::Setting(SettingWrite::Put { name: assignment::SETTING.into(), value: rules })]).await;
    let item = test.enroll(&key, &plain()).await.unwrap();
    assert_eq!((item.policy_id.as_str(), &item.tags[..]), ("p", &["a".to_owned(), "ruled".to_owned()][..]));
    let record = test.entry(&item).await.unwrap().record().unwrap();
    assert_eq!(record.policy_id, Some(PolicyId::trusted("p")));
    assert_eq!(policy(json!({"type": "PERMANENT"})).await, "fallback");
}

#[test]
fn slow_hash_queue_is_bounded_in_total_and_per_key() {
    let enrolling = Enrolling::default();
    let key = |number: usize| EnrollmentKeyId::trusted(number.to_string());
    let own: Vec<_> = (0..MAX_WAITING_PER_KEY).map(|_| enrolling.queue(&key(0)).unwrap()).collect();
    let refused = enrolling.queue(&key(0)).err().expect("one key does not take the whole queue");
    assert_eq!((refused.kind, refused.code), (ErrorKind::TooMany, "TooManyRequests"));
    let others: Vec<_> = (1..=MAX_WAITING - own.len()).map(|number| enrolling.queue(&key(number)).unwrap()).collect();
    assert!(enrolling.queue(&key(999)).is_err(), "the queue is full");
    drop((own, others));
    assert!(enrolling.queue(&key(0)).is_ok());
    assert!(enrolling.waiting().is_empty());
}
