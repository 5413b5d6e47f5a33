//! Enrollment keys: names, uses, ends.

use muster_core::agent::Family;
use muster_core::enrollment_key::{EnrollmentKey, KeyFamily, MAX_SECRETS};
use muster_core::id::{EnrollmentKeyId, KeyId, PolicyId, SpaceId};
use muster_core::one_time::OneTime;
use muster_store::query::Page;
use muster_store::{EnrollmentKeyWrite, PolicyWrite, Precondition, Store, Write};

use super::sample::*;

const ALL: Page = Page { offset: 0, limit: 100 };

fn put(key: &EnrollmentKey) -> Write {
    Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(key.clone())))
}

fn use_at(id: &str, n: i64) -> Write {
    Write::EnrollmentKey(EnrollmentKeyWrite::Use { id: EnrollmentKeyId::trusted(id), now: at(n), counts: true })
}

fn use_again_at(id: &str, n: i64) -> Write {
    Write::EnrollmentKey(EnrollmentKeyWrite::Use { id: EnrollmentKeyId::trusted(id), now: at(n), counts: false })
}

fn revoke_at(id: &str, n: i64) -> Write {
    Write::EnrollmentKey(EnrollmentKeyWrite::Revoke { id: EnrollmentKeyId::trusted(id), now: at(n) })
}

async fn stored(store: &impl Store, id: &str) -> Option<EnrollmentKey> {
    store.enrollment_key(&EnrollmentKeyId::trusted(id)).await.unwrap()
}

pub async fn a_key_comes_back_by_both_ids(store: &impl Store) {
    let mut full = enrollment_key("full");
    full.expires_at = Some(at(9));
    full.max_uses = Some(3);
    full.hidden = true;
    let mut bare = enrollment_key("bare");
    (bare.sealed_token, bare.policy_id, bare.tags) = (None, None, Vec::new());
    for key in [full, bare] {
        commit(store, vec![put(&key)]).await;
        assert_eq!(stored(store, key.id.as_str()).await.as_ref(), Some(&key));
        assert_eq!(store.enrollment_key_by_key_id(&key.key_id).await.unwrap(), Some(key));
    }
    assert_eq!(store.enrollment_key_by_key_id(&KeyId::trusted("none")).await.unwrap(), None);
}

pub async fn a_key_is_read_together_with_the_policy_that_its_agents_get(store: &impl Store) {
    let mut default = policy("standard");
    default.is_default = true;
    let mut own = policy("own");
    (own.is_default, own.inactivity_timeout) = (false, 7);
    let insert = |policy| Write::Policy(PolicyWrite::Insert(Box::new(policy)));
    commit(store, vec![insert(default), insert(own)]).await;
    for (id, policy, expected) in
        [("a", Some("own"), Some("own")), ("b", None, Some("standard")), ("c", Some("deleted"), None)]
    {
        let mut key = enrollment_key(id);
        key.policy_id = policy.map(PolicyId::trusted);
        commit(store, vec![put(&key)]).await;
        let (read, head) = store.enrollment_key_with_policy(&key.key_id).await.unwrap().expect("there");
        assert_eq!((read, head.map(|head| head.id)), (key, expected.map(PolicyId::trusted)));
    }
    assert_eq!(store.enrollment_key_with_policy(&KeyId::trusted("none")).await.unwrap(), None);
}

pub async fn a_live_name_is_its_policys_alone(store: &impl Store) {
    let named = |id: &str, policy: Option<&str>| {
        let mut key = enrollment_key(id);
        key.name = "name".into();
        key.policy_id = policy.map(PolicyId::trusted);
        key
    };
    commit(store, vec![put(&named("a", Some("p"))), put(&named("b", Some("q"))), put(&named("c", None))]).await;
    for taken in [named("d", Some("p")), named("d", None)] {
        assert_eq!(refused(store, vec![put(&taken)]).await, Precondition::NameTaken("name".into()));
    }
    commit(store, vec![revoke_at("a", 1)]).await;
    commit(store, vec![put(&named("d", Some("p")))]).await;
}

pub async fn an_id_or_a_public_half_is_taken_once(store: &impl Store) {
    commit(store, vec![put(&enrollment_key("a"))]).await;
    let mut same_id = enrollment_key("a");
    (same_id.name, same_id.key_id) = ("other".into(), KeyId::trusted("other"));
    let mut same_half = enrollment_key("b");
    same_half.key_id = enrollment_key("a").key_id;
    for key in [same_id, same_half] {
        assert!(matches!(refused(store, vec![put(&key)]).await, Precondition::Exists(_)));
    }
    let release = Write::from(EnrollmentKeyWrite::Release { id: EnrollmentKeyId::trusted("a") });
    let mut successor = enrollment_key("b");
    successor.key_id = enrollment_key("a").key_id;
    successor.name = "other".into();
    assert!(matches!(refused(store, vec![release.clone(), put(&successor)]).await, Precondition::Exists(_)), "in use");
    commit(store, vec![revoke_at("a", 1)]).await;
    assert!(matches!(refused(store, vec![put(&successor)]).await, Precondition::Exists(_)), "not released");
    commit(store, vec![release, put(&successor)]).await;
    assert_eq!(store.enrollment_key_by_key_id(&successor.key_id).await.unwrap(), Some(successor));
    assert_eq!(stored(store, "a").await.and_then(|key| key.revoked_at), Some(at(1)), "the record stays");
}

pub async fn fl77_a_space_has_a_limited_number_of_live_enroll_secrets(store: &impl Store) {
    let secret = |id: &str, space: &str| {
        let mut key = enrollment_key(id);
        (key.family, key.space, key.policy_id) = (KeyFamily::Fleetd, SpaceId::trusted(space), None);
        key
    };
    for n in 0..MAX_SECRETS {
        commit(store, vec![put(&secret(&format!("s{n}"), "default"))]).await;
    }
    let more = put(&secret("more", "default"));
    assert!(matches!(refused(store, vec![more.clone()]).await, Precondition::TooMany(_)));
    commit(store, vec![put(&secret("other", "elsewhere")), put(&enrollment_key("token"))]).await;
    let mut same = secret("same", "elsewhere");
    same.key_id = enrollment_key("s0").key_id;
    assert!(matches!(refused(store, vec![put(&same)]).await, Precondition::Exists(_)), "also in another space");
    commit(store, vec![revoke_at("s0", 1), more]).await;
    assert_eq!(stored(store, "more").await.map(|key| key.family), Some(KeyFamily::Fleetd));
}

pub async fn keys_that_expired_before_a_time_are_found(store: &impl Store) {
    for (id, expires) in
        [("never", None), ("late", Some(9)), ("second", Some(4)), ("first", Some(3)), ("then", Some(5))]
    {
        let mut key = enrollment_key(id);
        key.expires_at = expires.map(at);
        commit(store, vec![put(&key)]).await;
    }
    commit(store, vec![revoke_at("second", 1)]).await;
    let expired = async |before, limit| {
        let ids = store.enrollment_keys_expired_before(at(before), limit).await.unwrap();
        ids.iter().map(EnrollmentKeyId::as_str).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(expired(5, 10).await, "first second");
    assert_eq!(expired(6, 2).await, "first second");
    assert_eq!(expired(1, 10).await, "");
}

pub async fn uses_are_counted(store: &impl Store) {
    commit(store, vec![put(&enrollment_key("a"))]).await;
    commit(store, vec![use_at("a", 5)]).await;
    commit(store, vec![use_at("a", 6), use_at("a", 7)]).await;
    let key = stored(store, "a").await.unwrap();
    assert_eq!((key.uses, key.last_used_at), (3, Some(at(7))));
}

pub async fn d20_a_key_that_does_not_admit_is_refused_inside_the_commit(store: &impl Store) {
    let mut expired = enrollment_key("expired");
    expired.expires_at = Some(at(10));
    let mut used_up = enrollment_key("used-up");
    (used_up.max_uses, used_up.uses) = (Some(2), 2);
    commit(store, vec![put(&expired), put(&used_up), put(&enrollment_key("revoked"))]).await;
    commit(store, vec![use_at("expired", 9), use_at("revoked", 9)]).await;
    commit(store, vec![revoke_at("revoked", 10)]).await;
    for id in ["expired", "used-up", "revoked", "nobody's"] {
        let writes = vec![insert(&bare_agent("a")), use_at(id, 10)];
        assert_eq!(refused(store, writes).await, Precondition::KeyRefused, "{id}");
    }
    for id in ["expired", "revoked", "nobody's"] {
        assert_eq!(refused(store, vec![use_again_at(id, 10)]).await, Precondition::KeyRefused, "{id}");
    }
    commit(store, vec![use_again_at("used-up", 10)]).await;
    let used_up = stored(store, "used-up").await.unwrap();
    assert_eq!((used_up.uses, used_up.last_used_at), (2, Some(at(10))), "who comes again is no further use");
    assert_eq!(store.agent(&agent_id("a")).await.unwrap(), None, "nothing of a refused enrollment stays");
}

pub async fn one_of_two_concurrent_uses_of_the_last_wins(store: &impl Store) {
    let mut key = enrollment_key("a");
    key.max_uses = Some(1);
    commit(store, vec![put(&key)]).await;
    let enroll = |id: &str| store.commit(vec![use_at("a", 1), insert(&bare_agent(id))]);
    let (left, right) = tokio::join!(enroll("left"), enroll("right"));
    assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
    assert_eq!(stored(store, "a").await.unwrap().uses, 1);
    let enrolled = store.agent_ids(&Default::default(), None, 10).await.unwrap();
    assert_eq!(enrolled, [agent_id(if left.is_ok() { "left" } else { "right" })]);
}

pub async fn a_revocation_keeps_its_first_time(store: &impl Store) {
    commit(store, vec![put(&enrollment_key("a"))]).await;
    commit(store, vec![revoke_at("a", 5)]).await;
    commit(store, vec![revoke_at("a", 9)]).await;
    assert_eq!(stored(store, "a").await.unwrap().revoked_at, Some(at(5)));
    assert!(matches!(refused(store, vec![revoke_at("b", 1)]).await, Precondition::Missing(_)));
}

pub async fn a_deleted_key_is_gone(store: &impl Store) {
    let delete = || Write::EnrollmentKey(EnrollmentKeyWrite::Delete { id: EnrollmentKeyId::trusted("a") });
    commit(store, vec![put(&enrollment_key("a"))]).await;
    commit(store, vec![delete()]).await;
    assert_eq!(stored(store, "a").await, None);
    assert!(matches!(refused(store, vec![delete()]).await, Precondition::Missing(_)));
}

pub async fn keys_are_listed_newest_first(store: &impl Store) {
    for (id, created, policy) in [("a", 1, "p"), ("b", 3, "q"), ("c", 2, "p")] {
        let mut key = enrollment_key(id);
        (key.created_at, key.policy_id) = (at(created), Some(PolicyId::trusted(policy)));
        commit(store, vec![put(&key)]).await;
    }
    let ids = |keys: Vec<EnrollmentKey>| -> Vec<String> { keys.into_iter().map(|key| key.id.to_string()).collect() };
    let all = store.enrollment_keys(&SpaceId::default(), None, ALL).await.unwrap();
    assert_eq!((ids(all.items), all.total), (vec!["b".into(), "c".into(), "a".into()], 3));
    let page = store.enrollment_keys(&SpaceId::default(), None, Page { offset: 1, limit: 1 }).await.unwrap();
    assert_eq!((ids(page.items), page.total), (vec!["c".into()], 3));
    let p = PolicyId::trusted("p");
    let behind = async |policy, created, id: &str, limit| {
        let id = EnrollmentKeyId::trusted(id);
        ids(store.enrollment_keys_after(&SpaceId::default(), policy, (at(created), &id), limit).await.unwrap().items)
    };
    assert_eq!(behind(None, 3, "b", 1).await, ["c"]);
    assert_eq!(behind(None, 2, "c", 9).await, ["a"]);
    assert_eq!(behind(Some(&p), 3, "b", 9).await, ["c", "a"]);
    assert!(behind(None, 1, "a", 9).await.is_empty());
    let of_p = store.enrollment_keys(&SpaceId::default(), Some(&p), ALL).await.unwrap();
    assert_eq!((ids(of_p.items), of_p.total), (vec!["c".into(), "a".into()], 2));
    let mut once = one_time("o");
    once.created_at = at(4);
    commit(store, vec![put(&once)]).await;
    let page = |offset| Page { offset, limit: 1 };
    let secrets = store.one_time_secrets(&SpaceId::default(), page(0)).await.unwrap();
    assert_eq!((ids(secrets.items), secrets.total), (vec!["o".into()], 1));
    assert!(store.one_time_secrets(&SpaceId::default(), page(1)).await.unwrap().items.is_empty());
    assert_eq!(store.one_time_secrets(&SpaceId::trusted("red"), page(0)).await.unwrap().total, 0);
}

fn one_time(id: &str) -> EnrollmentKey {
    EnrollmentKey { one_time: Some(OneTime::default()), ..enrollment_key(id) }
}

fn use_one_time(id: &str, family: Family, uuid: &str, now: i64) -> Vec<Write> {
    use_by_hardware(id, family, uuid, "", now)
}

fn use_by_hardware(id: &str, family: Family, uuid: &str, serial: &str, now: i64) -> Vec<Write> {
    let id = EnrollmentKeyId::trusted(id);
    let (uuid, serial) = (uuid.into(), serial.into());
    vec![Write::EnrollmentKey(EnrollmentKeyWrite::UseOneTime { id, family, uuid, serial, now: at(now) })]
}

pub async fn fl82_fl85_a_one_time_secret_is_used_once_by_each_program_of_a_host(store: &impl Store) {
    let insert = |key: EnrollmentKey| Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(key)));
    commit(store, vec![insert(one_time("a")), insert(one_time("b")), insert(enrollment_key("shared"))]).await;
    let stored = async |id: &str| store.enrollment_key(&EnrollmentKeyId::trusted(id)).await.unwrap().unwrap();
    assert_eq!(stored("a").await, one_time("a"));
    let concurrent = tokio::join!(
        store.commit(use_one_time("a", Family::Orbit, "u", 10)),
        store.commit(use_one_time("a", Family::Orbit, "v", 10)),
    );
    assert_eq!(u8::from(concurrent.0.is_ok()) + u8::from(concurrent.1.is_ok()), 1, "{concurrent:?}");
    let used = stored("a").await;
    let by = used.one_time.clone().unwrap();
    let host = by.uuid.clone().unwrap();
    assert_eq!((by.orbit_used_at, by.osquery_used_at, used.uses), (Some(at(10)), None, 1));
    let late = 10 + 3_600_000_000;
    for bad in [
        use_one_time("a", Family::Orbit, &host, 11),
        use_one_time("a", Family::Osquery, "other", 11),
        use_one_time("a", Family::Osquery, &host, late),
        use_one_time("shared", Family::Orbit, "u", 11),
    ] {
        assert_eq!(refused(store, bad).await, Precondition::KeyRefused);
    }
    commit(store, use_one_time("a", Family::Osquery, &host, late - 1)).await;
    assert!(stored("a").await.one_time.unwrap().is_used_up());
    commit(store, use_by_hardware("b", Family::Osquery, "", "s", 5)).await;
    let bound = stored("b").await.one_time.unwrap();
    assert_eq!((bound.uuid, bound.serial.as_deref()), (None, Some("s")));
    assert_eq!(refused(store, use_by_hardware("b", Family::Orbit, "u", "t", 6)).await, Precondition::KeyRefused);
    commit(store, use_by_hardware("b", Family::Orbit, "u", "s", 6)).await;
}
