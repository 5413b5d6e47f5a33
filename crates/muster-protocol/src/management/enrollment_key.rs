//! `/api/fleet/enrollment_api_keys` (MG §1.6, §2.9).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::list_query::list_query;

fn elastic() -> String {
    "elastic".to_owned()
}

/// Enrollment key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct EnrollmentKey {
    /// Id of the record.
    pub id: String,
    /// Id part of the key.
    pub api_key_id: String,
    /// Token that agents enroll with: returned on creation, and when read by id if it is retrievable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// Agents that it is for: `elastic`, or `fleetd` for an enroll secret.
    #[serde(default = "elastic")]
    pub family: String,
    /// Name.
    pub name: String,
    /// Whether agents can enroll with it: not revoked, not expired, not used up.
    // Derived: Kibana's clients know no other states. The reason can be seen in the fields below.
    pub active: bool,
    /// Policy of agents that enroll with it.
    #[serde(default)]
    pub policy_id: Option<String>,
    /// Creation time.
    pub created_at: String,
    /// User who created it.
    #[serde(default)]
    pub created_by: String,
    /// Expiration time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_at: Option<String>,
    /// Time of revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
    /// Tags of agents that enroll with it.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Maximum number of uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<i64>,
    /// Of a one-time enroll secret: for which host it is, and who has used it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time: Option<OneTime>,
    /// Number of uses.
    #[serde(default)]
    pub uses: i64,
    /// Time of the last use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// Excluded from bulk changes.
    #[serde(default)]
    pub hidden: bool,
    /// Whether `GET …/{id}` returns the token.
    #[serde(default)]
    pub retrievable: bool,
    /// Spaces in which it is visible.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

/// For which host a one-time enroll secret is, and which of its programs have used it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct OneTime {
    /// Hardware UUID; that of the first host that uses it, if none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware_uuid: Option<String>,
    /// Serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Time at which orbit enrolled with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orbit_used_at: Option<String>,
    /// Time at which osqueryd enrolled with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub osquery_used_at: Option<String>,
}

/// Request to create a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateEnrollmentKey {
    /// Agents that it is for: `elastic` (default), or `fleetd` for an enroll secret of orbit and osqueryd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Enroll secret of 16 to 255 bytes; generated if absent. Only for `fleetd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Policy of agents that enroll with it; without one, assignment rules decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<String>,
    /// Name; defaults to the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Expiration: a duration (`30d`, `12h`, `45m`, `90s`) or an RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Tags of agents that enroll with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Maximum number of uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<i64>,
    /// Whether it is a one-time secret, for the orbit and the osqueryd of one host, once each. The second has an hour after the first. Only for
    /// `fleetd`; expires after a day by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time: Option<bool>,
    /// Hardware UUID of the host of a one-time secret; default: the first host that uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware_uuid: Option<String>,
    /// Serial number of the host of a one-time secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Excluded from bulk changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
    /// Whether the token can be read again later; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // True by default, because `elastic-agent container` and Terraform read tokens back (MG62).
    pub retrievable: Option<bool>,
}

/// Page of keys. `list` duplicates `items` for the agent's container command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrollmentKeys {
    /// Rows.
    pub items: Vec<EnrollmentKey>,
    /// The same rows.
    #[serde(default)]
    // Kibana's deprecated name, which `elastic-agent container` still reads (MG61).
    pub list: Vec<EnrollmentKey>,
    /// Total number of matches.
    pub total: u64,
    /// Number of rows that are omitted because they cannot be read; absent if there are none.
    #[serde(default, skip_serializing_if = "super::envelope::is_zero")]
    pub unreadable: u64,
    /// Page number, from 1.
    pub page: u32,
    /// Rows per page.
    pub per_page: u32,
    /// `searchAfter` of the next request; absent after the last row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_search_after: Option<String>,
}

list_query! {
    /// `GET /enrollment_api_keys`.
    ListEnrollmentKeys, first page 1, with search_after {
        /// KQL.
        kuery: String,
        /// Whether to leave the tokens out. By default, rows contain them for those who may read them.
        omit_tokens: bool,
    }
}

/// Response of a creation or a replacement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct CreatedEnrollmentKey {
    /// Key, with its token.
    pub item: EnrollmentKey,
    /// `created`.
    pub action: String,
}

/// `{"action": "deleted"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Deleted {
    /// `deleted`.
    pub action: String,
}
