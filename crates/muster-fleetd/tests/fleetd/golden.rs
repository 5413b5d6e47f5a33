//! Requests and responses of every route, as a file. The requests were written from reading the clients' code and the
//! reference, and not recorded from programs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use muster_core::fleetd::numbers;
use muster_fleet::testing::golden;
use muster_fleetd::FleetdApiOptions;
use muster_fleetd::route::Route;
use muster_listen::Answer;
use muster_listen::reply::{ListenerKind, Peer};
use serde_json::{Value, json};

use crate::setting::{Server, UUID, details, orbit_enroll, osquery_enroll};

const TOKEN: &str = "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60";

/// Members of responses that are random.
const RANDOM: [&str; 4] = ["uuid", "node_key", "orbit_node_key", "session_id"];

/// Records requests and responses.
struct Recorder {
    server: Server,
    text: String,
    /// Random texts, and what is written in their place.
    names: Vec<(String, &'static str)>,
    succeeded: Vec<Route>,
    refused: Vec<Route>,
}

impl Recorder {
    fn start() -> Self {
        let options = FleetdApiOptions { push: true, ..FleetdApiOptions::default() };
        let text = "Read from the reference, and not recorded.\n".to_owned();
        let server = Server::start_with(options);
        Self { server, text, names: Vec::new(), succeeded: Vec::new(), refused: Vec::new() }
    }

    /// Sends a request; returns the body of the response.
    async fn ask(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut request = Request::builder().method(method.clone()).uri(path);
        writeln!(self.text, "\n{method} {path}").unwrap();
        for (name, value) in headers {
            request = request.header(*name, *value);
            writeln!(self.text, "{name}: {value}").unwrap();
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let address = Some("192.0.2.7:40000".parse().unwrap());
        let peer = Peer { address, tls: true, ..Peer::new(ListenerKind::Agent) };
        let handled = self.server.api.handle(request, peer).await;
        let reply = match handled.answer {
            Answer::Reply(reply) => reply,
            Answer::Upgrade(upgrade) => upgrade.reply,
            _ => panic!("{path} is parked"),
        };
        let (head, content) = reply.into_parts();
        let content = String::from_utf8(content.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        if let Some(route) = handled.route {
            let is_refused = head.status.is_client_error();
            if is_refused { &mut self.refused } else { &mut self.succeeded }.push(route);
        }
        let separator = if body.is_empty() { "" } else { "\n" };
        writeln!(self.text, "{body}{separator}{}", head.status.as_u16()).unwrap();
        self.write_headers(&head.headers);
        writeln!(self.text, "{}", shown(&head.headers, &content)).unwrap();
        content
    }

    /// Writes all headers that do not depend on the connection.
    fn write_headers(&mut self, headers: &HeaderMap) {
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort_unstable();
        for line in lines {
            writeln!(self.text, "{line}").unwrap();
        }
    }

    async fn post(&mut self, path: &str, body: &Value) -> String {
        self.ask(Method::POST, path, &[], &body.to_string()).await
    }

    async fn get(&mut self, path: &str, cookie: Option<&str>) {
        let headers: Vec<_> = cookie.map(|cookie| ("cookie", cookie)).into_iter().collect();
        self.ask(Method::GET, path, &headers, "").await;
    }

    fn named(&mut self, random: impl Into<String>, name: &'static str) {
        self.names.push((random.into(), name));
    }

    /// Compares the file, after a check that each route has succeeded, and was refused unless it is a ping.
    fn finish(self) {
        for route in Route::ALL {
            assert!(self.succeeded.contains(&route), "{route:?} has no response without an error");
            let is_ping = matches!(route, Route::OrbitPing | Route::DeviceServerPing);
            assert!(is_ping || self.refused.contains(&route), "{route:?} has no refusal");
        }
        let mut text = self.text;
        for (random, name) in &self.names {
            text = text.replace(random, name);
        }
        golden::check(env!("CARGO_MANIFEST_DIR"), "fleetd/golden/routes.txt", &text);
    }
}

/// Returns a body without what is random, and pages as their name only: they have tests of their own.
fn shown(headers: &HeaderMap, content: &str) -> String {
    if headers.get("content-type").is_some_and(|kind| kind.to_str().unwrap().starts_with("text/html")) {
        return "(page)".to_owned();
    }
    let Ok(Value::Object(mut members)) = serde_json::from_str::<Value>(content) else { return content.to_owned() };
    for random in RANDOM {
        members.entry(random).and_modify(|value| *value = json!("(random)"));
    }
    Value::Object(members).to_string()
}

fn member(text: &str, name: &str) -> String {
    serde_json::from_str::<Value>(text).unwrap()[name].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_route_answers_as_before() {
    let mut recorder = Recorder::start();
    let [orbit, osquery] = enrollments(&mut recorder).await;
    osquery_routes(&mut recorder, &osquery).await;
    orbit_routes(&mut recorder, &orbit).await;
    runs(&mut recorder, &orbit).await;
    notifications(&mut recorder, &orbit).await;
    device_routes(&mut recorder).await;
    recorder.named(orbit, "(orbit's key)");
    recorder.named(osquery, "(osquery's key)");
    recorder.finish();
}

async fn enrollments(recorder: &mut Recorder) -> [String; 2] {
    let secret = recorder.server.secret().await;
    recorder.named(&secret, "(secret)");
    recorder.ask(Method::HEAD, "/api/fleet/orbit/ping", &[], "").await;
    recorder.post("/api/fleet/orbit/enroll", &orbit_enroll("wrong", UUID)).await;
    let orbit = recorder.post("/api/fleet/orbit/enroll", &orbit_enroll(&secret, UUID)).await;
    recorder.post("/api/osquery/enroll", &osquery_enroll("wrong", UUID)).await;
    let osquery = recorder.post("/api/v1/osquery/enroll", &osquery_enroll(&secret, UUID)).await;
    [member(&orbit, "orbit_node_key"), member(&osquery, "node_key")]
}

async fn osquery_routes(recorder: &mut Recorder, key: &str) {
    for (path, body) in [
        ("config", json!({"node_key": key})),
        ("config", json!({"node_key": key, "etag": ""})),
        ("config", json!({"node_key": "wrong"})),
        ("distributed/read", json!({"node_key": key})),
        ("distributed/write", details(key, "web-7")),
        ("distributed/read", json!({"node_key": key})),
        ("distributed/read", json!({"node_key": "wrong"})),
        ("distributed/write", json!({"node_key": "wrong", "queries": {}})),
        ("log", json!({"node_key": key, "log_type": "status", "data": [{"severity": "0", "line": "1"}]})),
        ("log", json!({"node_key": key, "log_type": "other", "data": []})),
        ("log", json!({"node_key": "wrong", "log_type": "status", "data": []})),
        ("carve/begin", json!({"node_key": key})),
    ] {
        recorder.post(&format!("/api/v1/osquery/{path}"), &body).await;
    }
    let begin = json!({"node_key": key, "block_count": 1, "block_size": 8192, "carve_size": 3, "carve_id": "a3f",
        "request_id": "fleet_distributed_query_9"});
    let session = member(&recorder.post("/api/v1/osquery/carve/begin", &begin).await, "session_id");
    // In the order of osqueryd, which a map would not keep.
    for session in ["wrong", &session] {
        let block = format!(
            r#"{{"block_id":0,"session_id":"{session}","request_id":"fleet_distributed_query_9","data":"YWJj"}}"#
        );
        recorder.ask(Method::POST, "/api/v1/osquery/carve/block", &[], &block).await;
    }
    recorder.named(session, "(session)");
    recorder.ask(Method::GET, "/api/v1/osquery/config", &[], "").await;
}

async fn orbit_routes(recorder: &mut Recorder, key: &str) {
    for (path, body) in [
        ("config", json!({"orbit_node_key": key})),
        ("config", json!({"orbit_node_key": "wrong"})),
        ("device_token", json!({"orbit_node_key": key, "device_auth_token": TOKEN})),
        ("device_token", json!({"orbit_node_key": key, "device_auth_token": "a/b"})),
        ("device_token", json!({"orbit_node_key": "wrong", "device_auth_token": TOKEN})),
        ("disk_encryption_key", json!({"orbit_node_key": key, "encryption_key": "YWJj"})),
        ("disk_encryption_key", json!({"orbit_node_key": "wrong", "encryption_key": "YWJj"})),
        ("luks_data", json!({"orbit_node_key": key, "client_error": "no"})),
        ("luks_data", json!({"orbit_node_key": key, "passphrase": "correct horse", "salt": "s", "key_slot": 1})),
        ("luks_data", json!({"orbit_node_key": key})),
    ] {
        recorder.post(&format!("/api/fleet/orbit/{path}"), &body).await;
    }
}

/// Scripts and installs.
async fn runs(recorder: &mut Recorder, key: &str) {
    let script = crate::scripts::run(&recorder.server, "echo 1", &[]).await;
    let (installer, install) = crate::installs::installed(&recorder.server).await;
    let number = numbers::of(installer.id.as_str());
    let result = |id: &str| json!({"orbit_node_key": key, "execution_id": id, "output": "1\n", "runtime": 1, "exit_code": 0, "timeout": 300});
    let package = "software_install/package?alt=media";
    for (path, body) in [
        ("config", json!({"orbit_node_key": key})),
        ("scripts/request", json!({"orbit_node_key": key, "execution_id": script.id})),
        ("scripts/request", json!({"orbit_node_key": key, "execution_id": "wrong"})),
        ("scripts/result", result(script.id.as_str())),
        ("scripts/result", result("wrong")),
        ("software_install/details", json!({"orbit_node_key": key, "install_uuid": install.id})),
        ("software_install/details", json!({"orbot_node_key": key, "install_uuid": "wrong"})),
        ("software_install/package", json!({"orbit_node_key": key, "installer_id": 1})),
        (package, json!({"orbit_node_key": key, "installer_id": 1})),
        (package, json!({"orbit_node_key": key, "installer_id": number})),
        (
            "software_install/result",
            json!({"orbit_node_key": key, "install_uuid": install.id, "pre_install_condition_output": "[{\"1\":\"1\"}]",
                "install_script_exit_code": 0, "install_script_output": "ok", "retries_remaining": 0}),
        ),
        ("software_install/result", json!({"orbit_node_key": key, "install_uuid": "wrong"})),
    ] {
        recorder.post(&format!("/api/fleet/orbit/{path}"), &body).await;
    }
    recorder.named(script.id.as_str(), "(script)");
    recorder.named(install.id.as_str(), "(install)");
    recorder.named(number.to_string(), "(installer)");
}

async fn notifications(recorder: &mut Recorder, key: &str) {
    let path = "/api/fleet/orbit/notifications";
    let handshake = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    recorder.ask(Method::GET, path, &[("authorization", "Node key wrong")], "").await;
    let authorization = format!("Node key {key}");
    let headers = [&[("authorization", authorization.as_str())][..], &handshake].concat();
    recorder.ask(Method::GET, path, &headers, "").await;
}

async fn device_routes(recorder: &mut Recorder) {
    recorder.ask(Method::HEAD, "/api/fleet/device/ping", &[], "").await;
    for token in [TOKEN, "wrong"] {
        for rest in ["", "/ping", "/desktop", "/policies", "/certificates", "/transparency"] {
            recorder.get(&format!("/api/latest/fleet/device/{token}{rest}"), None).await;
        }
        recorder.ask(Method::POST, &format!("/api/latest/fleet/device/{token}/refetch"), &[], "").await;
        recorder.get(&format!("/device/{token}"), None).await;
        let cookie = format!("muster_device={token}");
        recorder.get("/device", Some(&cookie)).await;
        recorder.ask(Method::POST, "/device/refetch", &[("cookie", &cookie)], "").await;
    }
}
