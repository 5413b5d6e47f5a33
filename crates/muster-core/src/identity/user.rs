//! Users and service accounts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::UserId;
use crate::time::Timestamp;

/// A user or a service account. What it may do is in its bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Id.
    pub id: UserId,
    /// Whether it is a person.
    pub kind: UserKind,
    /// Name, unique and in lower case.
    pub name: String,
    /// Name for people.
    pub full_name: String,
    /// Hash of the password; `None` if it cannot log in with one.
    pub password: Option<PasswordHash>,
    /// Identity at the OpenID provider, since the first login there.
    pub federated: Option<FederatedId>,
    /// Since when it is locked.
    pub locked_at: Option<Timestamp>,
    /// Number of changes, for preconditions.
    pub version: i64,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Who created it.
    pub created_by: String,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

impl User {
    /// Returns whether it is locked.
    pub fn is_locked(&self) -> bool {
        self.locked_at.is_some()
    }
}

/// Kind of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserKind {
    /// A person, who logs in.
    Person,
    /// A program. It has API tokens and no password.
    ServiceAccount,
}

/// An identity at an OpenID provider. The subject is unique there and never reassigned, unlike names and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederatedId {
    /// URL of the provider.
    pub issuer: String,
    /// The subject.
    pub subject: String,
}

/// Hash of a password, in the PHC string format. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}
