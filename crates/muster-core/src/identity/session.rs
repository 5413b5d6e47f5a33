//! Sessions of browsers, and set-up links.

use std::time::Duration;

use crate::credential::SecretHash;
use crate::id::{KeyId, UserId};
use crate::time::Timestamp;

/// Lifetime of a session (MG §8.2: at most 12 hours). Groups at the OpenID provider are read at the login, so a removed
/// one ends with the session (MG165).
pub const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3_600);
/// Lifetime of a set-up link.
pub const SETUP_LINK_LIFETIME: Duration = Duration::from_secs(3_600);

/// A session of a browser. The cookie contains an API key, of which the hash is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Id of the key.
    pub key_id: KeyId,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
    /// Whose it is.
    pub user: UserId,
    /// The user's groups at the OpenID provider, as it told them at the login.
    pub groups: Vec<String>,
    /// Time of the login.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Address from which the user logged in, if it is known.
    pub address: Option<String>,
    /// Time of the last request, which is up to five minutes late; `None` before the first one.
    pub last_used_at: Option<Timestamp>,
}

/// A link with which a user sets a password, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupLink {
    /// Id of the key in the link.
    pub key_id: KeyId,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
    /// Whose password it sets.
    pub user: UserId,
    /// When it ends.
    pub expires_at: Timestamp,
}
