//! An agent without a fleet, from its installation to its enrollment.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::install::until;
use crate::server::TlsServer;
use crate::{Agent, Daemon, mode, output};

const POLICY: &str = "agent.logging.level: debug\noutputs: { default: { type: file, password: CANARY-1 } }\ninputs:\n\
    - { id: web, type: process, command: /bin/sleep, args: ['600'], env: { TOKEN: CANARY-2 } }\n";

/// Installs an agent without a server.
fn installed() -> Agent {
    let agent = Agent::new();
    let (code, text) = output(agent.command("install").args(["--service", "none", "--force"]));
    assert!(
        code == 0 && text.contains("It is standalone: its policy is") && text.contains("To start it"),
        "{code} {text}"
    );
    agent
}

fn write(agent: &Agent, policy: &str) {
    let (new, file) = (agent.path("new"), agent.path("policy.yml"));
    std::fs::write(&new, policy).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[test]
fn programs_get_the_memory_that_policy_and_host_allow_and_the_agent_ignores_signals_of_log_rotation() {
    let agent = installed();
    std::fs::write(agent.path("agent.yml"), "process: { memory_max: 536870912 }").unwrap();
    let program = "type: process, command: /bin/sh, args: ['-c', 'ulimit -d; cat /proc/self/oom_score_adj; sleep 600']";
    let input = |id: &str, memory: u64| format!("- {{ id: {id}, {program}, limits: {{ memory: {memory} }} }}\n");
    write(&agent, &format!("inputs:\n{}{}", input("small", 1 << 28), input("large", 1 << 30)));
    let daemon = agent.start();
    agent.until_healthy();
    daemon.signal(Signal::SIGUSR1);
    // In KiB: the policy can ask for less than the host allows, and not for more.
    for (id, data) in [("small", 1 << 18), ("large", 1 << 19)] {
        let log = agent.path(&format!("logs/components/process-default-{id}.log"));
        until(id, || std::fs::read_to_string(&log).is_ok_and(|text| text == format!("{data}\n500\n")));
    }
    agent.until_healthy();
}

#[test]
fn ag7_ag157_an_agent_without_a_fleet_runs_its_file_until_it_enrolls() {
    let (server, agent) = (TlsServer::start(), installed());
    assert_eq!(mode(&agent.path("policy.yml")), 0o600);
    let (code, text) = agent.installed(&["status"]);
    assert!(code == 12 && text.contains("the standalone agent is not running"), "{code} {text}");
    let mut daemon = agent.start();
    let status = agent.until_status(|code, status| code == 0 && status["policy"]["revision"] == 1);
    assert_eq!((&status["fleet"]["state"], &status["components"]), (&"STOPPED".into(), &serde_json::json!([])));
    let id = status["agent_id"].as_str().unwrap().to_owned();
    let (_, text) = agent.installed(&["status"]);
    assert!(text.contains("status: (STOPPED) Standalone: not enrolled"), "{text}");

    write(&agent, POLICY);
    let status = agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    assert_eq!((&status["log_level"], &status["agent_id"]), (&"debug".into(), &id.as_str().into()));
    write(&agent, &format!("{POLICY}inputs: []\n"));
    let status = agent.until_status(|code, _| code == 11);
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("policy.yml:5:1: duplicate key `inputs`"), "{message}");
    assert_eq!(status["components"][0]["state"], "HEALTHY", "the previous policy is in effect");
    let (_, text) = agent.installed(&["inspect"]);
    assert!(text.contains("policy_file_error: ") && text.contains(&id), "{text}");
    write(&agent, POLICY);
    agent.until_healthy();

    let (code, text) = agent.installed(&["inspect", "--output", "json"]);
    let shown: Value = serde_json::from_str(&text).unwrap();
    let resolved = &shown["resolved_policy"];
    assert_eq!(
        (code, &resolved["agent"]["logging"]["level"], &resolved["inputs"][0]["id"]),
        (0, &"debug".into(), &"web".into())
    );
    let file = agent.directory.path().join("bundle.gz");
    assert_eq!(agent.installed(&["diagnostics", "--file", file.to_str().unwrap()]).0, 0);
    let bundle = muster_agent::net::gzip::decompress(&std::fs::read(&file).unwrap(), 8 << 20).unwrap().unwrap();
    let bundle = String::from_utf8(bundle).unwrap();
    assert!(bundle.contains("/bin/sleep") && bundle.contains("duplicate key"), "{bundle}");
    assert!(!bundle.contains("CANARY") && !text.contains("CANARY"), "{text} {bundle}");

    let (code, text) = agent.installed(&["unenroll"]);
    assert_eq!((code, text.contains("no agent is enrolled")), (13, true), "{text}");
    daemon.signal(Signal::SIGKILL);
    daemon.ended();
    let mut daemon = agent.start();
    assert_eq!(agent.until_status(|code, _| code == 0)["agent_id"], id.as_str(), "also after a restart");

    let (code, text) = agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]);
    assert!(
        code == 0 && text.contains("the local one is kept as") && text.contains("now uses the new enrollment"),
        "{text}"
    );
    let status = agent.until_status(|code, status| code == 0 && status["policy"]["id"] == "p");
    assert_eq!((&status["agent_id"], &status["fleet"]["state"]), (&"agent-1".into(), &"HEALTHY".into()));
    let former = &server.lock().enrolled[0]["metadata"]["local"]["elastic"]["agent"]["id"].clone();
    assert_eq!(former, "", "the id of a standalone agent means nothing to a server");
    let kept: Vec<_> = std::fs::read_dir(agent.path("")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(kept.iter().any(|name| name.to_str().is_some_and(|name| name.ends_with(".bak"))), "{kept:?}");
    assert!(!agent.path("policy.yml").try_exists().unwrap() && server.lock().audits.is_empty());
    assert_eq!(agent.installed(&["unenroll"]).0, 0);
    assert_eq!(daemon.ended(), 0);
    std::fs::write(agent.path("policy.yml"), POLICY).unwrap();
    assert_eq!(agent.start().ended(), 0, "an unenrolled agent does not run its file");
}

#[test]
fn ag7_a_standalone_agent_is_uninstalled_without_a_notice() {
    let agent = installed();
    let mut daemon = agent.start();
    agent.until_status(|code, _| code == 0);
    let (code, text) = agent.installed(&["uninstall", "--force"]);
    assert_eq!((code, daemon.ended()), (0, 0), "{text}");
    assert!(!text.contains("notifier") && !text.contains("server"), "{text}");
    assert_eq!(std::fs::read_dir(agent.directory.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn ag7_a_file_alone_makes_a_directory_that_of_a_standalone_agent() {
    let agent = Agent::new();
    let (code, text) = output(&mut agent.command("run"));
    assert!(code == 13 && text.contains("policy.yml"), "{code} {text}");
    std::fs::create_dir(agent.path("")).unwrap();
    std::fs::write(agent.path("policy.yml"), POLICY).unwrap();
    let mut daemon = agent.run();
    agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0);
    // An installation keeps the file, and is undone without it.
    let (code, text) = output(agent.command("install").args(["--service", "none", "--non-interactive"]));
    assert_eq!(code, 0, "{text}");
    assert_eq!(std::fs::read_to_string(agent.path("policy.yml")).unwrap(), POLICY);
}

#[test]
fn ag51_status_watch_prints_the_current_state_and_then_each_change() {
    let agent = installed();
    let mut daemon = agent.start();
    agent.until_status(|code, _| code == 0);
    let mut command = agent.installed_command(&["status", "--watch", "--output", "json"]);
    let mut watching = Daemon(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(watching.0.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["policy"]["revision"], 1);
    write(&agent, POLICY);
    let mut states = vec![next()];
    while states.last().unwrap()["components"][0]["state"] != "HEALTHY" {
        states.push(next());
    }
    assert!(states.windows(2).all(|pair| pair[0] != pair[1]), "{states:#?}");
    assert_eq!(agent.installed(&["restart"]).0, 0);
    let started = states.last().unwrap()["started_at"].clone();
    // The stream goes on with the restarted daemon.
    while next()["started_at"] == started {}
    // Commands still get through while the places for watchers are taken.
    let more: Vec<Daemon> = (0..5)
        .map(|_| {
            let mut command = agent.installed_command(&["status", "-w"]);
            Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    until("one of too many watchers ends", || {
        more.iter().any(|one| std::path::Path::new(&format!("/proc/{}/exe", one.0.id())).read_link().is_err())
    });
    assert_eq!(agent.status().0, 0);
    drop(more);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0);
}
