//! `/api/v1/scripts`: scripts that orbit runs on hosts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Runs a script. The agents that match are its targets; those that are not orbit are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RunScript {
    /// The script, at most 256 KiB. Either this or `saved`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub script: String,
    /// Name for lists; by default, `script` and the beginning of its SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Saved script, by id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<String>,
    /// Hosts: names, serial numbers, hardware UUIDs, host ids or agent ids, at most 100. Without them, all that match `kuery`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// KQL over agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kuery: Option<String>,
    /// Seconds within which hosts must fetch the script, from 60 to 604800, default 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    /// Maximum duration on a host in seconds, from 1 to 3600, default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

/// Run of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct ScriptRun {
    /// Its id; empty in a dry run.
    pub id: String,
    /// Name of the script.
    pub name: String,
    /// The script; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// SHA-256 of the script.
    pub sha256: String,
    /// State: `running`, `complete` (all hosts have reported), `stopped` or `expired`.
    pub state: String,
    /// Number of targets.
    pub targets: u64,
    /// Number of executions that have ended.
    pub finished: u64,
    /// Number of executions that have ended without success.
    pub failed: u64,
    /// The actor that created it.
    pub created_by: String,
    /// Creation time.
    pub created_at: String,
    /// Time after which no host gets the script.
    pub expires_at: String,
    /// Maximum duration on a host, seconds.
    pub timeout_seconds: u64,
}

/// Execution of a run on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct ScriptExecution {
    /// Id of the agent.
    pub agent_id: String,
    /// Id of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// Name of the host.
    pub hostname: String,
    /// `pending`, `running`, `success`, `failed`, `timed_out`, `disabled` (scripts are disabled on the host), `expired` (not fetched in
    /// time), `stopped`, `no_result` or `host_deleted` (the host has left the space: it was deleted or
    /// transferred).
    pub outcome: String,
    /// Exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The last 10,000 characters of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Duration, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_seconds: Option<u64>,
    /// Time at which the host fetched the script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<String>,
    /// Time of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// Executions of a run, sorted by agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct ScriptExecutions {
    /// The executions.
    pub items: Vec<ScriptExecution>,
    /// `after` of the next request; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The run.
    pub run: ScriptRun,
}

/// Saves a script, in place of the one with its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SaveScript {
    /// Name, unique in the space.
    pub name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// The script, at most 256 KiB.
    pub script: String,
}

/// Saved script.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct SavedScript {
    /// Its id.
    pub id: String,
    /// Number of changes, from 1.
    pub version: i64,
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// The script; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// SHA-256 of the script.
    pub sha256: String,
    /// The actor that changed it last.
    pub updated_by: String,
    /// Time of the last change.
    pub updated_at: String,
}

/// Switch of scripts in the space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptSettings {
    /// Whether hosts get scripts.
    pub enabled: bool,
}
