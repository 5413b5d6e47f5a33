//! `/api/v1`: users, service accounts, roles, bindings, API tokens, spaces, and the session of the caller (MG §8.2).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::list_query::list_query;

/// User or service account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct User {
    /// Id.
    pub id: String,
    /// Name, unique, in lower case.
    pub name: String,
    /// Full name.
    #[serde(default)]
    pub full_name: String,
    /// `person` or `service_account`.
    pub kind: String,
    /// Whether it is locked.
    #[serde(default)]
    pub locked: bool,
    /// Whether it can log in with a password.
    #[serde(default)]
    pub has_password: bool,
    /// OpenID provider, after the first login there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Time of creation.
    pub created_at: String,
    /// Who created it.
    #[serde(default)]
    pub created_by: String,
    /// Time of the last change.
    #[serde(default)]
    pub updated_at: String,
}

/// `POST /users` and `POST /service_accounts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// Name: letters, digits, and any of `. _ - @ +`.
    pub name: String,
    /// Full name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
    /// Password; not for service accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// `PUT /users/{id}`. Absent fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Full name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
    /// Whether it is locked. Locking ends its sessions; its tokens are rejected until it is unlocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
}

/// `PUT /users/{id}/password`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SetPassword {
    /// Password: 12 to 256 bytes.
    pub password: String,
}

/// `PUT /session/password`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// Current password.
    pub current_password: String,
    /// New password: 12 to 256 bytes.
    pub password: String,
}

/// One-time link for setting a user's password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct SetupLink {
    /// Token of `POST /setup`.
    pub token: String,
    /// End of its validity.
    pub expires_at: String,
}

/// `POST /setup`: sets the password of the user of a set-up link. Needs no other credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UseSetupLink {
    /// Token of the link.
    pub token: String,
    /// Password: 12 to 256 bytes.
    pub password: String,
}

/// Role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Role {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// Names of its privileges.
    pub privileges: Vec<String>,
    /// Whether it is built in, and cannot be changed.
    #[serde(default)]
    pub built_in: bool,
}

/// `POST /roles` and `PUT /roles/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SaveRole {
    /// Name. The id of a new role is derived from it.
    pub name: String,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Names of its privileges.
    pub privileges: Vec<String>,
}

/// Role of a user or a group within a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Binding {
    /// Id.
    pub id: String,
    /// Id of the user; absent if the binding is for a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Group at the OpenID provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Id of the role.
    pub role: String,
    /// Space; absent for the whole installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// Policies to which it is limited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Tags of agents to which it is limited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Time of creation.
    #[serde(default)]
    pub created_at: String,
    /// Who created it.
    #[serde(default)]
    pub created_by: String,
    /// Privileges of the role that have no effect in this binding, because they need a wider one. Only in the response to
    /// its creation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_effect: Vec<String>,
}

/// `POST /bindings`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateBinding {
    /// User or service account, by id or name; either this or `group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Group at the OpenID provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Id of the role.
    pub role: String,
    /// Space; absent for the whole installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// Ids or names of policies in the space to which it is limited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Tags of agents in the space to which it is limited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

list_query! {
    /// `GET /bindings`.
    ListBindings, first page 1 {
        /// User, by id or name.
        user: String,
    }
}

list_query! {
    /// `GET /users`, `GET /service_accounts`.
    ListUsers, first page 1 {}
}

/// API token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Token {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Id of the user.
    pub owner: String,
    /// The token itself: returned once, on creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Privileges of the token. Only those that the owner has too are in effect.
    pub privileges: Vec<String>,
    /// Whether requests with it are accepted: not revoked, not expired. The owner may be locked.
    pub active: bool,
    /// Expiration; absent if it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Time of creation.
    pub created_at: String,
    /// Who created it.
    #[serde(default)]
    pub created_by: String,
    /// Time of the last use, up to five minutes old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// Time of revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

/// `POST /tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Name; defaults to the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// User or service account, by id or name; defaults to the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Privileges; defaults to all of the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privileges: Option<Vec<String>>,
    /// Expiration: a duration (`30d`, `12h`), an RFC 3339 time, or, for service accounts, `never`. Default: 90 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
}

list_query! {
    /// `GET /tokens`.
    ListTokens, first page 1 {
        /// Owner, by id or name; `*` for all. Default: the caller.
        owner: String,
    }
}

/// Space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Space {
    /// Id, which is part of URLs.
    pub id: String,
    /// Name.
    pub name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
}

/// `POST /spaces`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSpace {
    /// Id: lower-case letters, digits, `_` and `-`.
    pub id: String,
    /// Name; defaults to the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// `PUT /spaces/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateSpace {
    /// Name.
    pub name: String,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// `POST /session`: logs in with a password. The response sets a cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    /// Name of the user.
    pub username: String,
    /// Password.
    pub password: String,
}

/// Session of a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct LoggedIn {
    /// Its id. The cookie contains a secret beside it.
    pub id: String,
    /// Time of the login.
    pub created_at: String,
    /// Address of the login, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Time of the last request, up to five minutes late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// When it ends.
    pub expires_at: String,
}

/// Caller of a request, and what it may do in the space of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Session {
    /// Caller, as in the audit log: `user:…`, `local:root`.
    pub actor: String,
    /// User; absent for a user of the server's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Space.
    #[serde(default)]
    pub space: String,
    /// Privileges in the space, or in a part of it.
    #[serde(default)]
    pub privileges: Vec<String>,
    /// End of the session, after a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}
