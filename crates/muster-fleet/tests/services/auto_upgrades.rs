//! Automatic upgrades, from the field of a policy to the actions of its agents.

use std::time::Duration;

use muster_core::action::ActionType;
use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::authorization::{Actor, OpContext};
use muster_core::id::AgentId;
use muster_core::testing::online_agent;
use muster_fleet::auto_upgrades::VersionStatus;
use muster_fleet::policies::PolicyDraft;
use muster_fleet::testing::TestFleet;
use muster_store::query::{ActionFilter, Page};
use serde_json::{Value, json};

const HALF: u64 = 30 * 60;

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

async fn create(test: &TestFleet, id: &str, required: Value) {
    let mut draft = PolicyDraft { id: Some(id.into()), name: Some(id.into()), ..PolicyDraft::default() };
    draft.fields.insert("required_versions".into(), required);
    test.fleet.policies().create(&root().grant().expect("all rights"), draft).await.expect("it is made");
}

async fn add(test: &TestFleet, id: &str, policy: &str, version: &str) {
    let record = AgentRecord {
        agent_version: version.into(),
        last_checkin: Some(test.now()),
        ..online_agent(id, Some(policy), test.now())
    };
    let metadata = json!({"elastic": {"agent": {"upgradeable": true}}}).to_string();
    test.add_agent(record, AgentDocuments { local_metadata: Some(metadata.into()), components: None }).await;
}

/// The ids of the upgrades, newest first, with the agent and who created each.
async fn upgrades(test: &TestFleet, agent: &str) -> Vec<(String, String)> {
    let filter = ActionFilter { agent_id: Some(AgentId::trusted(agent)), ..ActionFilter::default() };
    let found = test.store().actions(&filter, Page { offset: 0, limit: 100 }).await.expect("readable").items;
    let upgrades = found.into_iter().filter(|(action, _)| action.kind == ActionType::Upgrade);
    upgrades.map(|(action, _)| (action.id.to_string(), action.created_by)).collect()
}

async fn advance(test: &TestFleet) -> usize {
    test.fleet.auto_upgrades().advance().await.expect("it looks")
}

fn half() -> Value {
    json!([{"version": "9.6.0", "percentage": 50}])
}

#[tokio::test]
async fn mg154_mg155_half_of_the_agents_are_upgraded_and_those_of_other_policies_do_not_count() {
    let test = TestFleet::default();
    create(&test, "web", half()).await;
    create(&test, "other", json!([{"version": "9.6.0", "percentage": 100}])).await;
    for number in 0..10 {
        add(&test, &format!("web-{number}"), "web", if number == 0 { "9.6.0" } else { "9.5.0" }).await;
        add(&test, &format!("other-{number}"), "other", "9.5.0").await;
    }
    assert_eq!(advance(&test).await, 4 + 10, "one of web is there already");
    assert_eq!(advance(&test).await, 0, "they are on the way");
    let mut chosen = 0;
    for number in 0..10 {
        let of_agent = upgrades(&test, &format!("web-{number}")).await;
        assert!(of_agent.iter().all(|(_, by)| by == "system"));
        chosen += of_agent.len();
    }
    assert_eq!((chosen, upgrades(&test, "web-0").await.len()), (4, 0));
    let lines = test.store().audit_events(0, 1000).await.expect("readable");
    let by_server = |line: &str| line.contains("\"action.create\"") && line.contains("\"system\"");
    assert_eq!(lines.iter().filter(|(_, line, _)| by_server(line)).count(), 2, "one action for each policy");
}

#[tokio::test]
async fn mg156_a_failed_upgrade_is_repeated_after_growing_pauses_at_most_seven_times() {
    let test = TestFleet::default();
    create(&test, "web", json!([{"version": "9.6.0", "percentage": 100}])).await;
    add(&test, "a", "web", "9.5.0").await;
    assert_eq!(advance(&test).await, 1);
    let pauses = [1, 2, 4, 8, 16, 32, 48];
    for (attempt, pause) in pauses.into_iter().enumerate() {
        let action = upgrades(&test, "a").await[0].0.clone();
        let entry = test.fleet.entry(&AgentId::trusted("a")).await.expect("it is there");
        let failed = json!([{"action_id": action, "agent_id": "a", "error": "no space"}]);
        assert_eq!(test.ack(&entry, &failed).await.expect("taken"), [200]);
        test.clock.advance(Duration::from_secs(HALF * pause - 1));
        assert_eq!(advance(&test).await, 0, "{attempt}");
        test.clock.advance(Duration::from_secs(1));
        assert_eq!(advance(&test).await, 1, "{attempt}");
    }
    let action = upgrades(&test, "a").await[0].0.clone();
    let entry = test.fleet.entry(&AgentId::trusted("a")).await.expect("it is there");
    let failed = json!([{"action_id": action, "agent_id": "a", "error": "no space"}]);
    test.ack(&entry, &failed).await.expect("taken");
    test.clock.advance(Duration::from_secs(HALF * 1000));
    assert_eq!((advance(&test).await, upgrades(&test, "a").await.len()), (0, 8));
}

#[tokio::test]
async fn agents_that_cannot_be_upgraded_make_room_for_others() {
    let test = TestFleet::default();
    create(&test, "web", half()).await;
    for number in 0..3 {
        add(&test, &format!("able-{number}"), "web", "9.5.0").await;
        let record = AgentRecord {
            agent_version: "9.5.0".into(),
            ..online_agent(&format!("packaged-{number}"), Some("web"), test.now())
        };
        test.add_agent(record, AgentDocuments::default()).await;
    }
    assert_eq!(advance(&test).await, 3);
    for number in 0..3 {
        assert_eq!(upgrades(&test, &format!("able-{number}")).await.len(), 1);
    }
}

#[tokio::test]
async fn the_progress_of_automatic_upgrades_is_counted_by_version() {
    let test = TestFleet::default();
    create(&test, "web", half()).await;
    for number in 0..4 {
        add(&test, &format!("web-{number}"), "web", if number == 0 { "9.6.0" } else { "9.5.0" }).await;
    }
    add(&test, "elsewhere", "other", "9.4.0").await;
    let status = async || {
        let policy = test.fleet.policies().find(&root(), "web").await.expect("it is there");
        test.fleet.auto_upgrades().status(&root().grant().expect("all rights"), &policy).await.expect("readable")
    };
    let numbers = |found: &[(String, VersionStatus)]| {
        let row = |(version, of): &(String, VersionStatus)| {
            format!("{version} {} {} {}", of.agents, of.failed, of.in_progress)
        };
        found.iter().map(row).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&status().await), ["9.6.0 1 0 0", "9.5.0 3 0 0"]);
    assert_eq!(advance(&test).await, 1);
    let begun = status().await;
    assert_eq!(numbers(&begun), ["9.6.0 1 0 1", "9.5.0 3 0 0"]);
    assert_eq!(begun[0].1.actions_in_progress.len(), 1);
    let mut failed = AgentRecord { agent_version: "9.5.0".into(), ..online_agent("failed", Some("web"), test.now()) };
    let details = json!({"target_version": "9.7.0", "state": "UPG_FAILED", "action_id": "up"}).to_string();
    failed.upgrade.details = Some(details.into());
    test.add_agent(failed, AgentDocuments::default()).await;
    let found = status().await;
    assert_eq!(numbers(&found), ["9.7.0 0 1 0", "9.6.0 1 0 1", "9.5.0 4 0 0"]);
    assert_eq!(found[0].1.failed_actions.iter().collect::<Vec<_>>(), ["up"]);
}
