//! `muster drones`: each mode and each flag, against the real server.

use std::process::Stdio;

use serde_json::Value;

use crate::world::{Ran, command, fails, file, json, new_policy, new_token, ok, world};

/// Runs drones to their end; gives what they told.
fn drones(more: &[&str]) -> (Ran, Vec<Value>) {
    let (url, ca) = (format!("https://{}", world().agents), world().data().join("ca.crt"));
    let words = [&["drones", "--json", "--url", &url, "--ca", ca.to_str().unwrap()], more].concat();
    let mut drones = command(&words);
    drones.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut drones = drones.spawn().unwrap();
    // With --json they stop when their input ends: it stays open until they end by themselves.
    let input = drones.stdin.take();
    let output = drones.wait_with_output().unwrap();
    drop(input);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or(-1);
    let ran = Ran { code, out: text(output.stdout), err: text(output.stderr) };
    let events = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (ran, events)
}

fn summary(events: &[Value]) -> &Value {
    let last = events.last().expect("something is told");
    assert_eq!(last["event"], "summary", "{last}");
    last
}

fn agents(tag: &str) -> Vec<Value> {
    json(&["agent", "list", "--filter", &format!("tags:{tag}")]).as_array().unwrap().clone()
}

#[test]
fn several_processes_enroll_disjoint_ranges_of_agents() {
    let token = new_token(&new_policy("drones enroll"));
    let words = ["--mode", "enroll", "--count", "5", "--processes", "2", "--in-flight", "2", "--fresh-connections"];
    let named = ["--first", "100", "--agent-version", "9.4.1", "--tags", "flock,second", "--enrollment-token", &token];
    let (ran, events) = drones(&[&words[..], &named].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let counts = &summary(&events)["counts"];
    assert_eq!((&counts["enrolled"], &counts["errors"]), (&5.into(), &serde_json::json!({})));
    assert!(counts["connects"].as_u64().unwrap() >= 5, "a connection of its own for each: {counts}");
    let agents = agents("flock and tags:second");
    let text = |agent: &Value, path: &str| agent.pointer(path).and_then(Value::as_str).unwrap().to_owned();
    let mut hosts: Vec<String> = agents.iter().map(|agent| text(agent, "/local_metadata/host/hostname")).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["drone-100", "drone-101", "drone-102", "drone-103", "drone-104"]);
    assert!(agents.iter().all(|agent| text(agent, "/agent/version") == "9.4.1"));
}

#[test]
fn burst_sends_one_large_check_in_per_agent() {
    let token = new_token(&new_policy("drones burst"));
    let words =
        ["--mode", "burst", "--count", "2", "--body-bytes", "20000", "--tags", "burst", "--enrollment-token", &token];
    let (ran, events) = drones(&words);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(summary(&events)["counts"]["errors"], serde_json::json!({}));
}

#[test]
fn invented_agents_are_rejected_and_back_off() {
    let pauses = ["--invent", "--back-off", "0.05", "--back-off-max", "0.1", "--seconds", "1"];
    let (_, events) = drones(&[&["--mode", "live", "--count", "1"], &pauses[..]].concat());
    let counts = &summary(&events)["counts"];
    assert_eq!(counts["check_ins"], 0, "{counts}");
    assert!(agents("drone").is_empty(), "nobody enrolled");
    let failures: u64 = counts["errors"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    // With the pause of a minute that is the default there would be one.
    assert!((2..=25).contains(&failures), "{counts}");
}

#[test]
fn drones_require_a_token_and_an_existing_ca_file() {
    fails(2, &["drones", "--url", "https://127.0.0.1:1", "--ca", "x"]);
    let url = format!("https://{}", world().agents);
    let told = fails(1, &["drones", "--url", &url, "--ca", "/nowhere.pem", "--enrollment-token", "t"]);
    assert!(told.contains("/nowhere.pem"), "{told}");
    fails(2, &["drones", "--url", &url, "--ca", "x", "--invent", "--mode", "dance"]);
}

#[test]
fn hosts_of_fleetd_enroll_and_send_requests_at_their_intervals() {
    let key = json(&["enrollment-key", "create", "--family", "fleetd", "--name", "drones of fleetd"]);
    let secret = key["api_key"].as_str().unwrap();
    let base = ["--family", "fleetd", "--first", "900", "--enrollment-token", secret];
    let (ran, events) = drones(&[&base[..], &["--mode", "enroll", "--count", "3", "--processes", "2"]].concat());
    assert_eq!((ran.code, &summary(&events)["counts"]["enrolled"]), (0, &3.into()), "{}", ran.err);
    let (ran, events) = drones(&[&base[..], &["--mode", "details", "--count", "3"]].concat());
    assert_eq!((ran.code, &summary(&events)["counts"]["errors"]), (0, &serde_json::json!({})), "{}", ran.err);
    let host = json(&["host", "show", "drone-900"]);
    assert_eq!(host["software"].as_array().unwrap().len(), 500);
    let (_directory, package) = file("drone-tool_1_all.deb", "!<arch>\n");
    ok(&["software", "installer", "add", &package]);
    let on = ["--host", "drone-900", "--host", "drone-901", "--no-wait", "--yes"];
    let install = json(&[&["software", "install", "drone-tool"], &on[..]].concat());
    // A new device token is announced every 3.6 s.
    let load = ["--mode", "heartbeat", "--count", "2", "--interval", "0.01", "--seconds", "4"];
    let (_, events) = drones(&[&base[..], &load].concat());
    let ended = summary(&events);
    assert_eq!(ended["counts"]["errors"], serde_json::json!({}), "{ended}");
    assert!(ended["counts"]["check_ins"].as_u64().unwrap() >= 40, "{ended}");
    for operation in ["read", "log", "config", "orbit_config", "device_token"] {
        assert!(ended["p99_us"][operation].as_u64().is_some_and(|micros| micros > 0), "{operation}: {ended}");
    }
    let results = json(&["software", "results", install["id"].as_str().unwrap()]);
    let mut told: Vec<_> = results.as_array().unwrap().iter().map(|one| (&one["hostname"], &one["outcome"])).collect();
    told.sort_by_key(|(host, _)| host.to_string());
    let told: Vec<_> =
        told.into_iter().map(|(host, outcome)| (host.as_str().unwrap(), outcome.as_str().unwrap())).collect();
    assert_eq!(told, [("drone-900", "failed"), ("drone-901", "installed")], "one host of ten fails");
    let shared = ["--mode", "heartbeat", "--count", "3", "--interval", "0.01", "--seconds", "1", "--connections", "1"];
    let (_, events) = drones(&[&base[..], &shared].concat());
    assert_eq!(summary(&events)["counts"]["errors"], serde_json::json!({}), "three hosts over one connection");
    let hosts = json(&["host", "list", "--filter", "hostname:drone-900"]);
    assert_eq!(hosts[0]["agents"].as_array().unwrap().len(), 2, "{hosts}");
    let url = format!("https://{}", world().agents);
    let ca = world().data().join("ca.crt");
    let refused =
        ["drones", "--url", &url, "--ca", ca.to_str().unwrap(), "--enrollment-token", secret, "--family", "fleetd"];
    for other in [["--mode", "burst"], ["--interval", "0"]] {
        fails(1, &[&refused[..], &other].concat());
    }
}

#[test]
fn hosts_with_push_are_refused_by_a_server_without_it() {
    let key = json(&["enrollment-key", "create", "--family", "fleetd", "--name", "drones with push"]);
    let secret = key["api_key"].as_str().unwrap();
    let base = ["--first", "950", "--enrollment-token", secret, "--push"];
    let (_, events) = drones(&[&base[..], &["--family", "fleetd", "--count", "1", "--seconds", "2"]].concat());
    let errors = summary(&events)["counts"]["errors"].as_object().unwrap().clone();
    assert!(errors.keys().any(|error| error.starts_with("push: ")), "{errors:?}");
    let url = format!("https://{}", world().agents);
    let ca = world().data().join("ca.crt");
    for flags in [&base[..], &["--enrollment-token", secret, "--connections", "1"]] {
        fails(1, &[&["drones", "--url", &url, "--ca", ca.to_str().unwrap()], flags].concat());
    }
}
