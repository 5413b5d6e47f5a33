//! A revocation on one server is in force on the others, also on one that does not learn of changes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use muster_core::ErrorKind;
use muster_core::denial::Denial;
use muster_core::id::PolicyId;
use muster_fleet::Fleet;
use muster_fleet::policies::PolicyDraft;
use muster_fleet::testing::{TestFleet, steady};
use muster_store::testing::{Gate, Gated, fresh};
use muster_store::{Currency, Store, StoreError};
use serde_json::json;

use crate::cluster::{Agent, Database, ONLINE, ended, root, unavailable};

/// A feed that is held back: the end of the change log was last known long ago.
#[derive(Default)]
struct HeldBack {
    is_held_back: AtomicBool,
    /// The database has answered nothing for minutes.
    is_silent: AtomicBool,
    is_slow: AtomicBool,
    is_cut_off: AtomicBool,
    reads: AtomicUsize,
    /// Loses its lease while it reads.
    loses_lease: OnceLock<Weak<Fleet>>,
}

impl Gate for HeldBack {
    fn read(&self) -> Result<(), StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if let Some(fleet) = self.loses_lease.get().and_then(Weak::upgrade) {
            fleet.lose_lease();
        }
        if self.is_cut_off.load(Ordering::Relaxed) { Err(unavailable()) } else { Ok(()) }
    }

    fn delay(&self) -> Duration {
        if self.is_slow.load(Ordering::Relaxed) { Duration::from_millis(5_200) } else { Duration::ZERO }
    }

    fn confirmed(&self) -> Option<Currency> {
        let ago = match (self.is_silent.load(Ordering::Relaxed), self.is_held_back.load(Ordering::Relaxed)) {
            (true, _) => 60_000,
            (false, true) => 501,
            (false, false) => 0,
        };
        Some(Currency::Until(
            Instant::now().checked_sub(Duration::from_millis(ago)).expect("the system runs for longer"),
        ))
    }
}

/// A server whose feed is held back, and another one over the same store. Neither follows changes.
fn pair() -> (Arc<Gated<HeldBack>>, TestFleet, TestFleet) {
    let store: Arc<dyn Store> = Arc::new(fresh());
    let gated = Arc::new(Gated::new(Arc::clone(&store), HeldBack::default()));
    let one = TestFleet::over(gated.clone(), steady());
    let other = one.beside_over(store, steady());
    (gated, one, other)
}

#[tokio::test]
async fn heartbeat_reads_nothing_while_the_feed_is_current() {
    let (store, one, _) = pair();
    let agent = Agent::new(&one, "a").await;
    drop(agent.poll(&one, ONLINE).await);
    let entry = agent.entry(&one).await;
    let before = store.gate().reads.load(Ordering::Relaxed);
    let digest = muster_core::documents::bytes_digest(&[ONLINE.as_bytes()]);
    agent.entry(&one).await;
    assert!(one.fleet.check_ins().check_in_unchanged(&entry, &digest).await.expect("accepted").is_some());
    assert_eq!(store.gate().reads.load(Ordering::Relaxed), before);
}

/// Fails if the cached record is trusted whatever the feed's age.
#[tokio::test]
async fn revoked_key_is_rejected_at_once_by_a_server_whose_feed_is_held_back() {
    let (store, one, other) = pair();
    let agent = Agent::new(&one, "a").await;
    agent.entry(&one).await;
    agent.revoke(&other).await;
    store.gate().is_held_back.store(true, Ordering::Relaxed);
    let refused = one.fleet.authentication().agent("a", &agent.key).await.err().expect("it is revoked");
    assert_eq!(refused.denial, Some(Denial::UnknownKey));
}

/// A server that continues after SIGSTOP notices the loss of its lease while requests are being authenticated.
#[tokio::test]
async fn revoked_key_is_rejected_although_the_cache_is_emptied_in_between() {
    let (store, one, other) = pair();
    let agent = Agent::new(&one, "a").await;
    agent.entry(&one).await;
    agent.revoke(&other).await;
    store.gate().is_held_back.store(true, Ordering::Relaxed);
    store.gate().loses_lease.set(Arc::downgrade(&one.fleet)).expect("once");
    let refused = one.fleet.authentication().agent("a", &agent.key).await.err().expect("it is revoked");
    assert_eq!(refused.denial, Some(Denial::UnknownKey));
}

#[tokio::test]
async fn server_that_is_cut_off_from_its_database_answers_with_unavailable() {
    let (store, one, _) = pair();
    let agent = Agent::new(&one, "a").await;
    agent.entry(&one).await;
    store.gate().is_cut_off.store(true, Ordering::Relaxed);
    agent.entry(&one).await;
    store.gate().is_held_back.store(true, Ordering::Relaxed);
    let refused = one.fleet.authentication().agent("a", &agent.key).await.err().expect("nobody knows");
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    store.gate().is_cut_off.store(false, Ordering::Relaxed);
    agent.entry(&one).await;
}

/// The acks of a policy for a whole fleet wait longer for their reads than a request should wait for a silent database.
#[tokio::test]
async fn request_waits_for_a_busy_database_but_not_for_a_silent_one() {
    let (store, one, _) = pair();
    let agent = Agent::new(&one, "a").await;
    agent.entry(&one).await;
    store.gate().is_held_back.store(true, Ordering::Relaxed);
    store.gate().is_slow.store(true, Ordering::Relaxed);
    agent.entry(&one).await;
    let began = Instant::now();
    let authenticate = one.fleet.authentication();
    let (refused, ()) = tokio::join!(authenticate.agent("a", &agent.key), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        store.gate().is_silent.store(true, Ordering::Relaxed);
    });
    assert_eq!(refused.err().expect("nobody knows").kind, ErrorKind::Unavailable);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let began = Instant::now();
    let refused = one.fleet.authentication().agent("a", &agent.key).await.err().expect("nobody knows");
    assert_eq!((refused.kind, began.elapsed().as_secs()), (ErrorKind::Unavailable, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_on_one_server_ends_the_held_poll_on_another_within_a_second() {
    let (a, b) = Database::new().await.two().await;
    let agent = Agent::new(&a, "a").await;
    let held = tokio::spawn(agent.poll(&b, ONLINE).await.wait());
    agent.revoke(&a).await;
    let revoked = Instant::now();
    let refused = ended(held).await.err().expect("its key is revoked");
    assert!(revoked.elapsed() < Duration::from_secs(1), "{:?}", revoked.elapsed());
    assert_eq!(refused.denial, Some(Denial::UnknownKey));
    let refused = b.fleet.authentication().agent("a", &agent.key).await.err().expect("it is revoked");
    assert_eq!(refused.denial, Some(Denial::UnknownKey));
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_that_enrolls_again_elsewhere_is_accepted_at_once_and_its_old_poll_ends() {
    let (a, b) = Database::new().await.two().await;
    let key = a.add_key(Some("p"), |_| {}).await;
    let body = serde_json::json!({"type": "PERMANENT", "id": "fixed", "replace_token": "open"});
    let first = a.enroll(&key, &body).await.expect("admitted");
    let agent = Agent { id: muster_core::id::AgentId::trusted(first.id.as_str()), key: first.key.clone() };
    let runs = r#"{"status":"online","agent_policy_id":"p","policy_revision_idx":3}"#;
    let held = tokio::spawn(agent.poll(&b, runs).await.wait());
    let second = a.enroll(&key, &body).await.expect("it replaces itself");
    b.entry(&second).await.expect("its new key works on every server");
    assert!(
        !matches!(
            ended(held).await,
            Ok(muster_fleet::check_in::Delivery::Actions { .. } | muster_fleet::check_in::Delivery::Policy(_))
        ),
        "the old key gets nothing more"
    );
    b.entry(&first).await.err().expect("the old key is rejected");
}

/// Fails if a server compiles with the key that it knows: its revision would take the former key back to the agents.
#[tokio::test(flavor = "multi_thread")]
async fn mg115_a_server_that_has_not_heard_of_a_new_signing_key_compiles_with_it() {
    let (a, b) = Database::new().await.two_that_stand_still().await;
    let draft = |name: &str| PolicyDraft { id: Some(name.into()), name: Some(name.into()), ..PolicyDraft::default() };
    let create = async |server: &TestFleet, name: &str| {
        server.fleet.policies().create(&root().grant().expect("all rights"), draft(name)).await.expect("it is made");
    };
    create(&b, "before").await;
    let grant = root().grant().expect("all rights");
    a.fleet.policies().rotate_signing_key(&grant).await.expect("it is replaced");
    create(&b, "after").await;
    let key = async |name: &str| {
        let newest = a.store().policy_newest_revision(&PolicyId::trusted(name)).await.expect("readable");
        newest.expect("it is there").compiled["agent"]["protection"]["signing_key"].clone()
    };
    assert_eq!(
        (key("before").await, key("after").await),
        (key("after").await, json!(a.fleet.inner().signing.current().public_key()))
    );
}
