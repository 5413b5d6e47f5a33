//! A server in process: the adapter over a test fleet. Requests are passed to the adapter as the connection layer does it.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use muster_core::action::ActionType;
use muster_core::authorization::{Actor, OpContext};
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_elastic::{AgentApi, AgentApiOptions};
use muster_fleet::FleetSettings;
use muster_fleet::actions::UpgradeRequest;
use muster_fleet::force::Force;
use muster_fleet::health::ServerState;
use muster_fleet::output_keys::issuer::{KeyIssuer, NoIssuer};
use muster_fleet::selection::Selected;
use muster_fleet::testing::{TestFleet, steady};
use muster_listen::reply::{Answer, ListenerKind, Parked, Peer, Reply};
use muster_store::{EnrollmentKeyWrite, Store, Write};
use serde_json::{Value, json};

use crate::outage::{Outage, switched};

pub const AGENT: &str = "Elastic Agent v9.5.2";

pub struct Server {
    pub api: AgentApi,
    test: TestFleet,
    pub store: Arc<Outage>,
    pub options: AgentApiOptions,
}

impl Deref for Server {
    type Target = TestFleet;

    fn deref(&self) -> &TestFleet {
        &self.test
    }
}

/// An enrolled agent.
#[derive(Clone, Debug)]
pub struct Enrolled {
    pub id: String,
    pub token: String,
}

impl Enrolled {
    pub fn path(&self, verb: &str) -> String {
        format!("/api/fleet/agents/{}/{verb}", self.id)
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(|_| {}, |_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut AgentApiOptions), settings: impl FnOnce(&mut FleetSettings)) -> Self {
        Self::issuing(change, settings, Arc::new(NoIssuer))
    }

    /// A server that creates output keys with `issuer`.
    pub fn issuing(
        change: impl FnOnce(&mut AgentApiOptions),
        settings: impl FnOnce(&mut FleetSettings),
        issuer: Arc<dyn KeyIssuer>,
    ) -> Self {
        let mut options = AgentApiOptions::default();
        options.health.set(ServerState::Healthy);
        change(&mut options);
        let mut fleet_settings = steady();
        settings(&mut fleet_settings);
        let store = Arc::new(switched(Arc::new(muster_store::testing::fresh())));
        let test = TestFleet::issuing(Arc::clone(&store) as Arc<dyn Store>, fleet_settings, issuer).following_changes();
        let api = AgentApi::new(Arc::clone(&test.fleet), options.clone());
        Self { api, test, store, options }
    }

    /// Creates an enrollment key; returns its token.
    pub async fn enrollment_key(&self, id: &str, policy: Option<&PolicyId>) -> String {
        let named = |key: &mut EnrollmentKey| (key.id, key.name) = (EnrollmentKeyId::trusted(id), id.to_owned());
        self.add_key(policy.map(PolicyId::as_str), named).await.token()
    }

    pub async fn revoke_enrollment_key(&self, id: &str) {
        let (id, now) = (EnrollmentKeyId::trusted(id), self.now());
        self.commit(vec![Write::EnrollmentKey(EnrollmentKeyWrite::Revoke { id, now })]).await;
    }

    /// Creates a policy at revision 1 with this compiled document.
    pub async fn policy_with(&self, id: &str, compiled: Value) -> PolicyId {
        let id = self.add_policy(id, |_| {}).await;
        self.revision_with(&id, 1, compiled).await;
        id
    }

    /// An action for one agent, announced.
    pub async fn add_action(&self, id: &str, kind: ActionType, agent: &str, data: &str) {
        let data = (!data.is_empty()).then(|| data.into());
        self.test.add_action(id, kind, agent, |action| action.data = data).await;
    }

    /// Enrolls an agent without a policy.
    pub async fn enrolled(&self) -> Enrolled {
        let token = self.add_key(None, |_| {}).await.token();
        self.enroll_with(&token, &json!({"type": "PERMANENT"})).await
    }

    pub async fn enroll_with(&self, token: &str, body: &Value) -> Enrolled {
        let got = self.get(Ask::post("/api/fleet/agents/enroll").key(token).agent(AGENT).json(body)).await;
        assert_eq!(got.status, 200, "{got:?}");
        let item = &got.json()["item"];
        let text = |name: &str| item[name].as_str().expect("text").to_owned();
        Enrolled { id: text("id"), token: text("access_api_key") }
    }

    pub async fn ask(&self, ask: Ask) -> Answer {
        let (request, peer) = ask.into_parts();
        self.api.handle(request, peer).await.answer
    }

    /// Returns the response; panics if the request is parked.
    pub async fn get(&self, ask: Ask) -> Got {
        match self.ask(ask).await {
            Answer::Reply(reply) => Got::of(reply).await,
            _ => panic!("parked"),
        }
    }

    /// Returns the response, for which the request may be parked.
    pub async fn get_in_time(&self, ask: Ask) -> Got {
        match self.ask(ask).await {
            Answer::Reply(reply) => Got::of(reply).await,
            Answer::Park(parked) => Got::of(parked.await).await,
            Answer::Upgrade(_) => panic!("upgraded"),
        }
    }

    /// Returns the parked request; panics if it is answered immediately.
    pub async fn park(&self, ask: Ask) -> Parked {
        match self.ask(ask).await {
            Answer::Park(parked) => parked,
            Answer::Reply(reply) => panic!("answered: {:?}", Got::of(reply).await),
            Answer::Upgrade(_) => panic!("upgraded"),
        }
    }

    /// Checks that the request is parked, and drops it.
    pub async fn holds(&self, ask: Ask) {
        drop(self.park(ask).await);
    }

    /// Revokes the agent's keys.
    pub async fn revoke(&self, agent: &Enrolled) {
        let selected = Selected::one(&agent.id).expect("an id");
        let context = OpContext::administrator(Actor::System);
        let selection = self.fleet.agents().select(&context, &selected).await.expect("there");
        self.fleet.actions().force_unenroll(&selection, Force::No).await.expect("revoked");
    }

    /// Requests an upgrade of the agent, and returns the action's id.
    pub async fn upgrade(&self, agent: &Enrolled, version: &str) -> String {
        let selected = Selected::one(&agent.id).expect("an id");
        let selection = self.fleet.agents().select(&OpContext::administrator(Actor::System), &selected).await;
        let request = UpgradeRequest { version: version.into(), force: Force::Yes, ..UpgradeRequest::default() };
        let given = self.fleet.actions().upgrade(&selection.expect("there"), &request).await.expect("taken");
        given.action.id.to_string()
    }

    /// A check-in of `agent`, ready to be changed and sent.
    pub fn check_in(&self, agent: &Enrolled, body: &Value) -> Ask {
        Ask::post(&agent.path("checkin")).key(&agent.token).agent(AGENT).json(body)
    }

    pub fn acks(&self, agent: &Enrolled, events: &Value) -> Ask {
        Ask::post(&agent.path("acks")).key(&agent.token).json(&json!({"events": events}))
    }
}

/// A minimal check-in.
pub fn online() -> Value {
    json!({"status": "online", "message": "Running"})
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    method: Method,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Bytes,
    tls: bool,
}

impl Ask {
    pub fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: Bytes::new(), tls: true }
    }

    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post(path: &str) -> Self {
        Self::new(Method::POST, path)
    }

    pub fn put(path: &str) -> Self {
        Self::new(Method::PUT, path)
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn key(self, token: &str) -> Self {
        self.header("authorization", format!("ApiKey {token}"))
    }

    pub fn agent(self, user_agent: &str) -> Self {
        self.header("user-agent", user_agent)
    }

    /// Replaces the User-Agent.
    pub fn agent_instead(mut self, user_agent: &str) -> Self {
        self.headers.retain(|(name, _)| name != "user-agent");
        self.agent(user_agent)
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
    }

    /// Compresses the body.
    pub fn gzip(self) -> Self {
        let body = muster_listen::gzip::deflate(&self.body);
        self.body(body).header("content-encoding", "gzip")
    }

    pub fn plain_http(mut self) -> Self {
        self.tls = false;
        self
    }

    /// The request and its peer.
    pub fn into_parts(self) -> (Request<Full<Bytes>>, Peer) {
        let address = Some("192.0.2.7:40000".parse().expect("an address"));
        let peer = Peer { address, tls: self.tls, ..Peer::new(ListenerKind::Agent) };
        let mut request = Request::builder().method(self.method).uri(self.path);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        (request.body(Full::new(self.body)).expect("a request"), peer)
    }
}

/// A received response.
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

impl Got {
    pub async fn of(reply: Reply) -> Self {
        let (head, body) = reply.into_parts();
        let body = body.collect().await.expect("a body").to_bytes().to_vec();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and `error` code of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        let word = self.json()["error"].as_str().expect("an error").to_owned();
        (self.status, word)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// Builds the expected value of [`Got::refusal`].
pub fn refused(status: u16, word: &str) -> (u16, String) {
    (status, word.to_owned())
}
