//! `muster script …` and `muster carve …`, with hosts of fleetd over the server's listener.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agents::answered_text;
use crate::host::fleetd;
use crate::world::{command, fails, json, ok, world};

fn secret(name: &str) -> Value {
    json(&["enrollment-key", "create", "--family", "fleetd", "--name", name])["api_key"].clone()
}

/// An orbit that runs scripts.
struct Orbit {
    key: Value,
}

impl Orbit {
    fn enroll(secret: &Value, uuid: &str, hostname: &str) -> Self {
        let body = json!({"enroll_secret": secret, "hardware_uuid": uuid, "hostname": hostname, "platform": "ubuntu"});
        let (status, enrolled) = fleetd("/api/fleet/orbit/enroll", &body);
        assert_eq!(status, 200, "{enrolled}");
        let orbit = Self { key: enrolled["orbit_node_key"].clone() };
        orbit.pending();
        orbit
    }

    fn pending(&self) -> Vec<Value> {
        let (_, config) = fleetd("/api/fleet/orbit/config", &json!({"orbit_node_key": self.key}));
        config["notifications"]["pending_script_execution_ids"].as_array().cloned().unwrap_or_default()
    }

    /// Waits for a script, and reports a result. Returns the script.
    fn execute(&self, exit_code: i64, output: &str) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        let id = loop {
            if let Some(id) = self.pending().into_iter().next() {
                break id;
            }
            assert!(Instant::now() < end, "no script");
            std::thread::sleep(Duration::from_millis(50));
        };
        let ids = json!({"orbit_node_key": self.key, "execution_id": id});
        let (status, script) = fleetd("/api/fleet/orbit/scripts/request", &ids);
        assert_eq!(status, 200, "{script}");
        let result = json!({"orbit_node_key": self.key, "execution_id": id, "output": output, "runtime": 1,
            "exit_code": exit_code});
        assert_eq!(fleetd("/api/fleet/orbit/scripts/result", &result), (200, json!({})));
        script["script_contents"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_script_runs_on_a_host_and_its_output_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("clean.sh");
    std::fs::write(&file, "#!/bin/sh\necho done\n").unwrap();
    let file = file.to_str().unwrap();
    let orbit = Orbit::enroll(&secret("scripts"), "22222222-AAAA-4000-8000-000000000001", "script-1");
    let told = ok(&["script", "run", file, "--host", "script-1", "--dry-run"]);
    assert!(told.contains("would run the script on 1 host"), "{told}");
    let run = |words: &[&str], code: i64| {
        let mut running = command(&[&["script", "run"], words].concat());
        let running = running.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let script = orbit.execute(code, "done\n");
        let output = running.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr), script)
    };
    let (code, out, err, script) = run(&[file, "--host", "script-1", "--timeout", "60", "--expires", "600"], 0);
    assert_eq!((code, script.as_str()), (Some(0), "#!/bin/sh\necho done\n"), "{err}");
    assert!(out.contains("script-1") && out.contains("success") && out.contains("done"), "{out}");
    let saved = json(&["script", "save", "cli clean", file, "--description", "cleans"]);
    assert_eq!(saved["description"], "cleans");
    let words = ["--saved", "cli clean", "--filter", "hostname:script-1", "--yes", "--output", "json"];
    let (code, out, err, _) = run(&words, 3);
    let results: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &results[0]["exit_code"]), (Some(1), &json!(3)), "{err}");
    assert!(err.contains("1 of 1 host reported, 1 failed"), "{err}");
    let made = json(&["script", "run", file, "--host", "script-1", "--no-wait"]);
    let id = made["id"].as_str().unwrap();
    assert!(ok(&["script", "results", id]).contains("pending"));
    assert!(ok(&["script", "stop", id]).contains("is stopped"));
    assert!(orbit.pending().is_empty());
    assert!(ok(&["script", "show", id]).contains("echo done"));
    let listed = json(&["script", "list"]);
    assert!(listed.as_array().unwrap().iter().any(|run| run["id"] == made["id"]), "{listed}");
    assert!(ok(&["script", "list", "--saved"]).contains("cli clean"));
    assert!(ok(&["script", "show", "--saved", "cli clean"]).contains("echo done"));
    ok(&["script", "delete", "cli clean", "--yes"]);
    fails(3, &["script", "show", "--saved", "cli clean"]);
    fails(2, &["script", "run", file]);
    fails(3, &["script", "run", file, "--host", "nobody"]);
    fails(2, &["script", "run", file, "--all"]);
}

#[test]
fn a_disk_key_is_requested_reported_and_revealed() {
    let orbit = Orbit::enroll(&secret("disks"), "22222222-BBBB-4000-8000-000000000001", "disk-1");
    assert!(fails(3, &["host", "disk-key", "disk-1"]).contains("no disk key of the host \"disk-1\" is stored"));
    let status = ok(&["host", "disk-key", "disk-1", "--status", "--output", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&status).unwrap(), json!({"stored": false}));
    assert!(ok(&["host", "disk-key", "disk-1", "--request"]).contains("will ask its user"));
    let (_, config) = fleetd("/api/fleet/orbit/config", &json!({"orbit_node_key": orbit.key}));
    assert_eq!(config["notifications"], json!({"run_disk_encryption_escrow": true}));
    let pending = json!({"stored": false, "escrow_pending": true, "escrow_requests": 1});
    assert_eq!(json(&["host", "disk-key", "disk-1", "--status"]), pending, "told, and not answered");
    assert!(ok(&["host", "disk-key", "disk-1", "--status"]).contains("pending, asked 1 time"));
    let luks =
        json!({"orbit_node_key": orbit.key, "passphrase": "correct horse", "salt": "s", "key_slot": 1}).to_string();
    assert_eq!(answered_text(world(), "/api/fleet/orbit/luks_data", "-", "orbit", &luks), (204, String::new()));
    let told = ok(&["host", "disk-key", "disk-1"]);
    assert!(told.contains("correct horse"), "{told}");
    assert_eq!(json(&["host", "disk-key", "disk-1"])["key_slot"], 1);
}

#[test]
fn scripts_are_switched_off_and_on() {
    ok(&["space", "create", "no-scripts"]);
    assert!(ok(&["script", "settings", "--space", "no-scripts"]).contains("enabled"));
    assert!(ok(&["script", "settings", "--disable", "--space", "no-scripts"]).contains("disabled"));
    let settings = json(&["script", "settings", "--enable", "--space", "no-scripts"]);
    assert_eq!(settings, json!({"enabled": true}));
}

#[test]
fn a_carve_is_listed_downloaded_and_deleted() {
    let body = json!({"enroll_secret": secret("carves"), "host_identifier": "33333333-AAAA-4000-8000-000000000001",
        "host_details": {"system_info": {"hostname": "carve-1"}}});
    let (_, enrolled) = fleetd("/api/v1/osquery/enroll", &body);
    let begin = json!({"node_key": enrolled["node_key"], "block_count": 1, "block_size": 8192, "carve_size": 3,
        "carve_id": "c", "request_id": "fleet_distributed_query_q-1"});
    let (status, begun) = fleetd("/api/v1/osquery/carve/begin", &begin);
    assert_eq!(status, 200, "{begun}");
    let find = || json(&["carve", "list", "--host", "CARVE-1"])[0].clone();
    let id = find()["id"].as_str().unwrap().to_owned();
    assert_eq!(find()["state"], "receiving");
    fails(6, &["carve", "download", &id]);
    // In the order of osqueryd, which a map would not keep.
    let block = format!(
        r#"{{"block_id":0,"session_id":{},"request_id":"fleet_distributed_query_q-1","data":"YWJj"}}"#,
        begun["session_id"]
    );
    let (status, text) = answered_text(world(), "/api/osquery/carve/block", "-", "osquery/5.21.0", &block);
    assert_eq!((status, text.as_str()), (200, r#"{"success":true}"#));
    assert_eq!(json(&["carve", "list", "--query", "q-1"])[0]["id"], id.as_str());
    assert!(ok(&["carve", "show", &id]).contains("complete"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let path = path.to_str().unwrap();
    let told = ok(&["carve", "download", &id, "--out", path]);
    assert!(told.contains("3 bytes") && std::fs::read(path).unwrap() == b"abc", "{told}");
    assert!(ok(&["carve", "delete", &id, "--dry-run"]).contains("would delete"));
    ok(&["carve", "delete", &id, "--yes"]);
    fails(3, &["carve", "show", &id]);
}
