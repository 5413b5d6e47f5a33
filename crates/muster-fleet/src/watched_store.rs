//! The store, and whether it takes writes: what probes and agents are told while a disk is full or read-only.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use muster_core::authorization::{AuditRead, Grant};
use muster_core::id::SpaceId;
use muster_core::time::Clock;
use muster_store::{AuditStore, Committed, FileStore, Resources, SettingWrite, Store, StoreError, Write};
use tokio::sync::watch;

use super::authority::{Authority, System, Unscoped};
use super::disk::{Disk, is_relief};
use super::scope::Scoped;
use super::stopping::Stopping;

/// Between two tries of a store that takes no writes.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// The setting that is written to see whether anything can be.
const PROBE: &str = "write_probe";
/// Why a write is refused that may not use the reserve.
const ON_RESERVE: &str = "the disk is full; only revoking and deleting are possible";

type Applying<'a> = Pin<Box<dyn Future<Output = Result<Committed, StoreError>> + Send + 'a>>;

/// The store, which notes how the last commit went. Whoever reads or commits names an authority.
pub struct WatchedStore {
    inner: Arc<dyn Store>,
    /// Whether `failure` holds one: a commit that goes well looks no further.
    failing: AtomicBool,
    failure: watch::Sender<Option<String>>,
    disk: OnceLock<Arc<dyn Disk>>,
    /// Whether the disk's reserve was given back: what room there is, is for a few writes only.
    on_reserve: AtomicBool,
}

impl WatchedStore {
    /// Over a store that is taken to be well.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            failing: AtomicBool::new(false),
            failure: watch::Sender::new(None),
            disk: OnceLock::new(),
            on_reserve: AtomicBool::new(false),
        }
    }

    /// Says on which disk the store lies, once. `on_reserve`: its reserve had to be given back to open the store.
    pub fn lies_on(&self, disk: Arc<dyn Disk>, on_reserve: bool) {
        // A second disk would be a mistake of the caller; the first one stays.
        let _ = self.disk.set(disk);
        if on_reserve {
            self.now_on_reserve();
        }
    }

    /// Bytes that may still be written; `None` when that can't be told.
    pub fn free_bytes(&self) -> Option<u64> {
        self.disk.get()?.free_bytes()
    }

    /// Sets the disk's reserve aside, if there is room.
    pub fn set_reserve_aside(&self) {
        if self.disk.get().is_some_and(|disk| !disk.restore_reserve()) {
            tracing::warn!("not enough disk space for the reserve: on a full disk, nothing can be revoked");
        }
    }

    fn now_on_reserve(&self) {
        self.on_reserve.store(true, Ordering::Relaxed);
        self.note(Some(&StoreError::Unavailable { reason: ON_RESERVE.into() }));
    }

    fn is_on_reserve(&self) -> bool {
        self.on_reserve.load(Ordering::Relaxed)
    }

    /// Sets the reserve aside again, if there is room. Returns false while there is none.
    fn leave_reserve(&self) -> bool {
        let restored = self.disk.get().is_none_or(|disk| disk.restore_reserve());
        if restored {
            self.on_reserve.store(false, Ordering::Relaxed);
        }
        restored
    }

    /// What a person may see: the space of the grant.
    pub fn seen_by<'a, P>(&'a self, grant: &'a Grant<P>) -> Scoped<'a> {
        Scoped::new(&*self.inner, grant.space())
    }

    /// One space, for the server's own work on what is in it.
    pub(crate) fn within<'a>(&'a self, _by: &System, space: &'a SpaceId) -> Scoped<'a> {
        Scoped::new(&*self.inner, space)
    }

    /// All spaces, for whoever asks for no person.
    pub fn everywhere(&self, _by: &(impl Unscoped + ?Sized)) -> &dyn Resources {
        &*self.inner
    }

    /// The audit log, which is of no space.
    pub fn audit(&self, _grant: &Grant<AuditRead>) -> &dyn AuditStore {
        &*self.inner
    }

    /// The bytes of files, for what outlives the caller; who may have them was decided before.
    pub(crate) fn share_files(&self) -> Arc<dyn FileStore> {
        Arc::clone(&self.inner) as Arc<dyn FileStore>
    }

    /// Applies all writes or none in the name of `by`, and notes whether the store took them; in a dry run nothing.
    pub async fn commit(&self, by: &(impl Authority + ?Sized), writes: Vec<Write>) -> Result<Committed, StoreError> {
        if by.is_dry_run() {
            return Ok(Committed::default());
        }
        self.commit_by(writes, |writes| self.inner.commit(writes)).await
    }

    async fn commit_by<'a>(
        &'a self,
        writes: Vec<Write>,
        apply: impl Fn(Vec<Write>) -> Applying<'a> + Send,
    ) -> Result<Committed, StoreError> {
        let relief = is_relief(&writes);
        if self.is_on_reserve() && !relief {
            return Err(StoreError::Unavailable { reason: ON_RESERVE.into() });
        }
        // Only these are tried twice, and they are few and small.
        let again = relief.then(|| writes.clone());
        let mut outcome = apply(writes).await;
        // Not for a store that is merely busy: the reserve is for a disk that is full.
        if let (Some(writes), Err(error)) = (again, &outcome)
            && error.lacks_room()
            && self.disk.get().is_some_and(|disk| disk.release_reserve())
        {
            tracing::warn!("the disk is full: released the reserve for revoking and deleting");
            self.now_on_reserve();
            outcome = apply(writes).await;
        }
        if !self.is_on_reserve() {
            self.note(outcome.as_ref().err());
        }
        outcome
    }

    /// Why the store is not well: it is damaged, or takes no writes. `None` while it is.
    pub fn trouble(&self) -> Option<String> {
        let damaged = |reason| format!("the store is corrupt: {reason}; restore it from a backup");
        let failing = || self.failure().map(|reason| format!("the store is read-only: {reason}"));
        self.inner.damage().map(damaged).or_else(failing)
    }

    /// Why the store is read-only: the error of the last write; `None` while it accepts writes.
    pub fn failure(&self) -> Option<String> {
        if self.failing.load(Ordering::Relaxed) { self.failure.borrow().clone() } else { None }
    }

    /// Notes how the store answered: an error that is no conflict makes it failing, a success ends that.
    pub fn note(&self, error: Option<&StoreError>) {
        match error {
            None if !self.failing.load(Ordering::Relaxed) => {}
            // A precondition is refused by a store that may be well or not.
            Some(StoreError::Conflict(_)) => {}
            error => {
                self.failing.store(error.is_some(), Ordering::Relaxed);
                self.failure.send_replace(error.map(ToString::to_string));
            }
        }
    }
}

impl WatchedStore {
    /// Writes something, to learn whether the store takes writes; the outcome is noted by the commit itself.
    pub async fn probe(&self, clock: &dyn Clock) {
        let value = clock.now().to_string();
        let _ = self.commit(&System, vec![Write::Setting(SettingWrite::Put { name: PROBE.into(), value })]).await;
    }

    /// Tries a store that took no write until it takes one again, so that the server is well again by itself even
    /// when nobody else writes. A store that is well is left alone.
    pub(crate) async fn keep_trying(self: Arc<Self>, clock: Arc<dyn Clock>, stopping: Arc<Stopping>) {
        let mut failure = self.failure.subscribe();
        loop {
            tokio::select! {
                // The sender lives as long as `self`.
                failing = failure.wait_for(Option::is_some) => drop(failing),
                () = stopping.begun() => return,
            }
            tracing::warn!(reason = ?self.failure(), "the store is read-only; retrying until a write succeeds");
            while self.failure().is_some() {
                tokio::select! {
                    () = tokio::time::sleep(TRY_AGAIN) => {}
                    () = stopping.begun() => return,
                }
                if self.is_on_reserve() && !self.leave_reserve() {
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
    fn a_failure_stays_until_a_write_goes_through() {
        let store = WatchedStore::new(Arc::new(muster_store::testing::fresh()));
        assert_eq!(store.failure(), None);
        let full = StoreError::Unavailable { reason: "disk full".into() };
        store.note(Some(&full));
        assert_eq!(store.failure().as_deref(), Some("not applied: disk full"));
        store.note(Some(&StoreError::Conflict(Precondition::Missing("x".into()))));
        assert!(store.failure().is_some(), "a refused precondition says nothing of the disk");
        store.note(None);
        assert_eq!(store.failure(), None);
    }

    /// A disk with room for so many commits, and a reserve with room for two more.
    struct Small {
        room: AtomicI64,
        reserve: AtomicBool,
        has_room_again: AtomicBool,
    }

    impl Disk for Small {
        fn free_bytes(&self) -> Option<u64> {
            u64::try_from(self.room.load(Ordering::SeqCst)).ok()
        }

        fn release_reserve(&self) -> bool {
            let there = self.reserve.swap(false, Ordering::SeqCst);
            self.room.fetch_add(if there { 2 } else { 0 }, Ordering::SeqCst);
            there
        }

        fn restore_reserve(&self) -> bool {
            self.has_room_again.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn busy_store_leaves_the_reserve_alone() {
        let disk = Arc::new(Small { room: 1.into(), reserve: true.into(), has_room_again: false.into() });
        let store = WatchedStore::new(Arc::new(muster_store::testing::fresh()));
        store.lies_on(disk.clone(), false);
        let busy = |_: Vec<Write>| -> Applying<'_> {
            let reason = "too much is waiting for the store".into();
            Box::pin(std::future::ready(Err(StoreError::Unavailable { reason })))
        };
        store.commit_by(vec![revoke()], busy).await.unwrap_err();
        assert!(!store.is_on_reserve() && disk.reserve.load(Ordering::SeqCst));
    }

    fn change() -> Write {
        SettingWrite::Put { name: "x".into(), value: "y".into() }.into()
    }

    fn revoke() -> Write {
        EnrollmentKeyWrite::Revoke { id: EnrollmentKeyId::trusted("k"), now: Timestamp::from_micros(0) }.into()
    }

    #[tokio::test]
    async fn full_disk_takes_revocations_from_its_reserve_and_nothing_else() {
        let disk = Arc::new(Small { room: 1.into(), reserve: true.into(), has_room_again: false.into() });
        let store = WatchedStore::new(Arc::new(muster_store::testing::fresh()));
        store.lies_on(disk.clone(), false);
        let apply = |_: Vec<Write>| -> Applying<'_> {
            let taken = disk.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| (room > 0).then(|| room - 1));
            let full = |_| StoreError::Unavailable { reason: "database or disk is full".into() };
            let outcome = taken.map(|_| Committed::default()).map_err(full);
            Box::pin(std::future::ready(outcome))
        };
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
}
