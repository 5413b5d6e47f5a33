//! `POST /api/fleet/agents/{id}/checkin` (EA §4).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The request (EA §4.1). Documents stay raw: they are compared and stored, rarely looked into.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct CheckInRequest<'a> {
    /// Required, not empty; any value (EA50, EA51).
    #[serde(borrow, default)]
    pub status: Option<Cow<'a, str>>,
    /// The message beside it.
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
    /// Token of the last action delivered.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub ack_token: Option<Cow<'a, str>>,
    /// Host and agent facts.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub local_metadata: Option<&'a RawValue>,
    /// Supervised programs and their units.
    #[serde(borrow, default)]
    pub components: Option<&'a RawValue>,
    /// Go duration: how long the client waits (EA68).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub poll_timeout: Option<Cow<'a, str>>,
    /// A running upgrade (EA §4.6).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub upgrade_details: Option<&'a RawValue>,
    /// The policy that runs (EA92).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub agent_policy_id: Option<Cow<'a, str>>,
    /// Its revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision_idx: Option<i64>,
    /// `{"rollbacks": […]}` or `{}` (EA66).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<&'a RawValue>,
}

/// One entry of `components`.
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
    /// The message beside it.
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
    /// Inputs and outputs. Their order varies between check-ins (EA §15): compare as sets.
    #[serde(borrow, default)]
    pub units: Option<Vec<Unit<'a>>>,
}

/// One input or output of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Unit<'a> {
    /// `log-default-logfile-1`.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// `input`, `output` or empty.
    #[serde(rename = "type", borrow, default)]
    pub kind: Cow<'a, str>,
    /// As of a component.
    #[serde(borrow, default)]
    pub status: Cow<'a, str>,
    /// The message beside it.
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
}

/// The reply (EA §4.13), as clients read it. The server writes it from pieces.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct CheckInResponse {
    /// Empty: keep the old one.
    #[serde(default)]
    pub ack_token: String,
    /// `checkin`.
    #[serde(default)]
    pub action: String,
    /// Orders, in the order in which to run them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<WireAction>,
}

/// One action as delivered (EA §4.11).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WireAction {
    /// The addressed agent.
    pub agent_id: String,
    /// RFC 3339.
    pub created_at: String,
    /// The action's id; for a policy `policy:<id>:<revision>`.
    pub id: String,
    /// `UPGRADE`, `POLICY_CHANGE` …
    #[serde(rename = "type")]
    pub kind: String,
    /// Component type of an `INPUT_ACTION`, else empty.
    #[serde(default)]
    pub input_type: String,
    /// The order's own fields, or `null`.
    pub data: Option<Box<RawValue>>,
    /// When to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Payload and signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<WireSigned>,
}

/// `signed` (EA §10.9).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct WireSigned {
    /// Base64 of the signed bytes.
    pub data: String,
    /// Base64 of the DER signature.
    pub signature: String,
}
