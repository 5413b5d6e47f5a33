//! The audit log of several nodes: a chain each, and seals.

use muster_core::audit::{AuditEvent, SEAL};
use muster_core::id::NodeId;
use muster_core::time::Timestamp;
use muster_store::testing::{Cluster, seal_audit};
use muster_store::{AuditStore as _, NodeStore as _, SqlStore, Store as _, Write};

use super::several_nodes::{eventually, kill, open, schema, sql};
use super::{blocking, suite};

fn audit(subject: &str) -> Vec<Write> {
    vec![Write::Audit(AuditEvent {
        at: Timestamp::from_micros(1),
        actor: "system".into(),
        action: "test".into(),
        subject: subject.into(),
        detail: serde_json::json!({}),
        address: None,
        reason: None,
        space: None,
    })]
}

fn node(store: &SqlStore) -> NodeId {
    store.this_node().borrow().node.clone()
}

async fn seals(store: &SqlStore) -> usize {
    let lines = store.audit_events(0, 1000).await.unwrap();
    lines.iter().filter(|line| line.1.contains(SEAL)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_writes_a_chain_of_its_own() {
    let schema = schema().await;
    let (first, second) = (open(&schema).await, open(&schema).await);
    for n in 0..3 {
        first.commit(audit(&format!("a{n}"))).await.unwrap();
        second.commit(audit(&format!("b{n}"))).await.unwrap();
    }
    let mut expected = [node(&first), node(&second)].map(|node| node.to_string());
    expected.sort();
    assert_eq!(first.audit_chains().await.unwrap(), expected);
    assert_eq!(suite::commits::verify_audit(&first).await, 6);
    assert_eq!(second.audit_links(node(&first).as_str(), 1, 10).await.unwrap().len(), 2);
    let subjects: Vec<String> = second.audit_events(0, 10).await.unwrap().into_iter().map(|line| line.1).collect();
    assert!(subjects[0].contains("a0") && subjects[5].contains("b2"), "one list for people: {subjects:?}");
}

/// Fails when the numbers of lines come from a counter's row, as those of changes do: the commit waits for the other transaction.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_do_not_wait_for_each_other_to_append() {
    let schema = schema().await;
    let store = open(&schema).await;
    let text = format!(
        "BEGIN; INSERT INTO {schema}.audit_events (seq, chain, position, event, hash) \
         VALUES (nextval('{schema}.audit_order'), 'other', 1, '', ''); SELECT pg_sleep(4); ROLLBACK"
    );
    let open = tokio::spawn(blocking(move || Cluster::shared().psql(&text)));
    let asleep = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%{schema}.audit_order%'"
    );
    eventually("the other transaction", async || sql(asleep.clone()).await == "1").await;
    store.commit(audit("a")).await.unwrap();
    assert!(!open.is_finished(), "the commit waited for another node's transaction");
    open.await.unwrap().unwrap();
}

/// Fails when the end of the chain is not forgotten with the epoch, or when a taken position is not read again: the first commit is refused. (Tried without
/// `appended_by_another`.)
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_goes_on_after_another_process_appended_to_it() {
    let schema = schema().await;
    let store = open(&schema).await;
    store.commit(audit("a")).await.unwrap();
    let node = node(&store);
    let link = store.audit_links(node.as_str(), 0, 1).await.unwrap().remove(0);
    let hash: String = muster_core::hex::encode(&muster_core::audit::chain_hash(&link.hash, b"{}"));
    sql(format!(
        "INSERT INTO {schema}.audit_events (seq, chain, position, event, hash) \
         VALUES (nextval('{schema}.audit_order'), '{node}', 2, '{{}}', decode('{hash}', 'hex'))"
    ))
    .await;
    store.commit(audit("b")).await.unwrap();
    let positions: Vec<i64> =
        store.audit_links(node.as_str(), 0, 9).await.unwrap().iter().map(|link| link.position).collect();
    assert_eq!(positions, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_commit_leaves_no_gap_in_the_chain() {
    let schema = schema().await;
    let store = open(&schema).await;
    for n in 0..5 {
        let missing = muster_store::NodeWrite::Drain { id: NodeId::trusted("none") }.into();
        store.commit([audit("refused"), vec![missing]].concat()).await.unwrap_err();
        store.commit(audit(&n.to_string())).await.unwrap();
    }
    assert_eq!(suite::commits::verify_audit(&store).await, 5);
    kill(&schema, &store).await;
    // Refused, unless the store has registered again in between.
    let is_late = store.commit(audit("fenced")).await.is_ok();
    eventually("a commit again", async || store.commit(audit("again")).await.is_ok()).await;
    assert_eq!(suite::commits::verify_audit(&store).await, 6 + usize::from(is_late));
}

/// Fails when seals count as news: the two seal each other's seals for ever. (Tried in `has_news`.)
#[tokio::test(flavor = "multi_thread")]
async fn chains_are_sealed_when_they_have_grown_by_more_than_seals() {
    let schema = schema().await;
    let (first, second) = (open(&schema).await, open(&schema).await);
    seal_audit(&first).await.unwrap();
    assert_eq!(seals(&first).await, 0, "there is nothing to seal");
    second.commit(audit("b")).await.unwrap();
    for _ in 0..3 {
        seal_audit(&first).await.unwrap();
        seal_audit(&second).await.unwrap();
    }
    assert_eq!(seals(&first).await, 1);
    let link = first.audit_links(node(&first).as_str(), 0, 1).await.unwrap().remove(0);
    let seal: AuditEvent = serde_json::from_str(&link.event).unwrap();
    let heads = seal.sealed_heads();
    assert_eq!((heads.len(), heads[0].position), (1, 1));
    let sealed = first.audit_hash(node(&second).as_str(), 1).await.unwrap().unwrap();
    assert_eq!(heads[0].hash, muster_core::hex::encode(&sealed));
    second.commit(audit("b")).await.unwrap();
    first.commit(audit("a")).await.unwrap();
    seal_audit(&first).await.unwrap();
    seal_audit(&second).await.unwrap();
    assert_eq!(seals(&first).await, 3);
    assert_eq!(suite::commits::verify_audit(&first).await, 6);
}

/// Fails when the follower does not ask for seals.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_seal_each_other_by_themselves() {
    let schema = schema().await;
    let (first, second) = (open(&schema).await, open(&schema).await);
    second.commit(audit("b")).await.unwrap();
    eventually("a seal", async || seals(&first).await > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m25_the_audit_log_cannot_be_truncated() {
    let schema = schema().await;
    let store = open(&schema).await;
    store.commit(audit("a")).await.unwrap();
    let text = format!("TRUNCATE {schema}.audit_events");
    let refused = blocking(move || Cluster::shared().psql(&text)).await.unwrap_err().to_string();
    assert!(refused.contains("append-only"), "{refused}");
    assert_eq!(suite::commits::verify_audit(&store).await, 1);
}
