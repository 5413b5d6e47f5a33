//! Test support: a fleet with hosts, and requests against its router.

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, StatusCode};
use futures_util::StreamExt as _;
use muster_core::agent::{AgentDocuments, AgentRecord, Family};
use muster_core::authorization::{Actor, OpContext, SpacesWrite};
use muster_core::fleetd::numbers;
use muster_core::host::{self, Host};
use muster_core::id::{AgentId, HostId, SpaceId};
use muster_core::live_query::HostAnswer;
use muster_core::status;
use muster_core::testing::online_agent;
use muster_fleet::packs::PackDraft;
use muster_fleet::testing::TestFleet;
use muster_fleetdm::fleetdm_router;
use muster_listen::reply::{ListenerKind, Peer};
use muster_management::management_router;
use muster_store::{AgentWrite, Write};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// The password of every user.
pub const PASSWORD: &str = "correct horse battery";

pub struct Api {
    test: TestFleet,
    pub router: Router,
    /// The token of an administrator.
    pub token: String,
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
    pub body: Value,
}

impl Answer {
    /// Returns the body of a successful response.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// Returns the name and the reason of an error after checking its form.
    #[track_caller]
    pub fn refused(self, status: u16) -> (String, String) {
        assert_eq!(self.status, status, "{}", self.body);
        let error = &self.body["errors"][0];
        assert!(self.body["message"].is_string() && self.body["uuid"].is_string(), "{}", self.body);
        let text = |member: &str| error[member].as_str().expect("as expected").to_owned();
        (text("name"), text("reason"))
    }
}

pub fn peer() -> Peer {
    let address = Some("192.0.2.7:50000".parse().expect("as expected"));
    Peer { address, ..Peer::new(ListenerKind::Admin) }
}

impl Api {
    pub async fn new() -> Self {
        let test = TestFleet::default();
        let router = management_router(Arc::clone(&test.fleet)).merge(fleetdm_router(&test.fleet));
        let mut api = Self { test, router, token: String::new() };
        api.token = api.user("ann", "administrator", None).await;
        api
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("as expected");
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("as expected");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status, body }
    }

    /// Returns the pieces in which the body of a response is sent.
    pub async fn pieces(&self, path: &str) -> Vec<Bytes> {
        let request = Request::builder().uri(format!("/api/latest/fleet{path}")).extension(peer());
        let request = request.header("authorization", format!("Bearer {}", self.token)).body(Body::empty());
        let response = self.router.clone().oneshot(request.expect("as expected")).await.expect("as expected");
        assert_eq!(response.status(), 200);
        response.into_body().into_data_stream().map(|piece| piece.expect("as expected")).collect().await
    }

    /// A request to Muster's own API by a user of the server's host.
    pub async fn muster(&self, path: &str, body: Value) -> Value {
        let uid = Some(nix_uid());
        let peer = Peer { uid, ..Peer::new(ListenerKind::Socket) };
        let request = Request::builder().method(Method::POST).uri(format!("/api/v1{path}")).extension(peer);
        self.send(request.body(Body::from(body.to_string())).expect("as expected")).await.ok()
    }

    /// Creates a user with a role in a space or everywhere; returns an API token.
    pub async fn user(&self, name: &str, role: &str, space: Option<&str>) -> String {
        self.muster("/users", json!({"name": name, "password": PASSWORD})).await;
        let mut binding = json!({"user": name, "role": role});
        if let Some(space) = space {
            binding["space"] = space.into();
        }
        self.muster("/bindings", binding).await;
        let made = self.muster("/tokens", json!({"owner": name, "name": "t"})).await;
        made["item"]["token"].as_str().expect("as expected").to_owned()
    }

    /// A request with a token; `null` stands for no body.
    pub async fn with(&self, token: &str, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let mut request = Request::builder().method(method).uri(format!("/api/latest/fleet{path}")).extension(peer());
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.send(request.body(body).expect("as expected")).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.with(&self.token, Method::GET, path, Value::Null).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.with(&self.token, Method::POST, path, body).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.with(&self.token, Method::PATCH, path, body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.with(&self.token, Method::DELETE, path, Value::Null).await
    }

    /// Stores a host with osquery; returns its number.
    pub async fn host(&self, machine: &str, change: impl FnOnce(&mut AgentRecord)) -> u64 {
        let (now, id) = (self.now(), agent_id(machine));
        let mut record = AgentRecord {
            family: Family::Osquery,
            host_id: Some(HostId::trusted(format!("host-{machine}"))),
            hostname: format!("{machine}.example"),
            os: "ubuntu\ndebian\nUbuntu\n24.04\nx86_64".into(),
            agent_version: "5.21.0".into(),
            ..online_agent(id.as_str(), None, now)
        };
        change(&mut record);
        status::transition(&mut record, None, now);
        let host = Host {
            id: record.host_id.clone().expect("as expected"),
            space: record.space.clone(),
            machine_id: host::machine_id(machine),
            hostname: record.hostname.clone(),
            created_at: now,
            system_id: None,
        };
        let metadata = json!({
            "host": {"hostname": record.hostname, "name": record.hostname, "id": machine, "ip": ["192.0.2.7"]},
            "os": {"platform": "ubuntu", "family": "debian", "name": "Ubuntu", "version": "24.04.1 LTS", "codename": "noble"},
            "hardware": {"serial": "5JX82", "memory": "2084032512", "cores": "4", "logical_cores": "8", "version": "A00"},
            "osquery": {"version": "5.21.0"},
            "orbit": {"version": "1.40.0"},
        });
        let documents = AgentDocuments { local_metadata: Some(metadata.to_string().into()), components: None };
        self.commit(vec![Write::Agent(AgentWrite::PutHost(host))]).await;
        self.add_agent(record, documents).await;
        numbers::of_host(&id).expect("as expected")
    }

    /// Creates a space; returns the number of its team.
    pub async fn team(&self, name: &str) -> u64 {
        self.post("/teams", json!({"name": name})).await.ok()["team"]["id"].as_u64().expect("as expected")
    }

    /// Names a space as Muster's own API does, which allows the name of another one.
    pub async fn rename(&self, space: &str, name: &str) {
        let context = OpContext::administrator(Actor::System);
        let found = self.fleet.spaces().find::<SpacesWrite>(&context, space).await.expect("as expected");
        self.fleet.spaces().update(&found, name, "").await.expect("as expected");
    }

    /// Saves a pack of the default space as Muster's own API does.
    pub async fn pack(&self, name: &str, document: &str) {
        let draft = PackDraft { name: name.into(), document: document.into(), ..PackDraft::default() };
        self.fleet.packs().save(&OpContext::administrator(Actor::System), draft).await.expect("as expected");
    }

    /// Answers a live query for a host.
    pub async fn answer(&self, machine: &str, query: &str, rows: &str) {
        let entry = self.fleet.entry(&agent_id(machine)).await.expect("as expected");
        let answer = HostAnswer { rows: rows.into(), row_count: 1, ..HostAnswer::default() };
        self.fleet.live_queries().answer(&entry, query, answer).await.expect("as expected");
    }

    /// Waits for the next live query of the default space, which a request has just started.
    pub async fn running(&self) -> String {
        let context = OpContext::administrator(Actor::System).in_space(SpaceId::default());
        loop {
            let queries = self.fleet.live_queries().list(&context).await.expect("as expected");
            if let Some(query) = queries.into_iter().find(|query| query.ended.is_none()) {
                return query.id.to_string();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Actions of the audit log so far, oldest first.
    pub async fn audit(&self) -> Vec<String> {
        let lines = self.fleet.store().audit_events(0, 10_000).await.expect("as expected");
        let action = |json: String| {
            serde_json::from_str::<Value>(&json).expect("as expected")["action"]
                .as_str()
                .expect("as expected")
                .to_owned()
        };
        lines.into_iter().map(|(_, json, _)| action(json)).collect()
    }
}

pub fn agent_id(machine: &str) -> AgentId {
    host::agent_id(Family::Osquery, &host::machine_id(machine).expect("as expected"))
}

fn nix_uid() -> u32 {
    nix::unistd::Uid::effective().as_raw()
}

/// The members of the objects of a list.
pub fn column(list: &Value, member: &str) -> Vec<Value> {
    list.as_array().expect("as expected").iter().map(|item| item[member].clone()).collect()
}

pub fn in_space(space: &str) -> impl FnOnce(&mut AgentRecord) {
    move |record| record.space = SpaceId::trusted(space)
}
