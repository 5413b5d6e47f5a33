//! Who may use the management API: users, their roles and tokens, and the spaces that they work in (MG §8.2).
//!
//! Each request is decided from one read of the store, a [`Principal`]: nothing is cached, so that a revoked token, a
//! locked user or a lowered role is in force at the next request on every node.

mod device;
pub mod id_token;
mod log_in;
mod name;
pub mod provider;
mod session;
mod space;
mod token;
mod user;

pub use self::device::{
    Approval, DEVICE_INTERVAL, DEVICE_LIFETIME, Decision, DeviceLogIn, MOST_DEVICE_LOG_INS, UserCode,
};
pub use self::log_in::{LOG_IN_LIFETIME, PendingLogIn};
pub use self::name::{BadName, check_display, check_name};
pub use self::provider::{NewUsers, OidcProvider, OidcSettings};
pub use self::session::{SESSION_LIFETIME, SETUP_LINK_LIFETIME, Session, SetupLink};
pub use self::space::{BadSpaceId, Space, new_space_id};
pub use self::token::{ApiToken, DEFAULT_TOKEN_LIFETIME, Login, TokenDenied};
pub use self::user::{FederatedId, PasswordHash, User, UserKind};

use crate::authorization::{BindingScope, BuiltIn, Entitlement, PrivilegeSet};
use crate::id::{BindingId, RoleId, UserId};
use crate::time::Timestamp;

/// A role of a subject within a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Id.
    pub id: BindingId,
    /// Who has the role.
    pub subject: Subject,
    /// The role.
    pub role: RoleId,
    /// Where it applies.
    pub scope: BindingScope,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Who created it.
    pub created_by: String,
}

impl Binding {
    /// Returns whether the binding makes an administrator of the installation.
    pub fn is_administrator(&self) -> bool {
        self.role == BuiltIn::Administrator.id() && self.scope == BindingScope::System
    }
}

/// Whom a binding gives a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A user or a service account.
    User(UserId),
    /// Everybody whom the OpenID provider calls a member of this group.
    Group(String),
}

/// A user with its bindings: everything that authorization needs to know of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The user.
    pub user: User,
    /// The bindings of the user and of its groups, each with the privileges of the role.
    pub entitlements: Vec<Entitlement>,
    /// Whether the space of the request exists.
    pub has_space: bool,
}

impl Principal {
    /// Returns the entitlements, limited to these privileges.
    pub fn limited_to(&self, privileges: PrivilegeSet) -> Vec<Entitlement> {
        let limited =
            |one: &Entitlement| Entitlement { privileges: one.privileges.both(privileges), scope: one.scope.clone() };
        // An entitlement without privileges would still let its owner enter the space.
        self.entitlements.iter().map(limited).filter(|one| !one.privileges.is_empty()).collect()
    }
}

/// Returns the privileges of a role: those of the built-in role with this id, or the stored ones. A role that does not
/// exist has none.
pub fn role_privileges(id: &RoleId, stored: Option<PrivilegeSet>) -> PrivilegeSet {
    BuiltIn::of(id).map(BuiltIn::privileges).or(stored).unwrap_or_default()
}
