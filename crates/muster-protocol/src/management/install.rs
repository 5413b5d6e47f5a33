//! `/api/v1/software/installers` and `/api/v1/software/installs`: software that orbit installs on hosts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Creates an installer. Its package is uploaded in blocks afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateInstaller {
    /// Name of the file, which ends with `.deb`, `.rpm`, `.pkg`, `.msi`, `.exe`, `.tar.gz` or `.tgz`.
    pub file_name: String,
    /// Length of the package in bytes, at most 2 GiB.
    pub size: u64,
    /// SHA-256 that the package must have, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Name of the software; by default, the one in the name of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Version of the software; by default, the one in the name of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Platform of the hosts: `linux`, `darwin` or `windows`. Required for archives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Query of osquery that must return rows on a host for the package to be installed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub condition: String,
    /// Script that installs the package, whose path is in the variable `INSTALLER_PATH`. Required for `.exe` and archives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_script: Option<String>,
    /// Script that runs after it. If it fails, the software is uninstalled.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub post_install_script: String,
    /// Script that uninstalls the software; by default, that of the format, which only `.deb` and `.rpm` have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uninstall_script: Option<String>,
}

/// Installer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Installer {
    /// Its id; empty in a dry run.
    pub id: String,
    /// Name of the software.
    pub name: String,
    /// Version of the software.
    pub version: String,
    /// Format: `deb`, `rpm`, `pkg`, `msi`, `exe` or `tar.gz`.
    pub format: String,
    /// Platform: `linux`, `darwin` or `windows`.
    pub platform: String,
    /// Name of the file.
    pub file_name: String,
    /// Length of the package in bytes.
    pub size: u64,
    /// SHA-256 of the package; absent until it is complete, unless it was announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// `uploading` or `ready`.
    pub state: String,
    /// Length of each block of the upload but the last, bytes.
    pub block_size: u64,
    /// Condition; absent if there is none, and in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Script that installs; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_script: Option<String>,
    /// Script after it; absent if there is none, and in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_install_script: Option<String>,
    /// Script that uninstalls; absent if there is none, and in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uninstall_script: Option<String>,
    /// The actor that created it.
    pub created_by: String,
    /// Creation time.
    pub created_at: String,
    /// Time at which the package was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded_at: Option<String>,
}

/// What a run does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InstallKind {
    /// Install the package.
    #[default]
    Install,
    /// Uninstall the software.
    Uninstall,
}

/// Installs or uninstalls software. The agents that match are its targets; those that are not orbit on the platform are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateInstall {
    /// Installer, by id, or by a name of which there is one.
    pub installer: String,
    /// `install` (default) or `uninstall`.
    #[serde(default)]
    pub kind: InstallKind,
    /// Hosts: names, serial numbers, hardware UUIDs, host ids or agent ids, at most 100. Without them, all that match `kuery`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// KQL over agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kuery: Option<String>,
    /// Seconds within which hosts must begin, from 60 to 604800, default 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    /// Number of times that a host repeats a failed install, from 0 to 5, default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u64>,
}

/// Run that installs or uninstalls software on hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct InstallRun {
    /// Its id; empty in a dry run.
    pub id: String,
    /// What it does.
    pub kind: InstallKind,
    /// Id of the installer, which may have been deleted.
    pub installer_id: String,
    /// Name of the software.
    pub name: String,
    /// Version of the software.
    pub version: String,
    /// State: `running`, `complete` (all hosts have reported), `stopped` or `expired`.
    pub state: String,
    /// Number of targets.
    pub targets: u64,
    /// Number of targets that have ended.
    pub finished: u64,
    /// Number of targets that have failed, or left the space. A condition that is not met is no failure.
    pub failed: u64,
    /// Number of times that a host repeats a failed install.
    pub max_retries: u64,
    /// The actor that created it.
    pub created_by: String,
    /// Creation time.
    pub created_at: String,
    /// Time after which no host begins.
    pub expires_at: String,
}

/// Run on a host. An absent exit code means that the step did not run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct HostInstall {
    /// Id of the agent.
    pub agent_id: String,
    /// Id of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// Name of the host.
    pub hostname: String,
    /// `pending`, `running`, `installed`, `uninstalled`, `condition_not_met`, `failed`, `stopped`, `expired` (not begun in time),
    /// `no_result` or `host_deleted` (the host has left the space: it was deleted or transferred).
    pub outcome: String,
    /// The step that failed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    /// Number of reported attempts.
    pub attempts: u64,
    /// Number of times that the host will try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries_remaining: Option<u64>,
    /// Rows of the condition in JSON; empty if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition_output: Option<String>,
    /// Exit code of the script that installs or uninstalls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The last 10,000 characters of its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Exit code of the script after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_install_exit_code: Option<i64>,
    /// The last 10,000 characters of its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_install_output: Option<String>,
    /// Time at which the host began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<String>,
    /// Time of the newest result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// Hosts of a run, sorted by agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct HostInstalls {
    /// The hosts.
    pub items: Vec<HostInstall>,
    /// `after` of the next request; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The run.
    pub run: InstallRun,
}

/// Run that had a host as a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct InstallOfHost {
    /// The run.
    pub run: InstallRun,
    /// What became of it on the host, without outputs.
    pub result: HostInstall,
}
