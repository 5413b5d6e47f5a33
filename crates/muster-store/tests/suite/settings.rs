//! Outputs, secrets, settings.

use muster_core::id::{OutputId, SecretId, SpaceId};
use muster_core::output::Output;
use muster_store::{OutputWrite, Precondition, SecretWrite, SettingWrite, Store, Write};

use super::sample::*;

fn put(output: &Output) -> Write {
    Write::Output(OutputWrite::Put(Box::new(output.clone())))
}

pub async fn an_output_comes_back_and_changes(store: &impl Store) {
    let mut written = output("o");
    commit(store, vec![put(&written)]).await;
    assert_eq!(store.output(&written.id).await.unwrap().as_ref(), Some(&written));
    (written.name, written.fields) = ("renamed".into(), serde_json::json!({"ssl": {"id": "s"}}));
    commit(store, vec![put(&written)]).await;
    assert_eq!(store.outputs(&SpaceId::default()).await.unwrap(), [written]);
    assert_eq!(store.output(&OutputId::trusted("none")).await.unwrap(), None);
}

pub async fn outputs_are_listed_by_name_and_a_name_is_taken_once(store: &impl Store) {
    for (id, name) in [("a", "zeta"), ("b", "Beta"), ("c", "alpha")] {
        commit(store, vec![put(&Output { name: name.into(), ..output(id) })]).await;
    }
    let names: Vec<_> =
        store.outputs(&SpaceId::default()).await.unwrap().into_iter().map(|output| output.name).collect();
    assert_eq!(names, ["alpha", "Beta", "zeta"]);
    let taken = Output { name: "alpha".into(), ..output("d") };
    assert_eq!(refused(store, vec![put(&taken)]).await, Precondition::NameTaken("alpha".into()));
}

pub async fn each_default_flag_has_one_holder(store: &impl Store) {
    let flags = async || -> Vec<(String, bool, bool)> {
        let outputs = store.outputs(&SpaceId::default()).await.unwrap();
        outputs.into_iter().map(|o| (o.id.to_string(), o.is_default, o.is_default_monitoring)).collect()
    };
    commit(store, vec![put(&Output { is_default: true, is_default_monitoring: true, ..output("a") })]).await;
    commit(store, vec![put(&Output { is_default: true, ..output("b") })]).await;
    assert_eq!(flags().await, [("a".into(), false, true), ("b".into(), true, false)]);
    commit(store, vec![put(&Output { is_default_monitoring: true, ..output("c") })]).await;
    assert_eq!(flags().await, [("a".into(), false, false), ("b".into(), true, false), ("c".into(), false, true)]);
}

pub async fn a_deleted_output_is_gone(store: &impl Store) {
    let delete = || vec![Write::Output(OutputWrite::Delete { id: OutputId::trusted("o") })];
    commit(store, vec![put(&output("o"))]).await;
    commit(store, delete()).await;
    assert_eq!(store.outputs(&SpaceId::default()).await.unwrap(), []);
    assert!(matches!(refused(store, delete()).await, Precondition::Missing(_)));
}

pub async fn secrets_are_put_replaced_and_removed(store: &impl Store) {
    let id = |id: &str| SecretId::trusted(id);
    let put = |name: &str, sealed: &[u8]| Write::Secret(SecretWrite::Put { id: id(name), sealed: sealed.to_vec() });
    commit(store, vec![put("a", b"\0one"), put("b", b"two"), put("a", b"\xff three")]).await;
    let found = store.secrets(&[id("b"), id("none"), id("a")]).await.unwrap();
    assert_eq!(found, [(id("b"), b"two".to_vec()), (id("a"), b"\xff three".to_vec())]);
    let delete = || vec![Write::Secret(SecretWrite::Delete { id: id("a") })];
    commit(store, delete()).await;
    commit(store, delete()).await;
    assert_eq!(store.secrets(&[id("a")]).await.unwrap(), []);
}

pub async fn settings_are_put_and_replaced(store: &impl Store) {
    commit(store, vec![setting("a", "1"), setting("b", "2")]).await;
    commit(store, vec![setting("a", "{}")]).await;
    assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("{}"));
    assert_eq!(store.setting("b").await.unwrap().as_deref(), Some("2"));
    assert_eq!(store.setting("none").await.unwrap(), None);
    let delete = |name: &str| Write::Setting(SettingWrite::Delete { name: name.into() });
    commit(store, vec![delete("a"), delete("none")]).await;
    assert_eq!(store.setting("a").await.unwrap(), None);
}

pub async fn a_setting_is_swapped_only_while_it_has_the_known_value(store: &impl Store) {
    let swap = |before: Option<&str>, value: &str| {
        vec![Write::Setting(SettingWrite::Swap {
            name: "a".into(),
            before: before.map(Into::into),
            value: value.into(),
        })]
    };
    assert!(matches!(refused(store, swap(Some("1"), "2")).await, Precondition::Changed(_)), "it does not exist");
    commit(store, swap(None, "1")).await;
    assert!(matches!(refused(store, swap(None, "2")).await, Precondition::Changed(_)), "it exists");
    assert!(matches!(refused(store, swap(Some("0"), "2")).await, Precondition::Changed(_)), "it has another value");
    commit(store, swap(Some("1"), "2")).await;
    assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("2"));
}

pub async fn a_change_can_depend_on_a_setting_that_is_unchanged(store: &impl Store) {
    let depends = |value: Option<&str>| {
        let unchanged = SettingWrite::Unchanged { name: "a".into(), value: value.map(Into::into) };
        vec![unchanged.into(), setting("b", "2")]
    };
    commit(store, depends(None)).await;
    assert!(matches!(refused(store, depends(Some("1"))).await, Precondition::Changed(_)), "it does not exist");
    commit(store, vec![setting("a", "1")]).await;
    commit(store, depends(Some("1"))).await;
    assert!(matches!(refused(store, depends(None)).await, Precondition::Changed(_)), "it exists");
    assert!(matches!(refused(store, depends(Some("0"))).await, Precondition::Changed(_)), "it has another value");
}
