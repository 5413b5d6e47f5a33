//! Inventory of a host besides its software: disks, users and certificates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Mounted file system, or drive of Windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct HostDisk {
    /// Where it is mounted, or its letter: `/`, `C:`.
    pub path: String,
    /// Type of the file system; empty if unknown.
    #[serde(default)]
    pub file_system: String,
    /// Size in bytes.
    pub size: u64,
    /// Free space for users in bytes, which may have changed by 2 % since.
    pub free: u64,
    /// Free space in percent, rounded down.
    pub percent_free: u64,
    /// Whether it is encrypted; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Whether the operating system is on it.
    #[serde(default)]
    pub is_system: bool,
}

/// User of a host that can log in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct HostUser {
    /// Number.
    pub uid: i64,
    /// Name.
    pub username: String,
    /// Type on Windows, such as `local` or `roaming`; empty elsewhere.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Name of the primary group; empty if unknown.
    #[serde(default)]
    pub group: String,
    /// Login shell.
    #[serde(default)]
    pub shell: String,
}

/// Certificate on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct HostCertificate {
    /// Common name of the subject.
    pub common_name: String,
    /// Subject, as the operating system writes it.
    #[serde(default)]
    pub subject: String,
    /// Issuer, as the operating system writes it.
    #[serde(default)]
    pub issuer: String,
    /// Serial number.
    #[serde(default)]
    pub serial: String,
    /// SHA-1 of the certificate in hexadecimal digits.
    pub sha1: String,
    /// Time from which it is valid; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// Time until which it is valid; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// Whether it is one of a certificate authority.
    #[serde(default)]
    pub is_ca: bool,
    /// `system`, or `user` for the keychain or store of a user.
    pub source: String,
    /// The user; empty for those of the system.
    #[serde(default)]
    pub username: String,
    /// Algorithm of its key.
    #[serde(default)]
    pub key_algorithm: String,
    /// Size of its key in bits, or the name of the curve.
    #[serde(default)]
    pub key_strength: String,
    /// What its key may be used for.
    #[serde(default)]
    pub key_usage: String,
    /// Algorithm of the signature.
    #[serde(default)]
    pub signing_algorithm: String,
}
