//! Results of host checks.

use muster_core::agent::AgentRecord;
use muster_core::fleetd::check_history::{CheckDay, MAX_CHANGES, start_of};
use muster_core::fleetd::checks::{CheckChanges, CheckResult};
use muster_core::id::{HostCheckId, SpaceId};
use muster_core::time::Timestamp;
use muster_store::query::{AgentCondition, AgentFilter, CheckCounts, CheckedHosts, Page};
use muster_store::{AgentWrite, HostCheckWrite, Store, Write};

use super::sample::*;

const PAGE: Page = Page { offset: 0, limit: 10 };

fn id(check: &str) -> HostCheckId {
    HostCheckId::trusted(check)
}

fn result(check: &str, passes: Option<bool>, since: i64) -> CheckResult {
    CheckResult { check: id(check), passes, since: at(since), error: String::new(), failed_at: None }
}

fn put(agent: &str, put: &[CheckResult], remove: &[&str]) -> Write {
    let changes = CheckChanges { put: put.to_vec(), remove: remove.iter().map(|check| id(check)).collect() };
    HostCheckWrite::Results { agent: agent_id(agent), changes }.into()
}

async fn failing(store: &impl Store, space: &SpaceId) -> Vec<String> {
    let found = store.checked_hosts(space, &id("one"), CheckedHosts::Failing, PAGE).await.unwrap();
    found.into_iter().map(|host| host.agent.to_string()).collect()
}

pub async fn results_are_put_replaced_removed_and_counted(store: &impl Store) {
    let elsewhere = AgentRecord { space: SpaceId::trusted("red"), ..bare_agent("c") };
    commit(store, vec![insert(&bare_agent("a")), insert(&bare_agent("b")), insert(&elsewhere)]).await;
    let first = [result("one", Some(false), 3), result("two", Some(true), 1), result("old", None, 0)];
    let writes = ["a", "b", "c"].map(|agent| put(agent, &first, &[]));
    commit(store, writes.into()).await;
    let failed = CheckResult { error: "no such table".into(), failed_at: Some(at(7)), ..result("one", Some(false), 2) };
    commit(store, vec![put("b", std::slice::from_ref(&failed), &["two", "old"])]).await;
    assert_eq!(store.check_results(&agent_id("b")).await.unwrap(), [failed]);
    assert_eq!(store.check_results(&agent_id("a")).await.unwrap().len(), 3);
    let counts = store.check_counts(&[id("two"), id("one"), id("old"), id("none")]).await.unwrap();
    assert_eq!(
        counts.iter().map(|one| (one.passing, one.failing)).collect::<Vec<_>>(),
        [(2, 0), (0, 3), (0, 0), (0, 0)]
    );
    assert_eq!(counts[1], CheckCounts { passing: 0, failing: 3, errors: 1, error: "no such table".into() });
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
    let second = store.checked_hosts(&SpaceId::default(), &id("one"), CheckedHosts::Failing, page).await.unwrap();
    assert_eq!((second.len(), second[0].agent.as_str(), second[0].error.as_str()), (1, "a", ""));
    commit(store, vec![HostCheckWrite::Forget { check: id("one") }.into()]).await;
    assert_eq!(store.check_counts(&[id("one"), id("two")]).await.unwrap()[0], CheckCounts::default(), "of all hosts");
    assert!(!store.check_results(&agent_id("a")).await.unwrap().is_empty(), "others stay");
}

pub async fn hosts_on_which_the_query_does_not_run_are_counted_with_the_newest_error(store: &impl Store) {
    let elsewhere = AgentRecord { space: SpaceId::trusted("red"), ..bare_agent("c") };
    commit(store, vec![insert(&bare_agent("a")), insert(&bare_agent("b")), insert(&elsewhere)]).await;
    let failed = |passes, error: &str, failed_at| CheckResult {
        error: error.into(),
        failed_at: Some(at(failed_at)),
        ..result("one", passes, 1)
    };
    let writes = vec![
        put("a", &[failed(None, "no such table: x", 5)], &[]),
        put("b", &[failed(Some(true), "no such column: y", 6)], &[]),
        put("c", &[result("one", Some(true), 1)], &[]),
    ];
    commit(store, writes).await;
    let counts = async || store.check_counts(&[id("one")]).await.unwrap().remove(0);
    // The host on which it ran before passes, too.
    assert_eq!(counts().await, CheckCounts { passing: 2, failing: 0, errors: 2, error: "no such column: y".into() });
    let hosts = async |space: &str| {
        let space = SpaceId::trusted(space);
        let found = store.checked_hosts(&space, &id("one"), CheckedHosts::Errors, PAGE).await.unwrap();
        found.into_iter().map(|host| (host.agent.to_string(), host.since, host.error)).collect::<Vec<_>>()
    };
    let expected = [
        ("b".to_owned(), at(6), "no such column: y".to_owned()),
        ("a".to_owned(), at(5), "no such table: x".to_owned()),
    ];
    assert_eq!(hosts("default").await, expected, "the newest first");
    assert!(hosts("red").await.is_empty());
    commit(store, vec![put("b", &[result("one", Some(true), 1)], &[])]).await;
    let (CheckCounts { errors, error, .. }, known) =
        (counts().await, store.check_results(&agent_id("b")).await.unwrap());
    assert_eq!((errors, error.as_str(), known[0].failed_at), (1, "no such table: x", None), "it runs again");
    commit(store, vec![HostCheckWrite::Forget { check: id("one") }.into()]).await;
    assert_eq!(counts().await, CheckCounts::default(), "another query");
}

pub async fn results_are_deleted_with_their_agent(store: &impl Store) {
    commit(store, vec![insert(&bare_agent("a")), put("a", &[result("one", Some(true), 0)], &[])]).await;
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: agent_id("a"), now: at(1) })]).await;
    assert_eq!(store.check_counts(&[id("one")]).await.unwrap(), [CheckCounts::default()]);
}

pub async fn results_stay_behind_when_their_agent_moves_to_another_space(store: &impl Store) {
    let before = bare_agent("a");
    commit(store, vec![insert(&before), put("a", &[result("one", Some(false), 0)], &[])]).await;
    let mut moved = before.clone();
    (moved.version, moved.space) = (before.version + 1, SpaceId::trusted("other"));
    commit(store, vec![update(&before, &moved)]).await;
    assert_eq!(store.check_counts(&[id("one")]).await.unwrap(), [CheckCounts::default()]);
    assert!(store.check_results(&agent_id("a")).await.unwrap().is_empty());
}

/// Returns the changes of the answer of an agent to the check `one`, in the form `(passes, since)`, the newest first.
async fn history(store: &impl Store, agent: &str) -> Vec<(bool, Timestamp)> {
    let found = store.check_changes(&agent_id(agent)).await.unwrap();
    found.into_iter().filter(|change| change.check == id("one")).map(|change| (change.passes, change.since)).collect()
}

pub async fn changes_of_answers_are_kept_up_to_a_number_and_an_age(store: &impl Store) {
    commit(store, vec![insert(&bare_agent("a")), insert(&bare_agent("b"))]).await;
    commit(store, vec![put("a", &[result("one", None, 1), result("two", Some(true), 1)], &[])]).await;
    assert!(history(store, "a").await.is_empty(), "a query that never ran has no answer");
    commit(store, vec![put("a", &[result("one", Some(true), 5)], &[])]).await;
    let failed = CheckResult { error: "no such table".into(), failed_at: Some(at(7)), ..result("one", Some(true), 5) };
    commit(store, vec![put("a", &[failed], &[])]).await;
    commit(store, vec![put("a", &[result("one", Some(false), 9)], &[])]).await;
    assert_eq!(history(store, "a").await, [(false, at(9)), (true, at(5))], "another error is no change");
    for since in 10..10 + i64::from(MAX_CHANGES) {
        commit(store, vec![put("a", &[result("one", Some(since % 2 == 0), since)], &[])]).await;
    }
    let changes = history(store, "a").await;
    assert_eq!((changes.len(), changes.last()), (MAX_CHANGES as usize, Some(&(true, at(10)))), "the newest stay");
    assert_eq!(store.check_changes(&agent_id("a")).await.unwrap().len(), MAX_CHANGES as usize + 1, "others, too");
    commit(store, vec![put("b", &[result("one", Some(true), 12)], &[])]).await;
    assert_eq!(store.check_changes_prune(at(12), 2).await.unwrap(), 2);
    assert_eq!(store.check_changes_prune(at(12), 2).await.unwrap(), 1);
    assert_eq!(store.check_changes_prune(at(12), 2).await.unwrap(), 0);
    assert_eq!(history(store, "b").await, [(true, at(12))]);
    commit(store, vec![put("b", &[], &["one"])]).await;
    assert!(history(store, "b").await.is_empty(), "removed with the result");
    commit(store, vec![HostCheckWrite::Forget { check: id("one") }.into()]).await;
    assert!(history(store, "a").await.is_empty(), "answers to the former query");
    commit(store, vec![put("a", &[result("one", Some(true), 90)], &[])]).await;
    let (before, mut moved) = (bare_agent("a"), bare_agent("a"));
    (moved.version, moved.space) = (before.version + 1, SpaceId::trusted("other"));
    commit(store, vec![update(&before, &moved)]).await;
    assert!(store.check_changes(&agent_id("a")).await.unwrap().is_empty(), "people of another space do not see them");
}

pub async fn numbers_of_hosts_are_recorded_once_a_day_and_old_ones_deleted(store: &impl Store) {
    let result = |check: &str, passes: bool, since| CheckResult {
        check: id(check),
        passes: Some(passes),
        since,
        error: String::new(),
        failed_at: None,
    };
    let (yesterday, today) = (start_of(6), start_of(7));
    commit(store, ["a", "b", "c", "d"].map(|agent| insert(&bare_agent(agent))).to_vec()).await;
    assert_eq!(store.check_day_record(6, 0).await.unwrap(), 0, "without answers");
    let writes = vec![
        put("a", &[result("one", true, yesterday), result("two", false, yesterday)], &[]),
        put("b", &[result("one", false, yesterday)], &[]),
        put("c", &[result("one", false, yesterday)], &[]),
        put("d", &[result("one", true, today), result("new", true, today)], &[]),
    ];
    commit(store, writes).await;
    assert_eq!(store.check_day_record(6, 0).await.unwrap(), 2);
    assert_eq!(store.check_day_record(6, 0).await.unwrap(), 0, "once");
    let days = async |check: &str, since| store.check_days(&id(check), since).await.unwrap();
    assert_eq!(days("one", 0).await, [CheckDay { day: 6, passing: 1, failing: 2 }], "not the answer of the next day");
    assert!(days("new", 0).await.is_empty());
    assert_eq!(store.check_day_record(7, 0).await.unwrap(), 3);
    assert_eq!(days("one", 0).await.len(), 2);
    assert_eq!(days("one", 7).await, [CheckDay { day: 7, passing: 2, failing: 2 }]);
    store.check_day_record(8, 7).await.unwrap();
    assert_eq!(days("two", 0).await.iter().map(|one| one.day).collect::<Vec<_>>(), [7, 8]);
}
