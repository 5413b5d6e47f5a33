//! `muster query …`, with hosts of fleetd over the server's listener.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::host::fleetd;
use crate::world::{Ran, command, fails, json, ok};

/// An osqueryd that answers live queries.
struct Osquery {
    key: Value,
}

impl Osquery {
    fn enroll(secret: &Value, uuid: &str, hostname: &str) -> Self {
        let details = json!({"system_info": {"hostname": hostname, "uuid": uuid},
            "os_version": {"name": "Ubuntu", "version": "24.04", "platform": "ubuntu"}, "osquery_info": {"version": "5.21.0"}});
        let body = json!({"enroll_secret": secret, "host_identifier": uuid, "host_details": details});
        let (status, enrolled) = fleetd("/api/v1/osquery/enroll", &body);
        assert_eq!(status, 200, "{enrolled}");
        Self { key: enrolled["node_key"].clone() }
    }

    /// Waits for a live query, and answers it.
    fn answer(&self, rows: &Value, status: i32, message: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        let name = loop {
            let (_, read) = fleetd("/api/v1/osquery/distributed/read", &json!({"node_key": self.key}));
            let names = read["queries"].as_object().unwrap().keys().cloned();
            if let Some(name) = names.into_iter().find(|name| name.starts_with("fleet_distributed_query_")) {
                break name;
            }
            assert!(Instant::now() < end, "no live query in {read}");
            std::thread::sleep(Duration::from_millis(50));
        };
        let body = json!({"node_key": self.key, "queries": {&name: rows}, "statuses": {&name: status}, "messages": {&name: message}});
        assert_eq!(fleetd("/api/v1/osquery/distributed/write", &body), (200, json!({})));
    }
}

fn secret(name: &str) -> Value {
    json(&["enrollment-key", "create", "--family", "fleetd", "--name", name])["api_key"].clone()
}

/// Runs a live query while `meanwhile` runs.
fn run_while(words: &[&str], meanwhile: impl FnOnce(u32)) -> Ran {
    let mut running = command(&[&["query", "run"], words].concat());
    let running = running.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    meanwhile(running.id());
    let output = running.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn rows_of_a_live_query_are_printed_in_every_format() {
    let secret = secret("live rows");
    let (one, two) = (
        Osquery::enroll(&secret, "11111111-AAAA-4000-8000-000000000001", "live-1"),
        Osquery::enroll(&secret, "11111111-AAAA-4000-8000-000000000002", "live-2"),
    );
    let both = ["SELECT pid FROM processes", "--host", "live-1", "--host", "LIVE-2"];
    let ran = run_while(&both, |_| {
        one.answer(&json!([{"pid": "1"}, {"pid": "22"}]), 0, "");
        two.answer(&json!([{"pid": "3"}]), 0, "");
    });
    assert_eq!((ran.code, ran.out.as_str()), (0, "HOST    pid\nlive-1  1\nlive-1  22\nlive-2  3\n"), "{}", ran.err);
    assert!(ran.err.contains("2 of 2 hosts answered: 3 rows"), "{}", ran.err);
    let csv = run_while(&["SELECT 1", "--filter", "hostname:live-1", "--output", "csv"], |_| {
        one.answer(&json!([{"a": "x,y"}]), 0, "");
    });
    assert_eq!(csv.out, "HOST,a\r\nlive-1,\"x,y\"\r\n");
    let many = json!(vec![json!({"a": "1"}); 1_024]);
    let cut = run_while(&["SELECT 1", "--host", "live-1", "--output", "csv"], |_| one.answer(&many, 0, ""));
    assert_eq!((cut.code, cut.out.lines().count()), (1, 1_001), "{}", cut.err);
    assert!(cut.err.contains("24 rows of 1 host are missing") && cut.err.contains("LIMIT"), "{}", cut.err);
    let cut = run_while(&["SELECT 1", "--host", "live-1", "--output", "json"], |_| one.answer(&many, 0, ""));
    let last: Value = serde_json::from_str(cut.out.lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({"rows": [], "truncated": true, "truncated_hosts": 1, "missing_rows": 24}));
    let failed = run_while(&["SELECT 1", "--host", "live-1", "--output", "json"], |_| {
        one.answer(&json!([]), 1, "no such table: x");
    });
    let line: Value = serde_json::from_str(&failed.out).unwrap();
    assert_eq!((failed.code, &line["hostname"], &line["error"]), (1, &json!("live-1"), &json!("no such table: x")));

    let listed = json(&["query", "list"]);
    let id = listed.as_array().unwrap().iter().find(|query| query["targets"] == 2).unwrap()["id"].as_str().unwrap();
    let shown = json(&["query", "show", id]);
    assert_eq!((&shown["state"], &shown["rows"], &shown["answered"]), (&json!("complete"), &json!(3), &json!(2)));
    assert!(ok(&["query", "results", id]).contains("live-2  3"));
    assert_eq!(ok(&["query", "results", id, "--output", "name"]), "live-1\nlive-2\n");
    assert!(ok(&["query", "stop", id]).contains("has ended: complete"));
    fails(3, &["query", "show", "nowhere"]);
}

#[test]
fn a_live_query_ends_by_its_timeout_and_is_stopped_by_ctrl_c() {
    let secret = secret("silent");
    let silent = Osquery::enroll(&secret, "11111111-BBBB-4000-8000-000000000001", "silent-1");
    assert!(ok(&["query", "run", "SELECT 1", "--host", "silent-1", "--dry-run"]).contains("1 host"));
    assert!(ok(&["query", "run", "SELECT 1", "--all", "--dry-run"]).contains("would run the query on"));
    let told = fails(1, &["query", "run", "SELECT 1", "--host", "silent-1", "--timeout", "1"]);
    assert!(told.contains("timeout: 0 of 1 host answered"), "{told}");
    let stopped = run_while(&["SELECT 1", "--host", "silent-1"], |id| {
        let is_running =
            || json(&["query", "list"]).as_array().unwrap().iter().any(|query| query["state"] == "running");
        while !is_running() {
            std::thread::sleep(Duration::from_millis(50));
        }
        // The handler is in place shortly after the query was created.
        std::thread::sleep(Duration::from_millis(500));
        kill(Pid::from_raw(i32::try_from(id).unwrap()), Signal::SIGINT).unwrap();
    });
    assert!(stopped.code == 1 && stopped.err.contains("stopped: 0 of 1 host"), "{} {}", stopped.code, stopped.err);
    let (_, read) = fleetd("/api/v1/osquery/distributed/read", &json!({"node_key": silent.key}));
    assert!(!read["queries"].to_string().contains("fleet_distributed_query_"), "{read}");
    fails(2, &["query", "run", "SELECT 1"]);
    fails(3, &["query", "run", "SELECT 1", "--host", "nobody"]);
}

#[test]
fn saved_queries_are_saved_run_listed_and_deleted() {
    let saved = json(&["query", "save", "cli users", "SELECT user FROM logged_in_users", "--description", "who"]);
    assert_eq!((&saved["version"], &saved["description"]), (&json!(1), &json!("who")));
    let again = ["query", "save", "cli users", "SELECT user FROM logged_in_users", "--output", "name"];
    ok(&again);
    let saved = json(&["query", "save", "cli users", "SELECT user FROM logged_in_users", "--description", "who"]);
    let listed = ok(&["query", "list", "--saved"]);
    assert!(listed.contains("cli users") && listed.contains("logged_in_users"), "{listed}");
    assert!(json(&["query", "list", "--saved"]).as_array().unwrap().contains(&saved));
    fails(3, &["query", "run", "--saved", "no such query", "--all"]);
    let message = fails(1, &["query", "run", "--saved", "CLI users", "--filter", "hostname:nowhere", "--dry-run"]);
    assert!(message.contains("no host"), "{message}");
    assert!(ok(&["query", "delete", "CLI users", "--dry-run"]).contains("would delete"));
    ok(&["query", "delete", "cli users", "--yes"]);
    fails(3, &["query", "delete", "cli users", "--yes"]);
    assert_eq!(saved["restricted"], false);
    assert_eq!(json(&["query", "save", "cli hashes", "SELECT 1", "--restricted"])["restricted"], true);
    ok(&["query", "delete", "cli hashes", "--yes"]);
}
