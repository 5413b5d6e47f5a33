//! The policy of the demo, with one program that the agent keeps running.

use anyhow::Context as _;

use super::muster::Muster;

/// Its name.
pub const NAME: &str = "Demo";
/// Policy file, in the directory of the demo.
pub const FILE: &str = "policy.yml";
/// The changed policy file.
const CHANGED: &str = "changed.yml";
/// Output file of the program, in the directory of the demo.
pub const LOG: &str = "heartbeat.log";

/// Writes and applies the file, and returns the new revision.
pub fn apply(muster: &Muster) -> anyhow::Result<i64> {
    let file = muster.directory().join(FILE);
    std::fs::write(&file, document(muster, "One program that the agent keeps running"))?;
    muster.run(&["policy", "apply", "-f", &file.display().to_string()])?;
    let policy = muster.json(&["policy", "show", NAME])?;
    policy["revision"].as_i64().with_context(|| format!("no revision in {policy}"))
}

/// Changes the policy in waves, and returns the id of the rollout.
pub fn roll_out(muster: &Muster) -> anyhow::Result<String> {
    let file = muster.directory().join(CHANGED);
    std::fs::write(&file, document(muster, "Changed in waves"))?;
    let waves = ["--waves", "demo,100", "--soak", "1s", "--yes", "--output", "name"];
    let create = ["rollout", "create", "-f", &file.display().to_string()];
    Ok(muster.run(&[&create[..], &waves].concat())?.trim().to_owned())
}

fn document(muster: &Muster, description: &str) -> String {
    let log = muster.directory().join(LOG).display().to_string();
    format!(
        "\
name: {NAME}
description: {description}
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
