//! Fleet Server hosts, proxies and download sources.

use muster_core::id::{NetworkObjectId, SpaceId};
use muster_core::network_object::{NetworkObject, NetworkObjectKind};
use muster_core::testing::network_object;
use muster_store::{NetworkObjectWrite, Precondition, Store, Write};

use super::sample::*;

const HOST: NetworkObjectKind = NetworkObjectKind::ServerHost;
const PROXY: NetworkObjectKind = NetworkObjectKind::Proxy;
const SOURCE: NetworkObjectKind = NetworkObjectKind::DownloadSource;

fn put(object: &NetworkObject) -> Write {
    NetworkObjectWrite::Put(Box::new(object.clone())).into()
}

fn default(kind: NetworkObjectKind, id: &str) -> NetworkObject {
    NetworkObject { is_default: true, ..network_object(kind, id) }
}

async fn listed(store: &impl Store) -> Vec<NetworkObject> {
    store.network_objects(&SpaceId::default()).await.unwrap()
}

pub async fn a_network_object_comes_back_and_changes(store: &impl Store) {
    let mut written = network_object(HOST, "o");
    commit(store, vec![put(&written)]).await;
    assert_eq!(store.network_object(HOST, &written.id).await.unwrap().as_ref(), Some(&written));
    (written.name, written.fields, written.updated_at) =
        ("renamed".into(), serde_json::json!({"host_urls": ["https://ü"]}), at(7));
    commit(store, vec![put(&written)]).await;
    assert_eq!(listed(store).await, std::slice::from_ref(&written));
    assert_eq!(store.network_object(PROXY, &written.id).await.unwrap(), None, "of another kind");
    assert_eq!(store.network_object(HOST, &NetworkObjectId::trusted("none")).await.unwrap(), None);
}

pub async fn mg105_each_kind_of_a_space_has_one_default(store: &impl Store) {
    let elsewhere = NetworkObject { space: SpaceId::trusted("red"), ..default(HOST, "red") };
    commit(store, vec![put(&elsewhere), put(&default(HOST, "a")), put(&default(SOURCE, "s"))]).await;
    commit(store, vec![put(&default(HOST, "b"))]).await;
    let defaults: Vec<_> = listed(store)
        .await
        .into_iter()
        .filter(|object| object.is_default)
        .map(|object| object.id.to_string())
        .collect();
    assert_eq!(defaults, ["s", "b"]);
    assert!(store.network_objects(&elsewhere.space).await.unwrap()[0].is_default);
}

pub async fn names_and_ids_are_unique_within_a_kind(store: &impl Store) {
    for (kind, id, name) in [(HOST, "a", "zeta"), (HOST, "b", "Beta"), (HOST, "c", "alpha"), (PROXY, "a", "zeta")] {
        commit(store, vec![put(&NetworkObject { name: name.into(), ..network_object(kind, id) })]).await;
    }
    let names: Vec<_> = listed(store).await.into_iter().map(|object| (object.kind, object.name)).collect();
    let expected = [(PROXY, "zeta"), (HOST, "alpha"), (HOST, "Beta"), (HOST, "zeta")];
    assert_eq!(names, expected.map(|(kind, name)| (kind, name.to_owned())));
    let taken = NetworkObject { name: "alpha".into(), ..network_object(HOST, "d") };
    assert_eq!(refused(store, vec![put(&taken)]).await, Precondition::NameTaken("alpha".into()));
}

pub async fn a_deleted_network_object_is_gone(store: &impl Store) {
    let delete = || vec![NetworkObjectWrite::Delete { kind: HOST, id: NetworkObjectId::trusted("o") }.into()];
    commit(store, vec![put(&network_object(HOST, "o")), put(&network_object(PROXY, "o"))]).await;
    commit(store, delete()).await;
    assert_eq!(listed(store).await, [network_object(PROXY, "o")]);
    assert!(matches!(refused(store, delete()).await, Precondition::Missing(_)));
}

pub async fn network_objects_of_other_spaces_are_not_listed(store: &impl Store) {
    let red = NetworkObject { space: SpaceId::trusted("red"), ..network_object(HOST, "o") };
    commit(store, vec![put(&red)]).await;
    assert_eq!(listed(store).await, []);
    assert_eq!(store.network_objects(&red.space).await.unwrap(), [red]);
}
