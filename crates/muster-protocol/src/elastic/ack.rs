//! `POST /api/fleet/agents/{id}/acks` (EA §5).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The request. `events` may be absent, `null` or empty (EA111).
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct AckRequest<'a> {
    /// One element an ack, raw: a malformed one spoils only its own item (EA §5.1).
    #[serde(borrow, default)]
    pub events: Option<Vec<&'a RawValue>>,
}

/// One ack.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct AckEvent<'a> {
    /// `ACTION_RESULT`; ignored.
    #[serde(rename = "type", borrow, default)]
    pub kind: Option<Cow<'a, str>>,
    /// `ACKNOWLEDGED`; ignored.
    #[serde(borrow, default)]
    pub subtype: Option<Cow<'a, str>>,
    /// Must be the agent of the path when not empty.
    #[serde(borrow, default)]
    pub agent_id: Option<Cow<'a, str>>,
    /// The `id` of the delivered action.
    #[serde(borrow, default)]
    pub action_id: Option<Cow<'a, str>>,
    /// Ignored.
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
    /// RFC 3339 with any offset (EA124).
    #[serde(borrow, default)]
    pub timestamp: Option<Cow<'a, str>>,
    /// Present, even when empty: failed.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, str>>,
    /// UPGRADE only: `{retry, retry_attempt}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<RetryPayload>,
    /// REQUEST_DIAGNOSTICS only: `{upload_id}`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    /// INPUT_ACTION only.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
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
    /// Whether the agent tries again.
    #[serde(default)]
    pub retry: bool,
    /// Which attempt failed; −1: the last.
    #[serde(default)]
    pub retry_attempt: i64,
}

/// The reply (EA §5.2).
#[derive(Debug, Deserialize, Serialize)]
pub struct AckResponse {
    /// `acks`.
    pub action: Cow<'static, str>,
    /// Whether some item is not 200.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub errors: bool,
    /// One per event, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<AckItem>,
}

/// One item of the reply.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct AckItem {
    /// HTTP status of this ack.
    pub status: u16,
    /// Its standard reason phrase, or the store's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'static, str>>,
}
