//! Verification of the audit log of two nodes over one database, after somebody with access to it changed it.

use std::sync::Arc;

use muster_core::audit::{AuditEvent, ChainFault, chain_hash, chain_start};
use muster_core::authorization::{Actor, OpContext};
use muster_core::hex;
use muster_core::time::Timestamp;
use muster_fleet::audit_log::{AuditVerdict, AuditView};
use muster_fleet::testing::{TestFleet, steady};
use muster_store::testing::{Cluster, seal_audit};
use muster_store::{NodeStore as _, Store as _, Write};

/// Two nodes, `a` and `b`, with three events each. `a` has sealed the chain of `b`.
struct TwoNodes {
    schema: String,
    fleet: TestFleet,
    a: String,
    b: String,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

fn event(subject: String) -> Write {
    let at = Timestamp::from_micros(1);
    let detail = serde_json::json!({});
    Write::Audit(AuditEvent {
        at,
        actor: "system".into(),
        action: "test".into(),
        subject,
        detail,
        address: None,
        reason: None,
        space: None,
    })
}

impl TwoNodes {
    async fn new() -> Self {
        let schema = blocking(|| Cluster::shared().schema()).await;
        let name = schema.clone();
        let (first, second) = blocking(move || (Cluster::shared().open(&name), Cluster::shared().open(&name))).await;
        for n in 0..3 {
            first.commit(vec![event(format!("a{n}"))]).await.expect("written");
            second.commit(vec![event(format!("b{n}"))]).await.expect("written");
        }
        seal_audit(&first).await.expect("sealed");
        let [a, b] = [&first, &second].map(|store| store.this_node().borrow().node.to_string());
        // Neither appends anything from now on: what is restored must not fall behind what a node knows of its own chain.
        blocking(move || drop(second)).await;
        let this = Self { schema, fleet: TestFleet::over(Arc::new(first), steady()), a, b };
        this.sql("CREATE TABLE kept AS SELECT * FROM audit_events").await;
        // Whoever owns the tables can do this. The chain must show what was changed nevertheless.
        this.sql(
            "DROP TRIGGER audit_events_no_update ON audit_events; DROP TRIGGER audit_events_no_delete ON audit_events",
        )
        .await;
        this
    }

    async fn sql(&self, text: &str) {
        let text = format!("SET search_path = {}; {text}", self.schema);
        blocking(move || Cluster::shared().psql(&text)).await.expect("it is SQL");
    }

    async fn verify(&self) -> AuditVerdict {
        let context = OpContext::administrator(Actor::Local { uid: 0 });
        self.fleet.fleet.audit().verify(&AuditView::whole(&context).expect("all rights")).await.expect("readable")
    }

    /// The chain, position and fault that are found after a change, which is taken back.
    async fn found_after(&self, change: &str) -> (String, i64, ChainFault) {
        self.sql(change).await;
        let verdict = self.verify().await;
        self.sql("DELETE FROM audit_events; INSERT INTO audit_events SELECT * FROM kept").await;
        let defect = verdict.broken.unwrap_or_else(|| panic!("not found: {change}"));
        (defect.chain, defect.position, defect.fault)
    }
}

/// Each case but the last ones fails when [`muster_core::audit::ChainCheck`] leaves out its comparison; those on what a seal knew fail
/// when seals are not verified.
#[tokio::test(flavor = "multi_thread")]
async fn m25_whatever_is_changed_in_the_chains_is_found() {
    let nodes = TwoNodes::new().await;
    let intact = nodes.verify().await;
    assert_eq!((intact.lines, intact.heads.len(), intact.broken), (7, 2, None));
    let (a, b) = (nodes.a.clone(), nodes.b.clone());
    let at = |chain: &str, position: i64| format!("chain = '{chain}' AND position = {position}");
    let text = r#"'{"x":1}'"#;

    let changed = format!("UPDATE audit_events SET event = {text} WHERE {}", at(&b, 2));
    assert_eq!(nodes.found_after(&changed).await, (b.clone(), 2, ChainFault::Changed));
    let removed = format!("DELETE FROM audit_events WHERE {}", at(&a, 2));
    assert_eq!(nodes.found_after(&removed).await, (a.clone(), 2, ChainFault::Missing));
    let beginning = format!("DELETE FROM audit_events WHERE {}", at(&a, 1));
    assert_eq!(nodes.found_after(&beginning).await, (a.clone(), 1, ChainFault::Missing));
    let moved = format!(
        "UPDATE audit_events SET position = -position WHERE chain = '{b}' AND position < 3; \
         UPDATE audit_events SET position = 3 + position WHERE chain = '{b}' AND position < 0"
    );
    assert_eq!(nodes.found_after(&moved).await, (b.clone(), 1, ChainFault::Changed));
    let inserted = format!(
        "UPDATE audit_events SET position = -position WHERE chain = '{a}' AND position > 1; \
         UPDATE audit_events SET position = 1 - position WHERE chain = '{a}' AND position < 0; \
         INSERT INTO audit_events SELECT 1000, chain, 2, event, hash FROM audit_events WHERE {}",
        at(&a, 1)
    );
    assert_eq!(nodes.found_after(&inserted).await, (a.clone(), 2, ChainFault::Changed));

    let hidden = format!("UPDATE audit_events SET subject = 'none' WHERE {}", at(&a, 2));
    assert_eq!(nodes.found_after(&hidden).await, (a.clone(), 2, ChainFault::Hidden));

    let tail = format!("DELETE FROM audit_events WHERE {}", at(&b, 3));
    assert_eq!(nodes.found_after(&tail).await, (b.clone(), 3, ChainFault::Sealed));
    let whole = format!("DELETE FROM audit_events WHERE chain = '{b}'");
    assert_eq!(nodes.found_after(&whole).await, (b.clone(), 3, ChainFault::Sealed));
    assert_eq!(nodes.found_after(&rewritten(&b)).await, (b, 3, ChainFault::Sealed));
    assert_eq!(nodes.verify().await.broken, None, "what was taken back leaves no trace");
}

/// A chain with other events and hashes that fit them.
fn rewritten(chain: &str) -> String {
    let mut hash = chain_start(chain);
    let rows = (1..=3).map(|position| {
        hash = chain_hash(&hash, b"{}");
        let hash = hex::encode(&hash);
        format!(
            "UPDATE audit_events SET event = '{{}}', hash = decode('{hash}', 'hex') \
             WHERE chain = '{chain}' AND position = {position};"
        )
    });
    rows.collect()
}
