//! Requests with an idempotency key.

use muster_core::time::Timestamp;
use muster_store::{IdempotencyWrite, KeyedRequest, Precondition, Store, Write};

use super::sample::*;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn request(account: &str, key: &str, micros: i64) -> KeyedRequest {
    KeyedRequest { account: account.into(), key: key.into(), sealed: vec![1, 0, 255], created_at: at(micros) }
}

fn begin(request: &KeyedRequest, live_from: i64) -> Write {
    IdempotencyWrite::Begin { request: request.clone(), live_from: at(live_from), limit: 2 }.into()
}

pub async fn a_key_belongs_to_one_request_of_its_account(store: &impl Store) {
    let mut first = request("a", "k", 10);
    commit(store, vec![begin(&first, 0)]).await;
    assert!(matches!(refused(store, vec![begin(&request("a", "k", 11), 0)]).await, Precondition::Exists(_)));
    commit(store, vec![begin(&request("b", "k", 11), 0)]).await;
    first.sealed = vec![2; 40_000];
    commit(store, vec![IdempotencyWrite::Finish(first.clone()).into()]).await;
    assert_eq!(store.keyed_request("a", "k").await.unwrap(), Some(first));
    assert_eq!(store.keyed_request("a", "other").await.unwrap(), None);
}

pub async fn keys_of_an_account_are_limited_and_old_ones_forgotten(store: &impl Store) {
    for (key, micros) in [("one", 10), ("two", 20)] {
        commit(store, vec![begin(&request("a", key, micros), 0)]).await;
    }
    let third = request("a", "three", 30);
    assert!(matches!(refused(store, vec![begin(&third, 0)]).await, Precondition::TooMany(_)));
    commit(store, vec![begin(&third, 15)]).await;
    assert_eq!(store.keyed_request("a", "one").await.unwrap(), None);
    commit(store, vec![IdempotencyWrite::Expire { before: at(30) }.into()]).await;
    assert_eq!(store.keyed_request("a", "two").await.unwrap(), None);
    assert_eq!(store.keyed_request("a", "three").await.unwrap(), Some(third));
}

pub async fn only_the_request_that_used_a_key_finishes_or_forgets_it(store: &impl Store) {
    let (old, new) = (request("a", "k", 10), request("a", "k", 50));
    commit(store, vec![begin(&old, 0), begin(&new, 20)]).await;
    let forget = |request: &KeyedRequest| -> Write {
        let (account, key, created_at) = (request.account.clone(), request.key.clone(), request.created_at);
        IdempotencyWrite::Forget { account, key, created_at }.into()
    };
    let late = KeyedRequest { sealed: vec![9], ..old.clone() };
    commit(store, vec![IdempotencyWrite::Finish(late).into(), forget(&old)]).await;
    assert_eq!(store.keyed_request("a", "k").await.unwrap(), Some(new.clone()));
    commit(store, vec![forget(&new)]).await;
    assert_eq!(store.keyed_request("a", "k").await.unwrap(), None);
}
