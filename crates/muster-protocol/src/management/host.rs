//! `/api/fleet/hosts`: the machines that agents run on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host_check::AnsweredCheck;
use super::inventory::{HostCertificate, HostDisk, HostUser};
use super::list_query::list_query;
use super::software::Software;

/// Host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct Host {
    /// Its id.
    pub id: String,
    /// Host name that its agents reported last; empty if none did.
    #[serde(default)]
    pub hostname: String,
    /// Id of the machine: its hardware UUID, the machine id of the operating system, or the instance id of osquery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// Hardware UUID that its agents reported last, or the machine id of the operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware_uuid: Option<String>,
    /// Serial number that its agents reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Name and version of the operating system; empty if unknown.
    #[serde(default)]
    pub os: String,
    /// Time when it was first seen.
    pub created_at: String,
    /// Time when an agent of it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// Its agents.
    #[serde(default)]
    pub agents: Vec<HostAgent>,
    /// Machines that seem to share its identifier, such as clones: names and addresses, or host ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub duplicate_hosts: Vec<String>,
    /// Names of its labels, the built-in ones first; only for a single host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Number of host checks that it fails; absent without osquery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_checks: Option<u64>,
    /// Host checks with its answers; only for a single host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<AnsweredCheck>,
    /// Scheduled queries that osqueryd does not run any more, because it crashed or was killed while it ran them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denylisted_queries: Vec<String>,
    /// Scheduled queries that failed when they last ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing_queries: Vec<FailingQuery>,
    /// Software that osquery found on it, by name; only for a single host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub software: Vec<Software>,
    /// Number of packages that are missing from `software` because a host can have at most 8,192.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_left_out: Option<u64>,
    /// Time of its last boot; absent if unknown, and in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted_at: Option<String>,
    /// Disks by path; only for a single host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<HostDisk>,
    /// Users that can log in, by number, at most 500; only for a single host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<HostUser>,
    /// Whether the host has more users.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_more_users: bool,
    /// Certificates by name, at most 500; only for a single host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<HostCertificate>,
    /// Whether the host has more certificates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_more_certificates: bool,
}

/// Scheduled query that fails on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct FailingQuery {
    /// Name, as osquery logs it, such as `pack/NAME/QUERY`.
    pub name: String,
    /// Error of osquery.
    pub error: String,
    /// Time since when it has been failing.
    pub since: String,
}

/// Agent on a host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct HostAgent {
    /// Its id.
    pub id: String,
    /// Program: `elastic`, `muster`, `orbit`, `osquery` or `opamp`.
    pub family: String,
    /// Status.
    pub status: String,
    /// Version; empty if it does not report one.
    #[serde(default)]
    pub version: String,
    /// Time of its last check-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkin: Option<String>,
    /// What it reports about the host and itself; only for a single host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_metadata: Option<Value>,
}

/// Result of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct DeletedHost {
    /// Number of deleted agents, or in a dry run of those that would be.
    pub agents: u64,
}

/// `POST /hosts/_transfer`. Either `hosts` or `kuery` is required.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TransferHosts {
    /// Id of the space that the hosts move to.
    pub to_space: String,
    /// Ids or hardware UUIDs of hosts, at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// KQL over agents: hosts with an agent that matches, at most 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kuery: Option<String>,
}

/// Result of a transfer. A dry run returns the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct TransferredHosts {
    /// Number of hosts that moved; in a dry run, of those that would.
    pub moved: u64,
    /// Number of hosts that did not, because of their agents or the caller's privileges.
    pub refused: u64,
    /// The hosts.
    pub items: Vec<TransferredHost>,
}

/// A host in the result of a transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct TransferredHost {
    /// Its id in the former space.
    pub id: String,
    /// Its name.
    pub hostname: String,
    /// Whether it moved; in a dry run, whether it would.
    pub moved: bool,
    /// Its id in the new space; absent in a dry run, unless its machine is a host there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_id: Option<String>,
    /// Number of its agents that moved.
    #[serde(default)]
    pub agents: u64,
    /// Whether its disk key moved, which can then be revealed in the new space.
    #[serde(default)]
    pub disk_key: bool,
    /// Why it did not move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<TransferRefusal>,
}

/// Why a host was not transferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct TransferRefusal {
    /// Code: `no_fleetd`, `other_agents`, `disk_key`, `host_gone`, `host_busy` or `failed`.
    pub code: String,
    /// The reason.
    pub message: String,
    /// What can be done about it.
    pub remedy: String,
}

list_query! {
    /// `GET /hosts`.
    ListHosts, first page 1, with search_after {
        /// KQL over agents: hosts with an agent that matches.
        kuery: String,
    }
}
