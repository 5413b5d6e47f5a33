//! Programs that a policy names: inputs of type `process`.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_core::resource_limits::ResourceLimits;
use serde::Deserialize;

/// Type of the inputs that this agent runs.
pub const PROCESS: &str = "process";

/// When a program is restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Always when it ends.
    #[default]
    Always,
    /// When it exits with a code other than 0, or is killed by a signal.
    OnFailure,
    /// Never.
    Never,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Path, or name to look up in `PATH`.
    pub command: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Additional environment variables.
    pub env: BTreeMap<String, String>,
    /// When to restart it.
    pub restart: Restart,
    /// Delay between SIGTERM and SIGKILL; `None` means the agent's setting.
    pub stop_timeout: Option<Duration>,
    /// What it may use.
    pub limits: ResourceLimits,
}
