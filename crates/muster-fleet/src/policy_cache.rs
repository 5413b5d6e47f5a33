//! Rendered policies of this node: the newest revision of each, rendered once however many agents wait for it.
//!
//! Reads are an atomic load and a look into an immutable map. Loading is serialised per policy, so that a thousand
//! agents that come at once cost one read of the store and one rendering.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use muster_core::Error;
use muster_core::id::{PolicyId, SecretId};
use muster_core::policy::PolicyRevision;
pub use muster_core::policy::RenderedPolicy;
use muster_core::seal::Sealer;
use muster_core::secret_refs::{self, Secrets};
use muster_store::Store;

pub use super::secrets::open_secrets;

/// Policies kept at most.
const MAX_POLICIES: usize = 8192;
/// Memory that their pieces may take, bytes.
const MAX_BYTES: usize = 512 << 20;

/// The rendered policies of this node.
pub struct PolicyCache {
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    slots: ArcSwap<HashMap<PolicyId, Arc<Slot>>>,
    /// Held while the map is replaced.
    replacing: Mutex<()>,
    /// Grows with every policy that is loaded: the time by which the least recently used one is found.
    clock: AtomicU64,
    max_policies: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct Slot {
    rendered: ArcSwapOption<RenderedPolicy>,
    used: AtomicU64,
    /// Refreshes asked for so far.
    asked: AtomicU64,
    /// How many of them the last load covers; the lock is held while loading.
    covered: tokio::sync::Mutex<u64>,
}

impl PolicyCache {
    /// An empty cache over this store.
    pub fn new(store: Arc<dyn Store>, sealer: Arc<Sealer>) -> Self {
        Self::bounded(store, sealer, MAX_POLICIES, MAX_BYTES)
    }

    pub(super) fn bounded(store: Arc<dyn Store>, sealer: Arc<Sealer>, max_policies: usize, max_bytes: usize) -> Self {
        Self {
            store,
            sealer,
            slots: ArcSwap::default(),
            replacing: Mutex::new(()),
            clock: AtomicU64::new(0),
            max_policies,
            max_bytes,
        }
    }

    /// The policy's newest revision as this node knows it; never waits.
    pub fn cached(&self, id: &PolicyId) -> Option<Arc<RenderedPolicy>> {
        let slots = self.slots.load();
        let slot = slots.get(id)?;
        let now = self.clock.load(Ordering::Relaxed);
        // Written only when it changes: thousands of check-ins a second read this line of memory, on every core.
        if slot.used.load(Ordering::Relaxed) != now {
            slot.used.store(now, Ordering::Relaxed);
        }
        slot.rendered.load_full()
    }

    /// The policy's newest revision; loads it when this node does not know it yet. `None`: there is no such policy.
    pub async fn get(&self, id: &PolicyId) -> Result<Option<Arc<RenderedPolicy>>, Error> {
        match self.cached(id) {
            Some(rendered) => Ok(Some(rendered)),
            None => self.refresh(id).await,
        }
    }

    /// Looks whether the store has a newer revision, and renders it. Whoever asks while another one loads waits for a
    /// load that began after the question.
    pub async fn refresh(&self, id: &PolicyId) -> Result<Option<Arc<RenderedPolicy>>, Error> {
        let slot = self.slot(id);
        // One load serves all that asked before it began. A roll-out wakes every agent of a policy at once, and each asks.
        let ticket = slot.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut covered = slot.covered.lock().await;
        if *covered >= ticket {
            return Ok(slot.rendered.load_full());
        }
        let covers = slot.asked.load(Ordering::SeqCst);
        let rendered = self.load(id, slot.rendered.load_full()).await?;
        *covered = covers;
        slot.rendered.store(rendered.clone());
        match &rendered {
            Some(_) => self.shrink(id),
            None => self.forget(id),
        }
        Ok(rendered)
    }

    async fn load(
        &self,
        id: &PolicyId,
        known: Option<Arc<RenderedPolicy>>,
    ) -> Result<Option<Arc<RenderedPolicy>>, Error> {
        let Some(newest) = self.store.policy_newest_revision(id).await? else { return Ok(None) };
        if let Some(known) = known.filter(|known| known.revision == newest.revision) {
            return Ok(Some(known));
        }
        match self.rendered(newest).await {
            Ok(rendered) => Ok(Some(Arc::new(rendered))),
            // Secrets go with the revisions that used them: perhaps there is a newer one by now.
            Err(_) => match self.store.policy_newest_revision(id).await? {
                Some(newest) => Ok(Some(Arc::new(self.rendered(newest).await?))),
                None => Ok(None),
            },
        }
    }

    async fn rendered(&self, revision: PolicyRevision) -> Result<RenderedPolicy, Error> {
        let ids: Vec<SecretId> = secret_refs::ids(&revision.compiled).into_iter().collect();
        let secrets = open_secrets(&*self.store, &self.sealer, &ids).await?;
        let render = move || render(&revision, &secrets);
        // Rendering and compressing a large policy takes milliseconds; held polls of this thread would wait.
        tokio::task::spawn_blocking(render).await.map_err(|error| Error::internal(error.to_string()))?
    }

    fn slot(&self, id: &PolicyId) -> Arc<Slot> {
        if let Some(slot) = self.slots.load().get(id) {
            return Arc::clone(slot);
        }
        let mut slot = Arc::default();
        self.replace(|slots| slot = Arc::clone(slots.entry(id.clone()).or_default()));
        slot
    }

    fn forget(&self, id: &PolicyId) {
        self.replace(|slots| drop(slots.remove(id)));
    }

    /// Lets go of the least recently used policies, but not of `newest`, until the rest is within bounds.
    fn shrink(&self, newest: &PolicyId) {
        // Whoever is read from now on counts as used later than this one was loaded.
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = self.slots.load().get(newest) {
            slot.used.store(now, Ordering::Relaxed);
        }
        if self.is_within_bounds(&self.slots.load()) {
            return;
        }
        self.replace(|slots| {
            while slots.len() > 1 && !self.is_within_bounds(slots) {
                let others = slots.iter().filter(|(id, _)| *id != newest);
                let oldest = others.min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed)).map(|(id, _)| id.clone());
                oldest.and_then(|id| slots.remove(&id));
            }
        });
    }

    fn is_within_bounds(&self, slots: &HashMap<PolicyId, Arc<Slot>>) -> bool {
        let memory = |slot: &Arc<Slot>| slot.rendered.load().as_ref().map_or(0, |rendered| rendered.memory());
        slots.len() <= self.max_policies && slots.values().map(memory).sum::<usize>() <= self.max_bytes
    }

    fn replace(&self, change: impl FnOnce(&mut HashMap<PolicyId, Arc<Slot>>)) {
        let _guard = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        // Copied and exchanged: reads, which are nearly all there is, take no lock.
        let mut slots = HashMap::clone(&self.slots.load());
        change(&mut slots);
        self.slots.store(Arc::new(slots));
    }
}

impl fmt::Debug for PolicyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyCache({} policies)", self.slots.load().len())
    }
}

fn render(revision: &PolicyRevision, secrets: &Secrets) -> Result<RenderedPolicy, Error> {
    RenderedPolicy::new(revision, secrets).map_err(|error| {
        Error::internal(format!("policy {} revision {}: {error}", revision.policy_id, revision.revision))
    })
}
