//! Living agents: `muster drones`, and commands that wait for them.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::world::{command, json, new_policy, new_token, ok, run, world};

struct Drones(Child);

impl Drones {
    fn start(token: &str, tag: &str, count: &str) -> Self {
        let (url, ca) = (format!("https://{}", world().agents), world().data().join("ca.crt"));
        let words = ["drones", "--url", &url, "--ca", ca.to_str().unwrap(), "--enrollment-token", token];
        let mut command = command(&[&words[..], &["--count", count, "--tags", tag, "--json"]].concat());
        // They live as long as their standard input is open.
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Drones {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn agents_execute_actions() {
    let policy = new_policy("living");
    let drones = Drones::start(&new_token(&policy), "living", "3");
    let end = Instant::now() + Duration::from_secs(60);
    while ok(&["agent", "list", "--filter", "tags:living and status:online", "-o", "name"]).lines().count() < 3 {
        assert!(Instant::now() < end, "{}", ok(&["agent", "list", "--filter", "tags:living", "-o", "wide"]));
        std::thread::sleep(Duration::from_millis(200));
    }
    let ran = run(&["agent", "log-level", "--filter", "tags:living", "--level", "debug", "--yes", "--wait"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(json(&["action", "show", ran.out.trim()])["action"]["status"], "COMPLETE");

    let agent = ok(&["agent", "list", "--filter", "tags:living", "-o", "name"]).lines().next().unwrap().to_owned();
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("made/for/it");
    let into = missing.to_str().unwrap();
    let ran = run(&["agent", "diagnostics", &agent, "--wait", "--download", into]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let told = ran.out.lines().nth(1).unwrap();
    let (path, bytes) = told.trim_end_matches(" bytes)").split_once(" (").unwrap();
    assert!(path.starts_with(into), "{told}");
    assert_eq!(std::fs::metadata(path).unwrap().len().to_string(), bytes);

    let ran = run(&["agent", "unenroll", "--filter", "tags:living", "--yes", "--wait", "--timeout", "60"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ok(&["agent", "list", "--filter", "tags:living", "-o", "name"]), "");
    drop(drones);
}
