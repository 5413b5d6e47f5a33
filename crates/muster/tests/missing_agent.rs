//! Commands for an agent that does not exist fail, with an exit code of their own.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "kill/server.rs"]
#[allow(dead_code, reason = "the kill test's server: only some of it is needed here")]
mod server;

use std::process::Command;

use server::Server;

#[test]
fn actions_for_an_unknown_agent_exit_with_3() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let commands: [&[&str]; 6] = [
        &["log-level", "--level", "debug"],
        &["diagnostics"],
        &["upgrade", "--version", "9.5.2"],
        &["reassign", "--no-policy"],
        &["unenroll"],
        &["delete"],
    ];
    for arguments in commands {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        let output = command
            .arg("agent")
            .args(arguments)
            .args(["--yes", "11111111-2222-4333-8444-555555555555", "--data-dir"])
            .arg(directory.path())
            .env_remove("MUSTER_URL")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {said}");
        assert!(said.contains("11111111-2222-4333-8444-555555555555"), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
    server.stop();
}
