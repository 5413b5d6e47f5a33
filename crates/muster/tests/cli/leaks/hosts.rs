//! Secrets of fleetd's hosts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::canaries::Canaries;
use super::server::Server;
use crate::world::file;

const UUID: &str = "33333333-AAAA-4000-8000-000000000001";
const TOKEN: &str = "7a0c1e52-0003-4000-8000-00000000cafe";
const GUESSED: &str = "7a0c1e52-0004-4000-8000-00000000cafe";

/// Secrets that hosts send, right or wrong.
const SENT: [&str; 8] = [
    TOKEN,
    GUESSED,
    "canary-wrong-enroll-secret",
    "canary-wrong-orbit-key",
    "canary-wrong-osquery-key",
    "canary-disk-encryption-key",
    "canary-luks-passphrase",
    "canary-luks-salt",
];

/// What the database stores in clear text, because people read it there: it must not be elsewhere.
const STORED: [&str; 2] = ["canary-script-text", "canary-script-output"];

#[test]
fn m26_m28_fl80_fl81_no_secret_of_a_host_is_stored_answered_or_logged_in_clear_text() {
    let server = Server::start();
    let mut canaries = Canaries::none();
    SENT.iter().for_each(|secret| canaries.add(secret));
    let secret = |words: &[&str]| {
        let words = [&["enrollment-key", "create", "--output", "json"][..], words].concat();
        let made: Value = serde_json::from_str(&server.run(&words).out).unwrap();
        made["api_key"].as_str().unwrap().to_owned()
    };
    let usual = secret(&["--family", "fleetd", "--name", "hosts"]);
    let one_time = secret(&["--one-time", "--name", "one host"]);
    let keys = enroll(&server, &usual, UUID);
    let once = enroll(&server, &one_time, "33333333-AAAA-4000-8000-000000000002");
    for made in [&usual, &one_time].into_iter().chain(&keys).chain(&once) {
        canaries.add(made);
    }
    // It is spent.
    let again = json!({"enroll_secret": one_time, "hardware_uuid": UUID, "hostname": "spent"});
    assert_eq!(server.fleetd("POST /api/fleet/orbit/enroll", "", &again.to_string()).0, 401);
    ask_as_agents(&server, &canaries, &keys);
    ask_as_desktop(&server, &canaries);
    run_script(&server, &keys[0]);
    // Not the list of enrollment keys, which contains those that may be retrieved for whoever may read it, as Kibana's does.
    for path in
        ["/api/status", "/api/fleet/hosts", "/api/fleet/agents", "/api/fleet/audit", "/api/fleet/refused_requests"]
    {
        canaries.check(path, server.get(path).as_bytes());
    }
    for words in [
        &["status", "--output", "json"][..],
        &["host", "show", UUID, "--output", "json"],
        &["host", "disk-key", UUID, "--status"],
    ] {
        canaries.check_run(&server, words, true);
    }
    let audit = canaries.check_run(&server, &["audit", "list", "--output", "json"], true);
    let (files, log) = server.stop();
    for (path, bytes) in files {
        canaries.check(&path, &bytes);
    }
    canaries.check("the log", &log);
    STORED.iter().for_each(|text| canaries.add(text));
    canaries.check("the log", &log);
    canaries.check("the audit log", audit.as_bytes());
    // It was all written to this file, with the paths that had tokens.
    let log = String::from_utf8_lossy(&log);
    for expected in ["DEBUG ", "device/(token)/ping", "/device/(token)", "/api/v3/fleet/device/(token)/ping"] {
        assert!(log.contains(expected), "{expected}");
    }
}

/// Enrolls both programs of a host; returns their keys.
fn enroll(server: &Server, secret: &str, uuid: &str) -> [String; 2] {
    let orbit = json!({"enroll_secret": secret, "hardware_uuid": uuid, "hardware_serial": uuid, "hostname": "leaks",
        "platform": "ubuntu"});
    let details = json!({"system_info": {"hostname": "leaks", "uuid": uuid, "hardware_serial": uuid},
        "osquery_info": {"version": "5.21.0", "uuid": uuid}});
    let osquery = json!({"enroll_secret": secret, "host_identifier": uuid, "host_details": details});
    [("/api/fleet/orbit/enroll", orbit, "orbit_node_key"), ("/api/v1/osquery/enroll", osquery, "node_key")].map(
        |(path, body, key)| {
            let (status, text) = server.fleetd(&format!("POST {path}"), "", &body.to_string());
            assert_eq!(status, 200, "{path}: {text}");
            serde_json::from_str::<Value>(&text).unwrap()[key].as_str().unwrap().to_owned()
        },
    )
}

/// Sends each secret in its place, in bodies and in headers, and wrong ones beside them.
fn ask_as_agents(server: &Server, canaries: &Canaries, [orbit, osquery]: &[String; 2]) {
    let wrong = "canary-wrong-osquery-key";
    let asked = [
        ("/api/fleet/orbit/enroll", json!({"enroll_secret": "canary-wrong-enroll-secret", "hardware_uuid": UUID}), 401),
        (
            "/api/v1/osquery/enroll",
            json!({"enroll_secret": "canary-wrong-enroll-secret", "host_identifier": UUID}),
            401,
        ),
        ("/api/v1/osquery/config", json!({"node_key": osquery}), 200),
        ("/api/v1/osquery/config", json!({"node_key": wrong}), 401),
        ("/api/v1/osquery/distributed/read", json!({"node_key": wrong}), 401),
        ("/api/v1/osquery/log", json!({"node_key": osquery, "log_type": "wrong", "data": []}), 400),
        ("/api/fleet/orbit/config", json!({"orbit_node_key": "canary-wrong-orbit-key"}), 401),
        ("/api/fleet/orbit/device_token", json!({"orbit_node_key": orbit, "device_auth_token": TOKEN}), 200),
        (
            "/api/fleet/orbit/disk_encryption_key",
            json!({"orbit_node_key": orbit, "encryption_key": STANDARD.encode("canary-disk-encryption-key")}),
            204,
        ),
        (
            "/api/fleet/orbit/luks_data",
            json!({"orbit_node_key": orbit, "passphrase": "canary-luks-passphrase", "salt": "canary-luks-salt", "key_slot": 1}),
            204,
        ),
        // Not the form of the protocol: the message must not quote it.
        ("/api/fleet/orbit/luks_data", json!({"orbit_node_key": orbit, "passphrase": ["canary-luks-passphrase"]}), 400),
        ("/api/v1/osquery/config", json!({"node_key": {"is": osquery}}), 400),
    ];
    for (path, body, expected) in asked {
        let (status, text) = server.fleetd(&format!("POST {path}"), "", &body.to_string());
        assert_eq!(status, expected, "{path} {body}: {text}");
        canaries.check(path, text.as_bytes());
    }
    for (key, expected) in [(osquery.as_str(), 200), (wrong, 401)] {
        let header = format!("authorization: NodeKey {key}\r\n");
        let (status, text) = server.fleetd("POST /api/v1/osquery/config", &header, "{}");
        assert_eq!(status, expected, "{text}");
        canaries.check("a key in the header", text.as_bytes());
    }
    for (key, expected) in [(orbit.as_str(), 400), ("canary-wrong-orbit-key", 401)] {
        let header = format!("authorization: Node key {key}\r\n");
        let (status, text) = server.fleetd("GET /api/fleet/orbit/notifications", &header, "");
        assert_eq!(status, expected, "without a handshake: {text}");
        canaries.check("a key for push", text.as_bytes());
    }
}

/// Sends device tokens in paths, also where there are no routes, in cookies, and in the address of the page before.
fn ask_as_desktop(server: &Server, canaries: &Canaries) {
    for token in [TOKEN, GUESSED] {
        for path in [
            format!("/api/latest/fleet/device/{token}"),
            format!("/api/v1/fleet/device/{token}/ping"),
            format!("/api/latest/fleet/device/{token}/desktop"),
            format!("/api/latest/fleet/device/{token}/policies"),
            format!("/api/v3/fleet/device/{token}/ping"),
            format!("/prefix/api/latest/fleet/device/{token}/ping"),
            format!("/device/{token}/wrong"),
            format!("/device/?token={token}"),
        ] {
            let (_, text) = server.fleetd(&format!("GET {path}"), "", "");
            canaries.check("a page of the device", text.as_bytes());
        }
        // The first response has the token in its cookie, which is a header.
        server.fleetd(&format!("GET /device/{token}"), "", "");
        let headers = format!("cookie: muster_device={token}\r\nreferer: https://fleet.example/device/{token}\r\n");
        let (status, text) = server.fleetd("GET /device", &headers, "");
        assert_eq!(status, if token == TOKEN { 200 } else { 401 });
        canaries.check("the page of the device", text.as_bytes());
    }
}

/// Runs a script on a host, which prints something.
fn run_script(server: &Server, orbit: &str) {
    let config = || {
        let body = json!({"orbit_node_key": orbit}).to_string();
        serde_json::from_str::<Value>(&server.fleetd("POST /api/fleet/orbit/config", "", &body).1).unwrap()
    };
    config();
    let (_directory, path) = file("leaks.sh", &format!("#!/bin/sh\necho {}\n", STORED[0]));
    let ran = server.run(&["script", "run", &path, "--host", UUID, "--no-wait", "--yes"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let id = config()["notifications"]["pending_script_execution_ids"][0].clone();
    for (path, body) in [
        ("request", json!({"orbit_node_key": orbit, "execution_id": id})),
        (
            "result",
            json!({"orbit_node_key": orbit, "execution_id": id, "output": STORED[1], "runtime": 1, "exit_code": 0}),
        ),
    ] {
        let (status, text) = server.fleetd(&format!("POST /api/fleet/orbit/scripts/{path}"), "", &body.to_string());
        assert_eq!(status, 200, "{text}");
    }
}
