//! Cache of rendered policies: each revision is rendered once per node, however many agents need it.
//!
//! Cached revisions are immutable; the number of a policy's newest revision is stored next to them. A read is an
//! atomic load and a look-up in an immutable map. Loads are serialized per revision, so that a thousand agents that
//! check in at the same time cost one read of the store and one rendering.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::error_chain::SharedError;
use muster_core::id::{PolicyId, SecretId};
use muster_core::policy::PolicyRevision;
pub use muster_core::policy::RenderedPolicy;
use muster_core::policy::render::signed_with;
use muster_core::rollout::Rollout;
use muster_core::seal::Sealer;
use muster_core::secret_refs::{self, Secrets};
use muster_core::signing::Signer;
use muster_store::Store;
use tokio::sync::OnceCell;

pub use super::secrets::open_secrets;

/// Maximum number of cached revisions.
const MAX_REVISIONS: usize = 8192;
/// Maximum memory of their rendered pieces, in bytes.
const MAX_BYTES: usize = 512 << 20;

/// Maximum number of cached revisions that were signed with a former key.
const MAX_SIGNED: usize = 64;

/// Cache of rendered policies.
pub struct PolicyCache {
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    policies: ArcSwap<HashMap<PolicyId, Arc<Known>>>,
    /// The newest revisions that were signed with a former key, for agents that have no other, with that key.
    signed: tokio::sync::Mutex<Vec<(Arc<str>, Arc<RenderedPolicy>)>>,
    /// Held while the map, or the revisions of a policy in it, are replaced. Readers never take it.
    replacing: Mutex<()>,
    /// Logical clock for the eviction of the least recently used revision; advances with every load.
    clock: AtomicU64,
    max_revisions: usize,
    max_bytes: usize,
}

/// A cached policy.
#[derive(Default)]
struct Known {
    /// Number of its newest revision; 0 if not known yet.
    newest: AtomicI64,
    /// The active rollout of its newest revision.
    rollout: ArcSwapOption<Rollout>,
    /// Its cached revisions: the newest, and those that are targets of agents.
    revisions: ArcSwap<Vec<Arc<Slot>>>,
    /// Number of refreshes requested so far.
    asked: AtomicU64,
    /// Number of refreshes that the last load has served. The lock is held while loading.
    covered: tokio::sync::Mutex<u64>,
}

/// One revision, loading or loaded.
struct Slot {
    revision: i64,
    rendered: OnceCell<Arc<RenderedPolicy>>,
    used: AtomicU64,
}

/// Why a revision was not loaded.
enum Missing {
    /// There is no such revision.
    Revision,
    /// It could not be read or rendered.
    Rendered(Error),
}

impl From<Error> for Missing {
    fn from(error: Error) -> Self {
        Self::Rendered(error)
    }
}

impl Known {
    fn slot(&self, revision: i64) -> Option<Arc<Slot>> {
        self.revisions.load().iter().find(|slot| slot.revision == revision).cloned()
    }
}

impl PolicyCache {
    /// Creates an empty cache over `store`.
    pub fn new(store: Arc<dyn Store>, sealer: Arc<Sealer>) -> Self {
        Self::bounded(store, sealer, MAX_REVISIONS, MAX_BYTES)
    }

    pub(super) fn bounded(store: Arc<dyn Store>, sealer: Arc<Sealer>, max_revisions: usize, max_bytes: usize) -> Self {
        Self {
            store,
            sealer,
            policies: ArcSwap::default(),
            signed: tokio::sync::Mutex::default(),
            replacing: Mutex::new(()),
            clock: AtomicU64::new(0),
            max_revisions,
            max_bytes,
        }
    }

    /// Returns a revision if it is cached; never waits.
    pub fn cached(&self, id: &PolicyId, revision: i64) -> Option<Arc<RenderedPolicy>> {
        let policies = self.policies.load();
        let revisions = policies.get(id)?.revisions.load();
        let slot = revisions.iter().find(|slot| slot.revision == revision)?;
        let rendered = slot.rendered.get()?;
        let now = self.clock.load(Ordering::Relaxed);
        // Written only when it changes: all cores read this cache line thousands of times a second, and each write
        // would invalidate it on the others.
        if slot.used.load(Ordering::Relaxed) != now {
            slot.used.store(now, Ordering::Relaxed);
        }
        Some(Arc::clone(rendered))
    }

    /// Returns a rendered revision, cached or loaded; `None` if there is no such revision.
    pub async fn get(&self, id: &PolicyId, revision: i64) -> Result<Option<Arc<RenderedPolicy>>, Error> {
        match self.cached(id, revision) {
            Some(rendered) => Ok(Some(rendered)),
            None => self.load(id, revision, None).await,
        }
    }

    /// Returns a revision signed with another key.
    pub(crate) async fn signed_with(
        &self,
        policy: &Arc<RenderedPolicy>,
        signer: &Arc<Signer>,
    ) -> Result<Arc<RenderedPolicy>, Error> {
        // Held while rendering: a new key is delivered to all agents of a policy at once, and one rendering serves them all.
        let mut signed = self.signed.lock().await;
        let is_it = |(key, cached): &(Arc<str>, Arc<RenderedPolicy>)| {
            &**key == signer.public_key()
                && (&cached.policy_id, cached.revision) == (&policy.policy_id, policy.revision)
        };
        if let Some((_, found)) = signed.iter().find(|one| is_it(one)) {
            return Ok(Arc::clone(found));
        }
        let stored = self.store.policy_revision(&policy.policy_id, policy.revision).await.map_err(Error::from)?;
        // Deleted meanwhile: it is delivered as it is, for the last time.
        let Some(stored) = stored else { return Ok(Arc::clone(policy)) };
        let failed = |error| Error::internal(SharedError::during("signing a policy with a former key", error));
        let rendered = self.rendered(signed_with(stored, signer).map_err(failed)?).await?;
        if signed.len() >= MAX_SIGNED {
            signed.remove(0);
        }
        signed.push((signer.public_key().into(), Arc::clone(&rendered)));
        Ok(rendered)
    }

    /// Returns the number of the policy's newest revision, cached or from the store; `None` if there is no such policy.
    pub async fn newest_revision(&self, id: &PolicyId) -> Result<Option<i64>, Error> {
        match self.known_newest(id) {
            Some(newest) => Ok(Some(newest)),
            None => Ok(self.refresh(id).await?.map(|rendered| rendered.revision)),
        }
    }

    /// Returns the revision that an agent should run which follows the policy: the newest one, or the last good one while
    /// a rollout of the newest one has not reached the agent.
    pub(crate) async fn followed_revision(&self, id: &PolicyId, record: &AgentRecord) -> Result<Option<i64>, Error> {
        let Some(newest) = self.newest_revision(id).await? else { return Ok(None) };
        let policies = self.policies.load();
        let rollout = policies.get(id).and_then(|known| known.rollout.load_full());
        Ok(Some(rollout.map_or(newest, |rollout| rollout.revision_for(&record.id, &record.tags, newest))))
    }

    /// Returns the policy's newest revision as known to this node.
    pub async fn newest(&self, id: &PolicyId) -> Result<Option<Arc<RenderedPolicy>>, Error> {
        match self.known_newest(id) {
            Some(newest) => self.get(id, newest).await,
            None => self.refresh(id).await,
        }
    }

    /// Returns the number of the policy's newest revision, if cached.
    pub(crate) fn known_newest(&self, id: &PolicyId) -> Option<i64> {
        let newest = self.policies.load().get(id)?.newest.load(Ordering::Acquire);
        (newest > 0).then_some(newest)
    }

    /// Empties the cache, after changes of policies may have been missed.
    pub(crate) fn clear(&self) {
        self.replace(HashMap::clear);
    }

    /// Reads the newest revision from the store and renders it. A call during another one's load waits for a load that
    /// starts after the call, so that it never returns a revision older than the store had when it was called.
    pub async fn refresh(&self, id: &PolicyId) -> Result<Option<Arc<RenderedPolicy>>, Error> {
        let known = self.known(id);
        // One load serves all calls that were made before it started. A new revision wakes all agents of a policy, and
        // each of them may call this.
        let ticket = known.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut covered = known.covered.lock().await;
        // A load that began after this call has finished while the lock was waited for.
        if *covered >= ticket {
            return match known.newest.load(Ordering::Acquire) {
                0 => Ok(None),
                newest => self.get(id, newest).await,
            };
        }
        // Read before the load: tickets drawn during it may ask about a change that it has not seen.
        let covers = known.asked.load(Ordering::SeqCst);
        let rendered = self.load_newest(id).await?;
        // Read after the revision and set before it: a revision that is rolled out is committed together with its rollout, so
        // whoever sees the revision sees the rollout too.
        known.rollout.store(self.store.active_rollout_of(id).await?.map(Arc::new));
        *covered = covers;
        match &rendered {
            Some(rendered) => self.advance(id, &known, rendered.revision),
            None => {
                // Deleted. The entry may still be held by others, who must not find a number in it.
                known.newest.store(0, Ordering::Release);
                self.replace(|policies| drop(policies.remove(id)));
            }
        }
        Ok(rendered)
    }

    async fn load_newest(&self, id: &PolicyId) -> Result<Option<Arc<RenderedPolicy>>, Error> {
        let Some(newest) = self.store.policy_newest_revision(id).await? else { return Ok(None) };
        if let Some(rendered) = self.cached(id, newest.revision) {
            return Ok(Some(rendered));
        }
        match self.load(id, newest.revision, Some(newest)).await {
            Ok(rendered) => Ok(rendered),
            // When an output's secret is replaced, the old one is deleted in the commit of the new revision. The
            // revision read above may have become unreadable since, so the newest one is read again.
            Err(_) => match self.store.policy_newest_revision(id).await? {
                Some(newest) => self.load(id, newest.revision, Some(newest)).await,
                None => Ok(None),
            },
        }
    }

    /// Sets the policy's newest revision and evicts the previous one. If that is a target of agents, it is loaded
    /// again.
    fn advance(&self, id: &PolicyId, known: &Known, newest: i64) {
        let before = known.newest.swap(newest, Ordering::AcqRel);
        if before != newest {
            self.replace(|policies| {
                if let Some(known) = policies.get(id) {
                    retain(known, |slot| slot.revision != before);
                }
            });
        }
    }

    /// Renders a revision, after reading it if `stored` is `None`, and evicts others above the limits. Concurrent calls
    /// wait for one load.
    async fn load(
        &self,
        id: &PolicyId,
        revision: i64,
        stored: Option<PolicyRevision>,
    ) -> Result<Option<Arc<RenderedPolicy>>, Error> {
        let slot = self.slot(id, revision);
        let load = async {
            let stored = match stored {
                Some(stored) => stored,
                None => {
                    self.store.policy_revision(id, revision).await.map_err(Error::from)?.ok_or(Missing::Revision)?
                }
            };
            self.rendered(stored).await.map_err(Missing::Rendered)
        };
        match slot.rendered.get_or_try_init(|| load).await {
            Ok(rendered) => {
                self.shrink(&slot);
                Ok(Some(Arc::clone(rendered)))
            }
            Err(missing) => {
                // An empty slot must not stay: any client that asks for revisions that don't exist would fill the
                // cache. The slot is kept if another call has loaded it in the meantime.
                self.replace(|policies| {
                    if let Some(known) = policies.get(id) {
                        retain(known, |other| !Arc::ptr_eq(other, &slot) || other.rendered.get().is_some());
                    }
                });
                match missing {
                    Missing::Revision => Ok(None),
                    Missing::Rendered(error) => Err(error),
                }
            }
        }
    }

    async fn rendered(&self, revision: PolicyRevision) -> Result<Arc<RenderedPolicy>, Error> {
        let ids: Vec<SecretId> = secret_refs::ids(&revision.compiled).into_iter().collect();
        let secrets = open_secrets(&*self.store, &self.sealer, &ids).await?;
        let render = move || render(&revision, &secrets);
        // Rendering and compressing a large policy takes milliseconds, in which this thread's connections would wait.
        let rendered = tokio::task::spawn_blocking(render).await.map_err(Error::internal)?;
        rendered.map(Arc::new)
    }

    fn known(&self, id: &PolicyId) -> Arc<Known> {
        if let Some(known) = self.policies.load().get(id) {
            return Arc::clone(known);
        }
        let mut known = Arc::default();
        self.replace(|policies| known = Arc::clone(policies.entry(id.clone()).or_default()));
        known
    }

    fn slot(&self, id: &PolicyId, revision: i64) -> Arc<Slot> {
        let known = self.known(id);
        if let Some(slot) = known.slot(revision) {
            return slot;
        }
        let _guard = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked up again under the lock, since two concurrent loads of a revision must share one slot.
        known.slot(revision).unwrap_or_else(|| {
            let slot = Arc::new(Slot { revision, rendered: OnceCell::new(), used: AtomicU64::new(0) });
            let mut revisions = Vec::clone(&known.revisions.load());
            revisions.push(Arc::clone(&slot));
            known.revisions.store(Arc::new(revisions));
            slot
        })
    }

    /// Evicts the least recently used revisions, except `loaded`, until the cache is within its limits.
    fn shrink(&self, loaded: &Arc<Slot>) {
        // Reads from now on store the advanced clock, and so count as later than this load.
        loaded.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        if self.is_within_bounds(&self.policies.load()) {
            return;
        }
        self.replace(|policies| {
            while !self.is_within_bounds(policies) {
                // Quadratic in the number of revisions, but it runs only for a load above the limits.
                let slots = policies.iter().flat_map(|(id, known)| {
                    known.revisions.load().iter().map(|slot| (id.clone(), Arc::clone(slot))).collect::<Vec<_>>()
                });
                let others = slots.filter(|(_, slot)| !Arc::ptr_eq(slot, loaded));
                let Some((id, oldest)) = others.min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed)) else {
                    return;
                };
                if let Some(known) = policies.get(&id) {
                    retain(known, |slot| !Arc::ptr_eq(slot, &oldest));
                    if known.revisions.load().is_empty() {
                        policies.remove(&id);
                    }
                }
            }
        });
    }

    fn is_within_bounds(&self, policies: &HashMap<PolicyId, Arc<Known>>) -> bool {
        // Counted anew for each load, because revisions have their size only when they are rendered.
        let (mut revisions, mut bytes) = (0, 0);
        for known in policies.values() {
            for slot in known.revisions.load().iter() {
                revisions += 1;
                bytes += slot.rendered.get().map_or(0, |rendered| rendered.memory());
            }
        }
        revisions <= self.max_revisions && bytes <= self.max_bytes
    }

    fn replace(&self, change: impl FnOnce(&mut HashMap<PolicyId, Arc<Known>>)) {
        let _guard = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        // Copy on write: loads are rare, and reads take no lock.
        let mut policies = HashMap::clone(&self.policies.load());
        change(&mut policies);
        self.policies.store(Arc::new(policies));
    }
}

impl fmt::Debug for PolicyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyCache({} policies)", self.policies.load().len())
    }
}

/// Keeps the revisions for which `wanted` is true. The caller must hold `replacing`.
fn retain(known: &Known, wanted: impl Fn(&Arc<Slot>) -> bool) {
    let kept: Vec<_> = known.revisions.load().iter().filter(|slot| wanted(slot)).cloned().collect();
    known.revisions.store(Arc::new(kept));
}

fn render(revision: &PolicyRevision, secrets: &Secrets) -> Result<RenderedPolicy, Error> {
    RenderedPolicy::new(revision, secrets).map_err(|error| {
        Error::internal(SharedError::during(
            format!("policy {} revision {}", revision.policy_id, revision.revision),
            error,
        ))
    })
}
