//! Sealed secrets.

use muster_core::id::SecretId;

use super::reads::reads;
use super::{StoreError, Write};

/// A change of sealed secrets.
#[derive(Clone, Debug)]
pub enum SecretWrite {
    /// Inserts or replaces a sealed secret.
    Put {
        /// Its id.
        id: SecretId,
        /// Ciphertext with nonce and key id.
        sealed: Vec<u8>,
    },
    /// Deletes a secret, if it exists.
    Delete {
        /// Its id.
        id: SecretId,
    },
}

impl From<SecretWrite> for Write {
    fn from(write: SecretWrite) -> Self {
        Self::Secret(write)
    }
}

reads! {
    /// Reads of sealed secrets.
    pub trait SecretStore {
        /// Selects the sealed secrets with these ids; missing ones are omitted.
        async fn secrets(&self, ids: &[SecretId]) -> Result<Vec<(SecretId, Vec<u8>)>, StoreError>;
    }
}
