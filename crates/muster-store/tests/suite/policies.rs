//! Policies and their revisions.

use muster_core::id::{PolicyId, SpaceId};
use muster_core::policy::{Policy, PolicyHead};
use muster_core::status::Status;
use muster_store::query::Page;
use muster_store::{EnrollmentKeyWrite, PolicyWrite, Precondition, Store, Write};

use super::sample::*;

const ALL: Page = Page { offset: 0, limit: 100 };

fn put(policy: &Policy) -> Write {
    Write::Policy(PolicyWrite::Insert(Box::new(policy.clone())))
}

fn put_revision(policy: &str, number: i64) -> Write {
    Write::Policy(PolicyWrite::InsertRevision(Box::new(revision(policy, number))))
}

fn change(before: &Policy, after: &Policy) -> Write {
    Write::Policy(PolicyWrite::Update {
        before_revision: before.revision,
        before_updated_at: before.updated_at,
        policy: Box::new(after.clone()),
    })
}

async fn stored(store: &impl Store, id: &str) -> Option<Policy> {
    store.policy(&PolicyId::trusted(id)).await.unwrap()
}

pub async fn a_policy_comes_back_by_id_and_name(store: &impl Store) {
    let full = policy("full");
    let mut bare = policy("bare");
    (bare.unenroll_timeout, bare.secrets) = (None, Vec::new());
    (bare.is_managed, bare.is_default) = (false, false);
    for policy in [full, bare] {
        commit(store, vec![put(&policy)]).await;
        assert_eq!(stored(store, policy.id.as_str()).await.as_ref(), Some(&policy));
        let head = PolicyHead { id: policy.id.clone(), inactivity_timeout: policy.inactivity_timeout };
        assert_eq!(store.policy_head(&policy.id).await.unwrap().as_ref(), Some(&head));
        assert_eq!(store.policy_by_name(&SpaceId::default(), &policy.name).await.unwrap(), Some(policy));
    }
    assert_eq!(store.policy_head(&PolicyId::trusted("nobody")).await.unwrap(), None);
    assert_eq!(store.policy_by_name(&SpaceId::default(), "nobody's").await.unwrap(), None);
}

pub async fn ids_and_names_are_taken_once(store: &impl Store) {
    commit(store, vec![put(&policy("a")), put(&policy("b"))]).await;
    let mut same_name = policy("c");
    same_name.name = "policy a".into();
    assert_eq!(refused(store, vec![put(&same_name)]).await, Precondition::NameTaken("policy a".into()));
    let mut same_id = policy("a");
    same_id.name = "another".into();
    assert!(matches!(refused(store, vec![put(&same_id)]).await, Precondition::Exists(_)));
    let mut renamed = policy("b");
    (renamed.name, renamed.revision) = ("policy a".into(), 2);
    let taken = refused(store, vec![change(&policy("b"), &renamed)]).await;
    assert_eq!(taken, Precondition::NameTaken("policy a".into()));
}

pub async fn a_change_starts_from_the_newest(store: &impl Store) {
    let first = policy("a");
    let mut second = first.clone();
    (second.revision, second.updated_at, second.name) = (2, at(2), "renamed".into());
    (second.unenroll_timeout, second.config) = (None, serde_json::json!({}));
    commit(store, vec![put(&first)]).await;
    commit(store, vec![change(&first, &second)]).await;
    assert_eq!(stored(store, "a").await.as_ref(), Some(&second));
    let mut other_time = second.clone();
    other_time.updated_at = at(1);
    for stale in [&first, &other_time] {
        let changed = refused(store, vec![change(stale, &policy("a"))]).await;
        assert!(matches!(changed, Precondition::Changed(_)), "{changed:?}");
    }
    assert_eq!(stored(store, "a").await, Some(second));
    let missing = refused(store, vec![change(&policy("x"), &policy("x"))]).await;
    assert!(matches!(missing, Precondition::Missing(_)), "{missing:?}");
}

pub async fn revisions_are_immutable_and_newest_first(store: &impl Store) {
    let id = PolicyId::trusted("a");
    commit(store, vec![put(&policy("a")), put_revision("a", 1), put_revision("a", 2), put_revision("a", 10)]).await;
    assert_eq!(store.policy_newest_revision(&id).await.unwrap(), Some(revision("a", 10)));
    assert_eq!(store.policy_revision(&id, 2).await.unwrap(), Some(revision("a", 2)));
    assert_eq!(store.policy_revision(&id, 3).await.unwrap(), None);
    let listed = store.policy_revisions(&id).await.unwrap();
    let expected: Vec<_> = [10, 2, 1].map(|n| (n, at(n), format!("author {n}"))).into();
    assert_eq!(listed, expected);
    assert!(matches!(refused(store, vec![put_revision("a", 2)]).await, Precondition::Exists(_)));
    assert!(matches!(refused(store, vec![put_revision("nobody's", 1)]).await, Precondition::Missing(_)));
}

pub async fn policies_are_listed_by_name(store: &impl Store) {
    for (id, name) in [("a", "zeta"), ("b", "Beta"), ("c", "alpha")] {
        let mut policy = policy(id);
        policy.name = name.into();
        commit(store, vec![put(&policy)]).await;
    }
    let listed = store.policies(None, ALL).await.unwrap();
    let names: Vec<_> = listed.items.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!((names, listed.total), (vec!["alpha", "Beta", "zeta"], 3));
    let page = store.policies(None, Page { offset: 2, limit: 5 }).await.unwrap();
    assert_eq!((page.items[0].name.as_str(), page.total), ("zeta", 3));
    let all = store.policies(Some(&SpaceId::default()), ALL).await.unwrap().items;
    let mut seen = vec![all[0].clone()];
    while let Some(next) =
        store.policies_after(&SpaceId::default(), &seen[seen.len() - 1].name, 1).await.unwrap().items.pop()
    {
        seen.push(next);
    }
    assert_eq!(seen, all);
}

pub async fn active_agents_are_counted_per_policy(store: &impl Store) {
    for (id, policy, active) in
        [("a", Some("p"), true), ("b", Some("p"), true), ("c", Some("p"), false), ("d", None, true)]
    {
        let mut record = bare_agent(id);
        (record.policy_id, record.active) = (policy.map(PolicyId::trusted), active);
        record.status = if active { record.status } else { Status::Unenrolled };
        commit(store, vec![insert(&record)]).await;
    }
    for (id, space) in [("p", "default"), ("q", "other")] {
        let mut policy = policy(id);
        (policy.name, policy.space) = (id.to_owned(), SpaceId::trusted(space));
        commit(store, vec![PolicyWrite::Insert(Box::new(policy)).into()]).await;
    }
    let mut elsewhere = bare_agent("e");
    (elsewhere.policy_id, elsewhere.space) = (Some(PolicyId::trusted("q")), SpaceId::trusted("other"));
    commit(store, vec![insert(&elsewhere)]).await;
    let counted = async |space: &str| store.policy_agent_counts(&SpaceId::trusted(space)).await.unwrap();
    assert_eq!(counted("default").await, [(PolicyId::trusted("p"), 2)]);
    assert_eq!(counted("other").await, [(PolicyId::trusted("q"), 1)]);
}

pub async fn a_policy_with_active_agents_stays_and_one_without_goes_with_all_its_own(store: &impl Store) {
    let id = PolicyId::trusted("p");
    let delete = || vec![Write::Policy(PolicyWrite::Delete { id: id.clone() })];
    let mut agent = bare_agent("a");
    agent.policy_id = Some(id.clone());
    let key = enrollment_key("k");
    commit(
        store,
        vec![
            put(&policy("p")),
            put_revision("p", 1),
            Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(key.clone()))),
            insert(&agent),
        ],
    )
    .await;
    assert!(matches!(refused(store, delete()).await, Precondition::Changed(_)));
    assert!(stored(store, "p").await.is_some());
    let gone = next(&agent, |a| a.active = false);
    commit(store, vec![update(&agent, &gone)]).await;
    commit(store, delete()).await;
    assert_eq!(stored(store, "p").await, None);
    assert_eq!(store.policy_newest_revision(&id).await.unwrap(), None);
    assert_eq!(store.enrollment_key(&key.id).await.unwrap(), None);
    assert!(matches!(refused(store, delete()).await, Precondition::Missing(_)));
}
