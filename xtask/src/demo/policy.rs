//! The policy of the demo, with one program that the agent keeps running.

use anyhow::Context as _;

use super::muster::Muster;

/// Its name.
pub const NAME: &str = "Demo";
/// Policy file, in the directory of the demo.
pub const FILE: &str = "policy.yml";
/// Output file of the program, in the directory of the demo.
pub const LOG: &str = "heartbeat.log";

/// Writes and applies the file, and returns the new revision.
pub fn apply(muster: &Muster) -> anyhow::Result<i64> {
    let file = muster.directory().join(FILE);
    let log = muster.directory().join(LOG);
    std::fs::write(&file, document(&log.display().to_string()))?;
    muster.run(&["policy", "apply", "-f", &file.display().to_string()])?;
    let policy = muster.json(&["policy", "show", NAME])?;
    policy["revision"].as_i64().with_context(|| format!("no revision in {policy}"))
}

fn document(log: &str) -> String {
    format!(
        "\
name: {NAME}
description: One program that the agent keeps running
config:
  inputs:
    - id: heartbeat
      type: process
      command: /bin/sh
      args: ['-c', 'while :; do date >> \"$LOG\"; sleep 1; done']
      env:
        LOG: {log:?}
      restart: always
"
    )
}
