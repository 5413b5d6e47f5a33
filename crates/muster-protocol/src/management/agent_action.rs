//! Actions for one agent (MG §1.2), and their response.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `POST /agents/{id}/unenroll`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Unenroll {
    /// Revoke the access keys immediately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke: Option<bool>,
    /// Applies even if the policy is managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Reason, for the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST /agents/{id}/reassign`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reassign {
    /// Policy id; `null` means no policy.
    #[serde(deserialize_with = "super::nullable")]
    #[schemars(with = "super::Nullable<String>")]
    // Required, because an empty request must not remove the policy.
    pub policy_id: Option<String>,
    /// Target revision; if absent, the agent follows the newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<i64>,
    /// Applies even if the policy is managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// `POST /agents/{id}/upgrade`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// Target version.
    pub version: String,
    /// Base URL of the package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_uri: Option<String>,
    /// Skips the eligibility checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Skips the cool-down between upgrades.
    #[serde(rename = "skipRateLimitCheck", default, skip_serializing_if = "Option::is_none")]
    // Kibana's name; it skips the cool-down of the agent, not a rate limit of the API.
    pub skip_rate_limit_check: Option<bool>,
}

/// `POST /agents/{id}/request_diagnostics`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Diagnostics {
    /// `CPU`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_metrics: Option<Vec<String>>,
}

/// `POST /agents/{id}/tags`: adds and removes tags; one of each renames a tag in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeTags {
    /// Tags to add.
    #[serde(rename = "tagsToAdd", default, skip_serializing_if = "Option::is_none")]
    pub tags_to_add: Option<Vec<String>>,
    /// Tags to remove.
    #[serde(rename = "tagsToRemove", default, skip_serializing_if = "Option::is_none")]
    pub tags_to_remove: Option<Vec<String>>,
}

/// `POST /agents/{id}/migrate`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Migrate {
    /// URL of the other server.
    pub uri: String,
    /// Enrollment token of the other server.
    pub enrollment_token: String,
    /// Connection settings (MG §1.2.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Map<String, Value>>,
}

/// `POST /agents/{id}/privilege_level_change`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PrivilegeLevelChange {
    /// User to run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_info: Option<UserInfo>,
}

/// User on the agent's host.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UserInfo {
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groupname: Option<String>,
    /// Password, where the system requires one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl std::fmt::Debug for UserInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password stays out of logs.
        write!(f, "UserInfo({:?}:{:?})", self.username, self.groupname)
    }
}

/// Response: the created action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedAction {
    /// Id of the action.
    pub action_id: String,
    /// Number of selected agents that the caller may read, but not act on; absent if there are none.
    #[serde(default, skip_serializing_if = "super::envelope::is_zero")]
    pub excluded: u64,
}

/// Response of a bulk rollback: one action per target version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedActions {
    /// Ids of the actions.
    pub action_ids: Vec<String>,
    /// Number of selected agents that the caller may read, but not act on; absent if there are none.
    #[serde(default, skip_serializing_if = "super::envelope::is_zero")]
    pub excluded: u64,
}
