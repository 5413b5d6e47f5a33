//! Two servers that start at the same instant on an empty database: what is made once exists once.

use std::sync::Arc;

use muster_core::id::SpaceId;
use muster_core::seal::Sealer;
use muster_fleet::fleet_keys::ensure_signing_key;
use muster_fleet::testing::{TestFleet, steady};
use muster_store::query::Page;
use muster_store::testing::Cluster;
use muster_store::{SqlStore, Store};

async fn two_stores() -> [Arc<dyn Store>; 2] {
    let open = || -> [SqlStore; 2] {
        let schema = Cluster::shared().schema();
        [Cluster::shared().open(&schema), Cluster::shared().open(&schema)]
    };
    let stores = tokio::task::spawn_blocking(open).await.expect("no panic");
    stores.map(|store| -> Arc<dyn Store> { Arc::new(store) })
}

/// Each is written only where there is none yet: the slower server finds the conflict, and reads what the faster one wrote.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_first_start_makes_exists_once_whichever_server_made_it() {
    for round in 0..5 {
        let [first, second] = two_stores().await;
        let one = TestFleet::over(Arc::clone(&first), steady());
        let two = one.beside_over(Arc::clone(&second), steady());
        let sealer = Sealer::new(&[7; 32]).expect("a key of 32 bytes");
        let (here, there) = tokio::join!(
            ensure_signing_key(&*first, &sealer, &*one.entropy),
            ensure_signing_key(&*second, &sealer, &*two.entropy)
        );
        let key = here.expect("a key").public_key().to_owned();
        assert_eq!(there.expect("a key").public_key(), key, "round {round}");

        let (here, there) =
            tokio::join!(one.fleet.server_status().installation(), two.fleet.server_status().installation());
        let id = here.expect("an id");
        assert_eq!(there.expect("an id"), id, "round {round}");
        assert_eq!(second.setting("installation_uuid").await.expect("readable"), Some(id));

        let (here, there) = tokio::join!(one.fleet.policies().ensure_default(), two.fleet.policies().ensure_default());
        let made = [here.expect("no error"), there.expect("no error")];
        assert_eq!(made.iter().flatten().count(), 1, "round {round}");
        let page = Page { offset: 0, limit: 10 };
        assert_eq!(first.policies(None, page).await.expect("readable").total, 1);
        let space = SpaceId::default();
        assert_eq!(first.enrollment_keys(&space, None, page).await.expect("readable").total, 1);
    }
}
