//! What is around every answer: `{item}`, `{items, total, page, perPage}`, the error body (MG §1.1).

use serde::{Deserialize, Serialize};

/// Rows on a page, unless the request says otherwise.
pub const DEFAULT_PER_PAGE: u32 = 20;

/// The only public API version (MG §1.1).
pub const API_VERSION: &str = "2023-10-31";

/// One object.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Item<T> {
    /// The object.
    pub item: T,
}

/// A page of objects.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Items<T> {
    /// The rows.
    pub items: Vec<T>,
    /// All that match.
    pub total: u64,
    /// The page's number: from 1, in `action_status` from 0.
    pub page: u32,
    /// Rows on a page.
    pub per_page: u32,
}

/// Some objects, all of them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Whole<T> {
    /// The objects.
    pub items: Vec<T>,
}

/// `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Empty {}

/// Every error's body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// The HTTP status again.
    pub status_code: u16,
    /// The status in words: `Not Found`.
    pub error: String,
    /// What failed and why.
    pub message: String,
    /// A stable machine-readable word.
    #[serde(default)]
    pub code: String,
    /// The field concerned, as a dotted path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The answer to a bulk request with `dryRun`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Counted {
    /// How many agents would get the order.
    pub count: u64,
    /// How many would be refused it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// The first of these, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Refusal>,
}

/// An agent that can't be ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Refusal {
    /// The agent.
    pub agent_id: String,
    /// Why.
    pub error: String,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
