//! Recovery keys of encrypted disks, which orbit reports (FL §2.6). They are stored encrypted.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::error::Error;
use crate::id::AgentId;
use crate::reported::shortened_to;
use crate::time::Timestamp;

/// Maximum length of a key, bytes.
const MAX_KEY: usize = 1024;
/// Maximum length of an error of the host, bytes.
const MAX_ERROR: usize = 1024;

/// The secret part of a disk key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSecret {
    /// Recovery key of BitLocker, or passphrase of LUKS.
    pub key: String,
    /// Salt of LUKS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Number of the key slot of LUKS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_slot: Option<u64>,
}

impl DiskSecret {
    /// Validates what a host reports.
    pub fn check(&self) -> Result<(), Error> {
        if self.key.is_empty() || self.key.len() > MAX_KEY {
            return Err(Error::invalid("encryption_key", format!("must have 1 to {MAX_KEY} bytes")));
        }
        if self.salt.as_ref().is_some_and(|salt| salt.len() > MAX_KEY) {
            return Err(Error::invalid("salt", format!("must have at most {MAX_KEY} bytes")));
        }
        Ok(())
    }
}

impl Drop for DiskSecret {
    fn drop(&mut self) {
        self.key.zeroize();
        self.salt.zeroize();
    }
}

impl std::fmt::Debug for DiskSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DiskSecret(…)")
    }
}

/// The disk key of a host, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskKey {
    /// The encrypted [`DiskSecret`]; `None` until the host has reported one.
    pub sealed: Option<Vec<u8>>,
    /// Time at which it was reported.
    pub stored_at: Option<Timestamp>,
    /// Why the host could not report a key the last time it tried. An older key stays valid (FL64).
    pub error: Option<String>,
    /// Time of the error.
    pub error_at: Option<Timestamp>,
    /// Whether the host is to ask its user for the passphrase, and has not been told yet (FL56).
    pub is_escrow_due: bool,
    /// Whether the host has not answered the last request for the passphrase. It stays true if the answer or the request was lost.
    pub is_escrow_pending: bool,
}

/// A disk key with its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentDiskKey {
    /// The orbit that reported it.
    pub agent: AgentId,
    /// The key.
    pub key: DiskKey,
}

/// Returns an error of a host as it is stored.
pub fn error_of(client_error: &str) -> String {
    shortened_to(client_error.trim(), MAX_ERROR).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_secrets_are_bounded_and_not_printed() {
        let secret = |key: &str| DiskSecret { key: key.into(), salt: None, key_slot: None };
        assert!(secret("123-456").check().is_ok());
        assert!(secret("").check().is_err() && secret(&"x".repeat(2000)).check().is_err());
        assert_eq!(format!("{:?}", secret("123-456")), "DiskSecret(…)");
        assert_eq!(error_of(" a\0 "), "a\u{fffd}");
    }
}
