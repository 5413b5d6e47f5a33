//! Scheduled queries that do not work on hosts.

use muster_core::agent::AgentRecord;
use muster_core::fleetd::schedule::{FailureChanges, QueryFailure};
use muster_core::id::SpaceId;
use muster_store::query::{AgentCondition, AgentFilter, FailureCount};
use muster_store::{AgentWrite, QueryFailureWrite, Store, Write};

use super::sample::*;

fn fails(name: &str, until: i64) -> QueryFailure {
    QueryFailure { name: name.into(), error: Some("no such table: x".into()), since: at(1), until: Some(at(until)) }
}

fn denylisted(name: &str) -> QueryFailure {
    QueryFailure { name: name.into(), error: None, since: at(2), until: None }
}

fn put(agent: &str, put: &[QueryFailure], remove: &[&str]) -> Write {
    let changes = FailureChanges { put: put.to_vec(), remove: remove.iter().map(ToString::to_string).collect() };
    QueryFailureWrite { agent: agent_id(agent), changes }.into()
}

async fn names(store: &impl Store, agent: &str, now: i64) -> Vec<String> {
    let found = store.query_failures(&[agent_id(agent)], at(now)).await.unwrap();
    found.into_iter().map(|(_, failure)| failure.name).collect()
}

pub async fn failures_are_put_replaced_removed_and_counted(store: &impl Store) {
    let elsewhere = AgentRecord { space: SpaceId::trusted("red"), ..bare_agent("c") };
    commit(store, vec![insert(&bare_agent("a")), insert(&bare_agent("b")), insert(&elsewhere)]).await;
    let both = [fails("one", 9), denylisted("two")];
    let writes = ["a", "b", "c"].map(|agent| put(agent, &both, &[]));
    commit(store, writes.into()).await;
    commit(store, vec![put("b", &[denylisted("one")], &["two"])]).await;
    let of_both = store.query_failures(&[agent_id("b"), agent_id("a"), agent_id("none")], at(8)).await.unwrap();
    let expected = [("a", fails("one", 9)), ("a", denylisted("two")), ("b", denylisted("one"))];
    assert_eq!(of_both, expected.map(|(agent, failure)| (agent_id(agent), failure)));
    let counts = async |now: i64| {
        let names = ["one", "two", "none"].map(str::to_owned);
        let mut found = store.query_failure_counts(&SpaceId::default(), &names, at(now)).await.unwrap();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        found
    };
    let count = |name: &str, failing: u64, denylisted: u64| FailureCount { name: name.into(), failing, denylisted };
    assert_eq!(counts(8).await, [count("one", 1, 1), count("two", 0, 1)]);
    assert_eq!(counts(9).await, [count("one", 0, 1), count("two", 0, 1)], "it has ended");
    let on = async |name: &str, now: i64| {
        let conditions = vec![AgentCondition::FailsQueries(vec![name.into(), "other".into()], at(now))];
        let filter = AgentFilter { space: Some(SpaceId::default()), conditions, ..AgentFilter::default() };
        store.agent_ids(&filter, None, 10).await.unwrap()
    };
    assert_eq!(on("one", 8).await, [agent_id("a"), agent_id("b")]);
    assert_eq!(on("one", 9).await, [agent_id("b")]);
    assert!(on("none", 8).await.is_empty());
}

pub async fn failures_end_with_their_time_their_agent_and_its_stay_in_the_space(store: &impl Store) {
    let before = bare_agent("a");
    commit(store, vec![insert(&before), insert(&bare_agent("b"))]).await;
    commit(store, vec![put("a", &[fails("one", 9), fails("two", 20), denylisted("three")], &[])]).await;
    commit(store, vec![put("b", &[denylisted("one")], &[])]).await;
    assert_eq!(names(store, "a", 9).await, ["three", "two"]);
    assert_eq!(store.query_failures_prune(at(10), 5).await.unwrap(), 1);
    assert_eq!(names(store, "a", 0).await, ["three", "two"]);
    let mut moved = before.clone();
    (moved.version, moved.space) = (before.version + 1, SpaceId::trusted("other"));
    commit(store, vec![update(&before, &moved)]).await;
    assert!(names(store, "a", 0).await.is_empty());
    commit(store, vec![put("a", &[denylisted("one")], &[])]).await;
    let counted = store.query_failure_counts(&moved.space, &["one".to_owned()], at(0)).await.unwrap();
    assert_eq!(counted.len(), 1, "of the new space");
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: agent_id("b"), now: at(1) })]).await;
    assert!(names(store, "b", 0).await.is_empty());
}
