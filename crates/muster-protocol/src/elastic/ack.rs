//! `POST /api/fleet/agents/{id}/acks` (EA §5).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Request. `events` may be absent, `null` or empty (EA111).
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct AckRequest<'a> {
    /// Acks, kept raw so that a malformed one fails only its own item (EA §5.1).
    #[serde(borrow, default)]
    // The container entry point of the agent sends `{"events":null}` to test its key, and expects 200 (EA §5.1).
    pub events: Option<Vec<&'a RawValue>>,
}

/// One ack.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct AckEvent<'a> {
    /// `ACTION_RESULT`; ignored.
    #[serde(rename = "type", borrow, default)]
    // Always the same values; kept so that samples of real requests round-trip.
    pub kind: Option<Cow<'a, str>>,
    /// `ACKNOWLEDGED`; ignored.
    #[serde(borrow, default)]
    pub subtype: Option<Cow<'a, str>>,
    /// Id of the agent; must equal the id in the path unless empty.
    #[serde(borrow, default)]
    pub agent_id: Option<Cow<'a, str>>,
    /// Id of the delivered action.
    #[serde(borrow, default)]
    pub action_id: Option<Cow<'a, str>>,
    /// Ignored.
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
    /// RFC 3339 with any offset (EA124).
    #[serde(borrow, default)]
    pub timestamp: Option<Cow<'a, str>>,
    /// Error message; the action failed if it is present, even if empty.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    // Not a `String` with a default: an empty string still means failure (EA §5.1).
    pub error: Option<Cow<'a, str>>,
    /// UPGRADE only: `{retry, retry_attempt}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<RetryPayload>,
    /// REQUEST_DIAGNOSTICS only: `{upload_id}`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    /// INPUT_ACTION only.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    // The fields from here on come from components, and are stored without interpretation.
    pub action_input_type: Option<Cow<'a, str>>,
    /// INPUT_ACTION only.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub action_data: Option<&'a RawValue>,
    /// INPUT_ACTION only.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub action_response: Option<&'a RawValue>,
    /// INPUT_ACTION only.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Cow<'a, str>>,
    /// INPUT_ACTION only.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Cow<'a, str>>,
}

/// `payload` of a failed UPGRADE's ack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct RetryPayload {
    /// Whether the agent will retry.
    #[serde(default)]
    pub retry: bool,
    /// Number of the failed attempt; −1 means the last one.
    #[serde(default)]
    // The counter is informative; `retry` decides (EA §5.4).
    pub retry_attempt: i64,
}

/// Response (EA §5.2).
#[derive(Debug, Deserialize, Serialize)]
pub struct AckResponse {
    /// `acks`.
    pub action: Cow<'static, str>,
    /// Whether any item is not 200.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    // Omitted if false, as in the original (EA §5.2).
    pub errors: bool,
    /// One item per event, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    // Agents match items to events by position only (EA112).
    pub items: Vec<AckItem>,
}

/// Item of the response.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct AckItem {
    /// HTTP status of the ack.
    pub status: u16,
    /// Reason phrase of the status, or an error message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'static, str>>,
}
