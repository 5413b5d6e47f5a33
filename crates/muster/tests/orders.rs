//! Orders to one agent: whoever can't be ordered is told at once, and the exit code says so.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "kill/server.rs"]
#[allow(dead_code, reason = "the kill test's server: only some of it is needed here")]
mod server;

use std::process::Command;

use server::Server;

#[test]
fn actions_for_an_unknown_agent_exit_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let orders: [&[&str]; 6] = [
        &["log-level", "--level", "debug"],
        &["diagnostics"],
        &["upgrade", "--version", "9.5.2"],
        &["reassign", "--no-policy"],
        &["unenroll"],
        &["delete"],
    ];
    for order in orders {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        let output = command
            .arg("agent")
            .args(order)
            .args(["--yes", "11111111-2222-4333-8444-555555555555", "--data-dir"])
            .arg(folder.path())
            .env_remove("MUSTER_URL")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{order:?}: {said}");
        assert!(said.contains("11111111-2222-4333-8444-555555555555"), "{order:?}: {said}");
        assert!(output.stdout.is_empty(), "{order:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
    server.stop();
}
