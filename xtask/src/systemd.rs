//! `cargo xtask systemd-test`: installs the agent in a container with systemd, and takes it through its life.
//!
//! It is not part of `./check`, because it needs root and downloads a Debian system.

use std::process::Command;

use crate::shell;

/// Builds the programs and runs the script, which prints each step.
pub fn run() -> anyhow::Result<()> {
    shell::run(shell::cargo(&["build", "--quiet", "--package", "muster", "--package", "muster-agent"]))?;
    let mut script = Command::new(shell::root().join("crates/muster-agent/tests/systemd/run"));
    script.arg(shell::target()?.join("debug"));
    shell::run(script)
}
