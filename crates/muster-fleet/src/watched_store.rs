//! The store with write monitoring: detects a read-only or full disk, for probes and agents, and manages the reserve.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use muster_core::authorization::{Grant, Scope};
use muster_core::id::SpaceId;
use muster_core::time::Clock;
use muster_store::{
    AuditStore, Committed, FileStore, IdentityStore, Precondition, Resources, SettingWrite, Store, StoreError, Write,
};
use tokio::sync::watch;

use super::audit_log::AuditView;
use super::authority::{Authority, System, Unscoped};
use super::disk::{Disk, is_relief};
use super::events::events_of;
use super::own_space;
use super::scope::Scoped;
use super::shutdown::Shutdown;

/// Interval between probes of a read-only store.
const RETRY: Duration = Duration::from_secs(2);
/// The setting that probes write.
const PROBE: &str = "write_probe";
/// Free bytes at which a full disk counts as recovered: more than the part of the reserve that is released at once.
const RECOVERED: u64 = 4 << 20;
/// Error of writes that may not use the reserve.
const ON_RESERVE: &str = "the disk is full; only revoking and deleting are possible";

type Applying<'a> = Pin<Box<dyn Future<Output = Result<Committed, StoreError>> + Send + 'a>>;

/// The store, with the outcome of the last commit. Reads and commits name an authority.
pub struct WatchedStore {
    inner: Arc<dyn Store>,
    /// Whether `failure` is set. Lets a successful commit, the usual case, skip the lock of the channel.
    failing: AtomicBool,
    failure: watch::Sender<Option<String>>,
    disk: OnceLock<Arc<dyn Disk>>,
    /// Whether the disk is full. The reserve, and the free part of the store's log, are then only for writes that free
    /// space or revoke access.
    on_reserve: AtomicBool,
}

impl WatchedStore {
    /// Wraps a store that is assumed to be writable.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            failing: AtomicBool::new(false),
            failure: watch::Sender::new(None),
            disk: OnceLock::new(),
            on_reserve: AtomicBool::new(false),
        }
    }

    /// Sets the disk of the store; to be called once. `on_reserve`: it is full, or its reserve was released to open the
    /// store.
    pub fn use_disk(&self, disk: Arc<dyn Disk>, on_reserve: bool) {
        // A second call would be a bug of the caller; the first disk stays.
        let _ = self.disk.set(disk);
        if on_reserve {
            self.now_on_reserve();
        }
    }

    /// Free bytes; `None` if unknown.
    pub fn free_bytes(&self) -> Option<u64> {
        self.disk.get()?.free_bytes()
    }

    /// Allocates the reserve, if there is enough space.
    pub fn set_reserve_aside(&self) {
        if self.disk.get().is_some_and(|disk| !disk.restore_reserve()) {
            tracing::warn!(
                "not enough disk space for the reserve; if the disk becomes full, keys and agents cannot be revoked"
            );
        }
    }

    fn now_on_reserve(&self) {
        self.on_reserve.store(true, Ordering::Relaxed);
        self.note(Some(&StoreError::no_room(ON_RESERVE)));
    }

    fn is_on_reserve(&self) -> bool {
        self.on_reserve.load(Ordering::Relaxed)
    }

    /// Allocates the reserve again. Returns false if there is not enough space.
    fn leave_reserve(&self) -> bool {
        // Without the second condition, other writes would use up the reserve part by part.
        let has_recovered = |disk: &dyn Disk| disk.free_bytes().is_none_or(|free| free >= RECOVERED);
        let restored = self.disk.get().is_none_or(|disk| disk.restore_reserve() && has_recovered(&**disk));
        if restored {
            self.on_reserve.store(false, Ordering::Relaxed);
        }
        restored
    }

    /// Returns the view of an administrator: the space of the grant.
    pub fn seen_by<'a, P>(&'a self, grant: &'a Grant<P>) -> Scoped<'a> {
        Scoped::new(&*self.inner, grant.space(), grant.scope())
    }

    /// Returns the view of one space, for the server's own tasks.
    pub(crate) fn within<'a>(&'a self, _by: &System, space: &'a SpaceId) -> Scoped<'a> {
        Scoped::new(&*self.inner, space, &Scope::Whole)
    }

    /// Returns all spaces, for the server and authenticated agents.
    pub fn everywhere(&self, _by: &(impl Unscoped + ?Sized)) -> &dyn Resources {
        &*self.inner
    }

    /// Returns the audit log, which belongs to no space. Whoever reads it shows only what the view shows.
    pub(crate) fn audit(&self, _view: &AuditView) -> &dyn AuditStore {
        &*self.inner
    }

    /// Returns users, roles, tokens and spaces, which belong to no space. The caller must have authorized the access.
    pub(crate) fn identity(&self, _by: &impl Authority) -> &dyn IdentityStore {
        &*self.inner
    }

    /// Returns the file data, for tasks that outlive the caller. The caller must have authorized the access.
    pub(crate) fn share_files(&self) -> Arc<dyn FileStore> {
        Arc::clone(&self.inner) as Arc<dyn FileStore>
    }

    /// Commits all writes or none with the authority `by`, and records the outcome. A dry run commits nothing, but fails if a
    /// precondition of the writes does not hold. With a grant, fails with [`Precondition::LeftSpace`] if an agent is not in its space:
    /// the agent was found in it, but may have been transferred since.
    pub async fn commit(
        &self,
        by: &(impl Authority + ?Sized),
        mut writes: Vec<Write>,
    ) -> Result<Committed, StoreError> {
        if let Some(space) = by.space() {
            // The usual change of an administrator, of no agent, has no such condition.
            let condition = own_space::condition(&writes, space);
            writes.splice(0..0, condition);
        }
        if by.is_dry_run() {
            writes.push(Write::DryRun);
            return match self.inner.commit(writes).await {
                // A record that an earlier commit of the same dry run would have made or changed.
                Err(StoreError::Conflict(
                    Precondition::Missing(_) | Precondition::Changed(_) | Precondition::DryRun,
                ))
                | Ok(_) => Ok(Committed::default()),
                Err(error) => Err(error),
            };
        }
        // Part of the commit, so that no transition is told of that did not happen, or happens untold.
        writes.extend(events_of(&writes));
        self.commit_by(writes, |writes| self.inner.commit(writes)).await
    }

    async fn commit_by<'a>(
        &'a self,
        writes: Vec<Write>,
        apply: impl Fn(Vec<Write>) -> Applying<'a> + Send,
    ) -> Result<Committed, StoreError> {
        let relief = is_relief(&writes);
        if self.is_on_reserve() && !relief {
            return Err(StoreError::no_room(ON_RESERVE));
        }
        // Only commits that may use the reserve are cloned for a second attempt; they are rare and small.
        let again = relief.then(|| writes.clone());
        let mut outcome = apply(writes).await;
        // Only for a full disk: a busy store also fails, but does not need the reserve.
        while let (Some(writes), Err(error)) = (&again, &outcome)
            && error.lacks_room()
        {
            if !self.disk.get().is_some_and(|disk| disk.release_reserve()) {
                tracing::error!(
                    "the disk is full and the reserve is used up: free a few megabytes in the file system of the data \
                     directory to revoke keys and agents"
                );
                break;
            }
            tracing::warn!("the disk is full; released a part of the reserved space for revoking and deleting");
            self.now_on_reserve();
            outcome = apply(writes.clone()).await;
        }
        if !self.is_on_reserve() {
            // A commit from the reserve succeeds, but the store is still read-only for everybody else.
            self.note(outcome.as_ref().err());
        }
        outcome
    }

    /// Returns the reason why the store is corrupt or read-only; `None` if it is neither.
    pub fn trouble(&self) -> Option<String> {
        let damaged = |reason| format!("the store is corrupt: {reason}; restore it from a backup");
        let failing = || self.failure().map(|reason| format!("the store is read-only: {reason}"));
        self.inner.damage().map(damaged).or_else(failing)
    }

    /// Returns the error of the last write; `None` while the store is writable.
    pub fn failure(&self) -> Option<String> {
        if self.failing.load(Ordering::Relaxed) { self.failure.borrow().clone() } else { None }
    }

    /// Records the outcome of a commit: an error other than a conflict or a full queue makes the store read-only, a success writable.
    pub fn note(&self, error: Option<&StoreError>) {
        match error {
            None if !self.failing.load(Ordering::Relaxed) => {}
            // A conflict shows nothing: preconditions are checked before anything is written.
            Some(StoreError::Conflict(_)) => {}
            // A server that is busy must not be taken for one that cannot write, and removed from a load balancer.
            Some(error) if error.is_crowded() => {}
            error => {
                self.failing.store(error.is_some(), Ordering::Relaxed);
                self.failure.send_replace(error.map(ToString::to_string));
            }
        }
    }
}

impl WatchedStore {
    /// Writes a setting to find out whether the store is writable; the commit records the outcome.
    pub async fn probe(&self, clock: &dyn Clock) {
        let value = clock.now().to_string();
        let _ = self.commit(&System, vec![Write::Setting(SettingWrite::Put { name: PROBE.into(), value })]).await;
    }

    /// Probes a read-only store until a write succeeds, so that the server recovers without other writes. Does nothing
    /// while the store is writable.
    pub(crate) async fn recover(self: Arc<Self>, clock: Arc<dyn Clock>, shutdown: Arc<Shutdown>) {
        let mut failure = self.failure.subscribe();
        loop {
            tokio::select! {
                // The sender lives as long as `self`.
                failing = failure.wait_for(Option::is_some) => drop(failing),
                () = shutdown.wait() => return,
            }
            tracing::warn!(reason = self.failure(), "the store is read-only; retrying until a write succeeds");
            while self.failure().is_some() {
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = shutdown.wait() => return,
                }
                if self.is_on_reserve() && !self.leave_reserve() {
                    // A probe would succeed from the reserve's space. The disk counts as recovered once the whole
                    // reserve fits again.
                    continue;
                }
                self.probe(&*clock).await;
            }
            tracing::info!("the store is writable again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use muster_core::id::EnrollmentKeyId;
    use muster_core::time::Timestamp;
    use muster_store::{EnrollmentKeyWrite, Precondition};

    use super::*;

    #[test]
    fn failure_lasts_until_a_write_succeeds() {
        let store = WatchedStore::new(Arc::new(muster_store::testing::fresh()));
        assert_eq!(store.failure(), None);
        let full = StoreError::unavailable("disk full");
        store.note(Some(&full));
        assert_eq!(store.failure().as_deref(), Some("not applied: disk full"));
        store.note(Some(&StoreError::Conflict(Precondition::Missing("x".into()))));
        assert!(store.failure().is_some(), "a refused precondition says nothing of the disk");
        store.note(None);
        store.note(Some(&StoreError::crowded()));
        assert_eq!(store.failure(), None, "neither does a full queue");
        store.note(None);
        assert_eq!(store.failure(), None);
    }

    /// A disk with space for `room` commits, and a reserve of as many parts, each for two more.
    struct Small {
        room: AtomicI64,
        reserve: AtomicI64,
        has_room_again: AtomicBool,
    }

    impl Small {
        fn new(room: i64, reserve: i64) -> Arc<Self> {
            Arc::new(Self { room: room.into(), reserve: reserve.into(), has_room_again: false.into() })
        }

        fn take(counter: &AtomicI64) -> bool {
            counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n > 0).then(|| n - 1)).is_ok()
        }

        fn commit(&self) -> Applying<'static> {
            let outcome = Self::take(&self.room).then(Committed::default);
            Box::pin(std::future::ready(outcome.ok_or_else(|| StoreError::no_room("disk full"))))
        }
    }

    impl Disk for Small {
        fn free_bytes(&self) -> Option<u64> {
            u64::try_from(self.room.load(Ordering::SeqCst)).ok().map(|room| room << 20)
        }

        fn is_full(&self) -> bool {
            self.room.load(Ordering::SeqCst) == 0
        }

        fn release_reserve(&self) -> bool {
            let there = Self::take(&self.reserve);
            self.room.fetch_add(if there { 2 } else { 0 }, Ordering::SeqCst);
            there
        }

        fn restore_reserve(&self) -> bool {
            self.has_room_again.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn busy_store_does_not_release_the_reserve() {
        let disk = Small::new(1, 1);
        let store = WatchedStore::new(Arc::new(muster_store::testing::fresh()));
        store.use_disk(disk.clone(), false);
        let busy = |_: Vec<Write>| -> Applying<'_> { Box::pin(std::future::ready(Err(StoreError::crowded()))) };
        store.commit_by(vec![revoke()], busy).await.unwrap_err();
        assert!(!store.is_on_reserve() && disk.reserve.load(Ordering::SeqCst) == 1);
    }

    fn change() -> Write {
        SettingWrite::Put { name: "x".into(), value: "y".into() }.into()
    }

    fn revoke() -> Write {
        EnrollmentKeyWrite::Revoke { id: EnrollmentKeyId::trusted("k"), now: Timestamp::from_micros(0) }.into()
    }

    #[tokio::test]
    async fn only_revocations_use_the_reserve_of_a_full_disk() {
        let disk = Small::new(1, 1);
        let store = WatchedStore::new(Arc::new(muster_store::testing::fresh()));
        store.use_disk(disk.clone(), false);
        let apply = |_: Vec<Write>| disk.commit();
        let commit = async |write: fn() -> Write| store.commit_by(vec![write()], apply).await;
        commit(change).await.unwrap();
        commit(change).await.unwrap_err();
        assert!(!store.is_on_reserve(), "an ordinary write leaves the reserve alone");
        commit(revoke).await.unwrap();
        assert!(store.is_on_reserve());
        let refused = commit(change).await.unwrap_err();
        assert!(refused.to_string().contains("only revoking and deleting"), "{refused}");
        commit(revoke).await.unwrap();
        assert!(store.trouble().unwrap().contains("is read-only"), "one that went through makes nothing well");
        commit(revoke).await.unwrap_err();

        assert!(!store.leave_reserve());
        disk.has_room_again.store(true, Ordering::SeqCst);
        disk.room.store(9, Ordering::SeqCst);
        assert!(store.leave_reserve());
        commit(change).await.unwrap();
        assert_eq!(store.trouble(), None);
    }

    #[tokio::test]
    async fn full_disk_at_the_start_is_reported_although_the_log_has_room() {
        // The log that a killed server left has room for a few commits.
        let disk = Small::new(3, 1);
        let store = WatchedStore::new(Arc::new(muster_store::testing::fresh()));
        store.use_disk(disk.clone(), true);
        let apply = |_: Vec<Write>| disk.commit();
        assert!(store.trouble().unwrap().contains("the disk is full"));
        store.commit_by(vec![change()], apply).await.unwrap_err();
        store.commit_by(vec![revoke()], apply).await.unwrap();
        disk.has_room_again.store(true, Ordering::SeqCst);
        assert!(!store.leave_reserve(), "two megabytes are less than the disk must have");
        disk.room.store(9, Ordering::SeqCst);
        assert!(store.leave_reserve());
        store.commit_by(vec![change()], apply).await.unwrap();
        assert_eq!(store.trouble(), None);
    }

    #[tokio::test]
    async fn reserve_is_released_part_by_part() {
        let disk = Small::new(0, 2);
        let store = WatchedStore::new(Arc::new(muster_store::testing::fresh()));
        store.use_disk(disk.clone(), true);
        let apply = |_: Vec<Write>| disk.commit();
        store.commit_by(vec![revoke()], apply).await.unwrap();
        assert_eq!(disk.reserve.load(Ordering::SeqCst), 1);
        // Another program fills the disk again.
        disk.room.store(0, Ordering::SeqCst);
        store.commit_by(vec![revoke()], apply).await.unwrap();
        disk.room.store(0, Ordering::SeqCst);
        let error = store.commit_by(vec![revoke()], apply).await.unwrap_err();
        let told = muster_core::Error::from(error);
        assert!(told.message.contains("disk full") && told.remedy.unwrap().contains("free a few megabytes"));
    }
}
