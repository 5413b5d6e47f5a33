//! The suite on PostgreSQL, and what only a shared database can do: be lost and come back, and be used by a second server.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "postgres/audit_chains.rs"]
mod audit_chains;
#[path = "postgres/contract.rs"]
mod contract;
#[path = "postgres/faults.rs"]
mod faults;
#[path = "postgres/locks.rs"]
mod locks;
#[path = "postgres/pooled.rs"]
mod pooled;
#[path = "postgres/several_nodes.rs"]
mod several_nodes;
mod suite;

use std::sync::Arc;
use std::time::Duration;

use muster_core::change::Change;
use muster_store::testing::Cluster;
use muster_store::{
    Cause, ChangeStore as _, OpenError, SettingStore as _, SettingWrite, SqlStore, Store as _, StoreError, Write,
};

suite::run_for!(async || blocking(|| Cluster::shared().fresh()).await);

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn put(name: &str) -> Vec<Write> {
    let change = Write::Changed(Change::Setting(name.into()));
    vec![Write::Setting(SettingWrite::Put { name: name.into(), value: "1".into() }), change]
}

/// Ends every connection of the schema's store, as a restart of the server would.
fn cut_connections(schema: &str) {
    let ended = format!("FROM pg_stat_activity WHERE application_name = '{schema}'");
    Cluster::shared().psql(&format!("SELECT count(pg_terminate_backend(pid)) {ended}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_lose_their_connection_are_applied_exactly_if_they_say_so() {
    let schema = blocking(|| Cluster::shared().schema()).await;
    let opened = schema.clone();
    let store = Arc::new(blocking(move || Cluster::shared().open(&opened)).await);
    let cutting = tokio::spawn(async move {
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            let schema = schema.clone();
            blocking(move || cut_connections(&schema)).await;
        }
    });
    let mut outcomes = Vec::new();
    let mut number = 0;
    while !cutting.is_finished() {
        let callers = (0..4).map(|_| {
            number += 1;
            let (store, name) = (Arc::clone(&store), number.to_string());
            tokio::spawn(async move { (name.clone(), store.commit(put(&name)).await) })
        });
        for caller in callers.collect::<Vec<_>>() {
            outcomes.push(caller.await.unwrap());
        }
    }
    let mut applied = 0;
    for (name, outcome) in outcomes {
        let found = read(&store, &name).await.is_some();
        match outcome {
            Ok(_) => assert!(found, "{name} was acknowledged and is lost"),
            Err(StoreError::Unavailable { .. }) => assert!(!found, "{name} was said not to be applied, and is"),
            Err(StoreError::Unknown { .. }) => {}
            Err(other) => panic!("{name}: {other}"),
        }
        applied += i64::from(found);
    }
    assert!(applied > 40, "the cuts left room for commits: {applied}");
    let changes = store.changes_since(0, 100_000).await.unwrap();
    assert_eq!(i64::try_from(changes.len()).unwrap(), applied, "no commit was applied twice");
}

async fn read(store: &SqlStore, name: &str) -> Option<String> {
    // A read that meets a cut connection may be refused; it is asked again.
    for _ in 0..50 {
        match store.setting(name).await {
            Ok(value) => return value,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("the store does not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_program_is_left_as_it_is() {
    let schema = blocking(|| Cluster::shared().schema()).await;
    let table = format!("CREATE TABLE {schema}.theirs (id INT)");
    blocking(move || Cluster::shared().psql(&table)).await.unwrap();
    let tables = format!("SELECT count(*) FROM pg_tables WHERE schemaname = '{schema}'");
    let refused = blocking(move || Cluster::shared().try_open(&schema)).await.err().unwrap();
    assert!(refused.to_string().contains("another program's database (tables: theirs)"), "{refused}");
    assert_eq!(blocking(move || Cluster::shared().psql(&tables)).await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_told_at_once() {
    let address = "postgres://nobody@127.0.0.1:1/none".parse().unwrap();
    let node = Cluster::node("a");
    let refused =
        blocking(move || SqlStore::connect(address, &node, &muster_store::Options::default())).await.err().unwrap();
    assert!(refused.to_string().starts_with("connect to none on 127.0.0.1 port 1"), "{refused}");
    assert!(matches!(refused, OpenError::Engine { source, .. } if *source.cause() == Cause::Connection));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nul_character_is_replaced_and_never_found() {
    let store = blocking(|| Cluster::shared().fresh()).await;
    let put = |name: &str, value: &str| Write::Setting(SettingWrite::Put { name: name.into(), value: value.into() });
    store.commit(vec![put("plain", "a\0b"), put("x", "1")]).await.unwrap();
    assert_eq!(store.setting("plain").await.unwrap().as_deref(), Some("a\u{fffd}b"));
    assert_eq!(store.setting("x\0").await.unwrap(), None);
}
