//! Living agents: `muster drones`, and commands that wait for them.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::world::{command, file, json, new_policy, new_token, ok, run, world};

struct Drones(Child);

impl Drones {
    fn start(token: &str, tag: &str, count: &str) -> Self {
        Self::start_with(token, tag, count, &[])
    }

    fn start_with(token: &str, tag: &str, count: &str, more: &[&str]) -> Self {
        let (url, ca) = (format!("https://{}", world().agents), world().data().join("ca.crt"));
        let words = ["drones", "--url", &url, "--ca", ca.to_str().unwrap(), "--enrollment-token", token];
        let mut command = command(&[&words[..], &["--count", count, "--tags", tag, "--json"], more].concat());
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

/// Waits at most a minute for a condition.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(200));
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

#[test]
fn m8_a_rollout_halts_by_itself_when_its_agents_turn_degraded() {
    let (name, file_of) = ("waves", |output: &str| {
        file(
            "waves.yml",
            &format!("name: waves\nconfig:\n  outputs: {{default: {{type: kafka, hosts: [\"{output}:9092\"]}}}}\n"),
        )
    });
    let (_first, first) = file_of("one");
    ok(&["policy", "apply", "-f", &first, "--yes"]);
    let policy = json(&["policy", "show", name])["id"].as_str().unwrap().to_owned();
    let drones = Drones::start_with(&new_token(&policy), "waves", "40", &["--degrade-percent", "40"]);
    let count = |filter: &str| ok(&["agent", "list", "--filter", filter, "-o", "name"]).lines().count();
    eventually("all agents are online", || count("tags:waves and status:online") == 40);

    let (_second, second) = file_of("two");
    let waves = ["--waves", "50,100", "--soak", "5m", "--yes", "--output", "name"];
    let id = ok(&[&["rollout", "create", "-f", &second], &waves[..]].concat()).trim().to_owned();
    let shown = || json(&["rollout", "show", &id]);
    eventually("the rollout halts", || shown()["state"] == "halted");
    let halted = shown();
    assert!(halted["reason"].as_str().unwrap().contains("are degraded or failed"), "{halted}");
    assert_eq!(halted["started_waves"], 1);
    let reached = halted["agents"]["reached"].as_u64().unwrap();
    assert!((8..32).contains(&reached), "about half of them: {halted}");

    ok(&["rollout", "rollback", &id, "--yes"]);
    eventually("all agents recover", || count("tags:waves and status:online") == 40);
    let runs_third = |agent: &serde_json::Value| agent["policy_revision"] == 3;
    eventually("all agents run the third revision", || {
        json(&["agent", "list", "--filter", "tags:waves"]).as_array().unwrap().iter().all(runs_third)
    });
    drop(drones);
}
