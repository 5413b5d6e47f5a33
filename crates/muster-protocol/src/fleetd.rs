//! Wire types of fleetd: osquery's TLS API and orbit's API (FL §1, §2).
//!
//! Requests borrow from the body. Members that may be of any type, or large, are kept as JSON text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Header with the capabilities of the server or the client, separated by commas (FL §2.2).
pub const CAPABILITIES_HEADER: &str = "x-fleet-capabilities";

/// `POST …/osquery/enroll`.
#[derive(Debug, Deserialize)]
pub struct OsqueryEnroll<'a> {
    /// Secret that authorizes the enrollment.
    #[serde(borrow, default)]
    pub enroll_secret: Cow<'a, str>,
    /// Identifier of the host, of the kind that osqueryd was configured with.
    #[serde(borrow, default)]
    pub host_identifier: Cow<'a, str>,
    /// Facts about the host: an object of objects of strings.
    #[serde(borrow, default)]
    pub host_details: Option<&'a RawValue>,
}

/// Response of `POST …/osquery/enroll`.
#[derive(Debug, Serialize)]
pub struct OsqueryEnrolled<'a> {
    /// Key that authenticates the following requests.
    pub node_key: &'a str,
}

/// A request of osqueryd with nothing but its key: `…/config`, `…/distributed/read`.
#[derive(Debug, Deserialize)]
pub struct OsqueryRequest<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub node_key: Cow<'a, str>,
    /// Hash of the configuration that osqueryd has; empty if it has none. Absent from versions that don't know it.
    #[serde(default)]
    pub etag: Option<String>,
}

/// `POST …/osquery/log`.
#[derive(Debug, Deserialize)]
pub struct OsqueryLog<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub node_key: Cow<'a, str>,
    /// `result` or `status`.
    #[serde(borrow, default)]
    pub log_type: Cow<'a, str>,
    /// Lines.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

/// `POST …/osquery/distributed/write`. Each member is an object with a value for each query.
#[derive(Debug, Deserialize)]
pub struct DistributedWrite<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub node_key: Cow<'a, str>,
    /// Rows.
    #[serde(borrow, default)]
    pub queries: Option<&'a RawValue>,
    /// 0, or the error code of SQLite.
    #[serde(borrow, default)]
    pub statuses: Option<&'a RawValue>,
    /// Error messages.
    #[serde(borrow, default)]
    pub messages: Option<&'a RawValue>,
}

/// Response of `POST …/osquery/distributed/read`.
#[derive(Debug, Default, Serialize)]
pub struct DistributedRead<'a> {
    /// SQL by name.
    pub queries: BTreeMap<&'a str, &'a str>,
    /// For each query, SQL that decides whether it runs.
    pub discovery: BTreeMap<&'a str, &'a str>,
    /// Seconds for which the host asks more often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerate: Option<u32>,
}

/// `POST …/osquery/carve/begin`.
#[derive(Debug, Deserialize)]
pub struct CarveBegin<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub node_key: Cow<'a, str>,
    /// Number of blocks.
    // 0 if it is missing, which no carve has: a request without a valid key is refused because of the key first.
    #[serde(default)]
    pub block_count: u64,
    /// Length of every block but the last, bytes.
    #[serde(default)]
    pub block_size: u64,
    /// Length of the archive, bytes.
    #[serde(default)]
    pub carve_size: u64,
    /// osqueryd's id of the carve.
    #[serde(borrow, default)]
    pub carve_id: Cow<'a, str>,
    /// Name of the query that carved.
    #[serde(borrow, default)]
    pub request_id: Cow<'a, str>,
}

/// Response of `POST …/osquery/carve/begin`.
#[derive(Debug, Serialize)]
pub struct CarveBegun<'a> {
    /// Authenticates the blocks.
    pub session_id: &'a str,
    /// Always true.
    pub success: bool,
}

/// `POST …/osquery/carve/block`. Also has the ids of [`CarveBegun`] and [`CarveBegin`], which are read first.
#[derive(Debug, Deserialize)]
pub struct CarveBlock<'a> {
    /// Number of the block, from 0.
    pub block_id: u64,
    /// The bytes, in base64.
    #[serde(borrow)]
    pub data: Cow<'a, str>,
}

/// Response of `POST …/osquery/carve/block`.
#[derive(Debug, Serialize)]
pub struct BlockTaken {
    /// Always true.
    pub success: bool,
}

/// Error of an osquery route. osqueryd looks at the body only: a member `error` makes the call fail, and
/// `node_invalid: true` makes it discard its key (FL §1.2).
#[derive(Debug, Serialize)]
pub struct OsqueryError<'a> {
    /// What failed.
    pub error: &'a str,
    /// Id of the error, which the log has too.
    pub uuid: &'a str,
    /// Present only if it is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub node_invalid: bool,
}

/// `POST /api/fleet/orbit/enroll`.
#[derive(Debug, Deserialize)]
pub struct OrbitEnroll<'a> {
    /// Secret that authorizes the enrollment.
    #[serde(borrow, default)]
    pub enroll_secret: Cow<'a, str>,
    /// Hardware UUID.
    #[serde(borrow, default)]
    pub hardware_uuid: Cow<'a, str>,
    /// Serial number; may be empty.
    #[serde(borrow, default)]
    pub hardware_serial: Cow<'a, str>,
    /// Model.
    #[serde(borrow, default)]
    pub hardware_model: Cow<'a, str>,
    /// Host name.
    #[serde(borrow, default)]
    pub hostname: Cow<'a, str>,
    /// Name that the user gave the computer.
    #[serde(borrow, default)]
    pub computer_name: Cow<'a, str>,
    /// Platform.
    #[serde(borrow, default)]
    pub platform: Cow<'a, str>,
    /// Family of Linux distributions.
    #[serde(borrow, default)]
    pub platform_like: Cow<'a, str>,
    /// Instance id of osquery, if hosts are told apart by it.
    #[serde(borrow, default)]
    pub osquery_identifier: Cow<'a, str>,
}

/// Response of `POST /api/fleet/orbit/enroll`.
#[derive(Debug, Serialize)]
pub struct OrbitEnrolled<'a> {
    /// Key that authenticates the following requests.
    pub orbit_node_key: &'a str,
}

/// A request of orbit with its key, and the token of `…/device_token`.
#[derive(Debug, Deserialize)]
pub struct OrbitRequest<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub orbit_node_key: Cow<'a, str>,
    /// Token for Fleet Desktop.
    #[serde(borrow, default)]
    pub device_auth_token: Cow<'a, str>,
}

/// Error of orbit's routes, and of those for devices (FL §1.12).
#[derive(Debug, Serialize)]
pub struct FleetError<'a> {
    /// What failed.
    pub message: &'a str,
    /// Reasons.
    pub errors: [FleetErrorReason<'a>; 1],
    /// Id of the error, which the log has too.
    pub uuid: &'a str,
}

/// A reason in a [`FleetError`].
#[derive(Debug, Serialize)]
pub struct FleetErrorReason<'a> {
    /// Field that is at fault; `base` for the request as a whole.
    pub name: &'a str,
    /// Reason.
    pub reason: &'a str,
}

/// Type of a [`Hint`] that queries are due.
pub const HINT_DISTRIBUTED_READ: &str = "distributed/read";

/// Type of a [`Hint`] that the configuration of orbit has changed.
pub const HINT_ORBIT_CONFIG: &str = "orbit/config";

/// A message to orbit over its WebSocket (FL §2.9).
#[derive(Debug, Serialize)]
pub struct Hint<'a> {
    /// What the host is to fetch.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// Why, for the log of the host.
    pub reason: &'a str,
}

/// Response of `POST /api/fleet/orbit/config`. Members that are off are absent (FL §2.5).
#[derive(Debug, Default, Serialize)]
pub struct OrbitConfig {
    /// Maximum duration of scripts, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script_execution_timeout: Option<u64>,
    /// What the host has to do.
    pub notifications: OrbitNotifications,
    /// Push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket_transport: Option<Enabled>,
}

/// A switch.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Enabled {
    /// Whether it is on.
    pub enabled: bool,
}

/// What a host has to do. Lists are absent if they are empty (FL55).
#[derive(Debug, Default, Serialize)]
pub struct OrbitNotifications {
    /// Scripts to fetch and run, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending_script_execution_ids: Vec<String>,
    /// Software to install, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending_software_installer_ids: Vec<String>,
    /// Whether to ask the user for the passphrase of the disk; sent up to three times (FL56).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub run_disk_encryption_escrow: bool,
}

/// `POST /api/fleet/orbit/disk_encryption_key`.
#[derive(Deserialize)]
pub struct OrbitDiskKey<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub orbit_node_key: Cow<'a, str>,
    /// The recovery key, in base64; empty with an error.
    #[serde(borrow, default)]
    pub encryption_key: Option<Cow<'a, str>>,
    /// Why there is no key.
    #[serde(borrow, default)]
    pub client_error: Cow<'a, str>,
}

/// `POST /api/fleet/orbit/luks_data`.
#[derive(Deserialize)]
pub struct OrbitLuks<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub orbit_node_key: Cow<'a, str>,
    /// Passphrase.
    #[serde(borrow, default)]
    pub passphrase: Cow<'a, str>,
    /// Salt.
    #[serde(borrow, default)]
    pub salt: Cow<'a, str>,
    /// Number of the key slot.
    #[serde(default)]
    pub key_slot: Option<u64>,
    /// Why there is no key.
    #[serde(borrow, default)]
    pub client_error: Cow<'a, str>,
}

/// `POST /api/fleet/orbit/scripts/request`.
#[derive(Debug, Deserialize)]
pub struct OrbitScriptRequest<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub orbit_node_key: Cow<'a, str>,
    /// The execution.
    #[serde(borrow, default)]
    pub execution_id: Cow<'a, str>,
}

/// Response of `POST /api/fleet/orbit/scripts/request`.
#[derive(Debug, Serialize)]
pub struct OrbitScript<'a> {
    /// A number in the original, which orbit does not use.
    pub host_id: u32,
    /// The execution.
    pub execution_id: &'a str,
    /// The script.
    pub script_contents: &'a str,
    /// Empty until there is a result.
    pub output: &'a str,
    /// 0 until there is a result.
    pub runtime: u32,
    /// `null` until there is a result.
    pub exit_code: Option<i64>,
    /// Maximum duration, seconds.
    pub timeout: u64,
}

/// `POST /api/fleet/orbit/scripts/result`. Other members, such as `host_id`, are ignored.
#[derive(Debug, Deserialize)]
pub struct OrbitScriptResult<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub orbit_node_key: Cow<'a, str>,
    /// The execution.
    #[serde(borrow, default)]
    pub execution_id: Cow<'a, str>,
    /// Output.
    #[serde(borrow, default)]
    pub output: Cow<'a, str>,
    /// Duration, seconds.
    #[serde(default)]
    pub runtime: i64,
    /// Exit code; −1 after a timeout, −2 if scripts are disabled. Required, but a request without a valid key is refused because of the key
    /// first.
    #[serde(default)]
    pub exit_code: Option<i64>,
}
