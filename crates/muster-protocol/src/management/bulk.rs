//! Bulk requests (MG §1.2.2).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::agent_action::UserInfo;
use super::rollout::RolloutPlan;

/// Selector of agents: a list of ids, or a KQL query. The empty query selects every agent that the caller can see.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
// Kibana distinguishes them by JSON type: an array or a string (MG §1.2.2).
#[serde(untagged, expecting = "must be a list of agent ids, or a query")]
pub enum AgentSelector {
    /// Ids.
    Ids(Vec<String>),
    /// KQL query.
    Query(String),
}

/// Common fields of bulk requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Selected agents.
    pub agents: AgentSelector,
    /// Whether a query includes inactive agents.
    pub include_inactive: bool,
    /// Dry run: only validate and count.
    pub dry_run: bool,
}

// A macro and not a flattened struct, because `deny_unknown_fields` does not work with `flatten`. A misspelled `dryRun`
// must be an error.
macro_rules! bulk_request {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema, Serialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Selected agents.
            pub agents: AgentSelector,
            /// Whether a query includes inactive agents.
            #[serde(rename = "includeInactive", default, skip_serializing_if = "Option::is_none")]
            pub include_inactive: Option<bool>,
            /// Accepted for compatibility and ignored: an action is never split into batches.
            #[serde(rename = "batchSize", default, skip_serializing_if = "Option::is_none")]
            // Kibana splits large selections into several actions.
            pub batch_size: Option<u64>,
            /// Dry run: only validate and count.
            #[serde(rename = "dryRun", default, skip_serializing_if = "Option::is_none")]
            pub dry_run: Option<bool>,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Selected agents, and whether this is a dry run.
            pub fn selection(&self) -> Selection {
                Selection {
                    agents: self.agents.clone(),
                    include_inactive: self.include_inactive.unwrap_or(false),
                    dry_run: self.dry_run.unwrap_or(false),
                }
            }
        }
    };
}

bulk_request!(
    /// `POST /agents/bulk_unenroll`.
    BulkUnenroll {
        /// Revoke the access keys immediately.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revoke: Option<bool>,
        /// Applies even to agents of managed policies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        force: Option<bool>,
        /// Reason, for the audit log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
);
bulk_request!(
    /// `POST /rollouts`: an upgrade in waves.
    BulkRollout {
        /// Target version.
        version: String,
        /// Base URL of the package.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source_uri: Option<String>,
        /// Waves and gate.
        plan: RolloutPlan,
    }
);
bulk_request!(
    /// `POST /agents/bulk_reassign`.
    BulkReassign {
        /// Policy id; `null` means no policy.
        #[serde(deserialize_with = "super::nullable")]
        #[schemars(with = "super::Nullable<String>")]
        policy_id: Option<String>,
        /// Target revision; if absent, the agents follow the newest one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy_revision: Option<i64>,
        /// Applies even to agents of managed policies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        force: Option<bool>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_upgrade`.
    BulkUpgrade {
        /// Target version.
        version: String,
        /// Base URL of the package.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source_uri: Option<String>,
        /// Skips the eligibility checks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        force: Option<bool>,
        /// Skips the cool-down between upgrades.
        #[serde(rename = "skipRateLimitCheck", default, skip_serializing_if = "Option::is_none")]
        skip_rate_limit_check: Option<bool>,
        /// Window in seconds over which start times are spread, at least 600.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rollout_duration_seconds: Option<i64>,
        /// Start time (RFC 3339).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start_time: Option<String>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_rollback`.
    BulkRollback {}
);
bulk_request!(
    /// `POST /agents/bulk_delete`.
    BulkDelete {}
);
bulk_request!(
    /// `POST /agents/bulk_request_diagnostics`.
    BulkDiagnostics {
        /// `CPU`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        additional_metrics: Option<Vec<String>>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_update_agent_tags`.
    BulkTags {
        /// Tags to add.
        #[serde(rename = "tagsToAdd", default, skip_serializing_if = "Option::is_none")]
        tags_to_add: Option<Vec<String>>,
        /// Tags to remove.
        #[serde(rename = "tagsToRemove", default, skip_serializing_if = "Option::is_none")]
        tags_to_remove: Option<Vec<String>>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_migrate`.
    BulkMigrate {
        /// URL of the other server.
        uri: String,
        /// Enrollment token of the other server.
        enrollment_token: String,
        /// Connection settings (MG §1.2.3).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        settings: Option<Map<String, Value>>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_privilege_level_change`.
    BulkPrivilegeLevelChange {
        /// User to run as.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_info: Option<UserInfo>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_actions`: an action of any type.
    BulkActions {
        /// Action.
        action: super::action::NewAction,
    }
);
