//! `POST /api/fleet/agents/{id}/checkin` (EA §4): the hot path.
//!
//! The fingerprint of the body is compared first: a check-in with the same bytes as the last one is not decoded. A
//! check-in for which nothing is due is parked, and only [`ParkedCheckIn`] is kept of it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use http_body::Body;
use muster_core::agent::{AgentRecord, Family};
use muster_core::check_in::Report;
use muster_core::delivery::Delivered;
use muster_core::documents::{Digest, bytes_digest, known_text};
use muster_core::error_chain::chain;
use muster_core::id::{AgentId, KeyId};
use muster_core::package;
use muster_core::poll::GoDuration;
use muster_core::raw_json::text;
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_protocol::elastic::check_in::{CheckInRequest, WireAction, WireSigned};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::limits::{Operation, Permit};
use super::request_id::RequestId;
use super::{
    Call, Inner, RefusedWhileHeld, accept_encoding, action_data, authorization, json, refused, remedy, respond, upgrade,
};
use muster_fleet::Fleet;
use muster_fleet::check_in::{CheckInInput, Delivery, HeldPoll, Poll};
use muster_fleet::refusals::Refused;
use muster_fleet::registry::AgentEntry;
use muster_listen::gzip;
use muster_listen::receive::{self, BodyError, Coding};
use muster_listen::reply::{Answer, Reply, ReplyBody};

/// The response when nothing is due (EA §4.13). With an empty token, the agent keeps its old one.
const NOTHING: &[u8] = br#"{"action":"checkin","ack_token":""}"#;
/// Message for a poll that was answered early.
const TOO_MANY_POLLS: &str = "answered early: the agent started more check-ins than the server holds for one agent";
/// Minimum size of responses that are compressed for clients that accept it, bytes (EA85).
const COMPRESS_ABOVE: usize = 1024;

impl Inner {
    pub(super) async fn check_in<B>(&self, agent: &str, call: Call<'_, B>) -> Result<Answer, ApiError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let key = authorization::api_key(call.headers())?;
        let entry = self.fleet.authentication().agent(agent, &key).await?;
        // After authentication, which is the protocol's sequence (EA §1.4).
        let version = self.agent_version(call.headers())?;
        let (headers, peer) = (&call.head.headers, call.peer);
        let accepted = accept_encoding::accepted(headers);
        let (head, id, permit) = (call.head, call.id, call.permit);
        // An unsupported coding is refused before the body is read, which could not be decoded anyway.
        let coding = receive::coding(headers)?;
        let wire = receive::read(&head.headers, call.body, call.bounds, call.bodies).await?;
        let digest = fingerprint(&head.headers, &wire);
        // A closure: a response that is due at once needs neither the clone nor the copy of the key id.
        let asker = || Asker { fleet: Arc::clone(&self.fleet), key: key.id.clone() };
        // The path of a heartbeat: nothing is decoded.
        if let Some(outcome) = self.fleet.check_ins().check_in_unchanged(&entry, &digest).await? {
            return answer(outcome, &entry, asker, accepted, id, permit);
        }
        let decoded;
        // The two limits differ: `bounds` applied to the bytes on the wire, this one stops a decompression bomb.
        let text: &[u8] = if coding == Coding::Gzip {
            decoded = self.bodies.inflate(&wire, self.limiter.limits().max_decompressed)?;
            &decoded
        } else {
            &wire
        };
        // Held until the changes of the check-in are committed, since they contain copies of the body.
        let _copies = self.bodies.copies(text.len())?;
        let text = without_known_metadata(text, &entry)?;
        let request: CheckInRequest<'_> = json::parse_checked(&text)?;
        let program = program_version(&request, entry.record().as_deref());
        let input = CheckInInput {
            report: &report(&request)?,
            agent_version: program.as_deref().unwrap_or(&version.version),
            newer_than_tested: version.newer_than_tested,
            address: &peer.ip(),
            digest,
        };
        // Boxed, because this future is large, and a heartbeat returns before it.
        let outcome = Box::pin(self.fleet.check_ins().check_in(&entry, input)).await?;
        answer(outcome, &entry, asker, accepted, id, permit)
    }
}

/// Returns the version of muster-agent's program; `None` for other agents. The version in the `User-Agent` is that of the
/// protocol. Metadata that has not changed was removed from the request, so that the version has not changed either.
fn program_version(request: &CheckInRequest<'_>, record: Option<&AgentRecord>) -> Option<String> {
    let record = record.filter(|record| record.family == Family::Muster)?;
    let build = request.local_metadata.and_then(|raw| text(raw.get(), &["elastic", "agent", "build.original"]));
    let reported = build.as_deref().and_then(package::own_version).map(str::to_owned);
    Some(reported.unwrap_or_else(|| record.agent_version.clone()))
}

/// Returns the body, with `local_metadata` replaced by `null` if it equals the metadata that was read last. In most
/// check-ins that is half of the body.
fn without_known_metadata<'a>(text: &'a [u8], entry: &AgentEntry) -> Result<Cow<'a, str>, ApiError> {
    // Several hosts with one key are told apart by their metadata, known or not.
    let is_shared = entry.record().is_some_and(|record| record.duplicate_hosts.is_some());
    let metadata = entry.known_documents().and_then(|known| known.metadata_text).filter(|_| !is_shared);
    json::without_known(text, "local_metadata", &|rest| known_text(rest, metadata.as_ref()?))
}

/// Converts the request for the check-in service. Strings are borrowed from the body.
fn report<'a>(request: &'a CheckInRequest<'a>) -> Result<Report<'a>, ApiError> {
    let raw = |document: Option<&'a RawValue>| document.map(RawValue::get).filter(|raw| *raw != "null");
    let poll_timeout = request.poll_timeout.as_deref().map(GoDuration::parse).transpose();
    Ok(Report {
        status: request.status.as_deref().unwrap_or_default(),
        message: request.message.as_deref().unwrap_or_default(),
        metadata: raw(request.local_metadata),
        components: raw(request.components),
        upgrade: raw(request.upgrade_details).map(upgrade::reported),
        // A malformed list is ignored (EA66): `None` keeps the stored one.
        rollbacks: upgrade::rollbacks(request.upgrade.map(RawValue::get)).ok(),
        // One without the other says nothing about which revision runs.
        running: request.agent_policy_id.as_deref().zip(request.policy_revision_idx),
        confirmed: request.ack_token.as_deref().unwrap_or_default(),
        poll_timeout: poll_timeout.map_err(ApiError::bad_request)?,
    })
}

/// Computes a digest of everything that determines the meaning of a check-in. The headers are included: the same bytes
/// mean something else with another coding, and an upgraded agent may send the same body with another version.
fn fingerprint(headers: &HeaderMap, wire: &[u8]) -> Digest {
    let header = |name| headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    bytes_digest(&[header(CONTENT_ENCODING), header(USER_AGENT), wire])
}

/// Returns what is due, or the parked poll, which keeps its slot in the limits (EA16).
fn answer(
    outcome: Poll,
    entry: &AgentEntry,
    asker: impl FnOnce() -> Asker,
    // Nothing of the request may live in the parked future. The permit must: a parked check-in counts as running
    // (EA16).
    accepted: Coding,
    id: &RequestId,
    permit: &mut Option<Permit>,
) -> Result<Answer, ApiError> {
    match outcome {
        Poll::Due(delivery) => reply(delivery, entry, accepted).map(Answer::Reply),
        Poll::Held(parked) => {
            let held = ParkedCheckIn { parked, asker: asker(), accepted };
            Ok(Answer::Park(Box::pin(held.wait(id.clone(), permit.take()))))
        }
    }
}

/// A parked check-in, its sender, and the coding of its response.
struct ParkedCheckIn {
    parked: HeldPoll,
    asker: Asker,
    accepted: Coding,
}

/// Sender of a check-in, for the record of a refusal. Everything else comes from the agent's record, so that a held
/// poll stays small.
struct Asker {
    fleet: Arc<Fleet>,
    key: KeyId,
}

impl Asker {
    /// Records that the poll of `entry` was refused while it was held, and attaches the reason to the response.
    fn note(&self, entry: &AgentEntry, reason: &'static str, message: &str, mut reply: Reply) -> Reply {
        let (address, version) = entry
            .record()
            // In the form of the `User-Agent` header, which is logged when other requests are rejected.
            .map(|record| (record.last_address.clone(), format!("Elastic Agent v{}", record.agent_version)))
            .unwrap_or_default();
        self.fleet.refusals().note(
            Refused {
                address,
                agent: Some(entry.id().to_string()),
                key: Some(self.key.to_string()),
                version,
                operation: Operation::CheckIn.key(),
                status: reply.status().as_u16(),
                reason,
                message: message.to_owned(),
                remedy: remedy::of(reason),
            },
            self.fleet.now(),
        );
        reply.extensions_mut().insert(RefusedWhileHeld(reason));
        reply
    }
}

impl ParkedCheckIn {
    /// Waits for the response.
    async fn wait(self, id: RequestId, permit: Option<Permit>) -> Reply {
        let entry = Arc::clone(self.parked.entry());
        let delivery = self.parked.wait().await.or_else(without_actions);
        let is_superseded = matches!(delivery, Ok(Delivery::Superseded));
        let answer = delivery.map_err(ApiError::from).and_then(|delivery| reply(delivery, &entry, self.accepted));
        // The slot is free before the response is sent: a slow reader must not occupy it.
        drop(permit);
        let reply = match answer {
            Ok(reply) if is_superseded => self.asker.note(&entry, "TooManyPolls", TOO_MANY_POLLS, reply),
            Ok(reply) => reply,
            Err(error) => {
                let (reason, message) = (refused::reason(&error), error.text().to_owned());
                let reply = respond::failure(error, &id);
                match reason {
                    Some(reason) if reply.status() == StatusCode::UNAUTHORIZED => cut_off(&entry, reason, reply),
                    Some(reason) => self.asker.note(&entry, reason, &message, reply),
                    None => reply,
                }
            }
        };
        respond::finish(reply, &id, true)
    }
}

/// Ends the poll of an agent whose access was revoked while the poll was held. This is the effect of the revocation and
/// no refusal that needs attention; requests that the agent sends later are.
fn cut_off(entry: &AgentEntry, reason: &'static str, mut reply: Reply) -> Reply {
    tracing::info!(agent = %entry.id(), reason, "held poll ended: the agent's access was revoked");
    reply.extensions_mut().insert(RefusedWhileHeld(reason));
    reply
}

/// Replaces a transient error of a parked poll by a response without actions. The report was committed before the poll was
/// parked, and only the look-up of what is due failed. An error would make the agent wait at least a minute (EA143).
fn without_actions(error: Error) -> Result<Delivery, Error> {
    match error.kind {
        ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::TooMany => {
            tracing::warn!(error = %chain(&error), "ending a held poll: the look-up failed");
            Ok(Delivery::Nothing)
        }
        _ => Err(error),
    }
}

fn reply(delivery: Delivery, entry: &AgentEntry, accepted: Coding) -> Result<Reply, ApiError> {
    match delivery {
        Delivery::Nothing | Delivery::Superseded => Ok(respond::json_bytes(Bytes::from_static(NOTHING))),
        Delivery::Actions { ack_token, actions } => {
            // An action with invalid data is left out; the ack token covers it, so that it is not due again.
            let actions: Vec<WireAction> = actions.iter().filter_map(|action| wire(action, entry.id())).collect();
            actions_reply(ack_token.as_str(), &actions, accepted)
        }
        // Rendered and compressed once per revision; only the small piece with the agent's own data is new.
        Delivery::Policy(policy) => {
            let (agent, coding) = (entry.id().as_str(), coding_of(policy.plain_len(), accepted));
            let pieces = match coding {
                Coding::Gzip => policy.gzip(agent, &policy.keys),
                Coding::Identity => policy.plain(agent, &policy.keys),
            };
            Ok(coded(respond::json_bytes(ReplyBody::pieces(pieces)), coding))
        }
    }
}

/// Converts an action to its wire format (EA78, EA79). `None` if its stored data is not valid.
fn wire(delivered: &Delivered, agent: &AgentId) -> Option<WireAction> {
    let Delivered { action, data, start_time } = delivered;
    let signed = action.signed.as_ref();
    Some(WireAction {
        agent_id: agent.as_str().to_owned(),
        created_at: action.created_at.to_rfc3339_millis(),
        id: action.id.as_str().to_owned(),
        kind: action.kind.as_str().to_owned(),
        input_type: action.input_type.clone(),
        data: action_data::to_wire(action.kind, data.as_deref())?,
        start_time: start_time.map(Timestamp::to_rfc3339_seconds),
        expiration: action.expiration.map(Timestamp::to_rfc3339_millis),
        timeout: action.timeout,
        signed: signed.map(|signed| WireSigned { data: signed.data.clone(), signature: signed.signature.clone() }),
    })
}

fn actions_reply(ack_token: &str, actions: &[WireAction], accepted: Coding) -> Result<Reply, ApiError> {
    let failed = |error: serde_json::Error| ApiError::from(Error::internal(error));
    // `action` is always "checkin" (EA86), and `actions` is absent when empty.
    let mut text = br#"{"action":"checkin","ack_token":"#.to_vec();
    serde_json::to_writer(&mut text, ack_token).map_err(failed)?;
    if !actions.is_empty() {
        text.extend_from_slice(br#","actions":"#);
        serde_json::to_writer(&mut text, actions).map_err(failed)?;
    }
    text.push(b'}');
    let coding = coding_of(text.len(), accepted);
    let bytes = match coding {
        Coding::Gzip => gzip::deflate(&text),
        Coding::Identity => text,
    };
    Ok(coded(respond::json_bytes(Bytes::from(bytes)), coding))
}

/// Returns the coding of a response of this size to a client that accepts `accepted`. Small responses are not
/// compressed (EA85).
fn coding_of(bytes: usize, accepted: Coding) -> Coding {
    if bytes > COMPRESS_ABOVE { accepted } else { Coding::Identity }
}

fn coded(mut reply: Reply, coding: Coding) -> Reply {
    if coding == Coding::Gzip {
        reply.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    reply
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use muster_core::action::{Action, ActionType};
    use muster_core::testing::{action, at};
    use serde_json::json;

    use super::*;

    #[test]
    fn ea78_ea79_every_envelope_is_complete() {
        let action = Action { expiration: Some(at(60)), ..action("a-7", ActionType::Unenroll, at(0)) };
        let delivered = Delivered { action: Arc::new(action), data: None, start_time: Some(at(30)) };
        let expected = json!({
            "agent_id": "agent-1", "created_at": at(0).to_rfc3339_millis(), "id": "a-7", "type": "UNENROLL",
            "input_type": "", "data": null, "start_time": at(30).to_rfc3339_seconds(),
            "expiration": at(60).to_rfc3339_millis(),
        });
        assert_eq!(serde_json::to_value(wire(&delivered, &AgentId::trusted("agent-1")).unwrap()).unwrap(), expected);
    }

    #[test]
    fn the_fingerprint_depends_on_body_coding_and_version() {
        let with = |name, value| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            headers
        };
        let none = HeaderMap::new();
        let all = [
            fingerprint(&none, b"body"),
            fingerprint(&none, b"other"),
            fingerprint(&with(CONTENT_ENCODING, "gzip"), b"body"),
            fingerprint(&with(USER_AGENT, "gzip"), b"body"),
            fingerprint(&with(USER_AGENT, "Elastic Agent v9.5.2"), b"body"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(at));
        }
        assert_eq!(fingerprint(&none, b"body"), all[0]);
    }
}
