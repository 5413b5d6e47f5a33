//! A server in process, with hosts that speak as orbit and osqueryd do.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use muster_core::agent::{AgentRecord, Family};
use muster_core::authorization::{Actor, OpContext};
use muster_core::enrollment_key::KeyFamily;
use muster_core::host;
use muster_core::id::{AgentId, SpaceId};
use muster_fleet::FleetSettings;
use muster_fleet::keys::{NewEnrollmentKey, OneTimeHost};
use muster_fleet::testing::{TestFleet, steady};
use muster_fleetd::{FleetdApi, FleetdApiOptions};
use muster_listen::Answer;
use muster_listen::reply::{ListenerKind, Peer};
use muster_store::testing::{Gate, Gated};
use muster_store::{AgentWrite, Store, StoreError, Write};
use serde_json::{Value, json};

pub const UUID: &str = "4C4C4544-0042-3510-8052-B7C04F584432";

/// Switches of the store, and the number of its commits.
#[derive(Default)]
pub struct Switches {
    off: AtomicBool,
    commits: AtomicUsize,
    reads: AtomicUsize,
    held: Mutex<Option<Held>>,
}

/// A commit of a deletion that waits: tells that it has come, and waits for a word to go on.
type Held = (mpsc::Sender<()>, mpsc::Receiver<()>);

impl Gate for Switches {
    fn read(&self) -> Result<(), StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.off.load(Ordering::SeqCst) { Err(StoreError::unavailable("disk full: /secret/path")) } else { Ok(()) }
    }

    fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        if writes.iter().any(|write| matches!(write, Write::Agent(AgentWrite::Delete { .. })))
            && let Some((came, go)) = self.held.lock().expect("not poisoned").take()
        {
            came.send(()).and_then(|()| go.recv().map_err(|_| mpsc::SendError(()))).expect("the test waits");
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.read()
    }
}

pub struct Server {
    pub api: FleetdApi,
    test: TestFleet,
    pub store: Arc<Gated<Switches>>,
}

impl Deref for Server {
    type Target = TestFleet;

    fn deref(&self) -> &TestFleet {
        &self.test
    }
}

/// A response.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(FleetdApiOptions::default())
    }

    pub fn start_with(options: FleetdApiOptions) -> Self {
        Self::start_in(options, steady())
    }

    pub fn start_in(options: FleetdApiOptions, settings: FleetSettings) -> Self {
        let store =
            Arc::new(Gated::new(Arc::new(muster_store::testing::fresh()) as Arc<dyn Store>, Switches::default()));
        let test = TestFleet::over(Arc::clone(&store) as Arc<dyn Store>, settings).following_changes();
        Self { api: FleetdApi::new(Arc::clone(&test.fleet), options), test, store }
    }

    /// Returns another server over the same store.
    pub fn restarted(&self) -> Self {
        self.restarted_with(FleetdApiOptions::default())
    }

    /// Returns another server over the same store, with options.
    pub fn restarted_with(&self, options: FleetdApiOptions) -> Self {
        let store = Arc::clone(&self.store);
        let test = TestFleet::over(Arc::clone(&store) as Arc<dyn Store>, steady()).following_changes();
        Self { api: FleetdApi::new(Arc::clone(&test.fleet), options), test, store }
    }

    /// Makes the store fail.
    pub fn switch_off(&self, off: bool) {
        self.store.gate().off.store(off, Ordering::SeqCst);
    }

    /// Holds the next deletion of an agent before its commit. The first channel tells that it has come, the second one lets it go on.
    pub fn hold_deletion(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((came, has_come), (go, goes)) = (mpsc::channel(), mpsc::channel());
        *self.store.gate().held.lock().expect("not poisoned") = Some((came, goes));
        (has_come, go)
    }

    /// Returns the number of commits so far.
    pub fn commits(&self) -> usize {
        self.store.gate().commits.load(Ordering::SeqCst)
    }

    /// Returns the number of reads of the store so far.
    pub fn reads(&self) -> usize {
        self.store.gate().reads.load(Ordering::SeqCst)
    }

    /// Creates an enroll secret in a space.
    pub async fn secret_in(&self, space: &str) -> String {
        let context = OpContext::administrator(Actor::System).in_space(SpaceId::trusted(space));
        let new = NewEnrollmentKey { family: KeyFamily::Fleetd, ..NewEnrollmentKey::default() };
        self.fleet.enrollment_keys().create(&context.grant().expect("as expected"), &new).await.expect("as expected").1
    }

    /// Creates a one-time secret.
    pub async fn one_time_secret(&self, host: OneTimeHost) -> String {
        let new = NewEnrollmentKey { family: KeyFamily::Fleetd, one_time: Some(host), ..NewEnrollmentKey::default() };
        let grant = OpContext::administrator(Actor::System).grant().expect("an administrator");
        self.fleet.enrollment_keys().create(&grant, &new).await.expect("a secret").1
    }

    /// Returns the actions in the audit log.
    pub async fn audited(&self) -> Vec<String> {
        let action = |event: &Value| event["action"].as_str().unwrap_or_default().to_owned();
        self.audit_log().await.iter().map(action).collect()
    }

    /// Returns the events of an action in the audit log.
    pub async fn events(&self, action: &str) -> Vec<Value> {
        self.audit_log().await.into_iter().filter(|event| event["action"] == action).collect()
    }

    async fn audit_log(&self) -> Vec<Value> {
        let events = self.store().audit_events(0, 100).await.expect("a log");
        events.iter().map(|(_, text, _)| serde_json::from_str(text).expect("JSON")).collect()
    }

    pub async fn secret(&self) -> String {
        self.secret_in("default").await
    }

    pub async fn send(&self, request: Request<Full<Bytes>>, address: &str) -> Got {
        let address = Some(address.parse().expect("as expected"));
        self.send_from(Peer { address, tls: true, ..Peer::new(ListenerKind::Agent) }, request).await
    }

    pub async fn send_from(&self, peer: Peer, request: Request<Full<Bytes>>) -> Got {
        let Answer::Reply(reply) = self.api.handle(request, peer).await.answer else { panic!("upgraded") };
        let (head, body) = reply.into_parts();
        let body = body.collect().await.expect("as expected").to_bytes();
        Got {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(body.to_vec()).expect("as expected"),
        }
    }

    pub async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Got {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::new(body.into())).expect("as expected"), "192.0.2.7:40000").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Got {
        self.raw(Method::POST, path, &[("user-agent", "osquery/5.21.0")], body.to_string()).await
    }

    pub async fn osquery(&self, call: &str, body: &Value) -> Got {
        self.post(&format!("/api/v1/osquery/{call}"), body).await
    }

    pub async fn orbit(&self, call: &str, body: &Value) -> Got {
        self.post(&format!("/api/fleet/orbit/{call}"), body).await
    }

    /// Enrolls an osqueryd; returns its node key.
    pub async fn osquery_key(&self, secret: &str, uuid: &str) -> String {
        let got = self.osquery("enroll", &osquery_enroll(secret, uuid)).await;
        assert_eq!(got.status, 200, "{got:?}");
        got.json()["node_key"].as_str().expect("as expected").to_owned()
    }

    /// Enrolls an orbit; returns its node key.
    pub async fn orbit_key(&self, secret: &str, uuid: &str) -> String {
        let got = self.orbit("enroll", &orbit_enroll(secret, uuid)).await;
        assert_eq!(got.status, 200, "{got:?}");
        got.json()["orbit_node_key"].as_str().expect("as expected").to_owned()
    }

    pub async fn record(&self, family: Family, machine: &str) -> Option<AgentRecord> {
        let id = agent_id(family, machine);
        self.store().agent(&id).await.expect("as expected")
    }
}

pub fn agent_id(family: Family, machine: &str) -> AgentId {
    host::agent_id(family, &host::machine_id(machine).expect("as expected"))
}

pub fn osquery_enroll(secret: &str, uuid: &str) -> Value {
    json!({
        "enroll_secret": secret,
        "host_identifier": uuid,
        "platform_type": "9",
        "host_details": {
            "os_version": {"_id": "", "name": "Ubuntu", "version": "24.04.1 LTS", "platform": "ubuntu"},
            "osquery_info": {"version": "5.21.0", "instance_id": "c1f0", "uuid": uuid},
            "system_info": {"hostname": "web-7", "uuid": uuid, "hardware_serial": "5JX82", "computer_name": "web-7"},
            "platform_info": {"vendor": "Dell Inc."},
        },
    })
}

pub fn orbit_enroll(secret: &str, uuid: &str) -> Value {
    json!({
        "enroll_secret": secret, "hardware_uuid": uuid, "hardware_serial": "5JX82", "hostname": "web-7",
        "computer_name": "web-7", "hardware_model": "PowerEdge", "platform": "ubuntu", "platform_like": "debian",
        "osquery_identifier": "",
    })
}

/// A complete round of details.
pub fn details(key: &str, hostname: &str) -> Value {
    let row = |value: Value| json!([value]);
    json!({
        "node_key": key,
        "queries": {
            "fleet_detail_query_system_info": row(json!({"hostname": hostname, "uuid": UUID, "cpu_type": "x86_64"})),
            "fleet_detail_query_os_version": row(json!({"name": "Ubuntu", "version": "24.04", "platform": "ubuntu"})),
            "fleet_detail_query_osquery_info": row(json!({"version": "5.22.0"})),
            "fleet_detail_query_interface_addresses": row(json!({"address": "192.0.2.7"})),
            "fleet_no_policies_wildcard": row(json!({"1": "1"})),
        },
        "statuses": {
            "fleet_detail_query_system_info": 0,
            "fleet_detail_query_os_version": "0",
            "fleet_detail_query_osquery_info": 0,
            "fleet_detail_query_interface_addresses": 0,
            "fleet_no_policies_wildcard": 0,
        },
        "messages": {}, "stats": {},
    })
}
