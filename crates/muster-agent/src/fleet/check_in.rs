//! `POST /api/fleet/agents/{id}/checkin` (EA §4).

use std::time::Duration;

use http::header::{CONTENT_ENCODING, HeaderValue, WARNING};
use muster_core::error_chain::SharedError;
use muster_protocol::elastic::check_in::{CheckInRequest, WireAction};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Call, expect_ok};
use super::{CallError, FleetClient};
use crate::net::{Reached, gzip};
use crate::state::{Action, Kind};

/// The response to a check-in.
#[derive(Debug, Default)]
pub struct Reply {
    /// Ack token; if it is empty, the previous one stays valid.
    pub ack_token: String,
    /// The well-formed actions, in order.
    pub actions: Vec<Action>,
    /// Malformed actions, in order.
    pub malformed: Vec<Malformed>,
    /// The `Warning` header.
    pub warning: Option<String>,
    /// Why the policy cannot be read, if it does not come from a server.
    pub unusable: Option<String>,
}

/// An action that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Id. Empty if it cannot be read either, so that there is nothing to acknowledge.
    pub id: String,
    /// Type.
    pub kind: Kind,
    /// The field and what is wrong with it.
    pub reason: String,
}

impl Malformed {
    fn new(action: &RawValue, reason: &serde_json::Error) -> Self {
        let fields: serde_json::Value = serde_json::from_str(action.get()).unwrap_or_default();
        let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        Self { id: text("id"), kind: text("type").into(), reason: format!("malformed action: {reason}") }
    }
}

#[derive(Deserialize)]
// Without the name of the type in error messages.
#[serde(expecting = "a response to a check-in")]
struct LooseReply {
    /// Always `checkin`. Other servers respond with JSON, too, and must not be taken for the fleet's.
    action: String,
    #[serde(default)]
    ack_token: Option<String>,
    #[serde(default)]
    actions: Option<Vec<Box<RawValue>>>,
}

impl FleetClient {
    /// Sends a report and waits for actions, at most for `timeout`. `reached` is marked when a server has received the
    /// request.
    pub async fn check_in(
        &self,
        agent_id: &str,
        body: &CheckInRequest<'_>,
        timeout: Duration,
        reached: Reached,
    ) -> Result<Reply, CallError> {
        let unwritable = |error| CallError::Undecodable(SharedError::during("cannot serialize the report", error));
        let json = serde_json::to_vec(body).map_err(|error| unwritable(SharedError::from(error)))?;
        // A report contains the state of every component, and compresses well.
        let packed = gzip::compress(&json).map_err(|error| unwritable(SharedError::from(error)))?;
        let mut call = Call::post(format!("/api/fleet/agents/{agent_id}/checkin"), packed);
        (call.timeout, call.reached) = (timeout, reached);
        call.headers.push((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        let response = expect_ok(self.send(call).await?)?;
        let warning = response.headers.get(WARNING).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let reply = parse(&response.body)?;
        Ok(Reply { warning, ..reply })
    }
}

/// Parses a response. A malformed action must not prevent the other actions from running.
pub fn parse(body: &[u8]) -> Result<Reply, CallError> {
    let loose: LooseReply = serde_json::from_slice(body).map_err(|error| CallError::Undecodable(error.into()))?;
    if loose.action != "checkin" {
        return Err(CallError::Undecodable("not a response to a check-in".into()));
    }
    let mut reply = Reply { ack_token: loose.ack_token.unwrap_or_default(), ..Reply::default() };
    for raw in loose.actions.unwrap_or_default() {
        // Each action is parsed separately, so that one failure does not affect the others.
        match serde_json::from_str::<WireAction>(raw.get()) {
            Ok(action) => reply.actions.push(action.into()),
            Err(error) => reply.malformed.push(Malformed::new(&raw, &error)),
        }
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_action_does_not_affect_the_others() {
        let body = br#"{"action":"checkin","ack_token":"t","actions":[
            {"id":7,"type":"SETTINGS"},
            {"agent_id":"a","created_at":"","id":"y","type":"SETTINGS","timeout":"1m"},
            "z",
            {"agent_id":"a","created_at":"","id":"x","type":"SETTINGS","input_type":"","data":{}}]}"#;
        let reply = parse(body).unwrap();
        assert_eq!((reply.actions.len(), reply.ack_token.as_str()), (1, "t"));
        let ids: Vec<_> = reply.malformed.iter().map(|action| (action.id.as_str(), action.kind.as_str())).collect();
        assert_eq!(ids, [("", "SETTINGS"), ("y", "SETTINGS"), ("", "")]);
        let reason = &reply.malformed[1].reason;
        assert!(reason.starts_with("malformed action: invalid type: string \"1m\""), "{reason}");
        for other in ["{}", "[]", r#"{"action":"acks"}"#, r#"{"action":"checkin","actions":3}"#, "<html>"] {
            assert!(parse(other.as_bytes()).is_err(), "{other}");
        }
        assert!(parse(br#"{"action":"checkin","ack_token":null,"actions":null}"#).unwrap().actions.is_empty());
    }
}
