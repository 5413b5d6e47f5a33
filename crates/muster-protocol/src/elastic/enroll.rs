//! `POST /api/fleet/agents/enroll` (EA §3).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Request (EA §3.1). Unknown fields are ignored (EA8).
#[derive(Debug, Deserialize, Serialize)]
pub struct EnrollRequest<'a> {
    /// `PERMANENT`, `EPHEMERAL` or `TEMPORARY`.
    #[serde(rename = "type", borrow, default)]
    // A string, so that an unknown type gets the protocol's error code.
    pub kind: Cow<'a, str>,
    /// Desired agent id. If it is empty or absent, the server generates one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    // Real agents send `""` for "none", here and in the fields below (EA27).
    pub id: Option<Cow<'a, str>>,
    /// Secret that allows a later enrollment to replace this agent; empty means none.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub replace_token: Option<Cow<'a, str>>,
    /// Idempotency handle.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub enrollment_id: Option<Cow<'a, str>>,
    /// Metadata of the agent.
    #[serde(borrow, default)]
    pub metadata: EnrollMetadata<'a>,
}

/// Metadata of an enrollment request.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct EnrollMetadata<'a> {
    /// Facts about the host and the agent: any JSON object, or `null`.
    #[serde(borrow, default)]
    // Kept as text: it is returned almost unchanged, and its size is limited before it is parsed.
    pub local: Option<&'a RawValue>,
    /// Ignored; returned as `null`.
    #[serde(borrow, default)]
    pub user_provided: Option<&'a RawValue>,
    /// Tags, or `null`.
    #[serde(default)]
    // `null` in the requests of real agents (EA27), so a default alone is not sufficient.
    pub tags: Option<Vec<String>>,
}

/// Response (EA §3.7).
#[derive(Debug, Deserialize, Serialize)]
pub struct EnrollResponse {
    /// Always `created`.
    pub action: Cow<'static, str>,
    /// Enrolled agent.
    pub item: EnrolledItem,
}

/// Agent of an enrollment response.
#[derive(Deserialize, Serialize)]
pub struct EnrolledItem {
    /// Agent id.
    pub id: String,
    /// True.
    // All keys of the response must be present, even those with constant values (EA34).
    pub active: bool,
    /// Assigned policy, or an empty string.
    pub policy_id: String,
    /// Type as requested.
    #[serde(rename = "type")]
    pub kind: String,
    /// RFC 3339, seconds, UTC.
    pub enrolled_at: String,
    /// `null`.
    // `null` and not omitted (EA34).
    pub user_provided_metadata: Option<Box<RawValue>>,
    /// As sent, with the assigned id in `elastic.agent.id` (EA §3.5).
    pub local_metadata: Option<Box<RawValue>>,
    /// Id of the access key.
    pub access_api_key_id: String,
    /// Access key: base64 of `id:secret`, as it follows `ApiKey `.
    pub access_api_key: String,
    /// `online`.
    pub status: String,
    /// Sorted, without duplicates.
    pub tags: Vec<String>,
}

impl std::fmt::Debug for EnrolledItem {
    /// Omits the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolledItem").field("id", &self.id).field("policy_id", &self.policy_id).finish_non_exhaustive()
    }
}
