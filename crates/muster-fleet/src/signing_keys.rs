//! The keys that sign policies and actions: the current one, and those before it.
//!
//! An agent accepts a new key only in a policy that is signed with the key that it has (AG §10.2), and it may have been away during
//! any number of revisions. So former keys are kept, and an agent gets its policy and its actions signed with the key of the
//! revision that it runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::audit::export::fingerprint;
use muster_core::authorization::{Grant, SigningRotate};
use muster_core::change::Change;
use muster_core::error_chain::SharedError;
use muster_core::id::PolicyId;
use muster_core::policy::render::signing_key;
use muster_core::seal::{Place, Sealer};
use muster_core::signing::Signer;
use muster_core::time::Clock;
use muster_core::{Entropy, Error};
use muster_store::{SettingWrite, Write};
use serde_json::json;
use zeroize::Zeroizing;

use super::audit::audit_line;
use super::authority::System;
use super::fleet_keys::{SIGNING_KEY, open};
use super::policies::Turn;
use super::watched_store::WatchedStore;

/// The setting that holds the former keys, newest first: a sealed JSON list of base64.
const FORMER_KEYS: &str = "signing_keys.former";
/// Maximum number of former keys. Agents that know only an older one have to enroll again.
const MOST_FORMER: usize = 32;

/// The keys that sign policies and actions.
pub struct SigningKeys {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    sealer: Arc<Sealer>,
    ring: ArcSwap<Ring>,
}

/// The keys as this server knows them.
struct Ring {
    /// The setting that was read last. Another one shows that a server has replaced the key.
    stored: Option<String>,
    current: Arc<Signer>,
    /// Newest first.
    former: Vec<Arc<Signer>>,
}

impl Ring {
    fn named(&self, public_key: &str) -> Option<Arc<Signer>> {
        self.all().find(|signer| signer.public_key() == public_key).cloned()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Signer>> {
        std::iter::once(&self.current).chain(&self.former)
    }
}

impl SigningKeys {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        sealer: Arc<Sealer>,
        current: Arc<Signer>,
    ) -> Self {
        let ring = Ring { stored: None, current, former: Vec::new() };
        Self { store, clock, entropy, sealer, ring: ArcSwap::from_pointee(ring) }
    }

    /// Returns the current key, as this server knows it.
    pub fn current(&self) -> Arc<Signer> {
        Arc::clone(&self.ring.load().current)
    }

    /// Returns all keys that this server knows, the current one first.
    pub(crate) fn all(&self) -> Vec<Arc<Signer>> {
        self.ring.load().all().cloned().collect()
    }

    /// Returns the current key after reading it again: another server may have replaced it.
    pub(crate) async fn refresh(&self) -> Result<Arc<Signer>, Error> {
        let everywhere = self.store.everywhere(&System);
        let stored = everywhere.setting(SIGNING_KEY).await?;
        let known = self.ring.load_full();
        // Compared as it is stored: an unchanged text need not be opened.
        let Some(text) = stored.filter(|stored| Some(stored) != known.stored.as_ref()) else {
            return Ok(Arc::clone(&known.current));
        };
        let current = Arc::new(signer(&open(&self.sealer, SIGNING_KEY, &text).map_err(unusable)?)?);
        let former = match everywhere.setting(FORMER_KEYS).await? {
            Some(list) => self.former(&list)?,
            None => Vec::new(),
        };
        let mut former: Vec<Arc<Signer>> =
            former.iter().map(|pkcs8| signer(pkcs8).map(Arc::new)).collect::<Result<_, _>>()?;
        // Keys that are not stored any more, or never were, as in tests, are kept as long as the server runs.
        for kept in known.all() {
            let is_it = |signer: &Arc<Signer>| signer.public_key() == kept.public_key();
            if !is_it(&current) && !former.iter().any(is_it) {
                former.push(Arc::clone(kept));
            }
        }
        self.ring.store(Arc::new(Ring { stored: Some(text), current: Arc::clone(&current), former }));
        Ok(current)
    }

    /// Returns the key with this public key; reads the keys again if it is unknown.
    pub(crate) async fn named(&self, public_key: &str) -> Result<Option<Arc<Signer>>, Error> {
        if let Some(found) = self.ring.load().named(public_key) {
            return Ok(Some(found));
        }
        // Another server may have rotated the key since, and an agent can have it already.
        self.refresh().await?;
        Ok(self.ring.load().named(public_key))
    }

    /// Returns the public key in a stored revision, which the agents that run it have.
    pub(crate) async fn of_revision(&self, policy: &PolicyId, revision: i64) -> Result<Option<String>, Error> {
        let found = self.store.everywhere(&System).policy_revision(policy, revision).await?;
        Ok(found.and_then(|found| signing_key(&found.compiled).map(str::to_owned)))
    }

    /// Replaces the current key; returns the new one. The policies must be compiled again.
    pub(crate) async fn rotate(&self, turn: &Turn, grant: &Grant<SigningRotate>) -> Result<Arc<Signer>, Error> {
        let everywhere = self.store.everywhere(&System);
        // Read before the new key is generated. The swaps below fail if another rotation comes first.
        let before = everywhere.setting(SIGNING_KEY).await?;
        let list = everywhere.setting(FORMER_KEYS).await?;
        let (next, pkcs8) = Signer::generate().map_err(unusable)?;
        let mut former = match &list {
            Some(list) => self.former(list)?,
            None => Vec::new(),
        };
        if let Some(text) = &before {
            // The current key becomes the newest former one: most agents that were away have exactly this one.
            former.insert(0, open(&self.sealer, SIGNING_KEY, text).map_err(unusable)?);
        }
        former.truncate(MOST_FORMER);
        let texts: Vec<Zeroizing<String>> =
            former.iter().map(|pkcs8| Zeroizing::new(STANDARD.encode(&**pkcs8))).collect();
        let texts: Vec<&str> = texts.iter().map(|text| text.as_str()).collect();
        let texts = Zeroizing::new(serde_json::to_vec(&texts).map_err(Error::internal)?);
        let (value, former_value) = (self.seal(SIGNING_KEY, &pkcs8)?, self.seal(FORMER_KEYS, &texts)?);
        let shown = |key: &Signer| fingerprint(key.public_key()).unwrap_or_default();
        // For the audit event, which names both keys.
        let current = self.refresh().await?;
        let detail = json!({"before": shown(&current), "after": shown(&next)});
        let now = self.clock.now();
        let writes = vec![
            // In the turn of policy changes, because every policy is compiled and signed again with the new key.
            turn.write(),
            SettingWrite::Swap { name: SIGNING_KEY.into(), before, value }.into(),
            SettingWrite::Swap { name: FORMER_KEYS.into(), before: list, value: former_value }.into(),
            audit_line(grant.origin(), now, "signing_key.rotate", "signing_key", detail),
            Write::Changed(Change::Setting(SIGNING_KEY.into())),
        ];
        self.store.commit(grant, writes).await?;
        // A dry run has stored nothing that could be read.
        if !grant.is_dry_run() {
            return self.refresh().await;
        }
        Ok(Arc::new(next))
    }

    fn former(&self, list: &str) -> Result<Vec<Zeroizing<Vec<u8>>>, Error> {
        let opened = open(&self.sealer, FORMER_KEYS, list).map_err(unusable)?;
        let texts: Vec<String> = serde_json::from_slice(&opened).map_err(unusable)?;
        texts.iter().map(|text| STANDARD.decode(text).map(Zeroizing::new).map_err(unusable)).collect()
    }

    fn seal(&self, name: &str, secret: &[u8]) -> Result<String, Error> {
        let sealed = self.sealer.seal(Place::setting(name), secret, &*self.entropy).map_err(unusable)?;
        Ok(STANDARD.encode(sealed))
    }
}

fn signer(pkcs8: &[u8]) -> Result<Signer, Error> {
    Signer::from_pkcs8(pkcs8).map_err(unusable)
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal(SharedError::during("reading the signing keys", error))
}
