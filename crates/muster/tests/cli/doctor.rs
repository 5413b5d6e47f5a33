//! `muster doctor`

use crate::world::{Ran, command, finish, world};

fn doctor(words: &[&str]) -> Ran {
    let words = [&["doctor", "--set", "local.listen=none"], words].concat();
    finish(&mut command(&words))
}

#[test]
fn a_running_server_and_its_host_are_examined() {
    let (agents, admin) = (format!("agent.listen={}", world().agents), format!("admin.listen={}", world().admin));
    let ran = doctor(&["--set", &agents, "--set", &admin, "--output", "json"]);
    let findings: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let findings = findings.as_array().unwrap();
    // The host of the test may have a low limit on open files or a full disk.
    let faults: Vec<_> = findings.iter().filter(|finding| finding["grade"] == "error").collect();
    assert!(faults.iter().all(|finding| finding["check"] == "disk space"), "{faults:?}");
    let has = |check: &str, text: &str| {
        findings.iter().any(|it| it["check"] == check && it["message"].as_str().unwrap().contains(text))
    };
    assert!(has("server", "running") && has("ports", "responds") && has("database", "SQLite"), "{findings:?}");
}

#[test]
fn the_configuration_of_the_server_is_examined() {
    let ran = doctor(&["--config", "/nonexistent/muster.toml"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    let listeners = ["--set", "agent.listen=none", "--set", "admin.listen=none"];
    let database = ["--database", "postgres://nobody@127.0.0.1:1/none"];
    let ran = doctor(&[&listeners[..], &database[..]].concat());
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("check the address"), "{}", ran.out);
}

#[test]
fn a_problem_is_told_with_its_remedy_and_exit_code_1() {
    let ran = doctor(&["--data-dir", "/proc", "--set", "agent.listen=none", "--set", "admin.listen=none"]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("data directory") && ran.out.contains("error"), "{}", ran.out);
    assert!(ran.err.contains("failed"), "{}", ran.err);
}
