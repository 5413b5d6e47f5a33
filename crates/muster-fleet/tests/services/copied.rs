//! A fleet whose store was copied to another engine, and back: its agents carry on.

use std::path::Path;
use std::sync::Arc;

use muster_core::action::ActionType;
use muster_core::audit::AuditEvent;
use muster_core::authorization::{Actor, OpContext};
use muster_fleet::audit_log::AuditView;
use muster_fleet::check_in::Poll;
use muster_fleet::testing::{Enrolled, TestFleet, steady};
use muster_store::copy::{Copied, Place, copy};
use muster_store::postgres::Address;
use muster_store::testing::Cluster;
use muster_store::{INSTALLATION, Options, SettingWrite, SqlStore, Write};
use serde_json::json;

use crate::setting::action_ids;

const REPORT: &str = r#"{"status":"fine","components":[{"id":"log","status":"HEALTHY"}]}"#;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

fn open(path: &Path) -> SqlStore {
    SqlStore::open(path, &Options::default()).expect("a store")
}

async fn copied(from: &Place, to: &Place) -> Copied {
    let (from, to) = (from.clone(), to.clone());
    blocking(move || copy(&from, &to, &mut |_| std::ops::ControlFlow::Continue(()))).await.expect("copied")
}

/// Creates an action, which the agent receives with its next check-in, and acknowledges it.
async fn takes_an_action(test: &TestFleet, agent: &Enrolled, id: &str) -> i64 {
    let entry = test.entry(agent).await.expect("its key is still its own");
    test.add_action(id, ActionType::Settings, &agent.id, |action| action.data = Some("{}".into())).await;
    let Poll::Due(due) = test.check_in(&entry, REPORT).await.expect("taken") else { panic!("an action is due") };
    let (actions, token) = action_ids(due);
    assert_eq!(actions, [id.to_owned()], "exactly the new action");
    assert_eq!(test.ack(&entry, &json!([{ "action_id": id }])).await.expect("taken"), [200]);
    let confirm = format!(r#"{{"status":"fine","ack_token":"{token}"}}"#);
    test.check_in(&entry, &confirm).await.expect("taken");
    test.stored(&agent.id).await.action_position
}

/// Appends an event, and returns the number of events, whose chains are intact.
async fn audit_events(test: &TestFleet) -> u64 {
    let (at, detail) = (test.now(), json!({}));
    let event = AuditEvent {
        at,
        actor: "system".into(),
        action: "test".into(),
        subject: "fleet".into(),
        detail,
        address: None,
        reason: None,
        space: None,
    };
    test.commit(vec![Write::Audit(event)]).await;
    let context = OpContext::administrator(Actor::Local { uid: 0 });
    let verdict = test.fleet.audit().verify(&AuditView::whole(&context).expect("all rights")).await.expect("readable");
    assert!(verdict.broken.is_none(), "the chains are intact");
    verdict.lines
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_carry_on_after_their_fleet_was_copied_there_and_back() {
    let directory = std::env::temp_dir().join(format!("muster-copied-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (file, back) = (directory.join("a.db"), directory.join("back.db"));

    let test = TestFleet::over(Arc::new(open(&file)), steady());
    let put = SettingWrite::Put { name: INSTALLATION.into(), value: "fleet".into() };
    test.commit(vec![Write::Setting(put)]).await;
    let key = test.add_key(None, |_| {}).await;
    let agent =
        test.enroll(&key, &json!({"metadata": {"local": {"host": {"hostname": "a\0b"}}}})).await.expect("enrolled");
    let first = takes_an_action(&test, &agent, "first").await;
    let events = audit_events(&test).await;
    drop(test);

    let schema = blocking(|| Cluster::shared().schema()).await;
    let there = Place::from(Cluster::shared().address(&schema).parse::<Address>().expect("an address"));
    let out = copied(&Place::File(file), &there).await;
    let shared = blocking(move || Cluster::shared().open(&schema)).await;
    let test = TestFleet::over(Arc::new(shared), steady());
    let second = takes_an_action(&test, &agent, "second").await;
    assert!(second > first, "{second} after {first}");
    assert_eq!(audit_events(&test).await, events + 1);
    blocking(move || drop(test)).await;

    copied(&there, &Place::File(back.clone())).await;
    let test = TestFleet::over(Arc::new(open(&back)), steady());
    assert!(takes_an_action(&test, &agent, "third").await > second);
    assert_eq!(audit_events(&test).await, events + 3, "with the seal of the chain that the shared database had");
    assert!(out.replaced > 0, "the name of the host has NUL");
    drop(test);
    std::fs::remove_dir_all(&directory).expect("removed");
}
