//! The audit log: `GET /audit`, `GET /audit/_verify`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /audit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListAuditEvents {
    /// Who acted: `local:root`, `agent:<id>`, `system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// What was done: `policy.update`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// To what: `policy:<id>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// At or after this time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Before this time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Rows per response, default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_page: Option<u32>,
    /// `nextSearchAfter` of the response before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search_after: Option<String>,
}

/// One line of the log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct AuditEvent {
    /// Its number; later lines have higher ones.
    pub seq: i64,
    /// When.
    pub at: String,
    /// Who acted.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// More about it.
    #[serde(default)]
    pub detail: Value,
    /// Its hash in the chain, in hexadecimal.
    #[serde(default)]
    pub hash: String,
}

/// Lines of the log, newest first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvents {
    /// Rows; there may be fewer than asked for although the list goes on.
    pub items: Vec<AuditEvent>,
    /// Where the list goes on: `searchAfter` of the next request; absent after the oldest line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_search_after: Option<String>,
}

/// `GET /audit/_verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditVerdict {
    /// Whether every line is as it was written.
    pub intact: bool,
    /// Lines that are, from the first.
    pub lines: u64,
    /// Hash of the last of them, in hexadecimal. Kept elsewhere, it shows later that no line was cut off since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Number of the first line that was changed, or before which one is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_at: Option<i64>,
}
