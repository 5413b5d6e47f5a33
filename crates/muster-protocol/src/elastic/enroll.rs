//! `POST /api/fleet/agents/enroll` (EA §3).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The request (EA §3.1). Unknown fields are ignored (EA8).
#[derive(Debug, Deserialize, Serialize)]
pub struct EnrollRequest<'a> {
    /// `PERMANENT`, `EPHEMERAL` or `TEMPORARY`.
    #[serde(rename = "type", borrow, default)]
    pub kind: Cow<'a, str>,
    /// Desired agent id; empty or absent: the server makes one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// Secret that allows later replacement; empty: none.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub replace_token: Option<Cow<'a, str>>,
    /// Idempotency handle.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub enrollment_id: Option<Cow<'a, str>>,
    /// What the agent says of itself.
    #[serde(borrow, default)]
    pub metadata: EnrollMetadata<'a>,
}

/// `metadata` of an enrol request.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct EnrollMetadata<'a> {
    /// Host and agent facts: any JSON object, or `null`.
    #[serde(borrow, default)]
    pub local: Option<&'a RawValue>,
    /// Ignored, answered as `null`.
    #[serde(borrow, default)]
    pub user_provided: Option<&'a RawValue>,
    /// Tags, or `null`.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
}

/// The reply (EA §3.7).
#[derive(Debug, Deserialize, Serialize)]
pub struct EnrollResponse {
    /// Always `created`.
    pub action: Cow<'static, str>,
    /// The new agent.
    pub item: EnrolledItem,
}

/// `item` of an enrol reply.
#[derive(Deserialize, Serialize)]
pub struct EnrolledItem {
    /// The agent's id.
    pub id: String,
    /// True.
    pub active: bool,
    /// The policy it got; an empty string when none is assigned.
    pub policy_id: String,
    /// As asked for.
    #[serde(rename = "type")]
    pub kind: String,
    /// RFC 3339, seconds, UTC.
    pub enrolled_at: String,
    /// `null`.
    pub user_provided_metadata: Option<Box<RawValue>>,
    /// As sent, with the assigned id in `elastic.agent.id` (EA §3.5).
    pub local_metadata: Option<Box<RawValue>>,
    /// Public half of the access key.
    pub access_api_key_id: String,
    /// Base64 of `id:secret`, ready to stand after `ApiKey `.
    pub access_api_key: String,
    /// `online`.
    pub status: String,
    /// Sorted, without duplicates.
    pub tags: Vec<String>,
}

impl std::fmt::Debug for EnrolledItem {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolledItem").field("id", &self.id).field("policy_id", &self.policy_id).finish_non_exhaustive()
    }
}
