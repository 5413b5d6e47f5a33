//! Nodes and leases, as far as one node shows them.

use std::time::Duration;

use muster_core::id::NodeId;
use muster_store::{LeaseName, NodeLease, NodeWrite, Precondition, Store, Write};

use super::sample::*;

pub async fn the_node_of_a_store_is_listed_described_and_drained(store: &impl Store) {
    let standing = store.this_node().borrow().clone();
    assert_eq!(standing.lease, NodeLease::Held);
    let addresses = vec!["192.0.2.1:8220".to_owned(), "[2001:db8::1]:8220".to_owned()];
    let describe = NodeWrite::Describe { name: "one".into(), version: "1.2.3".into(), addresses: addresses.clone() };
    commit(store, vec![describe.into(), NodeWrite::Drain { id: standing.node.clone() }.into()]).await;
    store.changes_handled(5);
    let nodes = store.nodes().await.unwrap();
    let [node] = nodes.as_slice() else { panic!("{nodes:?}") };
    assert_eq!((&node.id, node.name.as_str(), node.version.as_str()), (&standing.node, "one", "1.2.3"));
    assert_eq!((node.addresses.clone(), node.is_draining, node.handled), (addresses, true, 5));
    commit(store, vec![NodeWrite::Resume { id: standing.node }.into()]).await;
    assert!(!store.nodes().await.unwrap()[0].is_draining);
    let missing = refused(store, vec![NodeWrite::Drain { id: NodeId::trusted("none") }.into()]).await;
    assert!(matches!(missing, Precondition::Missing(_)), "{missing:?}");
    assert_eq!(store.lost_nodes().await.unwrap(), []);
}

pub async fn the_only_node_gets_every_lease_and_commits_with_its_token(store: &impl Store) {
    for lease in LeaseName::ALL {
        let token = store.take_lease(lease).await.unwrap().expect("nobody else is there");
        assert_eq!(store.take_lease(lease).await.unwrap(), Some(token));
        commit(store, vec![Write::Fenced(token), setting("a", "1")]).await;
        store.release_lease(token).await.unwrap();
        store.release_lease(token).await.unwrap();
        assert!(store.take_lease(lease).await.unwrap().is_some());
    }
}

pub async fn the_end_of_the_change_log_is_known_at_once(store: &impl Store) {
    assert!(store.confirmed().is_within(Duration::from_secs(10)));
}
