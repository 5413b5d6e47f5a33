//! The suite through a pooler in transaction mode: each transaction may get another connection, so nothing may depend on one.

use std::sync::Arc;

use muster_store::testing::{Pooler, seal_audit};
use muster_store::{ChangeStore as _, LeaseName, LeaseStore as _, SettingStore as _, Store as _, Write};

use super::several_nodes::eventually;
use super::{blocking, put, suite};

suite::run_for!(async || blocking(|| Pooler::shared().fresh()).await);

/// Fails with named statements, which stay with a connection that the next transaction does not get. (Tried with an `Address` that always
/// prepares.)
#[tokio::test(flavor = "multi_thread")]
async fn several_nodes_share_the_connections_of_a_pooler() {
    let user = blocking(|| Pooler::shared().user()).await;
    let open = |user: String| blocking(move || Pooler::shared().open(&user).unwrap());
    let nodes = [Arc::new(open(user.clone()).await), Arc::new(open(user).await)];
    let token = nodes[0].take_lease(LeaseName::Statuses).await.unwrap().expect("free");
    assert_eq!(nodes[1].take_lease(LeaseName::Statuses).await.unwrap(), None);
    nodes[0].commit(vec![Write::Fenced(token)]).await.unwrap();
    let callers: Vec<_> = (0..100_usize)
        .map(|n| {
            let node = Arc::clone(&nodes[n % 2]);
            tokio::spawn(async move {
                node.commit(put(&n.to_string())).await.unwrap();
                assert!(node.setting(&n.to_string()).await.unwrap().is_some());
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    seal_audit(&nodes[0]).await.unwrap();
    eventually("all changes", async || *nodes[1].changes().borrow() == 100).await;
}
