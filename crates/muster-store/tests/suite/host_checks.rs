//! Results of host checks.

use muster_core::agent::AgentRecord;
use muster_core::fleetd::checks::{CheckChanges, CheckResult};
use muster_core::id::{HostCheckId, SpaceId};
use muster_store::query::{AgentCondition, AgentFilter, Page};
use muster_store::{AgentWrite, HostCheckWrite, Store, Write};

use super::sample::*;

const PAGE: Page = Page { offset: 0, limit: 10 };

fn id(check: &str) -> HostCheckId {
    HostCheckId::trusted(check)
}

fn result(check: &str, passes: Option<bool>, since: i64) -> CheckResult {
    CheckResult { check: id(check), passes, since: at(since), error: String::new() }
}

fn put(agent: &str, put: &[CheckResult], remove: &[&str]) -> Write {
    let changes = CheckChanges { put: put.to_vec(), remove: remove.iter().map(|check| id(check)).collect() };
    HostCheckWrite::Results { agent: agent_id(agent), changes }.into()
}

async fn failing(store: &impl Store, space: &SpaceId) -> Vec<String> {
    let found = store.checked_hosts(space, &id("one"), false, PAGE).await.unwrap();
    found.into_iter().map(|host| host.agent.to_string()).collect()
}

pub async fn results_are_put_replaced_removed_and_counted(store: &impl Store) {
    let elsewhere = AgentRecord { space: SpaceId::trusted("red"), ..bare_agent("c") };
    commit(store, vec![insert(&bare_agent("a")), insert(&bare_agent("b")), insert(&elsewhere)]).await;
    let first = [result("one", Some(false), 3), result("two", Some(true), 1), result("old", None, 0)];
    let writes = ["a", "b", "c"].map(|agent| put(agent, &first, &[]));
    commit(store, writes.into()).await;
    let failed = CheckResult { error: "no such table".into(), ..result("one", Some(false), 2) };
    commit(store, vec![put("b", std::slice::from_ref(&failed), &["two", "old"])]).await;
    assert_eq!(store.check_results(&agent_id("b")).await.unwrap(), [failed]);
    assert_eq!(store.check_results(&agent_id("a")).await.unwrap().len(), 3);
    let counts = store.check_counts(&[id("two"), id("one"), id("old"), id("none")]).await.unwrap();
    assert_eq!(counts, [(2, 0), (0, 3), (0, 0), (0, 0)]);
    assert_eq!(failing(store, &SpaceId::default()).await, ["b", "a"], "the longest time first");
    assert_eq!(failing(store, &SpaceId::trusted("red")).await, ["c"]);
    let agents = [agent_id("a"), agent_id("b"), agent_id("none")];
    let mut numbers = store.failing_checks(&agents, &[id("one"), id("two")]).await.unwrap();
    numbers.sort();
    assert_eq!(numbers, [(agent_id("a"), 1), (agent_id("b"), 1)]);
    assert!(store.failing_checks(&agents, &[id("two"), id("old")]).await.unwrap().is_empty());
    let fails = |check: &str| AgentFilter {
        space: Some(SpaceId::default()),
        conditions: vec![AgentCondition::FailsChecks(vec![id(check)])],
        ..AgentFilter::default()
    };
    let ids = store.agent_ids(&fails("one"), None, 10).await.unwrap();
    assert_eq!(ids, [agent_id("a"), agent_id("b")]);
    assert!(store.agent_ids(&fails("old"), None, 10).await.unwrap().is_empty());
    let page = Page { offset: 1, limit: 1 };
    let second = store.checked_hosts(&SpaceId::default(), &id("one"), false, page).await.unwrap();
    assert_eq!((second.len(), second[0].agent.as_str(), second[0].error.as_str()), (1, "a", ""));
    commit(store, vec![HostCheckWrite::Forget { check: id("one") }.into()]).await;
    assert_eq!(store.check_counts(&[id("one"), id("two")]).await.unwrap()[0], (0, 0), "of all hosts");
    assert!(!store.check_results(&agent_id("a")).await.unwrap().is_empty(), "others stay");
}

pub async fn results_are_deleted_with_their_agent(store: &impl Store) {
    commit(store, vec![insert(&bare_agent("a")), put("a", &[result("one", Some(true), 0)], &[])]).await;
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: agent_id("a"), now: at(1) })]).await;
    assert_eq!(store.check_counts(&[id("one")]).await.unwrap(), [(0, 0)]);
}

pub async fn results_stay_behind_when_their_agent_moves_to_another_space(store: &impl Store) {
    let before = bare_agent("a");
    commit(store, vec![insert(&before), put("a", &[result("one", Some(false), 0)], &[])]).await;
    let mut moved = before.clone();
    (moved.version, moved.space) = (before.version + 1, SpaceId::trusted("other"));
    commit(store, vec![update(&before, &moved)]).await;
    assert_eq!(store.check_counts(&[id("one")]).await.unwrap(), [(0, 0)]);
    assert!(store.check_results(&agent_id("a")).await.unwrap().is_empty());
}
