//! Upgrades from the action to its end: the record and the action always agree.

use std::sync::Arc;

use muster_core::action::TargetState;
use muster_core::action_request::ActionStatus;
use muster_core::authorization::{Actor, OpContext};
use muster_core::status::Status;
use muster_fleet::actions::UpgradeRequest;
use muster_fleet::registry::AgentEntry;
use muster_fleet::selection::Selected;
use serde_json::{Value, json};

use crate::setting::Setting;

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

async fn shown(setting: &Setting, action: &str) -> Result<muster_fleet::action_views::ActionView, muster_core::Error> {
    let listed = setting.fleet.actions().find_listed(&root(), action).await?;
    setting.fleet.actions().show(&listed, 10).await
}

/// An agent on 9.5.2 with an action to upgrade to 9.6.0, and the action's id.
async fn asked() -> (Setting, Arc<AgentEntry>, String) {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    let id = ask(&setting, "9.6.0", &entry).await;
    (setting, entry, id)
}

async fn ask(setting: &Setting, version: &str, entry: &Arc<AgentEntry>) -> String {
    check_in(setting, entry, "9.5.2", None).await;
    let request =
        UpgradeRequest { version: version.into(), force: muster_fleet::force::Force::Yes, ..UpgradeRequest::default() };
    let one = Selected::one("a").expect("an id");
    let selection = setting.fleet.agents().select(&root(), &one).await.expect("there");
    let given = setting.fleet.actions().upgrade(&selection, &request).await.expect("taken");
    assert_eq!(setting.stored("a").await.status, Status::Updating);
    given.action.id.to_string()
}

async fn check_in(setting: &Setting, entry: &Arc<AgentEntry>, version: &str, details: Option<Value>) {
    let mut body = json!({"status": "online", "message": "Running"});
    if let Some(details) = details {
        body["upgrade_details"] = details;
    }
    drop(setting.check_in_of(entry, &body.to_string(), version).await);
}

fn details(action: &str, state: &str) -> Option<Value> {
    let metadata = if state == "UPG_FAILED" { json!({"error_msg": "no such package"}) } else { json!({}) };
    Some(json!({"target_version": "9.6.0", "state": state, "action_id": action, "metadata": metadata}))
}

async fn ack(setting: &Setting, entry: &Arc<AgentEntry>, mut event: Value, action: &str) {
    event["action_id"] = json!(action);
    assert_eq!(setting.ack(entry, &json!([event])).await.expect("taken"), [200]);
}

/// State of the action, with its error, once the upgrade has ended in the record.
async fn end(setting: &Setting, action: &str) -> (ActionStatus, String) {
    let view = shown(setting, action).await.expect("taken");
    let record = setting.stored("a").await;
    assert_eq!(record.upgrade.open.is_none(), view.progress.status != ActionStatus::InProgress);
    assert_eq!(record.upgrade.upgraded_at.is_some(), view.progress.status == ActionStatus::Complete);
    assert_eq!(record.status == Status::Updating, view.progress.status == ActionStatus::InProgress);
    let error = view.errors.first().and_then(|one| one.result.outcome.message().map(str::to_owned)).unwrap_or_default();
    (view.progress.status, error)
}

#[tokio::test]
async fn ea62_details_that_disappear_on_the_target_version_complete_the_action() {
    let (setting, entry, id) = asked().await;
    check_in(&setting, &entry, "9.6.0", details(&id, "UPG_WATCHING")).await;
    assert_eq!(end(&setting, &id).await.0, ActionStatus::InProgress);
    check_in(&setting, &entry, "9.6.0", None).await;
    assert_eq!(end(&setting, &id).await.0, ActionStatus::Complete);
    ack(&setting, &entry, json!({}), &id).await;
    assert_eq!(end(&setting, &id).await.0, ActionStatus::Complete, "a late ack changes nothing");
}

#[tokio::test]
async fn agent_without_details_on_the_target_version_completes_the_action() {
    let (setting, entry, id) = asked().await;
    check_in(&setting, &entry, "9.5.2", None).await;
    assert_eq!(end(&setting, &id).await.0, ActionStatus::InProgress);
    check_in(&setting, &entry, "9.6.0", None).await;
    assert_eq!(end(&setting, &id).await.0, ActionStatus::Complete);
}

#[tokio::test]
async fn failure_after_a_successful_ack_fails_the_action() {
    let (setting, entry, id) = asked().await;
    ack(&setting, &entry, json!({}), &id).await;
    assert_eq!(end(&setting, &id).await.0, ActionStatus::InProgress);
    check_in(&setting, &entry, "9.5.2", details(&id, "UPG_FAILED")).await;
    let failed = (ActionStatus::Failed, "no such package".to_owned());
    assert_eq!(end(&setting, &id).await, failed);
    check_in(&setting, &entry, "9.5.2", None).await;
    assert_eq!(end(&setting, &id).await, failed, "a failure that is forgotten is none the less one");
}

#[tokio::test]
async fn rollback_whose_details_disappear_fails_the_action() {
    let (setting, entry, id) = asked().await;
    check_in(&setting, &entry, "9.6.0", details(&id, "UPG_WATCHING")).await;
    check_in(&setting, &entry, "9.5.2", details(&id, "UPG_ROLLBACK")).await;
    check_in(&setting, &entry, "9.5.2", None).await;
    let (status, error) = end(&setting, &id).await;
    assert_eq!(status, ActionStatus::Failed);
    assert!(error.contains("the agent runs 9.5.2 after UPG_ROLLBACK"), "{error}");
}

#[tokio::test]
async fn ea121_retried_error_keeps_upgrade_and_action_pending() {
    let (setting, entry, id) = asked().await;
    ack(&setting, &entry, json!({"error": "no space", "retries": true}), &id).await;
    assert_eq!(end(&setting, &id).await.0, ActionStatus::InProgress);
    ack(&setting, &entry, json!({"error": "no space", "retries": false}), &id).await;
    assert_eq!(end(&setting, &id).await, (ActionStatus::Failed, "no space".to_owned()));
}

#[tokio::test]
async fn replaced_upgrade_fails_and_is_not_delivered() {
    let (setting, entry, first) = asked().await;
    let second = ask(&setting, "9.6.1", &entry).await;
    let view = shown(&setting, &first).await.expect("taken");
    assert_eq!(view.progress.status, ActionStatus::Failed);
    assert_eq!(view.errors[0].result.outcome.message(), Some(format!("replaced by action {second}").as_str()));
    let due = setting.fleet.store().actions_due(entry.id(), -1, setting.now(), 10).await.expect("taken");
    assert_eq!(due.iter().map(|due| due.action.id.as_str()).collect::<Vec<_>>(), [second.as_str()]);
    let action = setting.fleet.actions().find(&root(), &first).await.expect("there");
    setting.fleet.actions().cancel(&action).await.expect("taken");
    assert_eq!(end(&setting, &second).await.0, ActionStatus::InProgress, "the other action's cancel is not this one's");
}

#[tokio::test]
async fn cancellation_counts_the_agents_that_continue_and_waits_for_no_ack() {
    let (setting, entry, id) = asked().await;
    let cancel = async || {
        let action = setting.fleet.actions().find(&root(), &id).await.expect("there");
        setting.fleet.actions().cancel(&action).await.expect("taken")
    };
    assert_eq!(cancel().await.continuing, 0);
    check_in(&setting, &entry, "9.5.2", details(&id, "UPG_DOWNLOADING")).await;
    let cancelled = cancel().await;
    assert_eq!((cancelled.continuing, cancelled.submitted.targets), (1, 1));
    let view = shown(&setting, cancelled.submitted.action.id.as_str()).await.expect("there");
    assert_eq!((view.progress.status, view.progress.acked), (ActionStatus::Complete, 0));
    assert!(view.progress.completed_at.is_some());
}

#[tokio::test]
async fn ack_of_a_cancelled_upgrade_is_no_success_if_another_one_replaced_it() {
    let (setting, entry, first) = asked().await;
    let action = setting.fleet.actions().find(&root(), &first).await.expect("there");
    setting.fleet.actions().cancel(&action).await.expect("taken");
    let second = ask(&setting, "9.6.1", &entry).await;
    ack(&setting, &entry, json!({}), &first).await;
    let view = shown(&setting, &first).await.expect("there");
    assert_eq!((view.progress.status, view.progress.acked, view.progress.failed), (ActionStatus::Cancelled, 0, 0));
    assert_eq!(end(&setting, &second).await.0, ActionStatus::InProgress);
}

#[tokio::test]
async fn targets_of_a_cancelled_upgrade_are_cancelled_and_a_late_ack_is_recorded() {
    let (setting, entry, id) = asked().await;
    check_in(&setting, &entry, "9.5.2", details(&id, "UPG_DOWNLOADING")).await;
    let action = setting.fleet.actions().find(&root(), &id).await.expect("there");
    setting.fleet.actions().cancel(&action).await.expect("taken");
    let target = async || {
        let listed = setting.fleet.actions().find_listed(&root(), &id).await.expect("there");
        let target = setting.fleet.actions().results(&listed, -1, 10).await.expect("there").remove(0);
        (target.state, target.result.and_then(|result| result.outcome.message().map(str::to_owned)))
    };
    assert_eq!(target().await, (TargetState::Cancelled, None));
    ack(&setting, &entry, json!({}), &id).await;
    let message = "the agent acknowledged it after the cancellation".to_owned();
    assert_eq!(target().await, (TargetState::Cancelled, Some(message)));
    let view = shown(&setting, &id).await.expect("there");
    assert_eq!((view.progress.status, view.progress.acked, view.progress.failed), (ActionStatus::Cancelled, 0, 0));
}

#[tokio::test]
async fn acked_upgrade_without_progress_fails_after_two_hours() {
    let (setting, entry, id) = asked().await;
    check_in(&setting, &entry, "9.5.2", None).await;
    ack(&setting, &entry, json!({}), &id).await;
    let look = async |after| {
        setting.clock.advance(std::time::Duration::from_secs(after));
        setting.fleet.statuses().transition_due().await.expect("looked at");
    };
    look(7199).await;
    assert_eq!(shown(&setting, &id).await.expect("taken").progress.status, ActionStatus::InProgress);
    look(1).await;
    let (status, error) = end(&setting, &id).await;
    assert_eq!(status, ActionStatus::Failed);
    assert_eq!(error, "not upgraded to 9.6.0: no progress for two hours, the agent runs 9.5.2");
    // The upgrade succeeds after all, but the action keeps its result.
    check_in(&setting, &entry, "9.6.0", None).await;
    assert_eq!(end(&setting, &id).await.0, ActionStatus::Failed);
}
