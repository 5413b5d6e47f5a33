//! The enrolment document: `fleet.json`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Version of the enrolment document.
pub const ENROLLMENT_VERSION: u32 = 1;

/// A credential; never shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a credential.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The credential itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// How the server is trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// PEM texts of the authorities; none: the platform's.
    #[serde(default)]
    pub certificate_authorities: Vec<String>,
    /// Fingerprints of the authority, any of which must be in the chain.
    #[serde(default)]
    pub ca_sha256: Vec<String>,
    /// Plain HTTP to a loopback address was allowed.
    #[serde(default)]
    pub insecure: bool,
}

/// Who we are and where the server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrollment {
    /// [`ENROLLMENT_VERSION`].
    pub version: u32,
    /// Our id.
    pub agent_id: String,
    /// Base64 of `id:secret`.
    pub access_api_key: Secret,
    /// Where the server is; any of them serves.
    pub servers: Vec<String>,
    /// How it is trusted.
    #[serde(default)]
    pub trust: Trust,
    /// Base64 of the DER public key that signs policies and actions, pinned when it was first seen.
    #[serde(default)]
    pub signing_key: Option<String>,
    /// Tags given at enrolment.
    #[serde(default)]
    pub tags: Vec<String>,
    /// RFC 3339.
    #[serde(default)]
    pub enrolled_at: String,
}
