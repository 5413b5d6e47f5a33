//! The audit log: `GET /audit`, `GET /audit/_verify`, `GET /audit/_export`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /audit`: the events of a space. In the default space, whoever may read the log everywhere gets all events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListAuditEvents {
    /// Actor: `local:root`, `agent:<id>`, `system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Action: `policy.update`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Subject: `policy:<id>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Start of the period, inclusive (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// End of the period, exclusive (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Rows per response, default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_page: Option<u32>,
    /// `nextSearchAfter` of the previous response.
    #[serde(skip_serializing_if = "Option::is_none")]
    // No page numbers: they would shift with every new event.
    pub search_after: Option<String>,
}

/// `GET /audit/_export`: a signed file with the events of a period, of the same spaces as in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub struct ExportAuditEvents {
    /// Start of the period, inclusive (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// End of the period, exclusive (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Event of the log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct AuditEvent {
    /// Sequence number, ascending.
    pub seq: i64,
    /// Time.
    pub at: String,
    /// Actor.
    pub actor: String,
    /// Action.
    pub action: String,
    /// Subject.
    pub subject: String,
    /// Details.
    #[serde(default)]
    // Its content depends on the action, so scripts should expect other keys.
    pub detail: Value,
    /// The address from which the request came; absent for a user of the server's host and for the server itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The reason that the actor gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The space of the subject; absent for what belongs to the installation, such as users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// Hash in the chain, in hex.
    #[serde(default)]
    pub hash: String,
}

/// Page of events, newest first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvents {
    /// Rows. There can be fewer than requested although more follow.
    pub items: Vec<AuditEvent>,
    /// `searchAfter` of the next request; absent after the oldest event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_search_after: Option<String>,
}

/// `GET /audit/_verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditVerdict {
    /// Whether no event was changed or removed.
    pub intact: bool,
    /// Number of verified events.
    pub lines: u64,
    /// Last verified event of each chain. Stored outside the server, they later prove that the log was not truncated.
    // A chain alone can't show that its end is missing, unless another one has sealed it.
    pub heads: Vec<AuditHead>,
    /// The first defect that was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<AuditDefect>,
}

/// End of a chain of the audit log. Each node writes a chain of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct AuditHead {
    /// Name of the chain: the id of its node.
    pub chain: String,
    /// Position in the chain, counted from 1.
    pub position: i64,
    /// Hash of the event there, in hex.
    pub hash: String,
}

/// Defect of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct AuditDefect {
    /// The chain.
    pub chain: String,
    /// Position in the chain, counted from 1.
    pub position: i64,
    /// What is wrong there.
    pub reason: String,
}
