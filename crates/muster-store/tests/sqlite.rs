//! The suite on the embedded engine.

mod suite;

use muster_store::testing::tamper;
use muster_store::{SqlStore, Store as _};

suite::run_for!(async || SqlStore::temporary().unwrap());

#[tokio::test]
async fn m25_audit_events_cannot_be_replaced() {
    let store = SqlStore::temporary().expect("a store");
    store.commit(vec![suite::commits::audit(1)]).await.expect("written");
    for statement in [
        "INSERT OR REPLACE INTO audit_events (seq, chain, position, event, hash) VALUES (1, 'b', 7, '{}', x'')",
        "INSERT OR REPLACE INTO audit_events SELECT 9, chain, position, '{}', hash, subject FROM audit_events",
    ] {
        let refused = tamper(&store, statement).await.expect_err(statement).to_string();
        assert!(refused.contains("append-only"), "{refused}");
    }
    assert_eq!(suite::commits::verify_audit(&store).await, 1);
}

#[tokio::test]
async fn store_works_as_before_after_its_memory_is_released() {
    let store = SqlStore::temporary().expect("a store");
    for (number, events) in [(1, 1), (2, 2), (3, 3)] {
        store.commit(vec![suite::commits::audit(number)]).await.expect("written");
        store.release_memory().await.expect("released");
        assert_eq!(suite::commits::verify_audit(&store).await, events);
    }
}
