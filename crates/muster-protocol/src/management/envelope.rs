//! Envelopes of responses: `{item}`, `{items, total, page, perPage}`, and the error body (MG §1.1).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Default number of rows per page.
pub const DEFAULT_PER_PAGE: u32 = 20;

/// The only public API version (MG §1.1).
pub const API_VERSION: &str = "2023-10-31";

/// Envelope of one object.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema, Serialize)]
#[schemars(rename = "{T}Item")]
pub struct Item<T> {
    /// Object.
    pub item: T,
}

/// Page of objects.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "{T}Page")]
pub struct Items<T> {
    /// Rows.
    pub items: Vec<T>,
    /// Total number of matches.
    pub total: u64,
    /// Number of rows that are omitted because they cannot be read; absent if there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreadable: u64,
    /// Page number, from 1; in `action_status` from 0.
    // Page numbers only work for the first 10,000 rows (MG §1.1); a cursor has no such limit.
    pub page: u32,
    /// Rows per page.
    pub per_page: u32,
    /// `searchAfter` of the next request; absent after the last row, and in lists without cursors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_search_after: Option<String>,
}

/// Envelope of a complete list.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema, Serialize)]
#[schemars(rename = "{T}List")]
pub struct Whole<T> {
    /// Objects.
    pub items: Vec<T>,
}

// An empty object and not an empty body: several clients treat 204 as a failure (MG §1.1).
/// `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Empty {}

/// Error or warning about a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Diagnostic {
    /// Field, as a dotted path.
    pub path: String,
    /// Line in the file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// What is wrong.
    pub reason: String,
    /// Remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Body of every error response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// HTTP status.
    // The first three fields are Kibana's error shape, the others are additions.
    pub status_code: u16,
    /// Reason phrase of the status, such as `Not Found`.
    pub error: String,
    /// What failed, and why.
    pub message: String,
    /// Stable, machine-readable error code.
    #[serde(default)]
    // `message` may be reworded at any time; scripts should match on this.
    pub code: String,
    /// Field, as a dotted path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// All problems of a policy, with positions in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Diagnostic>,
}

/// Response of a bulk request with `dryRun`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Counted {
    /// Number of eligible agents.
    pub count: u64,
    /// Number of agents that are not eligible.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// Number of selected agents that the caller may read, but not act on; absent if there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub excluded: u64,
    /// First agents that are not eligible, with the reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<IneligibleAgent>,
}

/// Agent that is not eligible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct IneligibleAgent {
    /// Agent id.
    pub agent_id: String,
    /// Reason.
    pub error: String,
}

pub(super) fn is_zero(count: &u64) -> bool {
    *count == 0
}
