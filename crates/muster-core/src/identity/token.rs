//! API tokens of users and service accounts.

use std::time::Duration;

use crate::authorization::PrivilegeSet;
use crate::credential::{ApiKey, SecretHash};
use crate::id::{KeyId, TokenId, UserId};
use crate::time::Timestamp;

/// Lifetime of a token for which none is requested.
pub const DEFAULT_TOKEN_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// An API token. Of its secret only a hash is stored; the token is shown once, when it is created (M10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Id.
    pub id: TokenId,
    /// Id of the key, which is part of the token.
    pub key_id: KeyId,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
    /// The owner.
    pub owner: UserId,
    /// Name, for people.
    pub name: String,
    /// What it may be used for. In force is what the owner may do too, at the time of a request.
    pub privileges: PrivilegeSet,
    /// The owner's groups at the OpenID provider when the token was created. Such a token ends with the session in which
    /// it was created (MG165).
    pub groups: Vec<String>,
    /// Expiration; `None` for a token that does not expire.
    pub expires_at: Option<Timestamp>,
    /// What it ends with, if it was given to a device: the session in which a person approved that. `None` for all other
    /// tokens.
    pub login: Option<Login>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Who created it.
    pub created_by: String,
    /// Time of the last use, up to five minutes old.
    pub last_used_at: Option<Timestamp>,
    /// Time of revocation.
    pub revoked_at: Option<Timestamp>,
}

/// The login of the person who approved a device. It ends with a log-out, and with all sessions of the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A session.
    Session(KeyId),
    /// A name and a password, or a token, which have no session.
    Other,
}

/// Reason why a token is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenDenied {
    /// The secret does not match.
    #[error("the token is invalid")]
    Invalid,
    /// It was revoked.
    #[error("the token is revoked")]
    Revoked,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
}

impl ApiToken {
    /// Checks a presented key.
    pub fn admit(&self, key: &ApiKey, now: Timestamp) -> Result<(), TokenDenied> {
        // The secret comes first: only its holder learns more.
        if !key.matches(&self.hash) {
            return Err(TokenDenied::Invalid);
        }
        if self.revoked_at.is_some() {
            return Err(TokenDenied::Revoked);
        }
        if self.expires_at.is_some_and(|end| end <= now) { Err(TokenDenied::Expired) } else { Ok(()) }
    }
}
