//! Orders to one agent (MG §1.2), and what an order answers.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `POST /agents/{id}/unenroll`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Unenroll {
    /// Kill the keys now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke: Option<bool>,
    /// Also an agent of a hosted policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// `POST /agents/{id}/reassign`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reassign {
    /// The policy; `null`: none.
    #[serde(deserialize_with = "super::nullable")]
    pub policy_id: Option<String>,
    /// The revision of it that the agent should run; none: the newest, whichever that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<i64>,
    /// Also an agent of a hosted policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// `POST /agents/{id}/upgrade`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// The version.
    pub version: String,
    /// Where to fetch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_uri: Option<String>,
    /// Skip the checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Skip the cool-down.
    #[serde(rename = "skipRateLimitCheck", default, skip_serializing_if = "Option::is_none")]
    pub skip_rate_limit_check: Option<bool>,
}

/// `POST /agents/{id}/request_diagnostics`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Diagnostics {
    /// `CPU`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_metrics: Option<Vec<String>>,
}

/// `POST /agents/{id}/tags`: adds and takes away; one of each renames in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeTags {
    /// Tags to add.
    #[serde(rename = "tagsToAdd", default, skip_serializing_if = "Option::is_none")]
    pub tags_to_add: Option<Vec<String>>,
    /// Tags to take away.
    #[serde(rename = "tagsToRemove", default, skip_serializing_if = "Option::is_none")]
    pub tags_to_remove: Option<Vec<String>>,
}

/// `POST /agents/{id}/migrate`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Migrate {
    /// The other server.
    pub uri: String,
    /// A token of its.
    pub enrollment_token: String,
    /// How to reach it (MG §1.2.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Map<String, Value>>,
}

/// `POST /agents/{id}/privilege_level_change`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PrivilegeLevelChange {
    /// The user that the agent is to run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_info: Option<UserInfo>,
}

/// A user of the agent's host.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UserInfo {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groupname: Option<String>,
    /// Its password, where the system wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl std::fmt::Debug for UserInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserInfo({:?}:{:?})", self.username, self.groupname)
    }
}

/// What an order answers: its action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ordered {
    /// The action that was made.
    pub action_id: String,
}

/// What a bulk rollback answers: an action for each version gone back to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderedAll {
    /// The actions that were made.
    pub action_ids: Vec<String>,
}
