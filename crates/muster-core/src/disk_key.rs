//! Recovery keys of encrypted disks, which orbit reports (FL §2.6). They are stored encrypted.

use std::time::Duration;

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
/// Number of times that a host is told to ask its user for the passphrase, until it answers.
pub const MAX_ASKED: u32 = 3;
/// Time to wait for the answer before the host is told again. orbit's dialog is open for a minute.
pub const ASK_AGAIN: Duration = Duration::from_secs(10 * 60);

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
        // The names that orbit uses: only a LUKS passphrase comes with a salt or a key slot.
        let field = if self.salt.is_some() || self.key_slot.is_some() { "passphrase" } else { "encryption_key" };
        // What no key can be must not replace a good one.
        if self.key.is_empty() || self.key.len() > MAX_KEY || self.key.chars().any(char::is_control) {
            return Err(Error::invalid(field, format!("must have 1 to {MAX_KEY} bytes, without control characters")));
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
    /// The request for the passphrase that the host has not answered (FL56).
    pub escrow: Option<Escrow>,
}

/// A request for the passphrase of a disk. The response that tells the host of it can be lost, and orbit reports nothing if the
/// user closes the dialog. The host is therefore told again, until it answers or was told [`MAX_ASKED`] times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escrow {
    /// Number of times that the host was told.
    pub asked: u32,
    /// Time from which the host is to be told; `None` after the last time.
    pub due_at: Option<Timestamp>,
}

impl Escrow {
    /// Returns whether the host has not answered although it was told the last time long ago.
    pub const fn is_given_up(&self) -> bool {
        self.due_at.is_none()
    }
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
        assert!(secret("123\u{1b}456").check().is_err());
        let luks = DiskSecret { key: String::new(), salt: None, key_slot: Some(1) };
        assert_eq!(luks.check().unwrap_err().field.as_deref(), Some("passphrase"));
        assert!(secret("").check().is_err() && secret(&"x".repeat(2000)).check().is_err());
        assert_eq!(format!("{:?}", secret("123-456")), "DiskSecret(…)");
        assert_eq!(error_of(" a\0 "), "a\u{fffd}");
    }
}
