//! The revision that an agent gets: its target, or the newest.

use std::sync::Arc;
use std::time::Duration;

use muster_core::authorization::{Actor, OpContext};
use muster_core::id::PolicyId;
use muster_fleet::check_in::{Delivery, Poll};
use muster_fleet::force::Force;
use muster_fleet::registry::AgentEntry;
use muster_fleet::selection::Selected;

use crate::setting::{Setting, parked, policy_revision};

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

/// Handles a check-in of an agent that runs that revision of `web`.
fn running(revision: i64) -> String {
    format!(r#"{{"status":"online","message":"Running","agent_policy_id":"web","policy_revision_idx":{revision}}}"#)
}

/// A policy with five revisions, and an agent that follows it.
async fn five() -> (Setting, PolicyId, Arc<AgentEntry>) {
    let setting = Setting::new();
    let policy = setting.policy("web").await;
    for number in 2..=5 {
        setting.revision(&policy, number).await;
    }
    // The change feed may still be at an earlier revision.
    setting.fleet.inner().policy_cache.refresh(&policy).await.expect("renders");
    let key = setting.agent("a", Some(&policy)).await;
    let entry = setting.entry("a", &key).await;
    (setting, policy, entry)
}

async fn assign(setting: &Setting, revision: Option<i64>) {
    let agent = Selected::one("a").expect("an id");
    let agents = setting.fleet.agents().select(&root(), &agent).await.expect("there");
    let given = setting.fleet.actions().reassign(&agents, Some("web"), revision, Force::No).await.expect("assigned");
    assert_eq!(given.targets, 1);
}

/// The revision that is due now; skips due actions, such as those of reassignments.
async fn due(setting: &Setting, entry: &Arc<AgentEntry>, revision: i64) -> i64 {
    let mut body = running(revision);
    loop {
        match setting.check_in(entry, &body).await {
            Poll::Due(Delivery::Actions { ack_token, .. }) => {
                let token = format!(r#"{{"ack_token":"{ack_token}","#);
                body = running(revision).replacen('{', &token, 1);
            }
            Poll::Held(_) => return revision,
            outcome @ Poll::Due(_) => return policy_revision(outcome),
        }
    }
}

#[tokio::test]
async fn assigned_revision_is_delivered() {
    let (setting, _, entry) = five().await;
    assert_eq!(due(&setting, &entry, 1).await, 5);
    assign(&setting, Some(3)).await;
    for runs in [1, 2, 4, 5] {
        // The same revision is delivered three times without a pause, and then with one (D11).
        setting.clock.advance(Duration::from_secs(600));
        assert_eq!(due(&setting, &entry, runs).await, 3, "an agent on {runs}");
    }
    assert_eq!(due(&setting, &entry, 3).await, 3, "it has its target");
    assert_eq!(setting.stored("a").await.policy_revision, 3);
    assign(&setting, None).await;
    assert_eq!(due(&setting, &entry, 3).await, 5, "it follows the policy again");
}

#[tokio::test]
async fn assignment_of_another_revision_wakes_the_held_poll() {
    let (setting, _, entry) = five().await;
    due(&setting, &entry, 5).await;
    let held = tokio::spawn(parked(setting.check_in(&entry, &running(5)).await).wait());
    assign(&setting, Some(3)).await;
    let delivery = tokio::time::timeout(Duration::from_secs(5), held).await.expect("woken").expect("ended");
    assert!(!matches!(delivery.expect("answered"), Delivery::Nothing));
    assert_eq!(due(&setting, &entry, 5).await, 3);
}

#[tokio::test]
async fn new_revision_is_delivered_to_followers_only_and_writes_no_agent_records() {
    let (setting, policy, entry) = five().await;
    let key = setting.agent("b", Some(&policy)).await;
    let follower = setting.entry("b", &key).await;
    assign(&setting, Some(3)).await;
    assert_eq!((due(&setting, &entry, 5).await, due(&setting, &follower, 5).await), (3, 5));
    due(&setting, &entry, 3).await;
    let before = [setting.stored("a").await, setting.stored("b").await];
    let held = tokio::spawn(parked(setting.check_in(&follower, &running(5)).await).wait());
    setting.revision(&policy, 6).await;
    let delivery = held.await.expect("ended").expect("answered");
    assert!(matches!(delivery, Delivery::Policy(policy) if policy.revision == 6));
    assert_eq!(due(&setting, &entry, 3).await, 3);
    let after = [setting.stored("a").await, setting.stored("b").await];
    let written = |records: &[muster_core::agent::AgentRecord; 2]| records.clone().map(|record| record.target_revision);
    assert_eq!(written(&after), written(&before));
    assert_eq!(written(&after), [Some(3), None]);
}

#[tokio::test]
async fn undeliverable_revision_is_rejected() {
    let (setting, _, _) = five().await;
    let agent = Selected::one("a").expect("an id");
    for (policy, revision) in [(Some("web"), 6), (Some("web"), 0), (None, 3)] {
        let agents = setting.fleet.agents().select(&root(), &agent).await.expect("there");
        let refused = setting.fleet.actions().reassign(&agents, policy, Some(revision), Force::No).await.unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("policy_revision"), "{refused}");
    }
    assert_eq!(setting.stored("a").await.target_revision, None);
}

#[tokio::test]
async fn older_target_counts_as_running_once_acked() {
    let (setting, _, entry) = five().await;
    due(&setting, &entry, 5).await;
    assign(&setting, Some(3)).await;
    setting.ack(&entry, &serde_json::json!([{"action_id": "policy:web:3"}])).await.expect("taken");
    assert_eq!(setting.stored("a").await.policy_revision, 3);
}

#[tokio::test]
async fn connected_agent_gets_its_new_target_and_the_action_that_set_it() {
    let (setting, _, entry) = five().await;
    let mut outcome = setting.check_in(&entry, &running(5)).await;
    assign(&setting, Some(3)).await;
    let mut got = (false, false);
    while got != (true, true) {
        let delivery = match outcome {
            Poll::Held(poll) => poll.wait().await.expect("an answer"),
            Poll::Due(delivery) => delivery,
        };
        // The agent runs what it was given; its ack is not needed for that.
        let token = match delivery {
            Delivery::Policy(policy) => {
                assert_eq!(policy.revision, 3);
                got.0 = true;
                String::new()
            }
            Delivery::Actions { ack_token, actions } => {
                assert_eq!(actions.len(), 1);
                got.1 = true;
                format!(r#""ack_token":"{ack_token}","#)
            }
            Delivery::Nothing | Delivery::Superseded => panic!("one of the two is missing"),
        };
        let body = running(if got.0 { 3 } else { 5 }).replacen('{', &format!("{{{token}"), 1);
        outcome = setting.check_in(&entry, &body).await;
    }
}
