//! `/api/fleet/enrollment_api_keys` (MG §1.6, §2.9).

use serde::{Deserialize, Serialize};

/// An enrollment key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct EnrollmentKey {
    /// The record's id.
    pub id: String,
    /// The public half of the key.
    pub api_key_id: String,
    /// The token that agents enrol with: on creation, and on a read by id while it is retrievable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// What people call it.
    pub name: String,
    /// Whether it admits agents now: not revoked, not expired, not used up.
    pub active: bool,
    /// The policy that agents get.
    #[serde(default)]
    pub policy_id: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// Who made it.
    #[serde(default)]
    pub created_by: String,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_at: Option<String>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
    /// Tags that agents get.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How often it may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<i64>,
    /// How often it was used.
    #[serde(default)]
    pub uses: i64,
    /// When it was used last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// Left out of bulk changes.
    #[serde(default)]
    pub hidden: bool,
    /// Whether `GET …/{id}` gives the token again.
    #[serde(default)]
    pub retrievable: bool,
    /// Spaces in which it is visible.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

/// Creates a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateEnrollmentKey {
    /// The policy that agents get; none: assignment rules decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<String>,
    /// What people call it; without one, its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it ends: a duration (`30d`, `12h`, `45m`, `90s`) or an RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Tags that agents get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// How often it may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<i64>,
    /// Left out of bulk changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
    /// False: the token is shown once and never again. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrievable: Option<bool>,
}

/// A page of keys: `list` is the old twin of `items` that the agent's container command reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrollmentKeys {
    /// The rows.
    pub items: Vec<EnrollmentKey>,
    /// The same rows.
    #[serde(default)]
    pub list: Vec<EnrollmentKey>,
    /// All that match.
    pub total: u64,
    /// The page's number, from 1.
    pub page: u32,
    /// Rows on a page.
    pub per_page: u32,
}

/// The answer to a creation or a replacement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct CreatedEnrollmentKey {
    /// The key with its token.
    pub item: EnrollmentKey,
    /// `created`.
    pub action: String,
}

/// `{"action": "deleted"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Deleted {
    /// `deleted`.
    pub action: String,
}
