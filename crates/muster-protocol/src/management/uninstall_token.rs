//! `/api/fleet/uninstall_tokens` (MG §1.7, §2.10).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::list_query::list_query;

/// Uninstall token.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct UninstallToken {
    /// Id.
    pub id: String,
    /// Policy id.
    pub policy_id: String,
    /// Name of the policy; `null` if it was deleted.
    pub policy_name: Option<String>,
    /// Creation time.
    pub created_at: String,
    /// Spaces in which it is visible.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// The token; only when it is read by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl std::fmt::Debug for UninstallToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token stays out of logs.
        write!(f, "UninstallToken({} of {})", self.id, self.policy_id)
    }
}

list_query! {
    /// `GET /uninstall_tokens`. `policy_id` and `search` cannot be combined.
    ListUninstallTokens, first page 1, with search_after {
        /// Part of a policy id.
        policy_id: String,
        /// Part of a policy id or of the name of a policy.
        search: String,
    }
}

/// Response of a change that only has a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Message {
    /// What was done.
    pub message: String,
}
