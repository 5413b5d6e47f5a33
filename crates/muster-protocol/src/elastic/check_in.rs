//! `POST /api/fleet/agents/{id}/checkin` (EA §4).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Request (EA §4.1). Documents stay raw, because they are compared and stored, but rarely parsed.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct CheckInRequest<'a> {
    /// Status of the agent: required and not empty, but any value is accepted (EA50, EA51).
    #[serde(borrow, default)]
    pub status: Option<Cow<'a, str>>,
    /// Human-readable message.
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
    /// Id of the last action that was delivered.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub ack_token: Option<Cow<'a, str>>,
    /// Facts about the host and the agent.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub local_metadata: Option<&'a RawValue>,
    /// Supervised programs and their units.
    #[serde(borrow, default)]
    pub components: Option<&'a RawValue>,
    /// Maximum time that the client waits, as a Go duration (EA68).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub poll_timeout: Option<Cow<'a, str>>,
    /// State of a running upgrade (EA §4.6).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub upgrade_details: Option<&'a RawValue>,
    /// Id of the policy that the agent runs (EA92).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub agent_policy_id: Option<Cow<'a, str>>,
    /// Revision of that policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision_idx: Option<i64>,
    /// `{"rollbacks": […]}` or `{}` (EA66).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<&'a RawValue>,
}

/// Component: a supervised program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Component<'a> {
    /// `log-default`.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// `log`, `otel` …
    #[serde(rename = "type", borrow, default)]
    pub kind: Cow<'a, str>,
    /// `STARTING` … `STOPPED`, or empty.
    #[serde(borrow, default)]
    pub status: Cow<'a, str>,
    /// Human-readable message.
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
    /// Inputs and outputs. Compare them as sets: their order varies between check-ins (EA §15).
    #[serde(borrow, default)]
    pub units: Option<Vec<Unit<'a>>>,
}

/// Unit: an input or output of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Unit<'a> {
    /// `log-default-logfile-1`.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// `input`, `output` or empty.
    #[serde(rename = "type", borrow, default)]
    pub kind: Cow<'a, str>,
    /// Status, with the values of a component's.
    #[serde(borrow, default)]
    pub status: Cow<'a, str>,
    /// Human-readable message.
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
}

/// Response (EA §4.13), as clients read it. The server assembles it from pieces.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct CheckInResponse {
    /// Token for the next check-in; empty means that the previous one stays valid.
    #[serde(default)]
    pub ack_token: String,
    /// `checkin`.
    #[serde(default)]
    pub action: String,
    /// Actions, in the order of execution.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<WireAction>,
}

/// Delivered action (EA §4.11).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WireAction {
    /// Id of the target agent.
    pub agent_id: String,
    /// RFC 3339.
    pub created_at: String,
    /// Id of the action; `policy:<id>:<revision>` for a policy.
    pub id: String,
    /// `UPGRADE`, `POLICY_CHANGE` …
    #[serde(rename = "type")]
    pub kind: String,
    /// Component type of an `INPUT_ACTION`, otherwise empty.
    #[serde(default)]
    pub input_type: String,
    /// Type-specific fields, or `null`.
    pub data: Option<Box<RawValue>>,
    /// Start time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Expiration time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Timeout in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Signed copy of the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<WireSigned>,
}

/// Signed bytes with their signature (EA §10.9).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct WireSigned {
    /// Base64 of the signed bytes.
    pub data: String,
    /// Base64 of the DER signature.
    pub signature: String,
}
