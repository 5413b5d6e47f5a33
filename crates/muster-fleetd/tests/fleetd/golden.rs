//! Requests and responses of every route, as a file. The requests were written from reading the clients' code and the
//! reference, and not recorded from programs.

use std::fmt::Write as _;

use http::Method;
use muster_core::fleetd::numbers;
use muster_fleet::testing::golden;
use serde_json::{Value, json};

use crate::setting::{Server, UUID, details, orbit_enroll, osquery_enroll};

#[tokio::test]
async fn every_route_answers_as_before() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let mut text = String::from("Read from the reference, and not recorded.\n");
    let mut ask = async |method: Method, path: &str, body: Value| {
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        let got = server.raw(method.clone(), path, &[], sent.clone()).await;
        // Ids of errors and keys are random.
        let mut shown = got.text.clone();
        if let Ok(Value::Object(mut members)) = serde_json::from_str::<Value>(&shown) {
            for random in ["uuid", "node_key", "orbit_node_key", "session_id"] {
                members.entry(random).and_modify(|value| *value = json!("(random)"));
            }
            shown = Value::Object(members).to_string();
        }
        let sent = sent.replace(&secret, "(secret)");
        writeln!(text, "\n{method} {path}\n{sent}\n{} {shown}", got.status).unwrap();
        got.text
    };
    let key = |text: &str, name: &str| serde_json::from_str::<Value>(text).unwrap()[name].as_str().unwrap().to_owned();
    ask(Method::HEAD, "/api/fleet/orbit/ping", Value::Null).await;
    ask(Method::POST, "/api/fleet/orbit/enroll", orbit_enroll("wrong", UUID)).await;
    let orbit = key(&ask(Method::POST, "/api/fleet/orbit/enroll", orbit_enroll(&secret, UUID)).await, "orbit_node_key");
    ask(Method::POST, "/api/osquery/enroll", osquery_enroll("wrong", UUID)).await;
    let osquery = key(&ask(Method::POST, "/api/v1/osquery/enroll", osquery_enroll(&secret, UUID)).await, "node_key");
    let with = |body: Value| body;
    let (installer, run) = crate::installs::installed(&server).await;
    let number = numbers::of(installer.id.as_str());
    for (path, body) in [
        ("/api/fleet/orbit/config", with(json!({"orbit_node_key": orbit}))),
        ("/api/fleet/orbit/config", json!({"orbit_node_key": "wrong"})),
        (
            "/api/fleet/orbit/device_token",
            json!({"orbit_node_key": orbit, "device_auth_token": "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60"}),
        ),
        ("/api/fleet/orbit/device_token", json!({"orbit_node_key": orbit, "device_auth_token": "a/b"})),
        ("/api/v1/osquery/config", json!({"node_key": osquery})),
        ("/api/v1/osquery/config", json!({"node_key": osquery, "etag": ""})),
        ("/api/v1/osquery/config", json!({"node_key": "wrong"})),
        ("/api/v1/osquery/distributed/read", json!({"node_key": osquery})),
        ("/api/v1/osquery/distributed/write", details(&osquery, "web-7")),
        ("/api/v1/osquery/distributed/read", json!({"node_key": osquery})),
        (
            "/api/v1/osquery/log",
            json!({"node_key": osquery, "log_type": "status", "data": [{"severity": "0", "line": "1"}]}),
        ),
        ("/api/v1/osquery/log", json!({"node_key": osquery, "log_type": "other", "data": []})),
        ("/api/v1/osquery/carve/begin", json!({"node_key": osquery})),
        (
            "/api/v1/osquery/carve/begin",
            json!({"node_key": osquery, "block_count": 1, "block_size": 8192, "carve_size": 3, "carve_id": "a3f",
                "request_id": "fleet_distributed_query_9"}),
        ),
        ("/api/v1/osquery/carve/block", json!({"block_id": 0, "session_id": "wrong"})),
        ("/api/fleet/orbit/scripts/request", json!({"orbit_node_key": orbit, "execution_id": "wrong"})),
        ("/api/fleet/orbit/scripts/result", json!({"orbit_node_key": orbit, "execution_id": "wrong", "exit_code": 0})),
        ("/api/fleet/orbit/software_install/details", json!({"orbit_node_key": orbit, "install_uuid": run.id})),
        ("/api/fleet/orbit/software_install/details", json!({"orbot_node_key": orbit, "install_uuid": "wrong"})),
        ("/api/fleet/orbit/software_install/package", json!({"orbit_node_key": orbit, "installer_id": 1})),
        ("/api/fleet/orbit/software_install/package?alt=media", json!({"orbit_node_key": orbit, "installer_id": 1})),
        (
            "/api/fleet/orbit/software_install/package?alt=media",
            json!({"orbit_node_key": orbit, "installer_id": number}),
        ),
        (
            "/api/fleet/orbit/software_install/result",
            json!({"orbit_node_key": orbit, "install_uuid": run.id, "pre_install_condition_output": "[{\"1\":\"1\"}]",
                "install_script_exit_code": 0, "install_script_output": "ok", "retries_remaining": 0}),
        ),
        ("/api/fleet/orbit/software_install/result", json!({"orbit_node_key": orbit, "install_uuid": "wrong"})),
        ("/api/fleet/orbit/disk_encryption_key", json!({"orbit_node_key": orbit, "encryption_key": "YWJj"})),
        ("/api/fleet/orbit/luks_data", json!({"orbit_node_key": orbit, "client_error": "no"})),
    ] {
        ask(Method::POST, path, body).await;
    }
    let text = text.replace(run.id.as_str(), "(install)").replace(&number.to_string(), "(installer)");
    let text = text.replace(&orbit, "(orbit's key)").replace(&osquery, "(osquery's key)");
    golden::check(env!("CARGO_MANIFEST_DIR"), "fleetd/golden/routes.txt", &text);
}
