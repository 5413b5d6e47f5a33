//! `POST /api/fleet/agents/{id}/acks` (EA §5) and `audit/unenroll` (EA §8).

use std::borrow::Cow;

use muster_core::error_chain::SharedError;
use muster_protocol::elastic::ack::{AckEvent, AckItem, AckResponse};
use muster_protocol::elastic::audit::AuditUnenrollRequest;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::client::Call;
use super::{CallError, FleetClient};
use crate::notice::departure::Departure;
use crate::state::PendingAck;

#[derive(Serialize)]
struct Events<'a> {
    events: Vec<AckEvent<'a>>,
}

impl FleetClient {
    /// Delivers acks in one request. Returns one item for each ack, in order; fewer if the response is incomplete.
    pub async fn acknowledge(&self, agent_id: &str, acks: &[PendingAck]) -> Result<Vec<AckItem>, CallError> {
        let unwritable =
            |error: serde_json::Error| CallError::Undecodable(SharedError::during("cannot serialize acks", error));
        let raw = acks.iter().map(Raw::of).collect::<Result<Vec<_>, _>>().map_err(unwritable)?;
        let events = acks.iter().zip(&raw).map(|(ack, raw)| event(agent_id, ack, raw)).collect();
        let body = serde_json::to_vec(&Events { events }).map_err(unwritable)?;
        let response = self.send(Call::post(format!("/api/fleet/agents/{agent_id}/acks"), body)).await?;
        // The HTTP status is the highest status of the items, so that only the body is meaningful (EA §5.2).
        match serde_json::from_slice::<AckResponse>(&response.body) {
            Ok(reply) if reply.action == "acks" && response.status != 401 => Ok(reply.items),
            _ if response.status == 200 => Err(CallError::Undecodable("not a response to acks".into())),
            _ => Err(CallError::from_reply(&response)),
        }
    }

    /// Notifies the server that this agent leaves: the reason, the time (RFC 3339), and who caused it.
    pub async fn audit_unenroll(
        &self,
        agent_id: &str,
        reason: &str,
        at: &str,
        departure: Option<&Departure>,
    ) -> Result<(), CallError> {
        let (reason, timestamp) = (Cow::Borrowed(reason), Cow::Borrowed(at));
        let request = AuditUnenrollRequest { reason, timestamp, departure: departure.map(Into::into) };
        let body = serde_json::to_vec(&request).map_err(|error| CallError::Undecodable(error.into()))?;
        let response = self.send(Call::post(format!("/api/fleet/agents/{agent_id}/audit/unenroll"), body)).await?;
        if response.status == 200 { Ok(()) } else { Err(CallError::from_reply(&response)) }
    }
}

/// The parts of an ack that are JSON.
struct Raw {
    data: Option<Box<RawValue>>,
    action: Option<Box<RawValue>>,
    response: Option<Box<RawValue>>,
}

impl Raw {
    fn of(ack: &PendingAck) -> Result<Self, serde_json::Error> {
        let raw = |value: Option<&Value>| value.map(to_raw_value).transpose();
        let input = ack.input.as_ref();
        Ok(Self {
            data: raw(ack.data.as_ref())?,
            action: raw(input.map(|input| &input.data))?,
            response: raw(input.map(|input| input.response.as_ref().unwrap_or(&Value::Null)))?,
        })
    }
}

fn event<'a>(agent_id: &'a str, ack: &'a PendingAck, raw: &'a Raw) -> AckEvent<'a> {
    let for_input = ack.input_type.as_deref().map(Cow::Borrowed);
    let moment = for_input.is_some().then_some(Cow::Borrowed(ack.timestamp.as_str()));
    AckEvent {
        kind: Some(Cow::Borrowed("ACTION_RESULT")),
        subtype: Some(Cow::Borrowed("ACKNOWLEDGED")),
        agent_id: Some(Cow::Borrowed(agent_id)),
        action_id: Some(Cow::Borrowed(&ack.action_id)),
        message: Some(Cow::Owned(format!("Action {:?} of type {:?} acknowledged.", ack.action_id, ack.kind))),
        timestamp: Some(Cow::Borrowed(&ack.timestamp)),
        error: ack.error.as_deref().map(Cow::Borrowed),
        data: raw.data.as_deref(),
        action_input_type: for_input,
        action_data: raw.action.as_deref(),
        action_response: raw.response.as_deref(),
        started_at: ack.input.as_ref().map(|input| Cow::Borrowed(input.started_at.as_str())).or_else(|| moment.clone()),
        completed_at: moment,
        ..AckEvent::default()
    }
}
