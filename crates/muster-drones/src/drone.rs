//! A simulated agent, with its state and its three requests: enroll, check in, and acknowledge.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method};
use muster_protocol::elastic::ack::AckResponse;
use muster_protocol::elastic::check_in::{CheckInResponse, WireAction};
use muster_protocol::elastic::enroll::EnrollResponse;
use serde_json::value::RawValue;

use crate::fault::{Fault, accepted};
use crate::gzip;
use crate::session::{Answer, Ask, Session, Shared};
use crate::tally::Waiting;
use crate::upload::upload;
use crate::wire::{self, Done, Host, Report};

/// Number of attempts after which an ack is dropped, as in real agents.
const ACK_ATTEMPTS: u8 = 5;

/// Minimum compressed size of a response of which only the head is parsed.
const LARGE: usize = 2048;
/// Decompressed size of that head.
const HEAD: u64 = 512;

/// Whether an agent continues after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It continues.
    Stays,
    /// It was unenrolled.
    Goes,
}

struct PendingAck {
    action_id: String,
    event: Box<RawValue>,
    attempts: u8,
}

/// One simulated agent.
pub struct Drone {
    shared: Arc<Shared>,
    session: Session,
    number: u32,
    id: String,
    authorization: HeaderValue,
    ack_token: String,
    policy: Option<(String, i64)>,
    acks: Vec<PendingAck>,
    /// The revision with which it is degraded: the one after its first.
    bad_revision: Option<i64>,
    /// Whether it has a bad revision.
    degrades: bool,
    /// Process id that the first component reports. Another value is a change.
    pub pid: u32,
}

impl Drone {
    /// Creates an agent that is not enrolled.
    #[must_use]
    pub fn new(shared: Arc<Shared>, number: u32) -> Self {
        Self {
            session: Session::new(shared.clone(), number),
            shared,
            number,
            id: String::new(),
            authorization: HeaderValue::from_static(""),
            ack_token: String::new(),
            policy: None,
            acks: Vec::new(),
            bad_revision: None,
            degrades: false,
            pid: 1000,
        }
    }

    /// Makes the agent report that it is degraded while it runs the revision after its first one.
    #[must_use]
    pub fn degrading(self, degrades: bool) -> Self {
        Self { degrades, ..self }
    }

    /// Generates an id, a key and a policy.
    ///
    /// # Errors
    /// Never in practice, because the key contains only characters that are allowed in a header.
    pub fn invent(&mut self) -> anyhow::Result<()> {
        self.id = uuid::Uuid::new_v4().to_string();
        self.authorization = authorization(&format!("{:064x}", rand::random::<u128>()))?;
        // A server that does not verify credentials does not deliver a policy either.
        self.policy = Some(("00000000-0000-4000-8000-000000000000".to_owned(), 1));
        self.shared.tally.enrolled.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Enrolls over the specified session or its own, and stores the id and the key.
    ///
    /// # Errors
    /// If the server does not respond with 200, an id and a key.
    pub async fn enroll(
        &mut self,
        over: Option<&mut Session>,
        token: &HeaderValue,
        tags: &[String],
    ) -> Result<(), Fault> {
        let began = Instant::now();
        let body = self.host().enroll(tags)?;
        // Like real agents, requests end in a bare `?` (EA2).
        let path = "/api/fleet/agents/enroll?";
        let ask = Ask {
            method: Method::POST,
            path,
            authorization: Some(token),
            body: body.into(),
            packed: false,
            chunk_sha2: None,
        };
        let answer = over.unwrap_or(&mut self.session).ask(&ask).await?;
        let enrolled: EnrollResponse = accepted(&answer)?;
        self.shared.tally.enrolled(began.elapsed());
        self.authorization = authorization(&enrolled.item.access_api_key)?;
        self.id = enrolled.item.id;
        Ok(())
    }

    /// Opens the connection before the first check-in.
    ///
    /// # Errors
    /// If connecting fails.
    pub async fn connect(&mut self) -> Result<(), Fault> {
        Ok(self.session.connect().await?)
    }

    /// Closes the connection after a held check-in was given up, because another request on it would have to wait.
    pub fn disconnect(&mut self) {
        self.session.close();
    }

    /// Checks in and waits for the response, even if the server holds it for a long time. `due` is the time at which
    /// the check-in should have been sent.
    ///
    /// # Errors
    /// If the server does not respond with 200 and a well-formed body.
    pub async fn check_in(&mut self, due: Instant) -> Result<CheckInResponse, Fault> {
        let body = gzip::pack(self.report(0).as_bytes())?;
        self.send_check_in(due, body.into(), true).await
    }

    /// Like [`Self::check_in`], but without compression, as in older agents, and with components that fill the body up
    /// to `bytes`.
    ///
    /// # Errors
    /// As [`Self::check_in`].
    pub async fn check_in_with(&mut self, due: Instant, bytes: usize) -> Result<CheckInResponse, Fault> {
        let body = self.report(bytes).into();
        self.send_check_in(due, body, false).await
    }

    fn report(&self, bytes: usize) -> String {
        let report = Report {
            ack_token: &self.ack_token,
            // Real agents report the policy that they run, which tells the server whether to deliver one (EA §4.7).
            policy: self.policy.as_ref().map(|(policy, revision)| (policy.as_str(), *revision)),
            is_degraded: self.policy.as_ref().is_some_and(|(_, revision)| self.bad_revision == Some(*revision)),
            pid: self.pid,
            fill: bytes,
        };
        wire::check_in(&self.host(), &report)
    }

    async fn send_check_in(&mut self, due: Instant, body: Bytes, packed: bool) -> Result<CheckInResponse, Fault> {
        let path = format!("/api/fleet/agents/{}/checkin?", self.id);
        // Counted as waiting only while the request is in progress, even if it is cancelled.
        let answer = {
            let _waiting = Waiting::new(&self.shared.tally.waiting);
            ask(&mut self.session, Method::POST, &path, &self.authorization, body, packed).await?
        };
        // Almost all large responses deliver a policy.
        let reply = match policy_in_head(&answer) {
            Some(reply) => reply,
            None => accepted(&answer)?,
        };
        // Measured from the schedule, so that a delayed check-in counts as slow.
        self.shared.tally.checked_in(due.elapsed());
        Ok(reply)
    }

    /// Handles a response: stores its token, applies its policy, and acknowledges its actions.
    ///
    /// # Errors
    /// If the acks cannot be delivered. They are sent again with the next ones.
    pub async fn act_on(&mut self, reply: CheckInResponse) -> Result<Fate, Fault> {
        // An empty token means that the previous one stays valid.
        if !reply.ack_token.is_empty() {
            self.ack_token = reply.ack_token;
        }
        let mut fate = Fate::Stays;
        for action in &reply.actions {
            if action.kind == "POLICY_CHANGE" {
                self.shared.tally.received(&action.id);
            } else {
                self.shared.tally.action(&self.id, &action.id, &action.kind);
            }
            // The agent ends after its ack is sent.
            if action.kind == "UNENROLL" {
                fate = Fate::Goes;
            }
            let done = self.carry_out(action).await;
            // Cancellations are not acknowledged (EA §10.2).
            if is_acked(&action.kind) {
                let event = wire::ack(&self.id, action, &done)?;
                self.acks.push(PendingAck { action_id: action.id.clone(), event, attempts: 0 });
            }
        }
        self.send_acks().await?;
        if fate == Fate::Goes {
            self.shared.tally.left();
        }
        Ok(fate)
    }

    /// Counts a failure.
    pub fn count_failure(&self, kind: &str) {
        self.shared.tally.failed(kind);
    }

    /// Reports that the server rejected the agent's credentials.
    pub fn report_rejection(&self) {
        self.shared.tally.rejected(&self.id);
    }

    /// Runs an action. Most types do nothing in a drone.
    async fn carry_out(&mut self, action: &WireAction) -> Done {
        let outcome = match action.kind.as_str() {
            "POLICY_CHANGE" => self.take_on(&action.id).await.map(|()| None),
            "REQUEST_DIAGNOSTICS" => {
                upload(&mut self.session, &self.authorization, &self.id, &action.id).await.map(Some)
            }
            _ => Ok(None),
        };
        match outcome {
            Ok(upload_id) => Done { upload_id, error: None },
            // As in real agents, a failure is reported in the ack.
            Err(fault) => {
                self.count_failure(&format!("{}: {fault}", action.kind));
                Done { upload_id: None, error: Some(fault.to_string()) }
            }
        }
    }

    /// Applies a policy. Like real agents, probes the server that the first policy contains.
    async fn take_on(&mut self, action_id: &str) -> Result<(), Fault> {
        let Some((policy, revision)) = policy_of(action_id) else { return Ok(()) };
        // Only for the first policy, as in real agents.
        if self.policy.is_none() {
            ask(&mut self.session, Method::GET, "/api/status?", &self.authorization, Bytes::new(), false).await?;
            self.bad_revision = self.degrades.then_some(revision + 1);
        }
        self.policy = Some((policy.to_owned(), revision));
        Ok(())
    }

    /// Delivers pending acks. Rejected acks are sent again with the next ones, up to a limit.
    async fn send_acks(&mut self) -> Result<(), Fault> {
        if self.acks.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        // Counted before the request, so that a request without a response counts too.
        self.acks.iter_mut().for_each(|ack| ack.attempts += 1);
        let body = wire::acks(self.acks.iter().map(|ack| &*ack.event))?;
        let path = format!("/api/fleet/agents/{}/acks?", self.id);
        let outcome = ask(&mut self.session, Method::POST, &path, &self.authorization, body.into(), false).await;
        let statuses = outcome.as_ref().map(item_statuses).unwrap_or_default();
        // An ack without an item in the response is still pending.
        let mut statuses = statuses.iter().copied().chain(std::iter::repeat(0));
        let (done, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.acks).into_iter().partition(|_| statuses.next() == Some(200));
        self.shared.tally.acked(done.iter().map(|ack| ack.action_id.as_str()), began.elapsed());
        left.iter().for_each(|_| self.shared.tally.failed("ack not taken"));
        self.acks = left.into_iter().filter(|ack| ack.attempts < ACK_ATTEMPTS).collect();
        // The caller counts a request that failed as a whole.
        outcome.map(drop)
    }

    fn host(&self) -> Host<'_> {
        Host { number: self.number, agent_id: &self.id, version: &self.shared.version }
    }
}

/// Returns the header value for a key.
///
/// # Errors
/// If the key contains characters that are not allowed in a header.
pub fn authorization(key: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("ApiKey {key}"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn ask(
    session: &mut Session,
    method: Method,
    path: &str,
    authorization: &HeaderValue,
    body: Bytes,
    packed: bool,
) -> Result<Answer, Fault> {
    let authorization = Some(authorization);
    Ok(session.ask(&Ask { method, path, authorization, body, packed, chunk_sha2: None }).await?)
}

/// Parses only the head of a large response with a policy.
///
/// Real agents decompress their policies on their own hosts. Thousands of drones would do so on the server's host and
/// distort the measurement. A response with a policy contains no other actions, so that the head is sufficient. A
/// response with any other head is parsed completely.
fn policy_in_head(answer: &Answer) -> Option<CheckInResponse> {
    if answer.status != 200 || !answer.packed || answer.body.len() < LARGE {
        return None;
    }
    let head = gzip::head(&answer.body, HEAD).ok()?;
    let rest = std::str::from_utf8(&head)
        .ok()?
        .strip_prefix(r#"{"ack_token":"","action":"checkin","actions":[{"agent_id":""#)?;
    let (before, _) = rest.split_once(r#","type":"POLICY_CHANGE","input_type":"","data":{"policy":{"#)?;
    let (_, id) = before.rsplit_once(r#""id":""#)?;
    let action = WireAction {
        agent_id: String::new(),
        created_at: String::new(),
        id: id.strip_suffix('"')?.to_owned(),
        kind: "POLICY_CHANGE".to_owned(),
        input_type: String::new(),
        data: None,
        start_time: None,
        expiration: None,
        timeout: None,
        signed: None,
    };
    Some(CheckInResponse { ack_token: String::new(), action: "checkin".to_owned(), actions: vec![action] })
}

/// Returns the statuses of the items of an ack response, regardless of the HTTP status.
fn item_statuses(answer: &Answer) -> Vec<u16> {
    let Ok(text) = answer.text() else { return Vec::new() };
    // Error responses have the same status as rejected items, but another body (EA §5.2).
    let reply = serde_json::from_slice::<AckResponse>(&text).ok().filter(|reply| reply.action == "acks");
    reply.map(|reply| reply.items.iter().map(|item| item.status).collect()).unwrap_or_default()
}

/// Returns whether real agents acknowledge this type: all known types, except for cancellations.
fn is_acked(kind: &str) -> bool {
    const KNOWN: [&str; 9] = [
        "POLICY_CHANGE",
        "POLICY_REASSIGN",
        "INPUT_ACTION",
        "SETTINGS",
        "UNENROLL",
        "UPGRADE",
        "REQUEST_DIAGNOSTICS",
        "MIGRATE",
        "PRIVILEGE_LEVEL_CHANGE",
    ];
    KNOWN.contains(&kind)
}

/// Parses policy and revision from an action id `policy:<id>:<revision>`.
fn policy_of(action_id: &str) -> Option<(&str, i64)> {
    let (policy, revision) = action_id.strip_prefix("policy:")?.split_once(':')?;
    Some((policy, revision.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(status: u16, body: &'static [u8]) -> Answer {
        Answer { status, body: body.into(), packed: false }
    }

    #[test]
    fn a_large_policy_is_identified_by_its_beginning() {
        let noise: String = (0..20_000).map(|_| char::from(b'a' + rand::random::<u8>() % 26)).collect();
        let head =
            r#"{"ack_token":"","action":"checkin","actions":[{"agent_id":"a","created_at":"x","id":"policy:p:7","#;
        let text =
            format!(r#"{head}"type":"POLICY_CHANGE","input_type":"","data":{{"policy":{{"noise":"{noise}"}}}}}}]}}"#);
        let answer =
            |text: &str| Answer { status: 200, body: gzip::pack(text.as_bytes()).unwrap().into(), packed: true };
        let reply = policy_in_head(&answer(&text)).unwrap();
        assert_eq!((reply.actions.len(), reply.actions[0].id.as_str()), (1, "policy:p:7"));
        assert_eq!(accepted::<CheckInResponse>(&answer(&text)).unwrap().actions[0].id, "policy:p:7");
        let other = text.replace("POLICY_CHANGE", "SETTINGS");
        assert!(policy_in_head(&answer(&other)).is_none());
    }

    #[test]
    fn policies_are_identified_by_their_action_id() {
        assert_eq!(policy_of("policy:p-1:7"), Some(("p-1", 7)));
        assert_eq!(policy_of("policy:p-1:x"), None);
        assert_eq!(policy_of("7b0d"), None);
    }

    #[test]
    fn cancellations_and_unknown_kinds_are_not_acked() {
        assert!(is_acked("SETTINGS") && !is_acked("CANCEL") && !is_acked("DANCE"));
    }

    #[test]
    fn items_are_read_whatever_the_status_is() {
        let body = br#"{"action":"acks","errors":true,"items":[{"status":200},{"status":404}]}"#;
        assert_eq!(item_statuses(&plain(404, body)), [200, 404]);
        assert!(item_statuses(&plain(401, b"{}")).is_empty());
    }
}
