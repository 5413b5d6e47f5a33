//! Keys that the first server makes for the whole fleet: the signing key, and the key of the fleet's own CA.
//!
//! They are settings, sealed with the master key, so that a further server needs only the database and that key. Servers
//! that start on an empty database at the same time end with the same keys: the first one to commit wins.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::Entropy;
use muster_core::seal::{Place, SealError, Sealer};
use muster_core::signing::Signer;
use muster_store::{SettingWrite, Store, StoreError};
use zeroize::Zeroizing;

/// The setting that holds the sealed signing key.
pub const SIGNING_KEY: &str = "signing_key";

/// Why a key of the fleet can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FleetKeyError {
    /// It is sealed with another master key, or corrupt. The error must not lead to a new key: agents trust only the
    /// one that they know.
    #[error("cannot decrypt the setting {name}")]
    Unreadable {
        /// The setting.
        name: &'static str,
        /// Reason.
        #[source]
        source: SealError,
    },
    /// The decrypted key is malformed, or a new one could not be made.
    #[error("cannot use the setting {name}")]
    Unusable {
        /// The setting.
        name: &'static str,
        /// Reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store.
    #[error("cannot read or write the setting {name}")]
    Store {
        /// The setting.
        name: &'static str,
        /// Reason.
        #[source]
        source: StoreError,
    },
}

/// Returns true if the store has a signing key. The first start writes it before anything else, so a store without one
/// has never held a fleet.
pub async fn has_signing_key(store: &dyn Store) -> Result<bool, FleetKeyError> {
    let found = store.setting(SIGNING_KEY).await;
    Ok(found.map_err(|source| FleetKeyError::Store { name: SIGNING_KEY, source })?.is_some())
}

/// Returns the fleet's signing key, which the first start makes.
pub async fn ensure_signing_key(
    store: &dyn Store,
    sealer: &Sealer,
    entropy: &dyn Entropy,
) -> Result<Arc<Signer>, FleetKeyError> {
    let unusable = |source| FleetKeyError::Unusable { name: SIGNING_KEY, source };
    let make = || Signer::generate().map(|(_, pkcs8)| pkcs8).map_err(Into::into);
    let pkcs8 = ensure(store, sealer, entropy, SIGNING_KEY, make).await?;
    Signer::from_pkcs8(&pkcs8).map(Arc::new).map_err(|error| unusable(error.into()))
}

/// Returns the sealed setting `name`. If it does not exist yet, stores the value that `make` returns. The value is on
/// disk before it is returned: agents must never see a signature or a certificate by a key that a crash could lose.
pub async fn ensure(
    store: &dyn Store,
    sealer: &Sealer,
    entropy: &dyn Entropy,
    name: &'static str,
    make: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<Zeroizing<Vec<u8>>, FleetKeyError> {
    let failed = |source| FleetKeyError::Store { name, source };
    let unreadable = |source| FleetKeyError::Unreadable { name, source };
    if let Some(kept) = store.setting(name).await.map_err(failed)? {
        return open(sealer, name, &kept).map_err(unreadable);
    }
    let made = make().map_err(|source| FleetKeyError::Unusable { name, source })?;
    let sealed = sealer.seal(Place::setting(name), &made, entropy).map_err(unreadable)?;
    let value = STANDARD.encode(sealed);
    let insert = SettingWrite::Swap { name: name.into(), before: None, value };
    match store.commit(vec![insert.into()]).await {
        Ok(_) => Ok(made),
        // Another server was first. Its value counts, and this one was used for nothing yet.
        Err(conflict @ StoreError::Conflict(_)) => {
            let kept = store.setting(name).await.map_err(failed)?.ok_or_else(|| failed(conflict))?;
            open(sealer, name, &kept).map_err(unreadable)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Checks that a sealed setting of a fleet can be opened with a master key.
pub fn check_master_key(master_key: &[u8], name: &str, kept: &str) -> Result<(), SealError> {
    open(&Sealer::new(master_key)?, name, kept).map(drop)
}

/// Opens a sealed setting.
pub(crate) fn open(sealer: &Sealer, name: &str, kept: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let sealed = STANDARD.decode(kept).map_err(|_| SealError::Format)?;
    sealer.open(Place::setting(name), &sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SystemEntropy;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&[byte; 32]).unwrap()
    }

    #[tokio::test]
    async fn ea80_signing_key_is_sealed_and_survives_restarts() {
        let (store, entropy) = (muster_store::testing::fresh(), SystemEntropy::default());
        let first = ensure_signing_key(&store, &sealer(1), &entropy).await.unwrap();
        let again = ensure_signing_key(&store, &sealer(1), &entropy).await.unwrap();
        assert_eq!(first.public_key(), again.public_key());
        let refused = ensure_signing_key(&store, &sealer(2), &entropy).await.unwrap_err();
        assert!(matches!(refused, FleetKeyError::Unreadable { source: SealError::OtherKey, .. }), "{refused:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn servers_that_start_on_an_empty_store_at_once_end_with_one_key() {
        let (store, entropy) = (muster_store::testing::fresh(), SystemEntropy::default());
        // Both have found no key. Taking the precondition out of the commit makes the second replace the first.
        let other = Zeroizing::new(b"of the other".to_vec());
        let sealed = sealer(1).seal(Place::setting("key"), &other, &entropy).unwrap();
        let meanwhile = || {
            let value = STANDARD.encode(&sealed);
            let insert = SettingWrite::Swap { name: "key".into(), before: None, value };
            let commit = store.commit(vec![insert.into()]);
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(commit)).unwrap();
            Ok(Zeroizing::new(b"own".to_vec()))
        };
        let kept = ensure(&store, &sealer(1), &entropy, "key", meanwhile).await.unwrap();
        assert_eq!(kept, other);
    }
}
