//! Acks and uninstallation reports against a store.

use std::time::Duration;

use muster_core::action::{ActionType, TargetState};
use muster_core::agent::{AuditReason, AuditReport};
use muster_core::credential::ApiKey;
use muster_core::denial::Denial;
use muster_core::id::{ActionId, AgentId};
use muster_core::status::Status;
use serde_json::Value;

use super::*;
use crate::testing::{Enrolled, TestFleet};

struct Agent {
    test: TestFleet,
    key: ApiKey,
    item: Enrolled,
    entry: Arc<AgentEntry>,
}

impl Agent {
    async fn new() -> Self {
        let test = TestFleet::new().await;
        let key = test.add_key(Some("p"), |_| {}).await;
        let item = test.enroll(&key, &json!({"type": "PERMANENT"})).await.unwrap();
        let entry = test.entry(&item).await.unwrap();
        Self { test, key, item, entry }
    }

    async fn add_action(&self, id: &str, kind: ActionType, target: &AgentId) {
        let expiration = self.test.now().plus(Duration::from_secs(3600));
        self.test.add_action(id, kind, target.as_str(), |action| action.expiration = Some(expiration)).await;
    }

    async fn ack(&self, events: Value) -> Vec<u16> {
        self.test.ack(&self.entry, &events).await.unwrap()
    }

    async fn stored(&self) -> AgentRecord {
        self.test.stored(self.entry.id().as_str()).await
    }
}

#[tokio::test]
async fn ea112_ea115_ea120_each_ack_gets_a_verdict_and_results_are_stored() {
    let agent = Agent::new().await;
    agent.add_action("set", ActionType::Settings, agent.entry.id()).await;
    let statuses = agent
        .ack(json!([
            {"action_id": "set", "error": "boom", "timestamp": "2026-01-02T03:05:00.2+01:00"},
            {"action_id": "nobody"},
            {"action_id": "set", "agent_id": "other"},
        ]))
        .await;
    assert_eq!(statuses, [200, 404, 400]);
    let results = agent.test.store().action_results(&ActionId::trusted("set"), false, 10).await.unwrap();
    assert_eq!((results.len(), results[0].outcome.message()), (1, Some("boom")));
    assert_eq!(results[0].at, Timestamp::parse_rfc3339("2026-01-02T02:05:00.2Z").unwrap());
}

#[tokio::test]
async fn ea119_first_result_is_kept() {
    let agent = Agent::new().await;
    agent.add_action("set", ActionType::Settings, agent.entry.id()).await;
    for event in [json!({"action_id": "set"}), json!({"action_id": "set", "error": "late"})] {
        assert_eq!(agent.ack(json!([event])).await, [200]);
    }
    let results = agent.test.store().action_results(&ActionId::trusted("set"), false, 10).await.unwrap();
    assert_eq!((results.len(), results[0].outcome.message()), (1, None));
}

#[tokio::test]
async fn d17_ack_of_another_agents_action_changes_nothing() {
    let agent = Agent::new().await;
    let other = agent.test.enroll(&agent.key, &json!({"type": "PERMANENT"})).await.unwrap();
    let other = AgentId::trusted(other.id);
    agent.add_action("out", ActionType::Unenroll, &other).await;
    let before = agent.stored().await;
    assert_eq!(agent.ack(json!([{"action_id": "out"}])).await, [400]);
    assert_eq!(agent.stored().await, before);
    let state = agent.test.store().action_target(&ActionId::trusted("out"), &other).await.unwrap();
    assert_eq!(state.map(|target| target.state), Some(TargetState::Queued));
}

#[tokio::test]
async fn ea116_ea117_d16_policy_acks_count_only_for_existing_revisions() {
    let agent = Agent::new().await;
    assert_eq!(agent.ack(json!([{"action_id": "policy:p:999999"}])).await, [200]);
    assert_eq!(agent.stored().await.policy_revision, 0);
    assert_eq!(agent.ack(json!([{"action_id": "policy:p:2"}, {"action_id": "policy:p:3"}])).await, [200, 200]);
    assert_eq!(agent.stored().await.policy_revision, 3);
    assert_eq!(agent.ack(json!([{"action_id": "policy:p:1"}])).await, [200]);
    assert_eq!(agent.stored().await.policy_revision, 3);
}

#[tokio::test]
async fn ea122_unenroll_ack_revokes_the_key_and_ends_the_poll() {
    let agent = Agent::new().await;
    agent.add_action("out", ActionType::Unenroll, agent.entry.id()).await;
    let generation = agent.entry.generation();
    assert_eq!(agent.ack(json!([{"action_id": "out"}])).await, [200]);
    assert_ne!(agent.entry.generation(), generation);
    let record = agent.stored().await;
    assert_eq!((record.active, record.credentials.is_empty(), record.status), (false, true, Status::Unenrolled));
    let refused = agent.test.entry(&agent.item).await.err().unwrap();
    assert_eq!(refused.denial, Some(Denial::UnknownKey));
    let lines = agent.test.store().audit_events(0, 20).await.unwrap();
    assert!(lines.iter().any(|(_, event, _)| event.contains("agent.unenroll")));
}

#[tokio::test]
async fn ea111_empty_acks_are_accepted_and_too_many_rejected() {
    let agent = Agent::new().await;
    assert_eq!(agent.ack(json!([])).await, [0; 0]);
    let many = json!(vec![json!({"action_id": "x"}); MAX_ACKS + 1]);
    let error = agent.test.ack(&agent.entry, &many).await.unwrap_err();
    assert_eq!(error.to_string(), "acks: 1001 acks; at most 1000");
}

#[tokio::test]
async fn ea137_ea138_ea140_uninstallation_reports_are_stored_and_only_orphaned_is_final() {
    let agent = Agent::new().await;
    let report = async |reason| {
        let report = AuditReport { reason, at: agent.test.now() };
        agent.test.fleet.check_ins().report_unenroll(&agent.entry, report, None).await
    };
    report(AuditReason::Uninstall).await.unwrap();
    report(AuditReason::Uninstall).await.unwrap();
    let record = agent.stored().await;
    assert_eq!((record.status, record.active, record.unenrolled_at), (Status::Uninstalled, true, None));
    assert!(agent.test.entry(&agent.item).await.is_ok());
    report(AuditReason::Orphaned).await.unwrap();
    assert_eq!(agent.stored().await.status, Status::Orphaned);
    assert_eq!(report(AuditReason::Uninstall).await.unwrap_err().denial, Some(Denial::LeftForGood));
}
