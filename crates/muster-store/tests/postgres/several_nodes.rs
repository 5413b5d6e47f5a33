//! Several nodes over one database.

use std::sync::Arc;
use std::time::Duration;

use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::change::Change;
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_store::query::AgentFilter;
use muster_store::testing::Cluster;
use muster_store::{
    AgentStore as _, AgentWrite, ChangeStore as _, Currency, LeaseName, LeaseStore as _, NodeLease, NodeStanding,
    NodeStore as _, OpenError, Options, Precondition, SettingStore as _, SqlStore, Store as _, StoreError, Write,
    has_gap,
};

use super::{blocking, put};

/// Time for what happens by itself: renewals every two seconds, registration again after one.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn schema() -> String {
    blocking(|| Cluster::shared().schema()).await
}

pub async fn open(schema: &str) -> SqlStore {
    let schema = schema.to_owned();
    blocking(move || Cluster::shared().open(&schema)).await
}

async fn open_in(schema: &str, id: &str, place: &str) -> Result<SqlStore, OpenError> {
    let address = Cluster::shared().address(schema).parse().unwrap();
    let node = muster_store::postgres::Node { place: place.into(), ..Cluster::node(id) };
    blocking(move || SqlStore::connect(address, &node, &Options::default())).await
}

pub async fn sql(text: String) -> String {
    blocking(move || Cluster::shared().psql(&text)).await.unwrap()
}

/// Makes a node's lease expire, as after a long sleep, and lets nobody but this call find it.
pub async fn kill(schema: &str, store: &SqlStore) {
    let epoch = store.this_node().borrow().epoch.as_str().to_owned();
    sql(format!("DELETE FROM {schema}.nodes WHERE epoch = '{epoch}'")).await;
}

/// Waits for what happens by itself.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

async fn standing(store: &SqlStore, is_it: impl FnMut(&NodeStanding) -> bool) -> NodeStanding {
    let mut receiver = store.this_node();
    let waiting = tokio::time::timeout(PATIENCE, receiver.wait_for(is_it));
    waiting.await.expect("in time").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_nodes_use_one_database_and_know_each_other() {
    let schema = schema().await;
    let (first, second) = (open(&schema).await, open(&schema).await);
    first.commit(put("a")).await.unwrap();
    second.commit(put("b")).await.unwrap();
    assert_eq!(second.setting("a").await.unwrap().as_deref(), Some("1"));
    assert_eq!(first.setting("b").await.unwrap().as_deref(), Some("1"));
    let nodes = first.nodes().await.unwrap();
    let ids: Vec<_> = nodes.iter().map(|node| node.id.clone()).collect();
    let expected = [&first, &second].map(|store| store.this_node().borrow().node.clone());
    assert!(ids.len() == 2 && expected.iter().all(|id| ids.contains(id)), "{nodes:?}");
    assert!(nodes.iter().all(|node| node.expires_at > node.started_at));
    blocking(move || drop(second)).await;
    assert_eq!(first.nodes().await.unwrap().len(), 1, "a node that stops cleanly is gone at once");
    assert_eq!(first.lost_nodes().await.unwrap(), [], "and is not lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_agents_are_the_sum_over_nodes_and_outlive_them() {
    let schema = schema().await;
    let (first, second) = (open(&schema).await, open(&schema).await);
    let mut agent = muster_core::testing::bare_agent("a", Timestamp::from_micros(1));
    agent.status = Status::Online;
    let insert = AgentWrite::Insert { record: Box::new(agent.clone()), documents: AgentDocuments::default() };
    first.commit(vec![Write::Agent(insert)]).await.unwrap();
    let after = AgentRecord { status: Status::Offline, version: agent.version + 1, ..agent.clone() };
    let update = AgentWrite::Update { before: Arc::new(agent), after: Arc::new(after) };
    second.commit(vec![Write::Agent(update)]).await.unwrap();
    let counts = async || first.agent_counts(&AgentFilter::default()).await.unwrap();
    assert_eq!(counts().await, [(Status::Offline, 1)]);
    let rows = async || sql(format!("SELECT count(*) FROM {schema}.agent_counts WHERE number <> 0")).await;
    assert_eq!(rows().await, "3", "one node has a number of -1");
    assert_eq!(first.agent_counts_fold().await.unwrap(), 0, "both nodes are there");
    blocking(move || drop(second)).await;
    first.agent_counts_fold().await.unwrap();
    assert_eq!(counts().await, [(Status::Offline, 1)]);
    let of_nobody = sql(format!("SELECT count(*) FROM {schema}.agent_counts WHERE node = ''")).await;
    assert_eq!(of_nobody, "2", "those of the node that is gone");
}

/// Fails when the place is not compared: the copy is let in. (Tried with `REMOVE_OWN` for every place.)
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_data_directory_is_refused_while_its_original_lives() {
    let schema = schema().await;
    let first = open_in(&schema, "n", "here").await.unwrap();
    let Err(refused) = open_in(&schema, "n", "there").await else { panic!("the copy was let in") };
    assert!(matches!(&refused, OpenError::InUse { place, .. } if place == "here"), "{refused}");
    assert!(refused.to_string().contains("delete the file node-id in it"), "{refused}");
    first.commit(put("a")).await.unwrap();
    sql(format!("UPDATE {schema}.nodes SET expires_at = 0")).await;
    let second = open_in(&schema, "n", "there").await.unwrap();
    second.commit(put("b")).await.unwrap();
    let fenced = first.commit(put("c")).await;
    assert!(
        matches!(&fenced, Err(StoreError::Unavailable { source }) if source.to_string().contains("lost its lease")),
        "{fenced:?}"
    );
    assert_eq!(second.setting("c").await.unwrap(), None);
    // The loser does not take its place back: the two would go on like that for ever.
    standing(&first, |standing| standing.lease == NodeLease::Lost).await;
    assert_eq!(second.this_node().borrow().lease, NodeLease::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_again_in_its_place_takes_over_from_itself_at_once() {
    let schema = schema().await;
    let crashed = open_in(&schema, "n", "here").await.unwrap();
    let again = open_in(&schema, "n", "here").await.unwrap();
    again.commit(put("a")).await.unwrap();
    crashed.commit(put("b")).await.unwrap_err();
    let lost = again.lost_nodes().await.unwrap();
    assert_eq!(lost.len(), 1, "its agents were without it: {lost:?}");
}

/// Fails when the mark of a commit does not check the epoch: the commit after the loss is applied. (Tried without `EXISTS` in
/// `MARK_COMMIT`.)
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_lease_commits_nothing_until_it_has_registered_again() {
    let schema = schema().await;
    let (sleeper, witness) = (open(&schema).await, open(&schema).await);
    let before = sleeper.this_node().borrow().epoch.clone();
    kill(&schema, &sleeper).await;
    let fenced = sleeper.commit(put("a")).await;
    assert!(matches!(&fenced, Err(StoreError::Unavailable { .. })), "{fenced:?}");
    assert_eq!(witness.setting("a").await.unwrap(), None);
    let now = standing(&sleeper, |standing| standing.lease == NodeLease::Held).await;
    assert_ne!(now.epoch, before);
    sleeper.commit(put("b")).await.unwrap();
    assert_eq!(witness.nodes().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_lease_is_noticed_by_the_other_nodes() {
    let schema = schema().await;
    let (first, second) = (open(&schema).await, open(&schema).await);
    let gone = second.this_node().borrow().node.clone();
    sql(format!("UPDATE {schema}.nodes SET expires_at = 0 WHERE id = '{gone}'")).await;
    eventually("a lost node", async || !first.lost_nodes().await.unwrap().is_empty()).await;
    let lost = first.lost_nodes().await.unwrap().remove(0);
    assert_eq!(lost.id, gone);
    assert!(lost.since < PATIENCE, "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_registers_again_keeps_its_description() {
    let schema = schema().await;
    let store = open(&schema).await;
    let id = store.this_node().borrow().node.clone();
    let describe = muster_store::NodeWrite::Describe {
        name: "one".into(),
        version: "9.9.9".into(),
        addresses: vec!["192.0.2.1:8220".into()],
    };
    store.commit(vec![describe.into(), muster_store::NodeWrite::Drain { id }.into()]).await.unwrap();
    // Whatever was written is remembered with the next renewal.
    let renewed = format!("SELECT count(*) FROM {schema}.nodes WHERE handled = 7");
    store.changes_handled(7);
    eventually("a renewal", async || sql(renewed.clone()).await == "1").await;
    let before = store.nodes().await.unwrap().remove(0);
    kill(&schema, &store).await;
    store.commit(put("a")).await.unwrap_err();
    standing(&store, |standing| standing.lease == NodeLease::Held).await;
    let after = store.nodes().await.unwrap().remove(0);
    let described = |node: &muster_store::NodeRecord| {
        (node.name.clone(), node.version.clone(), node.addresses.clone(), node.is_draining)
    };
    assert_eq!(described(&after), described(&before));
    assert!(after.is_draining);
}

/// Fails when `Write::Fenced` compares neither epoch nor number: the former holder commits under its old token. (Tried in `HOLDS`.)
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_has_one_holder_and_goes_to_another_node_when_that_one_is_lost() {
    let schema = schema().await;
    let (first, second) = (open(&schema).await, open(&schema).await);
    let lease = LeaseName::Statuses;
    let token = first.take_lease(lease).await.unwrap().expect("free");
    assert_eq!(first.take_lease(lease).await.unwrap(), Some(token), "it is kept");
    assert_eq!(second.take_lease(lease).await.unwrap(), None);
    assert!(second.take_lease(LeaseName::Housekeeping).await.unwrap().is_some(), "leases are taken apart");
    first.commit([vec![Write::Fenced(token)], put("a")].concat()).await.unwrap();

    kill(&schema, &first).await;
    let taken = second.take_lease(lease).await.unwrap().expect("its holder is gone");
    second.commit([vec![Write::Fenced(taken)], put("b")].concat()).await.unwrap();
    // The former holder has registered again, and may write, but not under the old token.
    first.commit(put("c")).await.unwrap_err();
    standing(&first, |standing| standing.lease == NodeLease::Held).await;
    let late = first.commit([vec![Write::Fenced(token)], put("d")].concat()).await;
    assert!(matches!(late, Err(StoreError::Conflict(Precondition::LeaseLost(LeaseName::Statuses)))), "{late:?}");
    assert_eq!(first.setting("d").await.unwrap(), None);
    second.release_lease(taken).await.unwrap();
    assert!(first.take_lease(lease).await.unwrap().is_some());
}

/// Fails when `Write::Fenced` does not lock the lease's row: the lease is then taken between the check and the commit. (Tried
/// without `FOR SHARE` in `HOLDS`.)
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_not_taken_from_under_a_fenced_commit() {
    let schema = schema().await;
    let (first, second) = (Arc::new(open(&schema).await), open(&schema).await);
    let token = first.take_lease(LeaseName::Actions).await.unwrap().unwrap();
    // The commit waits for this lock after its fence, until the lease is asked for.
    let held = tokio::task::spawn_blocking({
        let text = format!(
            "BEGIN; SELECT 1 FROM {schema}.counters WHERE name = 'changes' FOR UPDATE; SELECT pg_sleep(4); COMMIT"
        );
        move || Cluster::shared().psql(&text).unwrap()
    });
    let active = |what: &str| format!("SELECT count(*) FROM pg_stat_activity WHERE {what}");
    let asleep = active(&format!("wait_event = 'PgSleep' AND query LIKE '%{schema}.counters%'"));
    eventually("the lock", async || sql(asleep.clone()).await == "1").await;
    let committing = tokio::spawn({
        let first = Arc::clone(&first);
        async move { first.commit([vec![Write::Fenced(token)], put("a")].concat()).await }
    });
    let waits = active(&format!("wait_event_type = 'Lock' AND application_name = '{schema}'"));
    eventually("a commit that waits", async || sql(waits.clone()).await == "1").await;
    sql(format!(
        "UPDATE {schema}.nodes SET expires_at = 0 WHERE epoch = '{}'",
        first.this_node().borrow().epoch.as_str()
    ))
    .await;
    let taken = second.take_lease(LeaseName::Actions).await;
    let is_committed = second.setting("a").await.unwrap().is_some();
    let committed = committing.await.unwrap();
    assert_eq!(
        committed.is_ok(),
        is_committed,
        "{committed:?}, {taken:?}: a fenced commit came after the lease was taken"
    );
    held.await.unwrap();
}

/// Fails when a confirmation is dated later than the question. (Tried with an hour.)
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_change_log_is_confirmed_as_long_as_the_database_answers() {
    let schema = schema().await;
    let store = open(&schema).await;
    let Currency::Until(first) = store.confirmed() else { panic!("it is shared") };
    eventually("a confirmation", async || store.confirmed() != Currency::Until(first)).await;
    // The question waits for this lock.
    let blocked = blocking({
        let text = format!("BEGIN; LOCK TABLE {schema}.counters; SELECT pg_sleep(1); COMMIT");
        move || Cluster::shared().psql(&text)
    });
    let is_current = || store.confirmed().is_within(Duration::from_millis(500));
    let (blocked, ()) = tokio::join!(blocked, eventually("no confirmation", async || !is_current()));
    blocked.unwrap();
    eventually("a confirmation again", async || is_current()).await;
}

/// Fails when pruning does not ask what other nodes have handled. (Tried with a condition in `PRUNE` that no node fulfils.)
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_kept_until_every_live_node_has_handled_them_unless_it_is_far_behind() {
    let schema = schema().await;
    let (first, second) = (open(&schema).await, open(&schema).await);
    for n in 0..6 {
        first.commit(vec![Write::Changed(Change::Setting(n.to_string()))]).await.unwrap();
    }
    let rows =
        async || -> Vec<i64> { first.changes_since(0, 100).await.unwrap().into_iter().map(|row| row.0).collect() };
    assert_eq!(first.changes_prune(4, 100).await.unwrap(), 0, "the other one has handled none");
    second.changes_handled(2);
    let handled = format!("SELECT count(*) FROM {schema}.nodes WHERE handled = 2");
    eventually("a renewal", async || sql(handled.clone()).await == "1").await;
    first.changes_prune(4, 100).await.unwrap();
    assert_eq!(rows().await, [3, 4, 5, 6]);
    sql(format!("UPDATE {schema}.counters SET value = 2000000 WHERE name = 'changes'")).await;
    first.commit(vec![Write::Changed(Change::Setting("far".into()))]).await.unwrap();
    first.changes_prune(i64::MAX, 100).await.unwrap();
    assert_eq!(rows().await, [2_000_001], "a node a million behind is waited for no longer");
    let after = second.changes_since(2, 10).await.unwrap();
    assert!(has_gap(2, &after), "and finds that it has missed some: {after:?}");
    assert!(!has_gap(2_000_000, &after));
}
