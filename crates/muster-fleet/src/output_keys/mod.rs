//! Keys of agents at the clusters of their outputs (EA §6).
//!
//! A check-in never calls a cluster. It compares the keys that a policy needs with those that the agent has, and stores
//! what is missing ([`delivery`]). The background work ([`work`]) creates, changes and invalidates keys in groups, and wakes
//! the agents that wait. What is to be done is in the store, so that nothing is lost while a cluster is away: a key is
//! invalidated even if its agent was deleted long ago.

mod delivery;
pub mod issuer;
mod orphans;
mod trial;
mod work;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_core::documents::{Digest, text_digest};
use muster_core::entropy::random_uuid;
use muster_core::error_chain::SharedError;
use muster_core::id::{ClusterId, KeyId};
use muster_core::output_key::{OutputCluster, OutputKey};
use muster_core::policy::bootstrap::{self, Trial};
use muster_core::policy::issuers::Issuer;
use muster_core::seal::{Place, Sealer};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error};
use muster_store::{OutputKeyWrite, SettingWrite, Write};
use tokio::sync::Notify;
use zeroize::Zeroizing;

pub(crate) use self::delivery::{Keys, Look};
use self::issuer::KeyIssuer;
use self::orphans::Candidates;
use super::authority::System;
use super::policy_cache::PolicyCache;
use super::shutdown::Shutdown;
use super::watched_store::WatchedStore;

/// Setting with the id of this installation in the metadata of keys.
const FLEET: &str = "output_keys_fleet";
/// Interval at which a node that knows of no keys checks whether another node has created some.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The service of output keys.
pub struct OutputKeys {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    sealer: Arc<Sealer>,
    policies: Arc<PolicyCache>,
    issuer: Arc<dyn KeyIssuer>,
    shutdown: Arc<Shutdown>,
    /// Notified when work was added for the background task.
    added: Notify,
    /// Whether there are any keys. Most fleets have none, and skip all reads for them.
    are_any: AtomicBool,
    looked_at: AtomicI64,
    /// The connections that this node has stored, to notice changed ones.
    stored: Mutex<HashMap<ClusterId, Digest>>,
    candidates: Mutex<Candidates>,
}

/// The dependencies of [`OutputKeys`].
pub(crate) struct OutputKeyParts {
    pub(crate) store: Arc<WatchedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) policies: Arc<PolicyCache>,
    pub(crate) issuer: Arc<dyn KeyIssuer>,
    pub(crate) shutdown: Arc<Shutdown>,
}

impl OutputKeys {
    pub(crate) fn new(parts: OutputKeyParts) -> Self {
        let OutputKeyParts { store, clock, entropy, sealer, policies, issuer, shutdown } = parts;
        Self {
            store,
            clock,
            entropy,
            sealer,
            policies,
            issuer,
            shutdown,
            added: Notify::new(),
            are_any: AtomicBool::new(false),
            looked_at: AtomicI64::new(i64::MIN),
            stored: Mutex::default(),
            candidates: Mutex::default(),
        }
    }

    /// Returns whether there are any keys.
    pub(crate) async fn are_any(&self) -> Result<bool, Error> {
        if self.are_any.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let (now, last) = (self.clock.now(), self.looked_at.load(Ordering::Relaxed));
        if last != i64::MIN && now.since(Timestamp::from_micros(last)) < LOOK_EVERY {
            return Ok(false);
        }
        let are_any = self.store.everywhere(&System).has_output_keys().await?;
        self.looked_at.store(now.as_micros(), Ordering::Relaxed);
        // Never back to false: another task may have stored the first key during the read.
        self.are_any.fetch_or(are_any, Ordering::Relaxed);
        Ok(are_any)
    }

    /// Returns whether this node knows of any keys.
    pub(crate) fn are_known(&self) -> bool {
        self.are_any.load(Ordering::Relaxed)
    }

    /// Returns the write that stores how a cluster is reached, if that is new to this node or missing in the store.
    fn connection_write(&self, issuer: &Issuer, is_missing: bool) -> Result<Option<Write>, Error> {
        let digest = text_digest(&issuer.connection);
        // Remembered before the commit. If that fails, `forget_connections` follows.
        let known = self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(issuer.cluster.clone(), digest);
        if !is_missing && known == Some(digest) {
            return Ok(None);
        }
        let place = Place::output_cluster(&issuer.cluster);
        let sealed = self.sealer.seal(place, issuer.connection.as_bytes(), &*self.entropy);
        let sealed = sealed.map_err(|error| Error::internal(SharedError::during("sealing a connection", error)))?;
        let (id, output) = (issuer.cluster.clone(), issuer.output.clone());
        let trial = Trial::of_new(&bootstrap::settings(&issuer.connection), self.clock.now());
        let cluster = OutputCluster { id, output, sealed, failure: None, trial };
        Ok(Some(OutputKeyWrite::PutCluster(Box::new(cluster)).into()))
    }

    /// Forgets which connections are stored, after a commit that failed.
    fn forget_connections(&self) {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn seal_key(&self, id: &KeyId, secret: &str) -> Result<Vec<u8>, Error> {
        let plain = Zeroizing::new(format!("{id}:{secret}"));
        let sealed = self.sealer.seal(Place::output_key(id), plain.as_bytes(), &*self.entropy);
        sealed.map_err(|error| Error::internal(SharedError::during("sealing an output key", error)))
    }

    /// Opens `id:secret` of an issued key.
    fn open_key(&self, key: &OutputKey) -> Result<Option<Zeroizing<String>>, Error> {
        let Some(issued) = &key.issued else { return Ok(None) };
        self.open(Place::output_key(&issued.id), &issued.sealed).map(Some)
    }

    fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<String>, Error> {
        let bytes = self.sealer.open(place, sealed);
        let bytes = bytes
            .map_err(|error| Error::internal(SharedError::during(format!("{} {}", place.table, place.row), error)))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::internal(format!("{} is not UTF-8", place.table)))?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// Returns the id of this installation in the metadata of keys.
    async fn fleet(&self) -> Result<String, Error> {
        if let Some(known) = self.store.everywhere(&System).setting(FLEET).await? {
            return Ok(known);
        }
        // Called only by the background task, which runs on one node at a time.
        let id = random_uuid(&*self.entropy);
        let put = SettingWrite::Put { name: FLEET.to_owned(), value: id.clone() };
        self.store.commit(&System, vec![put.into()]).await?;
        Ok(id)
    }
}
