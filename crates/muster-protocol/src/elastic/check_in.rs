//! `POST /api/fleet/agents/{id}/checkin` (EA §4).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Request (EA §4.1). Documents stay raw, because they are compared and stored, but rarely parsed.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct CheckInRequest<'a> {
    /// Status of the agent: required and not empty, but any value is accepted (EA50, EA51).
    #[serde(borrow, default)]
    // Optional here, so that a missing status gets the protocol's own error and not one of the JSON parser.
    pub status: Option<Cow<'a, str>>,
    /// Human-readable message.
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
    /// Id of the last action that was delivered.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    // Agents omit it when empty. Missing, empty and unknown tokens all mean the stored position (EA74).
    pub ack_token: Option<Cow<'a, str>>,
    /// Facts about the host and the agent.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    // Any JSON. An agent decides what it contains, so it is neither typed nor decoded.
    pub local_metadata: Option<&'a RawValue>,
    /// Supervised programs and their units.
    #[serde(borrow, default)]
    // Raw, because payloads make it the largest part of a request, and usually nothing in it has changed.
    pub components: Option<&'a RawValue>,
    /// Maximum time that the client waits, as a Go duration (EA68).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    // Elastic Agent 9.6 does not send it (EA §4.1).
    pub poll_timeout: Option<Cow<'a, str>>,
    /// State of a running upgrade (EA §4.6).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub upgrade_details: Option<&'a RawValue>,
    /// Id of the policy that the agent runs (EA92).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    // Absent in requests of older agents, which confirm policies only by acks (EA93).
    pub agent_policy_id: Option<Cow<'a, str>>,
    /// Revision of that policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision_idx: Option<i64>,
    /// `{"rollbacks": […]}` or `{}` (EA66).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    // Raw: invalid content must not reject the request (EA §4.1).
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
    // Payloads are left out: they change with every check-in and are not compared.
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
    // One element that does not decode makes agents drop the whole batch (EA145).
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
    // Always present in deliveries, even if empty (EA78).
    pub input_type: String,
    /// Type-specific fields, or `null`.
    // `null` and not omitted for types without data, such as UNENROLL (EA82).
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
    // The signature covers this copy, not the fields above (EA §10.9).
    pub signed: Option<WireSigned>,
}

/// Signed bytes with their signature (EA §10.9).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct WireSigned {
    /// Base64 of the signed bytes.
    pub data: String,
    /// Base64 of the DER signature.
    // Both strings are passed on byte by byte (EA80).
    pub signature: String,
}
