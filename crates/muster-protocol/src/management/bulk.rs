//! Bulk requests: which agents (MG §1.2.2), and what to do with them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::order::UserInfo;

/// Which agents: a list of ids, or a KQL query; the empty query means every agent that the caller can see.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum AgentSelector {
    /// These.
    Ids(Vec<String>),
    /// Those that match.
    Query(String),
}

/// The fields that every bulk request has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Which agents.
    pub agents: AgentSelector,
    /// Whether a query takes inactive ones in.
    pub include_inactive: bool,
    /// Only count.
    pub dry_run: bool,
}

macro_rules! bulk_request {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Which agents.
            pub agents: AgentSelector,
            /// Whether a query takes inactive ones in.
            #[serde(rename = "includeInactive", default, skip_serializing_if = "Option::is_none")]
            pub include_inactive: Option<bool>,
            /// Accepted for the original's sake: one order is one order here, whatever its size.
            #[serde(rename = "batchSize", default, skip_serializing_if = "Option::is_none")]
            pub batch_size: Option<u64>,
            /// Only count.
            #[serde(rename = "dryRun", default, skip_serializing_if = "Option::is_none")]
            pub dry_run: Option<bool>,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Which agents, and whether only to count them.
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
        /// Kill the keys now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revoke: Option<bool>,
        /// Also agents of hosted policies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        force: Option<bool>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_reassign`.
    BulkReassign {
        /// The policy; `null`: none.
        #[serde(deserialize_with = "super::nullable")]
        policy_id: Option<String>,
        /// The revision of it that the agents should run; none: the newest, whichever that is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy_revision: Option<i64>,
        /// Also agents of hosted policies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        force: Option<bool>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_upgrade`.
    BulkUpgrade {
        /// The version.
        version: String,
        /// Where to fetch it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source_uri: Option<String>,
        /// Skip the checks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        force: Option<bool>,
        /// Skip the cool-down.
        #[serde(rename = "skipRateLimitCheck", default, skip_serializing_if = "Option::is_none")]
        skip_rate_limit_check: Option<bool>,
        /// Spread the starts over so many seconds, at least 600.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rollout_duration_seconds: Option<i64>,
        /// When to start: RFC 3339.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start_time: Option<String>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_rollback`.
    BulkRollback {}
);
bulk_request!(
    /// `POST /agents/bulk_delete`: purges.
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
        /// Tags to take away.
        #[serde(rename = "tagsToRemove", default, skip_serializing_if = "Option::is_none")]
        tags_to_remove: Option<Vec<String>>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_migrate`.
    BulkMigrate {
        /// The other server.
        uri: String,
        /// A token of its.
        enrollment_token: String,
        /// How to reach it (MG §1.2.3).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        settings: Option<Map<String, Value>>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_privilege_level_change`.
    BulkPrivilegeLevelChange {
        /// The user that the agent is to run as.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_info: Option<UserInfo>,
    }
);
bulk_request!(
    /// `POST /agents/bulk_actions`: an order of any type to many.
    BulkActions {
        /// The order.
        action: super::action::NewAction,
    }
);
