//! `POST /api/fleet/agents/enroll` (EA §3).

use std::borrow::Cow;

use bytes::Bytes;
use http_body::Body;
use muster_core::agent::{AgentType, Family};
use muster_core::enroll::Request;
use muster_core::package::own_version;
use muster_core::raw_json::text;
use muster_fleet::enroll::{EnrollInput, EnrolledAgent};
use muster_protocol::elastic::enroll::{EnrollRequest, EnrollResponse, EnrolledItem};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::{Call, Inner, authorization, json, respond};
use muster_listen::receive::BodyError;
use muster_listen::reply::Reply;

impl Inner {
    /// Checks run in the sequence of EA §3.2: the key and its record, the version, the body.
    pub(super) async fn enroll<B>(&self, call: Call<'_, B>) -> Result<Reply, ApiError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let key = authorization::api_key(call.headers())?;
        // Before the body is read: an invalid key must not cost memory and decoding.
        let admission = self.fleet.enrollment().authenticate(&key).await?;
        let version = self.agent_version(call.headers())?;
        let address = call.peer.ip();
        let body = call.read().await?;
        // The metadata is copied into the record and held until the commit.
        let _copies = self.bodies.copies(body.len())?;
        let wire: EnrollRequest<'_> = json::parse(&body)?;
        // The protocol has no fields for these facts, so they are read from the metadata.
        let facts = Facts::read(wire.metadata.local.map_or("null", RawValue::get));
        let input = EnrollInput {
            request: &request(&wire, &facts)?,
            // muster-agent sends the version of the protocol in `User-Agent`, and its own in the build.
            agent_version: facts.program_version.as_deref().unwrap_or(&version.version),
            newer_than_tested: version.newer_than_tested,
            address: &address,
        };
        let enrollment = self.fleet.enrollment().enroll(&admission, input).await?;
        respond::json(&EnrollResponse { action: "created".into(), item: item(enrollment) })
    }
}

/// Facts about the program and its host that are read from `metadata.local`. None of them is authenticated.
struct Facts<'a> {
    family: Family,
    program_version: Option<String>,
    machine_id: Cow<'a, str>,
    former_id: Cow<'a, str>,
}

impl<'a> Facts<'a> {
    fn read(metadata: &'a str) -> Self {
        let build = text(metadata, &["elastic", "agent", "build.original"]).unwrap_or_default();
        // muster-agent uses the same protocol and identifies itself in its build.
        let family = if build.contains("(muster-agent ") { Family::Muster } else { Family::Elastic };
        // An agent that was enrolled before reports the id that it had then, even towards another server (AG157).
        let former_id = text(metadata, &["elastic", "agent", "id"]).unwrap_or_default();
        let program_version = own_version(&build).map(str::to_owned);
        Self { family, program_version, machine_id: text(metadata, &["host", "id"]).unwrap_or_default(), former_id }
    }
}

fn request<'a>(wire: &'a EnrollRequest<'a>, facts: &'a Facts<'a>) -> Result<Request<'a>, ApiError> {
    Ok(Request {
        family: facts.family,
        machine_id: &facts.machine_id,
        former_id: &facts.former_id,
        kind: agent_type(&wire.kind)?,
        id: wire.id.as_deref().unwrap_or_default(),
        enrollment_id: wire.enrollment_id.as_deref().unwrap_or_default(),
        replace_token: wire.replace_token.as_deref().unwrap_or_default(),
        tags: wire.metadata.tags.as_deref().unwrap_or_default(),
        metadata: wire.metadata.local.map_or("null", RawValue::get),
        ..Request::default()
    })
}

const TYPES: [(AgentType, &str); 3] =
    [(AgentType::Permanent, "PERMANENT"), (AgentType::Ephemeral, "EPHEMERAL"), (AgentType::Temporary, "TEMPORARY")];

fn agent_type(word: &str) -> Result<AgentType, ApiError> {
    let found = TYPES.into_iter().find(|(_, known)| *known == word);
    found.map(|(kind, _)| kind).ok_or_else(|| ApiError::bad_request("unknown enroll request type"))
}

fn type_word(kind: AgentType) -> &'static str {
    TYPES.into_iter().find(|(known, _)| *known == kind).map_or("PERMANENT", |(_, word)| word)
}

/// Returns the item of the response, with the secret (EA34, EA35, EA36).
fn item(enrolled: EnrolledAgent) -> EnrolledItem {
    let EnrolledAgent { record, metadata, key } = enrolled;
    // Sorted, so that the response does not depend on the order in the request.
    let mut tags = record.tags;
    tags.sort_unstable();
    let local = Some(&*metadata).filter(|raw| *raw != "null");
    EnrolledItem {
        id: record.id.as_str().to_owned(),
        // Constants that agents expect in the response. The real status follows with the first check-in.
        active: true,
        policy_id: record.policy_id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
        kind: type_word(record.kind).to_owned(),
        enrolled_at: record.enrolled_at.to_rfc3339_seconds(),
        user_provided_metadata: None,
        local_metadata: local.and_then(|raw| RawValue::from_string(raw.to_owned()).ok()),
        access_api_key_id: key.id.as_str().to_owned(),
        access_api_key: key.token(),
        status: "online".to_owned(),
        tags,
    }
}

#[cfg(test)]
mod tests {
    use muster_core::agent::AgentRecord;
    use muster_core::testing::{agent, api_key, at};
    use serde_json::json;

    use super::*;

    #[test]
    fn ea34_ea35_ea36_the_response_is_complete() {
        let record = AgentRecord { enrolled_at: at(100), tags: vec!["b".into(), "a".into()], ..agent() };
        let metadata = r#"{"host":{"hostname":"web-1"}}"#.into();
        let value = serde_json::to_value(item(EnrolledAgent { record, metadata, key: api_key() })).unwrap();
        let expected = json!({
            "id": "agent-1", "active": true, "policy_id": "p", "type": "PERMANENT",
            "enrolled_at": at(100).to_rfc3339_seconds(), "user_provided_metadata": null,
            "local_metadata": {"host": {"hostname": "web-1"}},
            "access_api_key_id": api_key().id.as_str(), "access_api_key": api_key().token(),
            "status": "online", "tags": ["a", "b"],
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn ea27_three_enrollment_types_are_accepted() {
        for (kind, word) in TYPES {
            assert_eq!((agent_type(word).ok(), type_word(kind)), (Some(kind), word));
        }
        for bad in ["OPAMP", "permanent", ""] {
            assert!(agent_type(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn family_and_machine_id_are_read_from_the_metadata() {
        let facts = |text| {
            let facts = Facts::read(text);
            (facts.family, facts.machine_id.into_owned())
        };
        let ours = r#"{"elastic":{"agent":{"build.original":"9.5.2 (muster-agent 0.1.0)"}},"host":{"id":"m-1"}}"#;
        assert_eq!(facts(ours), (Family::Muster, "m-1".into()));
        assert_eq!(facts(r#"{"elastic":{"agent":{"build.original":"9.5.2"}}}"#), (Family::Elastic, String::new()));
        assert_eq!(facts(r#"{"host":{"id":5}}"#), (Family::Elastic, String::new()));
    }

    #[test]
    fn ea27_absent_fields_are_empty() {
        let text = r#"{"type":"EPHEMERAL","metadata":{"local":null,"user_provided":null,"tags":null},"shared_id":"x"}"#;
        let wire: EnrollRequest<'_> = serde_json::from_str(text).unwrap();
        let facts = Facts::read("null");
        let request = request(&wire, &facts).unwrap();
        assert_eq!((request.id, request.enrollment_id, request.replace_token), ("", "", ""));
        assert_eq!((request.tags.len(), request.metadata), (0, "null"));
    }
}
