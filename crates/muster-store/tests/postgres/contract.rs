//! The port's contract, as far as it takes a shared database to break it. Each test says without which mechanism it fails.

use std::sync::Arc;

use muster_core::change::Change;
use muster_store::testing::{Cluster, Proxy, Traffic};
use muster_store::{
    ActionStore as _, AgentWrite, ChangeStore as _, Options, SettingStore as _, SettingWrite, SqlStore, Store as _,
    StoreError, Write,
};

use super::several_nodes::{eventually, open, schema, sql};
use super::suite::sample::{action, action_id, at, bare_agent, create, insert, next, update};
use super::{blocking, put};

fn setting(name: &str) -> Write {
    Write::Setting(SettingWrite::Put { name: name.into(), value: "1".into() })
}

/// Holds a transaction with a number of a change and of an action open, while another node commits.
///
/// Fails when numbers come from a sequence: the second node's are then visible first, and a reader that has seen them never looks for the
/// lower ones. (Tried with `nextval` in place of `next_in_commit_order`.)
#[tokio::test(flavor = "multi_thread")]
async fn numbers_become_visible_in_ascending_order() {
    let schema = schema().await;
    let (slow, fast, reader) = (Arc::new(open(&schema).await), Arc::new(open(&schema).await), open(&schema).await);
    let held = tokio::spawn(sql(format!(
        "BEGIN; INSERT INTO {schema}.settings (name, value) VALUES ('slow', ''); SELECT pg_sleep(3); ROLLBACK"
    )));
    let active = |what: String| format!("SELECT count(*) FROM pg_stat_activity WHERE {what}");
    let asleep = active(format!("wait_event = 'PgSleep' AND query LIKE '%{schema}.settings%'"));
    eventually("the row that the slow one waits for", async || sql(asleep.clone()).await == "1").await;
    let numbered =
        |name: &str| vec![Write::Changed(Change::Action(action_id(name))), create(&action(name), &["agent"])];
    let first = tokio::spawn({
        let (slow, writes) = (Arc::clone(&slow), [numbered("slow"), vec![setting("slow")]].concat());
        async move { slow.commit(writes).await }
    });
    let waits = active(format!("wait_event_type = 'Lock' AND application_name = '{schema}'"));
    eventually("the slow one waits", async || sql(waits.clone()).await == "1").await;
    let second = tokio::spawn({
        let (fast, writes) = (Arc::clone(&fast), numbered("fast"));
        async move { fast.commit(writes).await }
    });
    let mut seen = Vec::new();
    eventually("both", async || {
        // The later one is read first, so that the other one can't become visible in between.
        let later = reader.action(&action_id("fast")).await.unwrap();
        let earlier = reader.action(&action_id("slow")).await.unwrap();
        assert!(later.is_none() || earlier.is_some(), "an action appeared below one that a reader had seen");
        let after = seen.last().copied().unwrap_or(0);
        seen.extend(reader.changes_since(after, 10).await.unwrap().into_iter().map(|row| row.0));
        seen.len() == 2 && later.is_some()
    })
    .await;
    assert_eq!(seen, [1, 2]);
    let numbers = [first.await.unwrap().unwrap(), second.await.unwrap().unwrap()].map(|done| done.action_seqs[0]);
    assert_eq!(numbers, [1, 2]);
    held.await.unwrap();
}

/// Fails when the writer answers before `COMMIT` is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_returned_is_seen_by_every_node_at_once() {
    let schema = schema().await;
    let (writer, reader) = (open(&schema).await, open(&schema).await);
    for n in 0..50 {
        writer.commit(vec![setting(&n.to_string())]).await.unwrap();
        assert!(reader.setting(&n.to_string()).await.unwrap().is_some(), "{n}");
    }
}

async fn through(proxy: &Proxy, schema: &str) -> SqlStore {
    let address = proxy.address(schema).parse().unwrap();
    let node = Cluster::node(schema);
    blocking(move || SqlStore::connect(address, &node, &Options::default())).await.unwrap()
}

/// Fails when the row in `commits` is not asked for: the commit is then applied twice, or refused although it was applied. (Tried with a
/// retry in place of `resolve`: two changes are found.)
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_applied_once_and_acknowledged() {
    let schema = schema().await;
    let proxy = Proxy::to(Cluster::shared());
    let store = through(&proxy, &schema).await;
    for (n, lost) in (1..).zip([Traffic::LoseAnswer, Traffic::LoseCommit, Traffic::LoseAnswer]) {
        proxy.set(lost);
        store.commit(put(&n.to_string())).await.unwrap();
        assert_eq!(proxy.traffic(), Traffic::Pass, "{lost:?} happened");
        assert_eq!(store.changes_since(0, 10).await.unwrap().len(), n, "{lost:?}");
        assert!(store.setting(&n.to_string()).await.unwrap().is_some());
    }
}

/// Fails when the row of the agent is not locked: it then changes between the check and the commit. (Tried without `FOR UPDATE`.)
#[tokio::test(flavor = "multi_thread")]
async fn a_record_does_not_change_under_a_commit_that_needs_its_version() {
    let schema = schema().await;
    let (slow, fast) = (Arc::new(open(&schema).await), open(&schema).await);
    let first = bare_agent("a");
    slow.commit(vec![insert(&first)]).await.unwrap();
    // Each answer's commit waits for this row, after the check.
    let held = tokio::spawn(sql(format!(
        "BEGIN; INSERT INTO {schema}.settings (name, value) VALUES ('slow', ''); SELECT pg_sleep(3); ROLLBACK"
    )));
    let active = |what: String| format!("SELECT count(*) FROM pg_stat_activity WHERE {what}");
    let asleep = active(format!("wait_event = 'PgSleep' AND query LIKE '%{schema}.settings%'"));
    eventually("the row that the slow one waits for", async || sql(asleep.clone()).await == "1").await;
    let waiting = tokio::spawn({
        let writes = vec![AgentWrite::Unchanged { id: first.id.clone(), version: 1 }.into(), setting("slow")];
        let slow = Arc::clone(&slow);
        async move { slow.commit(writes).await }
    });
    let waits = active(format!("wait_event_type = 'Lock' AND application_name = '{schema}'"));
    eventually("the slow one waits", async || sql(waits.clone()).await == "1").await;
    fast.commit(vec![update(&first, &next(&first, |agent| agent.hostname = "b".into()))]).await.unwrap();
    assert!(fast.setting("slow").await.unwrap().is_some(), "the record changed before the commit that needs it");
    waiting.await.unwrap().unwrap();
    held.await.unwrap();
}

/// Agents whose rows two nodes change at the same time, in opposite orders.
const CROSSING: usize = 200;

/// Fails when the jobs of a transaction are not sorted. (Tried without `sort_by` in `commit`.)
#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_several_nodes_do_not_wait_for_each_other() {
    // One of its own, because deadlocks are counted for the whole server.
    let cluster = Arc::new(blocking(Cluster::own).await);
    let (schema, stores) = blocking({
        let cluster = Arc::clone(&cluster);
        move || {
            let schema = cluster.schema();
            let stores = [cluster.open(&schema), cluster.open(&schema)].map(Arc::new);
            (schema, stores)
        }
    })
    .await;
    let agents: Vec<_> = (0..CROSSING).map(|n| bare_agent(&format!("a{n:03}"))).collect();
    stores[0].commit(agents.iter().map(insert).collect()).await.unwrap();
    for round in 1..=3_i64 {
        // Both writers wait for this row, and find all the other jobs when they go on.
        let held = tokio::spawn(blocking({
            let (cluster, text) = (
                Arc::clone(&cluster),
                format!(
                    "BEGIN; SELECT 1 FROM {schema}.agents WHERE id = 'a000' FOR UPDATE; SELECT pg_sleep(1); COMMIT"
                ),
            );
            move || cluster.psql(&text).unwrap()
        }));
        let sql = async |text: &str| {
            let (cluster, text) = (Arc::clone(&cluster), text.to_owned());
            blocking(move || cluster.psql(&text).unwrap()).await
        };
        eventually("the lock", async || {
            sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await == "1"
        })
        .await;
        let mut commits = Vec::new();
        for (node, store) in stores.iter().enumerate() {
            for n in 0..CROSSING {
                let agent = &agents[if node == 0 { n } else { (CROSSING - n) % CROSSING }];
                let mut writes = Vec::new();
                if n % 2 == node {
                    writes.push(Write::Changed(Change::Agent(agent.id.clone())));
                }
                writes.push(AgentWrite::Seen { seen: vec![(agent.id.clone(), at(round * 2 + node as i64))] }.into());
                let store = Arc::clone(store);
                commits.push(tokio::spawn(async move { store.commit(writes).await }));
            }
        }
        for commit in commits {
            commit.await.unwrap().unwrap();
        }
        held.await.unwrap();
    }
    drop(stores);
    let cluster = Arc::into_inner(cluster).expect("nobody else has it");
    let deadlocks = blocking(move || {
        // Sessions report when they end.
        cluster.psql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'").unwrap()
    });
    assert_eq!(deadlocks.await, "0");
}

/// Makes inserts of settings fail with a conflict so many times, at once or only at the commit.
async fn conflicts(schema: &str, times: u32, trigger: &str) {
    sql(format!(
        "CREATE SEQUENCE {schema}.tries; \
         CREATE FUNCTION {schema}.conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF nextval('{schema}.tries') <= {times} THEN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END IF; \
         RETURN NULL; END $$; \
         CREATE {trigger} FOR EACH ROW EXECUTE FUNCTION {schema}.conflict()"
    ))
    .await;
}

fn at_once(schema: &str) -> String {
    format!("TRIGGER conflict AFTER INSERT ON {schema}.settings")
}

fn at_commit(schema: &str) -> String {
    format!("CONSTRAINT TRIGGER conflict AFTER INSERT ON {schema}.settings DEFERRABLE INITIALLY DEFERRED")
}

/// Fails when `Cause::Busy` is not retried, of a statement or of `COMMIT`. (Tried with a commit's `may_retry: false`.)
#[tokio::test(flavor = "multi_thread")]
async fn conflicts_between_transactions_are_retried() {
    for trigger in [at_once, at_commit] {
        let schema = schema().await;
        let store = open(&schema).await;
        conflicts(&schema, 2, &trigger(&schema)).await;
        store.commit(put("a")).await.unwrap();
        assert_eq!(sql(format!("SELECT last_value FROM {schema}.tries")).await, "3");
        assert_eq!(store.changes_since(0, 10).await.unwrap().len(), 1, "applied once");
    }
}

/// Fails when the pauses do not end.
#[tokio::test(flavor = "multi_thread")]
async fn conflicts_that_do_not_end_are_reported_after_six_attempts() {
    for trigger in [at_once, at_commit] {
        let schema = schema().await;
        let store = open(&schema).await;
        conflicts(&schema, u32::MAX, &trigger(&schema)).await;
        let refused = store.commit(put("a")).await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        assert_eq!(sql(format!("SELECT last_value FROM {schema}.tries")).await, "6");
        assert_eq!(store.setting("a").await.unwrap(), None);
    }
}

/// Fails without the lock of the schema: the tables are then created twice, and servers fail. (Tried without `LOCK` in `migrate`.)
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_start_together_on_an_empty_database_all_start() {
    let schema = schema().await;
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let schema = schema.clone();
            tokio::spawn(async move { open(&schema).await })
        })
        .collect();
    let mut stores = Vec::new();
    for start in starts {
        stores.push(start.await.unwrap());
    }
    for (n, store) in stores.iter().enumerate() {
        store.commit(put(&n.to_string())).await.unwrap();
    }
    assert_eq!(stores[0].changes_since(0, 10).await.unwrap().len(), 4);
}
