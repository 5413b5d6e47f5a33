//! Recovery keys of encrypted disks.

use muster_core::agent::AgentRecord;
use muster_core::disk_key::{DiskKey, Escrow, MAX_ASKED};
use muster_core::id::SpaceId;
use muster_core::identity::Space;
use muster_store::{AgentWrite, DiskKeyWrite, IdentityWrite, Precondition, Store, Write};

use super::sample::*;

async fn begun(store: &impl Store) {
    let mut record = bare_agent("a");
    record.credentials = one_key("key-of-a");
    commit(store, vec![insert(&record)]).await;
}

async fn stored(store: &impl Store) -> Option<DiskKey> {
    let record = store.agent(&agent_id("a")).await.unwrap();
    let space = record.map_or_else(SpaceId::default, |record| record.space);
    stored_in(store, &space).await
}

async fn stored_in(store: &impl Store, space: &SpaceId) -> Option<DiskKey> {
    store.disk_key(&agent_id("a"), space).await.unwrap()
}

pub async fn fl64_an_error_keeps_the_key_and_a_key_clears_the_error(store: &impl Store) {
    begun(store).await;
    let put = |sealed: &[u8], now: i64| -> Write {
        DiskKeyWrite::Put { agent: agent_id("a"), sealed: sealed.to_vec(), now: at(now) }.into()
    };
    let error = DiskKeyWrite::Error { agent: agent_id("a"), error: "no".into(), now: at(4) };
    assert_eq!(stored(store).await, None);
    commit(store, vec![error.clone().into()]).await;
    commit(store, vec![put(b"one", 5)]).await;
    let with = |sealed: &[u8], now: i64| DiskKey {
        sealed: Some(sealed.to_vec()),
        stored_at: Some(at(now)),
        ..DiskKey::default()
    };
    assert_eq!(stored(store).await, Some(with(b"one", 5)));
    commit(store, vec![error.into()]).await;
    let failed = DiskKey { error: Some("no".into()), error_at: Some(at(4)), ..with(b"one", 5) };
    assert_eq!(stored(store).await, Some(failed));
    commit(store, vec![put(b"two", 6)]).await;
    assert_eq!(stored(store).await, Some(with(b"two", 6)));
    commit(store, vec![AgentWrite::Delete { id: agent_id("a"), now: at(8) }.into()]).await;
    assert_eq!(stored(store).await, None);
}

pub async fn fl56_a_host_is_told_to_report_its_key_until_it_answers(store: &impl Store) {
    begun(store).await;
    let due = async || store.disk_escrows_due(None, 9).await.unwrap();
    let told = |now: i64| -> Write {
        DiskKeyWrite::EscrowTold { agent: agent_id("a"), now: at(now), again_at: at(now + 600) }.into()
    };
    let is_early = async |now| matches!(refused(store, vec![told(now)]).await, Precondition::Missing(_));
    assert!(is_early(9).await, "nobody has asked for it");
    let escrow = |now: i64| -> Write { DiskKeyWrite::Escrow { agent: agent_id("a"), now: at(now) }.into() };
    commit(store, vec![escrow(10)]).await;
    assert_eq!(due().await, [agent_id("a")]);
    assert_eq!(store.disk_escrows_due(Some(&agent_id("a")), 9).await.unwrap(), []);
    let request = async || stored(store).await.unwrap().escrow;
    for asked in 1..=MAX_ASKED {
        let now = 10 + i64::from(asked - 1) * 600;
        assert!(asked == 1 || is_early(now - 1).await);
        commit(store, vec![told(now)]).await;
        let due_at = (asked < MAX_ASKED).then(|| at(now + 600));
        assert_eq!(request().await, Some(Escrow { asked, due_at }));
    }
    assert!(due().await.is_empty() && is_early(99_999).await, "it was told often enough");
    let put = || -> Write { DiskKeyWrite::Put { agent: agent_id("a"), sealed: vec![1], now: at(5) }.into() };
    let error = || -> Write { DiskKeyWrite::Error { agent: agent_id("a"), error: "no".into(), now: at(5) }.into() };
    for answer in [put, error] {
        assert!(request().await.is_some(), "told, and not answered");
        commit(store, vec![answer()]).await;
        assert_eq!((request().await, due().await), (None, vec![]));
        commit(store, vec![escrow(20), answer()]).await;
        assert!(request().await.is_some(), "an answer from before the host was told");
        commit(store, vec![told(20)]).await;
    }
}

pub async fn a_disk_key_does_not_follow_its_agent_to_another_space(store: &impl Store) {
    begun(store).await;
    let put = DiskKeyWrite::Put { agent: agent_id("a"), sealed: vec![1], now: at(5) };
    commit(store, vec![put.into(), DiskKeyWrite::Escrow { agent: agent_id("a"), now: at(5) }.into()]).await;
    let before = store.agent(&agent_id("a")).await.unwrap().unwrap();
    let mut same = before.clone();
    same.version += 1;
    commit(store, vec![update(&before, &same)]).await;
    assert!(stored(store).await.is_some());
    let mut moved = same.clone();
    (moved.version, moved.space) = (same.version + 1, SpaceId::trusted("other"));
    commit(store, vec![update(&same, &moved)]).await;
    assert_eq!(stored(store).await, None);
    assert_eq!(store.disk_escrows_due(None, 9).await.unwrap(), []);
    let kept = async || stored_in(store, &SpaceId::default()).await.and_then(|key| key.sealed);
    assert_eq!(kept().await, Some(vec![1]), "the space to which it was reported keeps it");
    let put = DiskKeyWrite::Put { agent: agent_id("a"), sealed: vec![2], now: at(6) };
    commit(store, vec![put.into()]).await;
    assert_eq!((stored(store).await.and_then(|key| key.sealed), kept().await), (Some(vec![2]), Some(vec![1])));
    commit(store, vec![AgentWrite::Delete { id: agent_id("a"), now: at(8) }.into()]).await;
    assert_eq!(stored_in(store, &SpaceId::trusted("other")).await, None);
    assert_eq!(kept().await, Some(vec![1]), "also when the other space deletes the host");
}

pub async fn a_disk_key_that_is_handed_over_follows_its_agent_once(store: &impl Store) {
    begun(store).await;
    let put = DiskKeyWrite::Put { agent: agent_id("a"), sealed: vec![1], now: at(5) };
    commit(store, vec![put.into(), DiskKeyWrite::Escrow { agent: agent_id("a"), now: at(1) }.into()]).await;
    let move_to = async |space: &str, handed_over: bool| {
        let before = store.agent(&agent_id("a")).await.unwrap().unwrap();
        let mut moved = before.clone();
        (moved.version, moved.space) = (before.version + 1, SpaceId::trusted(space));
        let hand_over = DiskKeyWrite::HandOver { agent: agent_id("a"), space: moved.space.clone() };
        let hand_over = handed_over.then(|| hand_over.into());
        commit(store, hand_over.into_iter().chain([update(&before, &moved)]).collect()).await;
        stored(store).await
    };
    let key = move_to("other", true).await.unwrap();
    assert_eq!((key.sealed, key.escrow), (Some(vec![1]), None));
    assert_eq!(move_to("third", false).await, None);
    let put = DiskKeyWrite::Put { agent: agent_id("a"), sealed: vec![3], now: at(6) };
    commit(store, vec![put.into()]).await;
    let key = move_to("other", true).await.unwrap();
    assert_eq!(key.sealed, Some(vec![3]), "in place of the older one");
    let holds = |space: &str| -> Vec<Write> {
        vec![DiskKeyWrite::Holds { agent: agent_id("a"), space: SpaceId::trusted(space) }.into()]
    };
    commit(store, holds("other")).await;
    assert!(matches!(refused(store, holds("third")).await, Precondition::LeftSpace(_)), "it was handed over");
}

pub async fn a_commit_that_expects_a_disk_key_or_none_is_refused_otherwise(store: &impl Store) {
    begun(store).await;
    let expect =
        |is_stored: bool| -> Vec<Write> { vec![DiskKeyWrite::Expect { agent: agent_id("a"), is_stored }.into()] };
    let is_refused = async |is_stored| matches!(refused(store, expect(is_stored)).await, Precondition::Changed(_));
    commit(store, expect(false)).await;
    assert!(is_refused(true).await);
    let error = DiskKeyWrite::Error { agent: agent_id("a"), error: "no".into(), now: at(4) };
    commit(store, vec![error.into()]).await;
    commit(store, expect(false)).await;
    let put = DiskKeyWrite::Put { agent: agent_id("a"), sealed: vec![1], now: at(5) };
    commit(store, vec![put.into()]).await;
    commit(store, expect(true)).await;
    assert!(is_refused(false).await, "reported after the caller has looked");
}

pub async fn the_keys_of_a_deleted_space_go_to_the_default_space(store: &impl Store) {
    let red = SpaceId::trusted("red");
    let space = Space { id: red.clone(), name: "Red".into(), ..Space::default_space() };
    commit(store, vec![IdentityWrite::InsertSpace(Box::new(space)).into()]).await;
    // The first one has a newer key in the default space, the second one none, and the third one has reported none at all.
    for (id, here) in [("a", Some(9)), ("b", None), ("c", None)] {
        let record = AgentRecord { space: red.clone(), ..bare_agent(id) };
        commit(store, vec![insert(&record)]).await;
        if id != "c" {
            let put = DiskKeyWrite::Put { agent: agent_id(id), sealed: vec![1], now: at(5) };
            commit(store, vec![put.into()]).await;
        }
        let before = store.agent(&agent_id(id)).await.unwrap().unwrap();
        let moved = next(&before, |record| record.space = SpaceId::default());
        commit(store, vec![update(&before, &moved)]).await;
        if let Some(now) = here {
            commit(store, vec![DiskKeyWrite::Put { agent: agent_id(id), sealed: vec![2], now: at(now) }.into()]).await;
        }
    }
    assert_eq!(store.disk_keys_in(&red).await.unwrap(), 2);
    commit(store, vec![IdentityWrite::DeleteSpace { id: red.clone() }.into()]).await;
    assert_eq!(store.disk_keys_in(&red).await.unwrap(), 0);
    let mut kept = Vec::new();
    for id in ["a", "b", "c"] {
        let key = store.disk_key(&agent_id(id), &SpaceId::default()).await.unwrap();
        kept.push(key.map(|key| (key.sealed, key.stored_at)));
    }
    assert_eq!(kept, [Some((Some(vec![2]), Some(at(9)))), Some((Some(vec![1]), Some(at(5)))), None]);
}
