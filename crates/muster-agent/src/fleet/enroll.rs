//! `POST /api/fleet/agents/enroll` (EA §3).

use std::borrow::Cow;

use muster_protocol::elastic::enroll::{EnrollMetadata, EnrollRequest, EnrollResponse, EnrolledItem};
use serde_json::value::RawValue;

use super::client::{Call, expect_ok};
use super::{CallError, FleetClient};

/// Parameters of an enrollment, except for host metadata.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Requested agent id.
    pub id: Option<String>,
    /// Secret that allows a later enrollment under the same id.
    pub replace_token: Option<String>,
    /// Id of the enrollment. All attempts use the same one, so that a lost response does not leave a second agent.
    pub enrollment_id: String,
    /// Tags.
    pub tags: Vec<String>,
}

impl FleetClient {
    /// Enrolls with the credential of this client, which must be an enrollment token.
    pub async fn enroll(&self, wish: &Wish, facts: &RawValue) -> Result<EnrolledItem, CallError> {
        let body = serde_json::to_vec(&request(wish, facts)).map_err(|error| CallError::Undecodable(error.into()))?;
        let response = expect_ok(self.send(Call::post("/api/fleet/agents/enroll", body)).await?)?;
        let reply: EnrollResponse =
            serde_json::from_slice(&response.body).map_err(|error| CallError::Undecodable(error.into()))?;
        checked(reply)
    }
}

fn request<'a>(wish: &'a Wish, facts: &'a RawValue) -> EnrollRequest<'a> {
    let metadata = EnrollMetadata { local: Some(facts), user_provided: None, tags: Some(wish.tags.clone()) };
    EnrollRequest {
        kind: Cow::Borrowed("PERMANENT"),
        id: wish.id.as_deref().map(Cow::Borrowed),
        replace_token: wish.replace_token.as_deref().map(Cow::Borrowed),
        enrollment_id: Some(Cow::Borrowed(&wish.enrollment_id)),
        metadata,
    }
}

fn checked(reply: EnrollResponse) -> Result<EnrolledItem, CallError> {
    let item = reply.item;
    if reply.action != "created" || item.kind != "PERMANENT" {
        return Err(CallError::Undecodable("not an enrollment of a permanent agent".into()));
    }
    // The id becomes part of every later path, and must not change its structure.
    if item.id.is_empty() || item.access_api_key.is_empty() || !is_plain(&item.id) {
        return Err(CallError::Undecodable("no usable agent id or access key".into()));
    }
    Ok(item)
}

/// Returns whether an id can be used in a path without escaping.
fn is_plain(id: &str) -> bool {
    id.len() <= 512 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b))
}
