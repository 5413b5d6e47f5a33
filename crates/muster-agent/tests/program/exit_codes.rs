//! Exit codes of commands, by the kind of the failure.

use std::os::unix::process::CommandExt as _;

use crate::server::TlsServer;
use crate::users::shared_command;
use crate::{Agent, TOKEN, output};

/// Policy of a standalone agent with a program that fails, and one that cannot be read.
const FAILING: &str = "inputs: [{ id: web, type: process, command: /bin/false }]\n";
const UNREADABLE: &str = "inputs: [\n";

#[test]
fn ag25_each_kind_of_failure_ends_a_command_with_its_own_exit_code() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let ca = ["-a", server.ca_file.to_str().unwrap()];
    let refused = |status: u16| {
        server.lock().refuse_enroll = Some(status);
        agent.enroll(&server, &ca).0
    };
    let nowhere = ["--url", "http://127.0.0.1:1", "--insecure", "--enrollment-token", TOKEN, "--attempts", "1"];
    let mut found = vec![
        ("usage", agent.enroll(&server, &["--attempts", "soon"]).0, 2),
        ("permission", as_nobody(&agent), 3),
        ("network", output(agent.command("enroll").args(nowhere)).0, 4),
        ("TLS", agent.enroll(&server, &[]).0, 5),
        ("authentication", refused(401), 6),
        ("timeout", refused(503), 8),
    ];
    std::fs::create_dir(agent.path("")).unwrap();
    for (what, policy, code) in [("degraded", FAILING, 10), ("failed", UNREADABLE, 11)] {
        std::fs::write(agent.path("policy.yml"), policy).unwrap();
        let mut daemon = agent.run();
        agent.until_status(|found, _| found == code);
        found.push((what, code, code));
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        daemon.ended();
    }
    found.push(("no daemon", agent.status().0, 12));
    let wrong: Vec<_> = found.iter().filter(|(_, found, expected)| found != expected).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Runs `install` as a user who is not root.
fn as_nobody(agent: &Agent) -> i32 {
    let mut command = shared_command(agent, "install");
    command.arg("--base-path").arg(agent.path("")).args(["--service", "systemd", "--non-interactive"]);
    if nix::unistd::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    output(&mut command).0
}
