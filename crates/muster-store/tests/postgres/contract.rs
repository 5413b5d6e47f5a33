//! The port's contract, as far as it takes a shared database to break it. Each test says without which mechanism it fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_core::change::Change;
use muster_store::testing::{Cluster, Proxy, Traffic};
use muster_store::{
    ActionStore as _, AgentStore as _, AgentWrite, ChangeStore as _, Options, Precondition, SettingStore as _,
    SettingWrite, SqlStore, Store as _, StoreError, Write,
};

use super::several_nodes::{eventually, open, schema, sql};
use super::suite::sample::{action, action_id, agent_id, at, bare_agent, commit, create, insert, next, update};
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

/// Like [`numbers_become_visible_in_ascending_order`], but the first node waits between its last change and its commit: another session
/// holds the row of its registration.
///
/// Fails when numbers of the change log come from a sequence, and when a commit does not lock the node's registration.
#[tokio::test(flavor = "multi_thread")]
async fn changes_become_visible_in_ascending_order_though_a_commit_waits() {
    let schema = schema().await;
    let (slow, fast, reader) = (Arc::new(open(&schema).await), Arc::new(open(&schema).await), open(&schema).await);
    let row = format!("SELECT id FROM {schema}.nodes WHERE started_at = (SELECT min(started_at) FROM {schema}.nodes)");
    let held = tokio::spawn(sql(format!(
        "BEGIN; SELECT 1 FROM {schema}.nodes WHERE id IN ({row}) FOR UPDATE; SELECT pg_sleep(60), 'holds {schema}'; ROLLBACK"
    )));
    let active = |what: String| format!("SELECT count(*) FROM pg_stat_activity WHERE {what}");
    let asleep = active(format!("wait_event = 'PgSleep' AND query LIKE '%holds {schema}%'"));
    eventually("the row is locked", async || sql(asleep.clone()).await == "1").await;
    let changed = |name: &str| vec![setting(name), Write::Changed(Change::Setting(name.into()))];
    let first = tokio::spawn({
        let (slow, writes) = (Arc::clone(&slow), changed("slow"));
        async move { slow.commit(writes).await }
    });
    let waits = active(format!(
        "wait_event_type = 'Lock' AND application_name = '{schema}' AND query LIKE 'INSERT INTO commits%'"
    ));
    eventually("the slow one waits", async || sql(waits.clone()).await == "1").await;
    let second = tokio::spawn({
        let (fast, writes) = (Arc::clone(&fast), changed("fast"));
        async move { fast.commit(writes).await }
    });
    let both_wait = active(format!("wait_event_type = 'Lock' AND application_name = '{schema}'"));
    eventually("the fast one waits too", async || second.is_finished() || sql(both_wait.clone()).await == "2").await;
    let early = reader.changes_since(0, 10).await.unwrap();
    assert!(early.is_empty(), "a change is visible before one with a lower number: {early:?}");
    let stop = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%holds {schema}%' AND wait_event = 'PgSleep'"
    );
    sql(stop).await;
    let mut seen = Vec::new();
    eventually("both", async || {
        let after = seen.last().copied().unwrap_or(0);
        seen.extend(reader.changes_since(after, 10).await.unwrap().into_iter().map(|row| row.0));
        seen.len() == 2
    })
    .await;
    assert_eq!(seen, [1, 2]);
    for done in [first, second] {
        done.await.unwrap().unwrap();
    }
    // Its session was terminated.
    let _ = held.await;
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

/// Fails when one agent is looked up as a list: the plan is made while the table is small, and then scans a large one for every request.
#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_one_agent_is_read_by_its_key() {
    let schema = schema().await;
    let store = open(&schema).await;
    commit(&store, vec![insert(&bare_agent("agent"))]).await;
    for _ in 0..50 {
        let versions = store.agent_versions(&[agent_id("agent")]).await.unwrap();
        assert_eq!(versions, [(agent_id("agent"), 1)]);
    }
    assert_eq!(store.agent_versions(&[agent_id("none")]).await.unwrap(), []);
    let scans = format!(
        "SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes \
         WHERE schemaname = '{schema}' AND indexrelname = 'agents_pkey'"
    );
    eventually("the look-ups are counted", async || sql(scans.clone()).await.parse::<i64>().unwrap() >= 50).await;
}

/// Holds a commit, so that later ones wait and share a transaction.
async fn hold(schema: &str, store: &Arc<SqlStore>) -> impl AsyncFnOnce() {
    let held = tokio::spawn(sql(format!(
        "BEGIN; INSERT INTO {schema}.settings (name, value) VALUES ('held', ''); SELECT pg_sleep(1); ROLLBACK"
    )));
    let active = |what: String| format!("SELECT count(*) FROM pg_stat_activity WHERE {what}");
    let asleep = active(format!("wait_event = 'PgSleep' AND query LIKE '%{schema}.settings%'"));
    eventually("the row that the commit waits for", async || sql(asleep.clone()).await == "1").await;
    let commit = tokio::spawn({
        let store = Arc::clone(store);
        async move { store.commit(vec![setting("held")]).await }
    });
    let waits = active(format!("wait_event_type = 'Lock' AND application_name = '{schema}'"));
    eventually("the commit waits", async || sql(waits.clone()).await == "1").await;
    async move || {
        held.await.unwrap();
        commit.await.unwrap().unwrap();
    }
}

/// Commits an update of each of so many agents at once; of those in `stale`, with a version that they don't have. Returns which succeeded.
async fn update_together(schema: &str, store: &Arc<SqlStore>, stale: &[usize]) -> Vec<bool> {
    let release = hold(schema, store).await;
    let commits: Vec<_> = (0..40)
        .map(|n| {
            let agent = bare_agent(&format!("agent-{n}"));
            let before = if stale.contains(&n) { next(&agent, |_| {}) } else { agent };
            let after = next(&before, |agent| agent.agent_version = "9.9.9".into());
            let changed = Write::Changed(Change::Agent(after.id.clone()));
            let store = Arc::clone(store);
            tokio::spawn(async move { store.commit(vec![changed, update(&before, &after)]).await })
        })
        .collect();
    release().await;
    let mut done = Vec::new();
    for commit in commits {
        match commit.await.unwrap() {
            Ok(_) => done.push(true),
            Err(StoreError::Conflict(Precondition::Changed(_))) => done.push(false),
            Err(other) => panic!("{other}"),
        }
    }
    done
}

/// Fails when the results of changes that were sent ahead are not compared with the usual ones: the conflict is then acknowledged as
/// a success. (Tried with a `Usual::is` that is always true.) Also fails when the change of a refused job stays in the log.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_transaction_that_fail_are_refused_alone() {
    let many: Vec<usize> = (0..40).step_by(3).collect();
    for stale in [vec![], vec![7], vec![0, 39], many] {
        let schema = schema().await;
        let store = Arc::new(open(&schema).await);
        commit(&*store, (0..40).map(|n| insert(&bare_agent(&format!("agent-{n}")))).collect()).await;
        let done = update_together(&schema, &store, &stale).await;
        let expected: Vec<bool> = (0..40).map(|n| !stale.contains(&n)).collect();
        assert_eq!(done, expected, "{stale:?}");
        let changes = store.changes_since(0, 100).await.unwrap();
        assert_eq!(changes.len(), 40 - stale.len(), "{stale:?}");
        for (n, is_updated) in expected.into_iter().enumerate() {
            let agent = store.agent(&agent_id(&format!("agent-{n}"))).await.unwrap().unwrap();
            assert_eq!(agent.agent_version == "9.9.9", is_updated, "{n}");
        }
    }
}

/// Fails when each change of a transaction waits for the previous one: forty updates then take forty round trips. (Tried with a
/// `set_pace` that always returns `StepByStep`.)
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_transaction_share_a_round_trip() {
    let schema = schema().await;
    let proxy = Proxy::to(Cluster::shared());
    let store = Arc::new(through(&proxy, &schema).await);
    let agents: Vec<_> = (0..40).map(|n| insert(&bare_agent(&format!("agent-{n}")))).collect();
    // Statements are prepared once.
    commit(&*store, agents).await;
    let tags = (0..40).map(|n| {
        let before = bare_agent(&format!("agent-{n}"));
        update(&before, &next(&before, |agent| agent.tags = vec!["new".into()]))
    });
    let tags = tags.collect();
    const REPLY: Duration = Duration::from_millis(30);
    proxy.set(Traffic::Delayed(REPLY));
    let began = Instant::now();
    commit(&*store, tags).await;
    let took = began.elapsed();
    assert!(took < REPLY * 60, "120 changes took {took:?}");
}
