//! Carves: order of blocks, limits, ends, expiry.

use muster_core::carve::{Announced, Carve, CarveState, MAX_RECORDS};
use muster_core::credential::SecretHash;
use muster_core::id::{FileId, SpaceId};
use muster_store::{AgentWrite, CarveWrite, Precondition, Store, UploadLimit, Write};

use super::sample::*;

/// A carve of two blocks of three bytes.
pub fn carve(id: &str, agent: &str) -> Carve {
    Carve {
        id: FileId::trusted(id),
        space: SpaceId::default(),
        agent: agent_id(agent),
        host: None,
        hostname: "web-7".into(),
        announced: Announced {
            block_count: 2,
            block_size: 3,
            size: 6,
            carve_id: "c".into(),
            request_id: "fleet_distributed_query_q".into(),
        },
        session: SecretHash::of(id.as_bytes()),
        blocks: 0,
        is_compressed: false,
        state: CarveState::Receiving,
        error: None,
        began_at: at(5),
        ended_at: None,
        expires_at: at(90),
    }
}

pub fn begin(carve: &Carve, max_bytes: u64) -> Write {
    CarveWrite::Begin { carve: Box::new(carve.clone()), max_bytes }.into()
}

fn block(carve: &Carve, number: u64) -> Vec<Write> {
    let block = CarveWrite::Block { id: carve.id.clone(), number, is_compressed: true };
    vec![block.into(), chunk(carve.id.as_str(), number.try_into().unwrap(), b"abc")]
}

fn complete(carve: &Carve) -> Write {
    CarveWrite::Complete { id: carve.id.clone(), now: at(7), expires_at: at(100) }.into()
}

async fn agent(store: &impl Store, id: &str) {
    let mut record = bare_agent(id);
    record.credentials = one_key(&format!("key-of-{id}"));
    commit(store, vec![insert(&record)]).await;
}

async fn stored(store: &impl Store, carve: &Carve) -> Option<Carve> {
    store.carve_in(&carve.space, &carve.id).await.unwrap()
}

async fn chunks(store: &impl Store, carve: &Carve) -> usize {
    store.chunks(&carve.id).await.unwrap().len()
}

pub async fn fl40_blocks_are_counted_in_order_and_the_last_completes_the_carve(store: &impl Store) {
    agent(store, "a").await;
    let carve = carve("f", "a");
    commit(store, vec![begin(&carve, 6)]).await;
    assert_eq!(stored(store, &carve).await, Some(carve.clone()));
    assert_eq!(store.carve_of_session(&carve.session).await.unwrap(), Some(carve.clone()));
    assert_eq!(store.carve_of_session(&SecretHash::of(b"x")).await.unwrap(), None);
    assert_eq!(store.carve_in(&SpaceId::trusted("other"), &carve.id).await.unwrap(), None);
    commit(store, block(&carve, 0)).await;
    for number in [0, 2] {
        assert!(matches!(refused(store, block(&carve, number)).await, Precondition::Changed(_)));
    }
    assert_eq!(chunks(store, &carve).await, 1, "the refused block was rolled back");
    commit(store, [block(&carve, 1), vec![complete(&carve)]].concat()).await;
    let expected = Carve {
        blocks: 2,
        is_compressed: true,
        state: CarveState::Complete,
        ended_at: Some(at(7)),
        expires_at: at(100),
        ..carve.clone()
    };
    assert_eq!(stored(store, &carve).await, Some(expected));
    assert!(matches!(refused(store, block(&carve, 2)).await, Precondition::Changed(_)), "FL165");
    assert_eq!(store.carves(&carve.space, 9).await.unwrap().len(), 1);
    commit(store, vec![CarveWrite::Delete { id: carve.id.clone() }.into()]).await;
    assert_eq!((stored(store, &carve).await, chunks(store, &carve).await), (None, 0));
    let again = CarveWrite::Delete { id: carve.id.clone() };
    assert!(matches!(refused(store, vec![again.into()]).await, Precondition::Missing(_)));
}

pub async fn fl165_a_failed_carve_keeps_its_reason_and_no_bytes(store: &impl Store) {
    agent(store, "a").await;
    let carve = carve("f", "a");
    commit(store, vec![begin(&carve, 6)]).await;
    commit(store, block(&carve, 0)).await;
    let fail = |reason: &str| CarveWrite::Fail { id: carve.id.clone(), reason: reason.into(), now: at(6) }.into();
    commit(store, vec![fail("a hole")]).await;
    commit(store, vec![fail("another reason")]).await;
    let after = stored(store, &carve).await.unwrap();
    assert_eq!((after.state, after.error.as_deref()), (CarveState::Failed, Some("a hole")));
    assert_eq!((after.ended_at, chunks(store, &carve).await), (Some(at(6)), 0));
    assert!(matches!(refused(store, block(&carve, 1)).await, Precondition::Changed(_)));
}

pub async fn a_host_has_one_carve_in_progress_and_its_archives_are_limited(store: &impl Store) {
    agent(store, "a").await;
    agent(store, "b").await;
    let (first, second) = (carve("f", "a"), carve("g", "a"));
    commit(store, vec![begin(&first, 6)]).await;
    commit(store, block(&first, 0)).await;
    commit(store, vec![begin(&carve("h", "b"), 6)]).await;
    commit(store, vec![begin(&second, 6)]).await;
    let replaced = stored(store, &first).await.unwrap();
    assert_eq!((replaced.state, chunks(store, &first).await), (CarveState::Failed, 0));
    assert_eq!(replaced.error.as_deref(), Some("the host began another carve"));
    commit(store, block(&second, 0)).await;
    commit(store, [block(&second, 1), vec![complete(&second)]].concat()).await;
    let third = carve("i", "a");
    assert_eq!(refused(store, vec![begin(&third, 11)]).await, Precondition::OverLimit(UploadLimit::Bytes));
    commit(store, vec![begin(&third, 12)]).await;
    for number in 0..MAX_RECORDS + 5 {
        commit(store, vec![begin(&carve(&format!("n{number}"), "a"), 1000)]).await;
    }
    let kept = store.carves(&first.space, 1000).await.unwrap();
    let of_a = kept.iter().filter(|carve| carve.agent == agent_id("a"));
    assert!(of_a.count() as u64 <= MAX_RECORDS + 2, "a host cannot fill the table");
    assert!(stored(store, &second).await.is_some(), "complete ones stay");
}

pub async fn carves_expire_and_their_records_are_deleted_later(store: &impl Store) {
    agent(store, "a").await;
    agent(store, "b").await;
    let (complete_one, open) = (carve("f", "a"), carve("g", "b"));
    commit(store, vec![begin(&complete_one, 6), begin(&open, 6)]).await;
    for (carve, last) in [(&open, false), (&complete_one, false), (&complete_one, true)] {
        let writes = block(carve, u64::from(last));
        commit(store, if last { [writes, vec![complete(carve)]].concat() } else { writes }).await;
    }
    assert_eq!(store.carves_expire(at(90), at(0), 9).await.unwrap(), 0);
    assert_eq!(store.carves_expire(at(91), at(0), 9).await.unwrap(), 1);
    let late = stored(store, &open).await.unwrap();
    assert_eq!(
        (late.state, late.error.as_deref()),
        (CarveState::Failed, Some("the last block did not arrive in time"))
    );
    assert_eq!(late.ended_at, Some(at(91)));
    assert_eq!(store.carves_expire(at(101), at(0), 9).await.unwrap(), 1);
    let expired = stored(store, &complete_one).await.unwrap();
    assert_eq!((expired.state, expired.error, expired.ended_at), (CarveState::Expired, None, Some(at(7))));
    assert_eq!(chunks(store, &open).await + chunks(store, &complete_one).await, 0);
    assert_eq!(store.carves_expire(at(101), at(6), 9).await.unwrap(), 2);
    assert_eq!(store.carves(&open.space, 9).await.unwrap(), []);
}

pub async fn a_deleted_agent_leaves_no_carve(store: &impl Store) {
    agent(store, "a").await;
    let carve = carve("f", "a");
    commit(store, vec![begin(&carve, 6)]).await;
    commit(store, block(&carve, 0)).await;
    commit(store, vec![AgentWrite::Delete { id: agent_id("a"), now: at(8) }.into()]).await;
    assert_eq!((stored(store, &carve).await, chunks(store, &carve).await), (None, 0));
}

pub async fn blocks_of_deleted_carves_are_removed_in_batches(store: &impl Store) {
    agent(store, "a").await;
    agent(store, "b").await;
    let (deleted, left) = (carve("f", "a"), carve("g", "b"));
    for carve in [&deleted, &left] {
        commit(store, vec![begin(carve, 6)]).await;
        commit(store, block(carve, 0)).await;
        commit(store, [block(carve, 1), vec![complete(carve)]].concat()).await;
    }
    commit(store, vec![CarveWrite::Delete { id: deleted.id.clone() }.into()]).await;
    assert_eq!((chunks(store, &deleted).await, store.chunk(&deleted.id, 0).await.unwrap()), (0, None), "at once");
    commit(store, vec![AgentWrite::Delete { id: agent_id("b"), now: at(8) }.into()]).await;
    assert_eq!(chunks(store, &left).await, 0);
    let removed = async || store.removed_chunks_prune(3).await.unwrap();
    assert_eq!([removed().await, removed().await, removed().await], [3, 1, 0]);
}
