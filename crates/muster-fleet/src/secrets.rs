//! Secrets that must be read back: sealed on arrival, opened when a policy is rendered or an action is delivered.

use std::sync::Arc;

use muster_core::Error;
use muster_core::entropy::{Entropy, random_uuid};
use muster_core::error_chain::SharedError;
use muster_core::id::{EnrollmentKeyId, SecretId, UninstallTokenId};
use muster_core::seal::{Place, Sealer};
use muster_core::secret_refs::Secrets;
use muster_store::{Resources, SecretWrite, Write};
use zeroize::Zeroizing;

use super::authority::System;
use super::watched_store::WatchedStore;

/// Maximum length of a secret in bytes.
const MAX_SECRET_BYTES: usize = 64 << 10;

/// Seals and opens secrets for the services.
pub(crate) struct SealedSecrets {
    store: Arc<WatchedStore>,
    sealer: Arc<Sealer>,
    entropy: Arc<dyn Entropy>,
}

impl SealedSecrets {
    pub(crate) fn new(store: Arc<WatchedStore>, sealer: Arc<Sealer>, entropy: Arc<dyn Entropy>) -> Self {
        Self { store, sealer, entropy }
    }

    /// Seals a value under a new id; returns the id and the write that stores it.
    pub(crate) fn seal(&self, field: &str, value: &str) -> Result<(SecretId, Write), Error> {
        if value.len() > MAX_SECRET_BYTES {
            // Every revision that uses it is rendered with it, and all of these are in memory.
            return Err(Error::invalid(field, format!("a secret has at most {MAX_SECRET_BYTES} bytes")));
        }
        let id = SecretId::trusted(random_uuid(&*self.entropy));
        let write = self.seal_as(&id, value)?;
        Ok((id, write))
    }

    /// Seals a value under the given id.
    pub(crate) fn seal_as(&self, id: &SecretId, value: &str) -> Result<Write, Error> {
        // The id is authenticated together with the value, so that a row which was moved to another id does not open.
        let sealed = self.sealer.seal(Place::secret(id), value.as_bytes(), &*self.entropy);
        let sealed = sealed.map_err(|error| Error::internal(SharedError::during("sealing a secret", error)))?;
        Ok(Write::Secret(SecretWrite::Put { id: id.clone(), sealed }))
    }

    /// Reads and opens secrets; unknown ids are skipped.
    pub(crate) async fn open(&self, ids: &[SecretId]) -> Result<Secrets, Error> {
        open_secrets(self.store.everywhere(&System), &self.sealer, ids).await
    }

    /// Opens the secrets that `writes` would store.
    pub(crate) fn open_new(&self, writes: &[Write]) -> Result<Secrets, Error> {
        let sealed = writes.iter().filter_map(|write| match write {
            Write::Secret(SecretWrite::Put { id, sealed }) => Some((id, sealed)),
            _ => None,
        });
        sealed.map(|(id, bytes)| open(&self.sealer, id, bytes).map(|value| (id.clone(), value))).collect()
    }

    /// Seals the token of a retrievable enrollment key.
    pub(crate) fn seal_token(&self, id: &EnrollmentKeyId, token: &str) -> Result<Vec<u8>, Error> {
        let sealed = self.sealer.seal(Place::enrollment_token(id), token.as_bytes(), &*self.entropy);
        sealed.map_err(|error| Error::internal(SharedError::during("sealing a token", error)))
    }

    /// Seals the text of an uninstall token.
    pub(crate) fn seal_uninstall_token(&self, id: &UninstallTokenId, text: &str) -> Result<Vec<u8>, Error> {
        let sealed = self.sealer.seal(Place::uninstall_token(id), text.as_bytes(), &*self.entropy);
        sealed.map_err(|error| Error::internal(SharedError::during("sealing an uninstall token", error)))
    }

    /// Opens an uninstall token.
    pub(crate) fn open_uninstall_token(&self, id: &UninstallTokenId, sealed: &[u8]) -> Result<String, Error> {
        let text = self.sealer.open(Place::uninstall_token(id), sealed);
        let text =
            text.map_err(|error| Error::internal(SharedError::during(format!("uninstall token {id}"), error)))?;
        String::from_utf8(text.to_vec()).map_err(|_| Error::internal("a sealed uninstall token is not text"))
    }

    /// Opens the token of an enrollment key.
    pub(crate) fn open_token(&self, id: &EnrollmentKeyId, sealed: &[u8]) -> Result<String, Error> {
        let token = self.sealer.open(Place::enrollment_token(id), sealed);
        let token = token.map_err(|error| Error::internal(SharedError::during(format!("token of key {id}"), error)))?;
        String::from_utf8(token.to_vec()).map_err(|_| Error::internal("an encrypted token is not UTF-8"))
    }
}

/// Reads and opens secrets; unknown ids are skipped.
pub async fn open_secrets(store: &dyn Resources, sealer: &Sealer, ids: &[SecretId]) -> Result<Secrets, Error> {
    if ids.is_empty() {
        // Most policies and nearly all actions have no secrets: no read for them.
        return Ok(Secrets::new());
    }
    let sealed = store.secrets(ids).await?;
    // One secret that does not open fails the whole call. A policy with a missing password would break its agents.
    sealed.into_iter().map(|(id, bytes)| open(sealer, &id, &bytes).map(|value| (id, value))).collect()
}

fn open(sealer: &Sealer, id: &SecretId, sealed: &[u8]) -> Result<Zeroizing<String>, Error> {
    let bytes = sealer
        .open(Place::secret(id), sealed)
        .map_err(|error| Error::internal(SharedError::during(format!("secret {id}"), error)))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::internal(format!("secret {id} is not UTF-8")))?;
    Ok(Zeroizing::new(text.to_owned()))
}
