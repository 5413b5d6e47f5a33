//! `/hosts/{id}/disk_key`: recovery keys of encrypted disks.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// State of a host's disk key, without the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct DiskKeyStatus {
    /// Whether the server has a key.
    pub stored: bool,
    /// Time at which the host reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_at: Option<String>,
    /// Why the host could not report a key the last time it tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Time of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_at: Option<String>,
    /// Whether the host was asked for the passphrase of its disk and has not answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub escrow_pending: bool,
    /// How often the host was told of that request, at most 3 times, ten minutes apart.
    #[serde(default, skip_serializing_if = "super::envelope::is_zero")]
    pub escrow_requests: u64,
}

/// Disk key of a host.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct DiskKey {
    /// Recovery key of BitLocker, or passphrase of LUKS.
    pub key: String,
    /// Salt of LUKS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Number of the key slot of LUKS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_slot: Option<u64>,
    /// Time at which the host reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_at: Option<String>,
}

impl fmt::Debug for DiskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_keys_are_not_printed() {
        let key = DiskKey { key: "123-456".into(), ..DiskKey::default() };
        assert_eq!(format!("{key:?}"), "DiskKey(…)");
    }
}
