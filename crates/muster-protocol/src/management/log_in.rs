//! `/api/v1`: OpenID providers, logins there, and logins of devices (MG §8.2).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// OpenID provider. The client secret is never returned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct OidcProvider {
    /// Id, which is part of the URL of the login.
    pub id: String,
    /// Issuer: the URL of the provider.
    pub issuer: String,
    /// Id of this installation at the provider.
    pub client_id: String,
    /// Whether a client secret is set.
    #[serde(default)]
    pub has_client_secret: bool,
    /// URL of the management API, as browsers reach it.
    pub url: String,
    /// URL that must be registered at the provider.
    pub redirect_uri: String,
    /// Requested scopes.
    pub scopes: Vec<String>,
    /// Claim with the name of the user.
    pub user_name_claim: String,
    /// Claim with the groups of the user; a dotted path, such as `realm_access.roles`, leads into objects.
    pub groups_claim: String,
    /// Prefix of the names of groups in bindings.
    #[serde(default)]
    pub group_prefix: String,
    /// First login of a person without a user: `refuse` or `create`.
    pub new_users: NewUsers,
    /// Time of creation.
    pub created_at: String,
    /// Time of the last change.
    #[serde(default)]
    pub updated_at: String,
}

/// What happens at the first login of a person without a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NewUsers {
    /// The login is refused until an administrator links a user.
    #[default]
    Refuse,
    /// A user is created.
    Create,
}

/// `POST /oidc_providers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateOidcProvider {
    /// Id: lower-case letters, digits and `-`.
    pub id: String,
    /// Issuer: the URL of the provider, exactly as in its discovery document.
    pub issuer: String,
    /// Id of this installation at the provider.
    pub client_id: String,
    /// Client secret; absent for a public client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// URL of the management API, as browsers reach it.
    pub url: String,
    /// Scopes in addition to `openid`. Default: `profile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// Claim with the name of the user. Default: `preferred_username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name_claim: Option<String>,
    /// Claim with the groups. Default: `groups`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_claim: Option<String>,
    /// Prefix of the names of groups in bindings. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_prefix: Option<String>,
    /// First login of a person without a user. Default: `refuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_users: Option<NewUsers>,
}

/// `PUT /oidc_providers/{id}`. Absent fields stay as they are. The issuer cannot be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateOidcProvider {
    /// Id of this installation at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Client secret; an empty string makes it a public client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// URL of the management API, as browsers reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Scopes in addition to `openid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// Claim with the name of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name_claim: Option<String>,
    /// Claim with the groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_claim: Option<String>,
    /// Prefix of the names of groups in bindings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_prefix: Option<String>,
    /// First login of a person without a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_users: Option<NewUsers>,
}

/// `PUT /users/{id}/identity`: links a user to a person at an OpenID provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LinkUser {
    /// Id of the provider.
    pub provider: String,
    /// Subject of the person at the provider, as shown in a refused login.
    pub subject: String,
}

/// Provider at which anybody can log in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct LogInChoice {
    /// Id of the provider.
    pub id: String,
}

/// `GET /login/oidc/{provider}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct BeginLogIn {
    /// Path to which the browser goes after the login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_to: Option<String>,
}

/// `GET /login/oidc/{provider}/callback`: what a browser brings back from the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct LogInCallback {
    /// Code.
    #[serde(default)]
    pub code: Option<String>,
    /// State.
    #[serde(default)]
    pub state: Option<String>,
    /// Issuer.
    #[serde(default)]
    pub iss: Option<String>,
    /// Error, in place of the code.
    #[serde(default)]
    pub error: Option<String>,
    /// Description of the error.
    #[serde(default)]
    pub error_description: Option<String>,
}

/// `POST /device/authorize`: begins the login of a device (RFC 8628). Needs no credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BeginDevice {
    /// Name of the device, for the person who approves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// Login of a device that has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct DeviceBegun {
    /// Secret with which the device polls.
    pub device_code: String,
    /// Code that a person types.
    pub user_code: String,
    /// Path of the page where it is typed, below the URL of the management API.
    pub verification_path: String,
    /// Seconds until both codes end.
    pub expires_in: u64,
    /// Minimum seconds between two polls.
    pub interval: u64,
}

/// `POST /device/token`: polls for the token of a device. Needs no credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PollDevice {
    /// Secret of the device.
    pub device_code: String,
}

/// `POST /device/approve` and `POST /device/deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DecideDevice {
    /// Code that the device shows.
    pub user_code: String,
}

/// Device that asks for a login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Device {
    /// Code that it shows.
    pub user_code: String,
    /// Name, as reported by the device.
    #[serde(default)]
    pub device: String,
    /// Address; absent for a device on the server's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Time of the request.
    pub created_at: String,
    /// End of the code.
    pub expires_at: String,
    /// `waiting`, `approved` or `denied`.
    pub state: String,
}
