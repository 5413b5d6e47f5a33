//! One simulated agent: what it knows and the three things that it asks of the server.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method};
use muster_protocol::elastic::ack::AckResponse;
use muster_protocol::elastic::check_in::{CheckInResponse, WireAction};
use muster_protocol::elastic::enroll::EnrollResponse;
use muster_protocol::elastic::error::ErrorBody;
use serde_json::value::RawValue;

use crate::gzip;
use crate::session::{Answer, Ask, Session, Shared};
use crate::tally::Waiting;
use crate::upload::upload;
use crate::wire::{self, Done, Host, Report};

/// How often an ack is tried before it is dropped, as real agents do.
const ACK_ATTEMPTS: u8 = 5;

/// Replies that are looked at from their head only are at least this large, compressed.
const LARGE: usize = 2048;
/// As much of a large reply as is looked at.
const HEAD: u64 = 512;

/// Why something did not work.
#[derive(Debug)]
pub enum Fault {
    /// The server answered, but not with 200.
    Refused(u16, String),
    /// There was no answer, or none that could be read.
    Broken(anyhow::Error),
}

impl Fault {
    /// Whether the credentials are dead.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused(401, _))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status, kind) => write!(f, "{status} {kind}"),
            Self::Broken(error) => write!(f, "{}", error.root_cause()),
        }
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// Whether an agent lives on after what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does.
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
    /// Which process its component claims to run as; another one is a change to report.
    pub pid: u32,
}

impl Drone {
    /// An agent that has not enrolled yet.
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
            pid: 1000,
        }
    }

    /// Makes an id, a key and a policy up.
    ///
    /// # Errors
    /// Never: what it makes up is fit for a header.
    pub fn invent(&mut self) -> anyhow::Result<()> {
        self.id = uuid::Uuid::new_v4().to_string();
        self.authorization = authorization(&format!("{:064x}", rand::random::<u128>()))?;
        self.policy = Some(("00000000-0000-4000-8000-000000000000".to_owned(), 1));
        self.shared.tally.enrolled.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Enrols over a session that may be another's, and takes what it is given.
    ///
    /// # Errors
    /// When the server does not answer 200 with what an agent needs.
    pub async fn enroll(
        &mut self,
        over: Option<&mut Session>,
        token: &HeaderValue,
        tags: &[String],
    ) -> Result<(), Fault> {
        let began = Instant::now();
        let body = self.host().enroll(tags)?;
        let path = "/api/fleet/agents/enroll?";
        let ask = Ask {
            method: Method::POST,
            path,
            authorization: token,
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

    /// Opens the connection ahead of the first check-in.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn connect(&mut self) -> Result<(), Fault> {
        Ok(self.session.connect().await?)
    }

    /// Checks in and waits for the answer, however long the server holds it. `due` is when it should have been sent.
    ///
    /// # Errors
    /// When the server does not answer 200 with a reply that reads.
    pub async fn check_in(&mut self, due: Instant) -> Result<CheckInResponse, Fault> {
        let report = Report {
            ack_token: &self.ack_token,
            policy: self.policy.as_ref().map(|(policy, revision)| (policy.as_str(), *revision)),
            pid: self.pid,
        };
        let body = gzip::pack(wire::check_in(&self.host(), &report).as_bytes())?;
        let path = format!("/api/fleet/agents/{}/checkin?", self.id);
        let answer = {
            let _waiting = Waiting::new(&self.shared.tally.waiting);
            ask(&mut self.session, Method::POST, &path, &self.authorization, body.into(), true).await?
        };
        let reply = match policy_in_head(&answer) {
            Some(reply) => reply,
            None => accepted(&answer)?,
        };
        self.shared.tally.checked_in(due.elapsed());
        Ok(reply)
    }

    /// Takes a reply: keeps its token, takes on its policy, acks its actions.
    ///
    /// # Errors
    /// When the acks did not get through; they are kept and go with the next.
    pub async fn act_on(&mut self, reply: CheckInResponse) -> Result<Fate, Fault> {
        if !reply.ack_token.is_empty() {
            self.ack_token = reply.ack_token;
        }
        let mut fate = Fate::Stays;
        for action in &reply.actions {
            if action.kind != "POLICY_CHANGE" {
                self.shared.tally.action(&self.id, &action.id, &action.kind);
            }
            if action.kind == "UNENROLL" {
                fate = Fate::Goes;
            }
            let done = self.carry_out(action).await;
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

    /// Counts something that failed.
    pub fn count_failure(&self, kind: &str) {
        self.shared.tally.failed(kind);
    }

    /// Does what an action asks, as far as a drone does anything.
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
            Err(fault) => {
                self.count_failure(&format!("{}: {fault}", action.kind));
                Done { upload_id: None, error: Some(fault.to_string()) }
            }
        }
    }

    /// A policy becomes the one that runs; the first one makes an agent look whether its server is there.
    async fn take_on(&mut self, action_id: &str) -> Result<(), Fault> {
        let Some((policy, revision)) = policy_of(action_id) else { return Ok(()) };
        if self.policy.is_none() {
            ask(&mut self.session, Method::GET, "/api/status?", &self.authorization, Bytes::new(), false).await?;
        }
        self.policy = Some((policy.to_owned(), revision));
        Ok(())
    }

    /// Sends what is to be acked; what is refused stays for the next time, but not for ever.
    async fn send_acks(&mut self) -> Result<(), Fault> {
        if self.acks.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        self.acks.iter_mut().for_each(|ack| ack.attempts += 1);
        let body = wire::acks(self.acks.iter().map(|ack| &*ack.event))?;
        let path = format!("/api/fleet/agents/{}/acks?", self.id);
        let outcome = ask(&mut self.session, Method::POST, &path, &self.authorization, body.into(), false).await;
        let statuses = outcome.as_ref().map(item_statuses).unwrap_or_default();
        let mut statuses = statuses.iter().copied().chain(std::iter::repeat(0));
        let (done, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.acks).into_iter().partition(|_| statuses.next() == Some(200));
        self.shared.tally.acked(done.iter().map(|ack| ack.action_id.as_str()), began.elapsed());
        left.iter().for_each(|_| self.shared.tally.failed("ack not taken"));
        self.acks = left.into_iter().filter(|ack| ack.attempts < ACK_ATTEMPTS).collect();
        outcome.map(drop)
    }

    fn host(&self) -> Host<'_> {
        Host { number: self.number, agent_id: &self.id, version: &self.shared.version }
    }
}

/// Header value of an access key.
///
/// # Errors
/// When the key holds what a header can't.
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
    Ok(session.ask(&Ask { method, path, authorization, body, packed, chunk_sha2: None }).await?)
}

/// What an answer with 200 holds.
///
/// # Errors
/// When it is another status, or does not read.
pub fn accepted<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, Fault> {
    if answer.status != 200 {
        let kind = serde_json::from_slice::<ErrorBody>(&answer.text()?).map(|body| body.error.into_owned());
        return Err(Fault::Refused(answer.status, kind.unwrap_or_default()));
    }
    Ok(serde_json::from_slice(&answer.text()?).map_err(anyhow::Error::from)?)
}

/// A policy alone in a large reply, read from the head of it.
///
/// A real agent unpacks a policy on a machine of its own; thousands of drones would do it on the server's, and be what
/// is measured. A policy comes alone, so its head says all that a drone wants; whatever has another head is read whole.
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

/// Statuses of an ack reply's items. An agent looks at the items, whatever the HTTP status is.
fn item_statuses(answer: &Answer) -> Vec<u16> {
    let Ok(text) = answer.text() else { return Vec::new() };
    let reply = serde_json::from_slice::<AckResponse>(&text).ok().filter(|reply| reply.action == "acks");
    reply.map(|reply| reply.items.iter().map(|item| item.status).collect()).unwrap_or_default()
}

/// Kinds that real agents ack: all that they know, but not cancellations.
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

/// Policy and revision of an action id `policy:<id>:<revision>`.
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
    fn a_large_policy_is_known_by_its_head() {
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
    fn policies_are_known_by_their_action_id() {
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

    #[test]
    fn a_refusal_says_its_kind() {
        let body = br#"{"statusCode":401,"error":"ErrUnauthorized"}"#;
        let fault = accepted::<CheckInResponse>(&plain(401, body)).err().unwrap();
        assert!(fault.is_unauthorized());
        assert_eq!(fault.to_string(), "401 ErrUnauthorized");
    }
}
