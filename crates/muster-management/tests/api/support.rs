//! Test support: a fleet with a manual clock, and requests against its router.

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use futures_util::StreamExt as _;
use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::credential::{ApiKey, CredentialKind, LiveCredential, LiveCredentials};
use muster_core::id::AgentId;
use muster_core::status;
use muster_core::testing::online_agent;
use muster_fleet::sign::sign_one;
use muster_fleet::testing::TestFleet;
use muster_listen::reply::{ListenerKind, Peer};
use muster_management::management_router;
use muster_store::{AgentWrite, Write};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::documented;

pub struct Api {
    test: TestFleet,
    pub router: Router,
}

impl Deref for Api {
    type Target = TestFleet;

    fn deref(&self) -> &TestFleet {
        &self.test
    }
}

/// A received response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// Returns the body of a successful response.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// Returns the body of an error response after checking its format.
    #[track_caller]
    pub fn refused(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["statusCode"], status);
        assert!(self.body["error"].is_string() && self.body["message"].is_string(), "{}", self.body);
        assert!(self.body["code"].is_string(), "{}", self.body);
        self.body
    }
}

/// The peer of the server's own user on the socket.
pub fn administrator() -> Peer {
    let uid = Some(nix::unistd::Uid::effective().as_raw());
    Peer { uid, ..Peer::new(ListenerKind::Socket) }
}

impl Api {
    pub fn new() -> Self {
        Self::of(TestFleet::default())
    }

    pub fn of(test: TestFleet) -> Self {
        Self { router: management_router(Arc::clone(&test.fleet)), test }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let is_endless = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
        let bytes = match is_endless {
            true => body.into_data_stream().next().await.unwrap().unwrap(),
            false => to_bytes(body, usize::MAX).await.unwrap(),
        };
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        documented::check(&method, &path, &answer);
        answer
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let uri = format!("/api/fleet{path}");
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = Request::builder().method(method).uri(uri).extension(administrator()).body(body).unwrap();
        self.send(request).await
    }

    /// A request to `/api/v1`; `null` stands for no body.
    pub async fn v1(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(format!("/api/v1{path}")).extension(administrator());
        self.send(request.body(body).unwrap()).await
    }

    /// A `POST` to `/api/v1` that is rejected unless the object has this version.
    pub async fn v1_if(&self, path: &str, version: &str, body: Value) -> Answer {
        let request = Request::builder().method(Method::POST).uri(format!("/api/v1{path}"));
        let request = request.header("if-match", version).extension(administrator());
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    /// Creates a policy; returns its id.
    pub async fn policy(&self, name: &str) -> String {
        let made = self.post("/agent_policies", json!({"name": name, "namespace": "default"})).await.ok();
        made["item"]["id"].as_str().unwrap().to_owned()
    }

    /// Stores an agent that is online and upgradeable.
    pub async fn agent(&self, id: &str, policy: Option<&str>) -> ApiKey {
        self.agent_with(id, policy, |_| {}).await
    }

    pub async fn agent_with(&self, id: &str, policy: Option<&str>, change: impl FnOnce(&mut AgentRecord)) -> ApiKey {
        let key = ApiKey::generate(self.fleet.entropy());
        self.fleet.store().commit(vec![self.insertion(id, policy, &key, change)]).await.unwrap();
        key
    }

    pub fn insertion(
        &self,
        id: &str,
        policy: Option<&str>,
        key: &ApiKey,
        change: impl FnOnce(&mut AgentRecord),
    ) -> Write {
        let now = self.now();
        let mut record = AgentRecord {
            credentials: LiveCredentials::one(LiveCredential::of(key, CredentialKind::AccessKey, now)),
            agent_version: "9.5.0".into(),
            hostname: format!("host-{id}"),
            last_address: "192.0.2.2".into(),
            ..online_agent(id, policy, now)
        };
        change(&mut record);
        status::transition(&mut record, None, now);
        let metadata = json!({
            "elastic": {"agent": {"id": id, "version": "9.5.0", "upgradeable": true}},
            "host": {"hostname": format!("host-{id}")},
        });
        let documents =
            AgentDocuments { local_metadata: Some(metadata.to_string().into()), components: Some("[]".into()) };
        Write::Agent(AgentWrite::Insert { record: Box::new(record), documents })
    }

    /// The stored record.
    pub async fn record(&self, id: &str) -> Option<AgentRecord> {
        self.fleet.store().agent(&AgentId::trusted(id)).await.unwrap()
    }

    pub async fn status_of(&self, id: &str) -> String {
        self.get(&format!("/agents/{id}")).await.ok()["item"]["status"].as_str().unwrap().to_owned()
    }

    /// Actions of the audit log so far, oldest first.
    pub async fn audit(&self) -> Vec<String> {
        let lines = self.fleet.store().audit_events(0, 10_000).await.unwrap();
        let action =
            |json: String| serde_json::from_str::<Value>(&json).unwrap()["action"].as_str().unwrap().to_owned();
        lines.into_iter().map(|(_, json, _)| action(json)).collect()
    }

    /// The actions that are due for an agent now.
    pub async fn due(&self, id: &str) -> Vec<muster_core::action::DueAction> {
        let record = self.record(id).await.unwrap();
        let due = self.fleet.store().actions_due(&record.id, record.action_position, self.now(), 100).await.unwrap();
        let signer = self.fleet.inner().signing.current();
        due.into_iter().map(|one| sign_one(&signer, &record.id, one).unwrap()).collect()
    }
}

/// The strings at `pointer` in every item of a list.
pub fn column(list: &Value, pointer: &str) -> Vec<String> {
    let text = |item: &Value| item.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
    list["items"].as_array().unwrap().iter().map(text).collect()
}
