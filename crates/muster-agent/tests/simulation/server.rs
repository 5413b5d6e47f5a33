//! A server in memory that follows the protocol, behind a network that can fail.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use muster_agent::net::{Request, Response, Server, TlsFault, Transport, TransportError, gzip};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long the server holds a check-in.
const POLL: Duration = Duration::from_secs(300);

/// What happens to a request on its way.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The request is lost.
    LoseRequest,
    /// Nobody listens.
    Refuse,
    /// By the clock of the host, the certificate of the server has expired.
    WrongClock,
    /// The request has its effect, and the response is lost.
    LoseReply,
    /// Something else responds, and the server does not see the request.
    Answer(u16, Value),
    /// The request is received, and never answered.
    Hold,
    /// Something else responds with a redirect.
    Redirect(&'static str),
}

/// Something on the way that does not let a connection be silent for longer than this.
#[derive(Clone, Copy, Debug)]
pub enum Middlebox {
    /// Resets it, as haproxy does.
    Resets(Duration),
    /// Answers 504 in the server's place, as nginx does.
    Answers504(Duration),
    /// Forgets it without a word, as NAT gateways do.
    Swallows(Duration),
    /// The server takes every request and dies after this time.
    Crashes(Duration),
}

/// One received check-in.
#[derive(Clone, Debug)]
pub struct CheckIn {
    /// Time of arrival.
    pub at: Instant,
    /// Body.
    pub body: Value,
}

/// One received ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub action_id: String,
    pub timestamp: String,
    pub error: Option<String>,
    pub data: Value,
}

#[derive(Default)]
pub struct Inner {
    /// The policy: `data.policy`.
    pub policy: Option<Value>,
    /// Actions in order; the ack token is the number of delivered ones.
    pub actions: Vec<Value>,
    /// Responses to the next check-ins, before anything else.
    pub scripted: VecDeque<Value>,
    /// Faults for the next requests whose paths have this suffix.
    pub faults: VecDeque<(&'static str, Fault)>,
    /// Fault for every request whose path has this suffix.
    pub always: Option<(&'static str, Fault)>,
    /// Acks of these actions get this status.
    pub refuse_acks: Option<(HashSet<String>, u16)>,
    pub check_ins: Vec<CheckIn>,
    pub ack_requests: Vec<Vec<Ack>>,
    /// All acks as they arrived.
    pub ack_events: Vec<Value>,
    pub audits: Vec<Value>,
    /// Agents that were created by enrollments, by their enrollment id.
    pub enrolled: BTreeMap<String, String>,
    /// `Warning` header of every response to a check-in.
    pub warning: Option<&'static str>,
    /// Middlebox between agent and server.
    pub middlebox: Option<Middlebox>,
    /// Polls that it cut, by the time when they began.
    pub cuts: Vec<Instant>,
    pub uploads: Vec<(String, Vec<u8>)>,
    pub requests: Vec<(String, HeaderMap)>,
    /// Path of every request, and the proxy through which it was sent.
    pub ways: Vec<(String, Option<String>)>,
    /// Proxies that cannot forward requests with this suffix of the path.
    pub broken_proxies: HashMap<String, &'static str>,
    /// Proxies that accept every request with a body and never respond: they hold it, or cut it after this time.
    pub stuck_proxies: HashMap<String, Option<Duration>>,
    pub hosts: Vec<Server>,
    /// Hosts that belong to another fleet, or accept no check-ins, with what they respond.
    pub strangers: HashMap<&'static str, Fault>,
}

/// The server. Clones share their state.
#[derive(Clone, Default)]
pub struct FakeServer {
    inner: Arc<Mutex<Inner>>,
    bell: Arc<Notify>,
}

impl FakeServer {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Changes the server's state and wakes the held check-in.
    pub fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.bell.notify_waiters();
    }

    /// Returns all received acks, in order.
    pub fn acks(&self) -> Vec<Ack> {
        self.lock().ack_requests.concat()
    }

    /// Returns the action ids of all received acks, in order.
    pub fn acked(&self) -> Vec<String> {
        self.acks().into_iter().map(|ack| ack.action_id).collect()
    }

    fn fault(&self, path: &str) -> Option<Fault> {
        let mut inner = self.lock();
        if let Some((_, fault)) = inner.always.as_ref().filter(|(end, _)| path.ends_with(end)) {
            return Some(fault.clone());
        }
        let place = inner.faults.iter().position(|(end, _)| path.ends_with(end))?;
        inner.faults.remove(place).map(|(_, fault)| fault)
    }

    async fn serve(&self, request: Request) -> Response {
        let path = request.path.clone();
        if path.ends_with("/checkin") {
            let mut response = self.check_in(&request).await;
            if let Some(warning) = self.lock().warning {
                response.headers.insert(http::header::WARNING, warning.parse().unwrap());
            }
            return response;
        }
        let mut inner = self.lock();
        if path.ends_with("/acks") {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            return acknowledge(&mut inner, &body);
        }
        if path.ends_with("/audit/unenroll") {
            inner.audits.push(serde_json::from_slice(&request.body).unwrap());
            return reply(200, &Value::Null);
        }
        if path == "/api/fleet/agents/enroll" {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            return enrolled(&mut inner, &body);
        }
        if path == "/api/status" {
            return reply(200, &json!({"name": "fleet-server", "status": "HEALTHY"}));
        }
        if path == "/api/fleet/uploads" {
            return reply(200, &json!({"upload_id": "up-1", "chunk_size": 512}));
        }
        if path.starts_with("/api/fleet/uploads/") {
            let hash = request.headers.get("x-chunk-sha2").map(|hash| hash.to_str().unwrap().to_owned());
            inner.uploads.push((hash.unwrap_or_default(), request.body.to_vec()));
            return reply(200, &json!({"status": "ok"}));
        }
        reply(404, &json!({"statusCode": 404, "error": "NotFound"}))
    }

    async fn check_in(&self, request: &Request) -> Response {
        let plain = gzip::decompress(&request.body, 1 << 20).unwrap().unwrap();
        let body: Value = serde_json::from_slice(&plain).unwrap();
        self.lock().check_ins.push(CheckIn { at: Instant::now(), body: body.clone() });
        let end = Instant::now() + hold(&body);
        loop {
            let woken = self.bell.notified();
            if let Some(found) = deliverable(&mut self.lock(), &body) {
                return reply(200, &found);
            }
            if tokio::time::timeout_at(end, woken).await.is_err() {
                return reply(200, &json!({"action": "checkin", "ack_token": ""}));
            }
        }
    }
}

/// How long a server holds a check-in that asks for a length (EA68).
fn hold(body: &Value) -> Duration {
    let wish = body["poll_timeout"].as_str().map(|text| text.strip_suffix('s').unwrap().parse().unwrap());
    wish.map_or(POLL, |wish: u64| Duration::from_secs(wish.saturating_sub(120).clamp(60, 3600)))
}

fn deliverable(inner: &mut Inner, body: &Value) -> Option<Value> {
    if let Some(scripted) = inner.scripted.pop_front() {
        return Some(scripted);
    }
    let seen: usize = body["ack_token"].as_str().and_then(|token| token.parse().ok()).unwrap_or(0);
    if seen < inner.actions.len() {
        let token = inner.actions.len().to_string();
        return Some(json!({"action": "checkin", "ack_token": token, "actions": inner.actions[seen..]}));
    }
    let policy = inner.policy.as_ref()?;
    let runs_it = match body["agent_policy_id"].as_str() {
        Some(id) => policy["id"] == id && body["policy_revision_idx"] == policy["revision"],
        // What the server has recorded counts for an agent that says nothing (EA §4.7).
        None => inner.ack_events.iter().any(|ack| ack["action_id"] == policy_action(policy)),
    };
    if runs_it {
        return None;
    }
    Some(json!({"action": "checkin", "ack_token": "", "actions": [policy_change(policy)]}))
}

/// An agent for each enrollment id.
fn enrolled(inner: &mut Inner, body: &Value) -> Response {
    let next = format!("agent-{}", inner.enrolled.len() + 2);
    let id = inner.enrolled.entry(body["enrollment_id"].as_str().unwrap().to_owned()).or_insert(next);
    reply(
        200,
        &json!({"action": "created", "item": {"id": id, "active": true, "policy_id": "p", "type": "PERMANENT",
        "enrolled_at": "2026-01-01T00:00:00Z", "user_provided_metadata": null, "local_metadata": {},
        "access_api_key_id": "k", "access_api_key": "azpz", "status": "online", "tags": []}}),
    )
}

/// The id of the action that delivers a policy.
fn policy_action(policy: &Value) -> String {
    format!("policy:{}:{}", policy["id"].as_str().unwrap_or(""), policy["revision"])
}

/// The action that delivers a policy.
pub fn policy_change(policy: &Value) -> Value {
    let id = policy_action(policy);
    json!({"agent_id": "agent-1", "created_at": "2026-01-01T00:00:00.000Z", "id": id, "type": "POLICY_CHANGE",
        "input_type": "", "data": {"policy": policy}})
}

fn acknowledge(inner: &mut Inner, body: &Value) -> Response {
    let mut acks = Vec::new();
    let mut items = Vec::new();
    for event in body["events"].as_array().unwrap() {
        inner.ack_events.push(event.clone());
        let ack = Ack {
            action_id: event["action_id"].as_str().unwrap().to_owned(),
            timestamp: event["timestamp"].as_str().unwrap().to_owned(),
            error: event["error"].as_str().map(str::to_owned),
            data: event["data"].clone(),
        };
        let refused = inner.refuse_acks.as_ref().filter(|(ids, _)| ids.contains(&ack.action_id));
        items.push(json!({"status": refused.map_or(200, |(_, status)| *status)}));
        acks.push(ack);
    }
    inner.ack_requests.push(acks);
    let status = items.iter().map(|item| item["status"].as_u64().unwrap()).max().unwrap_or(200);
    reply(u16::try_from(status).unwrap(), &json!({"action": "acks", "items": items}))
}

fn reply(status: u16, body: &Value) -> Response {
    Response { status, headers: HeaderMap::new(), body: serde_json::to_vec(body).unwrap().into() }
}

#[async_trait]
impl Transport for FakeServer {
    async fn send(&self, server: &Server, request: Request) -> Result<Response, TransportError> {
        let timeout = request.timeout;
        {
            let mut inner = self.lock();
            inner.requests.push((request.path.clone(), request.headers.clone()));
            inner.hosts.push(server.clone());
        }
        let stranger = self.lock().strangers.get(server.host.as_str()).cloned();
        let fault = stranger.filter(|_| request.path.ends_with("/checkin")).or_else(|| self.fault(&request.path));
        if fault.is_none() {
            request.reached.mark();
        }
        // The network takes time, so that other events can happen meanwhile.
        tokio::time::sleep(Duration::from_millis(5)).await;
        match fault {
            Some(Fault::Hold) => {
                request.reached.mark();
                tokio::time::sleep(timeout).await;
                Err(TransportError::Timeout(timeout))
            }
            Some(Fault::WrongClock) => Err(TransportError::Tls {
                server: server.to_string(),
                fault: TlsFault::Clock,
                reason: "a certificate expired; the request is lost".into(),
            }),
            Some(Fault::Refuse) => {
                Err(TransportError::Connect { server: server.to_string(), source: "connection refused".into() })
            }
            Some(Fault::LoseRequest) => Err(TransportError::Broken("lost".into())),
            Some(Fault::Answer(status, body)) => Ok(reply(status, &body)),
            Some(Fault::Redirect(location)) => {
                let mut response = reply(307, &Value::Null);
                response.headers.insert("location", location.parse().unwrap());
                Ok(response)
            }
            Some(Fault::LoseReply) => {
                let _ = tokio::time::timeout(timeout, self.serve(request)).await;
                Err(TransportError::Broken("lost on the way back".into()))
            }
            None => self.through_middlebox(request, timeout).await,
        }
    }
}

impl FakeServer {
    async fn through_middlebox(&self, request: Request, timeout: Duration) -> Result<Response, TransportError> {
        let (begun, middlebox) = (Instant::now(), self.lock().middlebox);
        let patience = match middlebox {
            Some(Middlebox::Resets(time) | Middlebox::Answers504(time) | Middlebox::Crashes(time)) => time.min(timeout),
            Some(Middlebox::Swallows(_)) | None => timeout,
        };
        let outcome = tokio::time::timeout(patience, self.serve(request)).await;
        let late = |limit: Duration| begun.elapsed() > limit;
        match (middlebox, outcome) {
            (Some(Middlebox::Swallows(limit)), Ok(_)) if late(limit) => {
                self.lock().cuts.push(begun);
                tokio::time::sleep(timeout.saturating_sub(begun.elapsed())).await;
                Err(TransportError::Timeout(timeout))
            }
            (_, Ok(response)) => Ok(response),
            (Some(Middlebox::Resets(_) | Middlebox::Crashes(_)), Err(_)) if patience < timeout => {
                self.lock().cuts.push(begun);
                Err(TransportError::Broken("connection reset by peer".into()))
            }
            (Some(Middlebox::Answers504(_)), Err(_)) if patience < timeout => {
                self.lock().cuts.push(begun);
                Ok(Response { status: 504, headers: HeaderMap::new(), body: "<html>504</html>".into() })
            }
            (_, Err(_)) => Err(TransportError::Timeout(timeout)),
        }
    }
}
