//! Cache of what a node derives from a document of a space, such as the configuration of its hosts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use muster_core::Error;
use muster_core::id::SpaceId;

/// One value for each space. A read is an atomic load and a look-up in an immutable map.
pub(crate) struct SpaceCache<T> {
    known: ArcSwap<HashMap<SpaceId, Arc<T>>>,
    /// Rises whenever something is forgotten: what was loaded before may be stale.
    generation: AtomicU64,
    /// Held while the map is replaced. Readers never take it.
    replacing: Mutex<()>,
    /// Held while a value is loaded, so that ten thousand hosts cost one read of the store.
    loading: tokio::sync::Mutex<()>,
}

impl<T> Default for SpaceCache<T> {
    fn default() -> Self {
        Self {
            known: ArcSwap::default(),
            generation: AtomicU64::default(),
            replacing: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
        }
    }
}

impl<T> SpaceCache<T> {
    /// Returns the value of a space, cached or loaded.
    pub(crate) async fn get(
        &self,
        space: &SpaceId,
        load: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<Arc<T>, Error> {
        if let Some(known) = self.cached(space) {
            return Ok(known);
        }
        let _turn = self.loading.lock().await;
        // Another request has loaded it in the meantime.
        if let Some(known) = self.cached(space) {
            return Ok(known);
        }
        let generation = self.generation.load(Ordering::Acquire);
        let loaded = Arc::new(load.await?);
        self.replace(|known| {
            // Otherwise the document has changed during the load, and the value may be of the former one.
            if self.generation.load(Ordering::Acquire) == generation {
                known.insert(space.clone(), Arc::clone(&loaded));
            }
        });
        Ok(loaded)
    }

    fn cached(&self, space: &SpaceId) -> Option<Arc<T>> {
        self.known.load().get(space).cloned()
    }

    /// Forgets the value of a space, which has changed.
    pub(crate) fn forget(&self, space: &str) {
        self.replace(|known| {
            // While the map is locked, so that no load can insert a value in between.
            self.generation.fetch_add(1, Ordering::AcqRel);
            known.retain(|of, _| of.as_str() != space);
        });
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.replace(|known| {
            self.generation.fetch_add(1, Ordering::AcqRel);
            known.clear();
        });
    }

    fn replace(&self, change: impl FnOnce(&mut HashMap<SpaceId, Arc<T>>)) {
        let _held = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = HashMap::clone(&self.known.load());
        change(&mut known);
        self.known.store(Arc::new(known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_is_loaded_once_until_it_is_forgotten() {
        let (cache, space) = (SpaceCache::default(), SpaceId::default());
        let get = async |value: u8| *cache.get(&space, async move { Ok(value) }).await.unwrap();
        assert_eq!((get(1).await, get(2).await), (1, 1));
        cache.forget(space.as_str());
        assert_eq!((get(3).await, get(4).await), (3, 3));
        cache.clear();
        assert_eq!(get(5).await, 5);
    }

    #[tokio::test]
    async fn what_was_forgotten_while_it_was_loaded_is_not_kept() {
        let (cache, space) = (SpaceCache::default(), SpaceId::default());
        let load = async {
            cache.forget(space.as_str());
            Ok(1)
        };
        assert_eq!(*cache.get(&space, load).await.unwrap(), 1);
        assert_eq!(*cache.get(&space, async { Ok(2) }).await.unwrap(), 2);
    }
}
