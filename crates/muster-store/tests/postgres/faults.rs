//! A database that restarts, is slow, cut off, read-only, full, or out of connections: requests fail while it lasts, nothing that was acknowledged is
//! lost, and the store recovers by itself.

use std::sync::Arc;
use std::time::Duration;

use muster_store::testing::{Cluster, Proxy, Traffic};
use muster_store::{
    ChangeStore as _, NodeLease, NodeStore as _, OpenError, Options, SettingStore as _, SqlStore, Store as _,
    StoreError,
};

use super::several_nodes::{eventually, open, schema, sql};
use super::{blocking, cut_connections, put, read};

async fn connect(address: String, id: &str) -> Result<SqlStore, OpenError> {
    let node = Cluster::node(id);
    blocking(move || SqlStore::connect(address.parse()?, &node, &Options::default())).await
}

/// Recovers: commits succeed again on the same store.
async fn recovers(store: &SqlStore) {
    eventually("a commit after the fault", async || store.commit(put("recovered")).await.is_ok()).await;
    eventually("a read after the fault", async || store.setting("recovered").await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_and_restarts_under_load_loses_nothing_that_was_acknowledged() {
    let cluster = Arc::new(blocking(Cluster::own).await);
    let store = {
        let cluster = Arc::clone(&cluster);
        Arc::new(blocking(move || cluster.fresh()).await)
    };
    let restarting = tokio::task::spawn_blocking({
        let (cluster, changes) = (Arc::clone(&cluster), store.changes());
        move || {
            for round in 1..=3 {
                // Each time under load.
                while *changes.borrow() < round * 30 {
                    std::thread::sleep(Duration::from_millis(5));
                }
                cluster.restart();
            }
        }
    });
    let (mut number, mut outcomes) = (0, Vec::new());
    while !restarting.is_finished() {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                number += 1;
                let (store, name) = (Arc::clone(&store), number.to_string());
                tokio::spawn(async move { (name.clone(), store.commit(put(&name)).await) })
            })
            .collect();
        for caller in callers {
            outcomes.push(caller.await.unwrap());
        }
    }
    restarting.await.unwrap();
    recovers(&store).await;
    for (name, outcome) in outcomes {
        let found = read(&store, &name).await.is_some();
        match outcome {
            Ok(_) => assert!(found, "{name} was acknowledged and is lost"),
            Err(StoreError::Unavailable { .. }) => assert!(!found, "{name} was said not to be applied, and is"),
            Err(StoreError::Unknown { .. }) => {}
            Err(other) => panic!("{name}: {other}"),
        }
    }
    blocking(move || drop(store)).await;
    blocking(move || drop(cluster)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_refuses_and_comes_back() {
    let schema = schema().await;
    let proxy = Proxy::to(Cluster::shared());
    let store = connect(proxy.address(&schema), &schema).await.unwrap();
    store.commit(put("a")).await.unwrap();
    proxy.set(Traffic::Cut);
    cut(&schema).await;
    let refused = store.commit(put("b")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    let refused = store.setting("a").await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    eventually("no confirmation", async || !store.confirmed().is_within(Duration::from_millis(500))).await;
    proxy.set(Traffic::Pass);
    recovers(&store).await;
    assert_eq!(store.setting("b").await.unwrap(), None, "what was refused is not applied later");
    eventually("a confirmation", async || store.confirmed().is_within(Duration::from_millis(500))).await;
}

async fn cut(schema: &str) {
    let schema = schema.to_owned();
    blocking(move || cut_connections(&schema)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_answers_half_a_second_late_is_used_without_trust_in_what_is_cached() {
    let schema = schema().await;
    let proxy = Proxy::to(Cluster::shared());
    let store = connect(proxy.address(&schema), &schema).await.unwrap();
    proxy.set(Traffic::Delayed(Duration::from_millis(500)));
    store.commit(put("a")).await.unwrap();
    assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("1"));
    assert!(!store.confirmed().is_within(Duration::from_millis(400)), "{:?}", store.confirmed());
    // Long enough for a renewal.
    let renewals = format!("SELECT count(*) FROM {schema}.nodes WHERE handled = 9");
    store.changes_handled(9);
    eventually("a renewal", async || sql(renewals.clone()).await == "1").await;
    assert_eq!(store.this_node().borrow().lease, NodeLease::Held);
    proxy.set(Traffic::Pass);
    eventually("a confirmation", async || store.confirmed().is_within(Duration::from_millis(400))).await;
}

/// A role with settings of its own, which may use a schema.
async fn role(schema: &str, what: &str) -> String {
    let name = format!("role_of_{schema}");
    sql(format!("CREATE ROLE {name} LOGIN {what}; GRANT ALL ON SCHEMA {schema} TO {name}")).await;
    Cluster::shared().address(schema).replacen("postgres://postgres@", &format!("postgres://{name}@"), 1)
}

/// A standby answers writes in the same way.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_told_at_the_start_and_refuses_until_it_takes_writes_again() {
    let schema = schema().await;
    let address = role(&schema, "SUPERUSER").await;
    let read_only = |is_so: &str| format!("ALTER ROLE role_of_{schema} SET default_transaction_read_only = {is_so}");
    sql(read_only("on")).await;
    let refused = connect(address.clone(), &schema).await.err().unwrap().to_string();
    assert!(
        refused.contains("read-only") && refused.ends_with("the server needs the primary, not a standby"),
        "{refused}"
    );
    sql(read_only("off")).await;
    let store = connect(address, &schema).await.unwrap();
    store.commit(put("a")).await.unwrap();
    // As after a failover to a standby that is not promoted yet.
    sql(read_only("on")).await;
    cut(&schema).await;
    let refused = store.commit(put("b")).await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable { source }) if source.to_string().contains("read-only")),
        "{refused:?}"
    );
    eventually("reads go on", async || store.setting("a").await.is_ok_and(|value| value.is_some())).await;
    sql(read_only("off")).await;
    cut(&schema).await;
    recovers(&store).await;
    assert_eq!(store.setting("b").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_too_few_connections_is_told_at_the_start() {
    let schema = schema().await;
    let address = role(&schema, "CONNECTION LIMIT 3").await;
    let refused = connect(address, &schema).await.err().unwrap().to_string();
    assert!(
        refused.contains("too many connections") && refused.ends_with("each server needs four connections"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_database_refuses_until_there_is_room() {
    let schema = schema().await;
    let store = open(&schema).await;
    sql(format!(
        "CREATE FUNCTION {schema}.full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$; \
         CREATE TRIGGER full_disk BEFORE INSERT ON {schema}.settings FOR EACH ROW EXECUTE FUNCTION {schema}.full()"
    ))
    .await;
    let refused = store.commit(put("a")).await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable { source }) if source.to_string().contains("No space left")),
        "{refused:?}"
    );
    assert!(!refused.unwrap_err().lacks_room(), "the reserve on this host's disk would not help");
    sql(format!("DROP TRIGGER full_disk ON {schema}.settings")).await;
    recovers(&store).await;
}

/// A newer program may have migrated the database before: what matters is whether its migrations admit this one.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused_unless_it_admits_this_program() {
    let schema = schema().await;
    blocking({
        let schema = schema.clone();
        move || drop(Cluster::shared().open(&schema))
    })
    .await;
    let newer = |oldest: i64| {
        format!(
            "DELETE FROM {schema}.schema_migrations WHERE number = 1000; INSERT INTO {schema}.schema_migrations \
             (number, name, checksum, oldest, applied_at) VALUES (1000, 'next', '', {oldest}, 0)"
        )
    };
    sql(newer(1000)).await;
    let refused = connect(Cluster::shared().address(&schema), "n").await.err().unwrap();
    assert!(matches!(refused, OpenError::Newer { found: 1000, .. }), "{refused}");
    sql(newer(1)).await;
    let store = connect(Cluster::shared().address(&schema), "n").await.unwrap();
    store.commit(put("a")).await.unwrap();
}

/// Fails when a node that registers again does not look at the migrations: it then writes to a schema that it does not know. (Tried
/// with a condition in `EXCLUDES` that no migration fulfils.)
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_a_migration_excluded_does_not_register_again() {
    let schema = schema().await;
    let store = open(&schema).await;
    sql(format!(
        "INSERT INTO {schema}.schema_migrations (number, name, checksum, oldest, applied_at) VALUES (1000, 'next', '', 1000, 0); \
         DELETE FROM {schema}.nodes"
    ))
    .await;
    store.commit(put("a")).await.unwrap_err();
    // Longer than the follower needs to register.
    let epoch = store.this_node().borrow().epoch.clone();
    tokio::time::sleep(Duration::from_secs(3)).await;
    store.commit(put("a")).await.unwrap_err();
    assert_eq!(store.this_node().borrow().epoch, epoch);
    sql(format!("DELETE FROM {schema}.schema_migrations WHERE number = 1000")).await;
    recovers(&store).await;
}
