//! Messages of the component protocol, version 2 (AG §5.1, §5.3): a table of field numbers.
//!
//! They are declared here instead of in a `.proto` file, so that no build script and no compiler of Protocol Buffers is
//! needed.

use std::collections::HashMap;

use prost::{Enumeration, Message};
use prost_types::{Struct, Timestamp};

/// State of a unit, observed or expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum State {
    /// Not known to work yet.
    Starting = 0,
    /// Applying its configuration.
    Configuring = 1,
    /// Working; one of the two states that are expected.
    Healthy = 2,
    /// Partly working.
    Degraded = 3,
    /// Not working.
    Failed = 4,
    /// Shutting down.
    Stopping = 5,
    /// Stopped; the other state that is expected.
    Stopped = 6,
}

/// Type of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum UnitType {
    /// Input.
    Input = 0,
    /// Output.
    Output = 1,
}

/// Log level of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum LogLevel {
    /// Errors.
    Error = 0,
    /// Also warnings.
    Warn = 1,
    /// Also information.
    Info = 2,
    /// Also debug messages.
    Debug = 3,
    /// Everything.
    Trace = 4,
}

/// Optional features of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Supports {
    /// Check-ins can be split into several messages.
    CheckinChunking = 0,
}

/// Services of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Service {
    /// Version 1 of the protocol.
    Checkin = 0,
    /// Version 2 of the protocol.
    CheckinV2 = 1,
}

/// What a component needs to connect; written to its standard input.
#[derive(Clone, PartialEq, Message)]
pub struct StartUpInfo {
    /// Address of the agent.
    #[prost(string, tag = "1")]
    pub addr: String,
    /// Name of the server in TLS.
    #[prost(string, tag = "2")]
    pub server_name: String,
    /// Secret that identifies the component.
    #[prost(string, tag = "3")]
    pub token: String,
    /// Certificate authority (PEM).
    #[prost(bytes = "vec", tag = "4")]
    pub ca_cert: Vec<u8>,
    /// Certificate of the component (PEM).
    #[prost(bytes = "vec", tag = "5")]
    pub peer_cert: Vec<u8>,
    /// Its private key (PEM).
    #[prost(bytes = "vec", tag = "6")]
    pub peer_key: Vec<u8>,
    /// Services of the agent.
    #[prost(enumeration = "Service", repeated, tag = "7")]
    pub services: Vec<i32>,
    /// Features that the agent supports.
    #[prost(enumeration = "Supports", repeated, tag = "8")]
    pub supports: Vec<i32>,
    /// Maximum size of a message in bytes.
    #[prost(uint32, tag = "9")]
    pub max_message_size: u32,
    /// The agent.
    #[prost(message, optional, tag = "10")]
    pub agent_info: Option<AgentInfo>,
}

/// The agent, as components report it.
#[derive(Clone, PartialEq, Message)]
pub struct AgentInfo {
    /// Agent id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Whether it is a development version.
    #[prost(bool, tag = "3")]
    pub snapshot: bool,
    /// 0: managed by a server.
    #[prost(int32, tag = "4")]
    pub mode: i32,
    /// Whether it runs without the rights of root.
    #[prost(bool, tag = "5")]
    pub unprivileged: bool,
}

/// What the agent expects of a component.
#[derive(Clone, PartialEq, Message)]
pub struct CheckinExpected {
    /// Its units.
    #[prost(message, repeated, tag = "1")]
    pub units: Vec<UnitExpected>,
    /// The agent.
    #[prost(message, optional, tag = "2")]
    pub agent_info: Option<AgentInfo>,
    /// Feature flags.
    #[prost(message, optional, tag = "3")]
    pub features: Option<Features>,
    /// Index of `features`.
    #[prost(uint64, tag = "4")]
    pub features_idx: u64,
    /// Settings of the process.
    #[prost(message, optional, tag = "5")]
    pub component: Option<ComponentSettings>,
    /// Index of `component`.
    #[prost(uint64, tag = "6")]
    pub component_idx: u64,
    /// Identifies the parts of a message that was split.
    #[prost(message, optional, tag = "7")]
    pub units_timestamp: Option<Timestamp>,
}

/// What the agent expects of a unit.
#[derive(Clone, PartialEq, Message)]
pub struct UnitExpected {
    /// Id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Type.
    #[prost(enumeration = "UnitType", tag = "2")]
    pub kind: i32,
    /// `HEALTHY` or `STOPPED`.
    #[prost(enumeration = "State", tag = "3")]
    pub state: i32,
    /// Index of the configuration.
    #[prost(uint64, tag = "4")]
    pub config_state_idx: u64,
    /// The configuration; omitted once the component has confirmed the index.
    #[prost(message, optional, tag = "5")]
    pub config: Option<UnitConfig>,
    /// Log level.
    #[prost(enumeration = "LogLevel", tag = "6")]
    pub log_level: i32,
}

/// Configuration of a unit. All of it is in `source`; the other fields repeat parts of it.
#[derive(Clone, PartialEq, Message)]
pub struct UnitConfig {
    /// The whole configuration.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Struct>,
    /// `id`.
    #[prost(string, tag = "2")]
    pub id: String,
    /// `type`.
    #[prost(string, tag = "3")]
    pub kind: String,
    /// `name`.
    #[prost(string, tag = "4")]
    pub name: String,
    /// `revision`.
    #[prost(uint64, tag = "5")]
    pub revision: u64,
    /// `meta`.
    #[prost(message, optional, tag = "6")]
    pub meta: Option<Meta>,
    /// `data_stream`.
    #[prost(message, optional, tag = "7")]
    pub data_stream: Option<DataStream>,
    /// `streams`.
    #[prost(message, repeated, tag = "8")]
    pub streams: Vec<Stream>,
}

/// `meta` of an input.
#[derive(Clone, PartialEq, Message)]
pub struct Meta {
    /// The whole object.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Struct>,
    /// `package`.
    #[prost(message, optional, tag = "2")]
    pub package: Option<Package>,
}

/// `meta.package`.
#[derive(Clone, PartialEq, Message)]
pub struct Package {
    /// The whole object.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Struct>,
    /// `name`.
    #[prost(string, tag = "2")]
    pub name: String,
    /// `version`.
    #[prost(string, tag = "3")]
    pub version: String,
}

/// `data_stream` of an input or a stream.
#[derive(Clone, PartialEq, Message)]
pub struct DataStream {
    /// The whole object.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Struct>,
    /// `dataset`.
    #[prost(string, tag = "2")]
    pub dataset: String,
    /// `type`.
    #[prost(string, tag = "3")]
    pub kind: String,
    /// `namespace`.
    #[prost(string, tag = "4")]
    pub namespace: String,
}

/// A stream of an input.
#[derive(Clone, PartialEq, Message)]
pub struct Stream {
    /// The whole object.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Struct>,
    /// `id`.
    #[prost(string, tag = "2")]
    pub id: String,
    /// `data_stream`.
    #[prost(message, optional, tag = "3")]
    pub data_stream: Option<DataStream>,
}

/// Feature flags.
#[derive(Clone, PartialEq, Message)]
pub struct Features {
    /// All of them.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Struct>,
    /// `fqdn`.
    #[prost(message, optional, tag = "2")]
    pub fqdn: Option<Fqdn>,
}

/// Whether the name of the host is fully qualified.
#[derive(Clone, PartialEq, Message)]
pub struct Fqdn {
    /// `fqdn.enabled`.
    #[prost(bool, tag = "1")]
    pub enabled: bool,
}

/// Settings of the process of a component.
#[derive(Clone, PartialEq, Message)]
pub struct ComponentSettings {
    /// Limits.
    #[prost(message, optional, tag = "1")]
    pub limits: Option<Limits>,
}

/// Limits of a component.
#[derive(Clone, PartialEq, Message)]
pub struct Limits {
    /// All of them.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Struct>,
    /// Number of threads of programs in Go; 0 means no limit.
    #[prost(uint64, tag = "2")]
    pub go_max_procs: u64,
}

/// What a component reports.
#[derive(Clone, PartialEq, Message)]
pub struct CheckinObserved {
    /// Secret that identifies the component.
    #[prost(string, tag = "1")]
    pub token: String,
    /// States of its units.
    #[prost(message, repeated, tag = "2")]
    pub units: Vec<UnitObserved>,
    /// Its version, in the first message.
    #[prost(message, optional, tag = "3")]
    pub version_info: Option<VersionInfo>,
    /// Index of the feature flags in use.
    #[prost(uint64, tag = "5")]
    pub features_idx: u64,
    /// Index of the settings in use.
    #[prost(uint64, tag = "6")]
    pub component_idx: u64,
    /// Identifies the parts of a message that was split.
    #[prost(message, optional, tag = "7")]
    pub units_timestamp: Option<Timestamp>,
    /// Features that the component supports, in the first message.
    #[prost(enumeration = "Supports", repeated, tag = "8")]
    pub supports: Vec<i32>,
    /// Its process id.
    #[prost(uint64, tag = "9")]
    pub pid: u64,
}

/// State of a unit.
#[derive(Clone, PartialEq, Message)]
pub struct UnitObserved {
    /// Id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Type.
    #[prost(enumeration = "UnitType", tag = "2")]
    pub kind: i32,
    /// Index of the configuration in use; 0 before the first.
    #[prost(uint64, tag = "3")]
    pub config_state_idx: u64,
    /// State.
    #[prost(enumeration = "State", tag = "4")]
    pub state: i32,
    /// Description of the state.
    #[prost(string, tag = "5")]
    pub message: String,
    /// Free-form addition.
    #[prost(message, optional, tag = "6")]
    pub payload: Option<Struct>,
}

/// Version of a component.
#[derive(Clone, PartialEq, Message)]
pub struct VersionInfo {
    /// Name of the program.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Additions.
    #[prost(map = "string, string", tag = "3")]
    pub meta: HashMap<String, String>,
    /// Revision of its sources.
    #[prost(string, tag = "4")]
    pub build_hash: String,
}

/// Type of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ActionType {
    /// Defined by the component.
    Custom = 0,
    /// Collect diagnostics.
    Diagnostics = 1,
}

/// What diagnostics are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ActionLevel {
    /// Everything.
    All = 0,
    /// The component.
    Component = 1,
    /// One unit.
    Unit = 2,
}

/// An action for a component.
#[derive(Clone, PartialEq, Message)]
pub struct ActionRequest {
    /// Id of this request.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Parameters as JSON.
    #[prost(bytes = "vec", tag = "3")]
    pub params: Vec<u8>,
    /// Id of the unit.
    #[prost(string, tag = "4")]
    pub unit_id: String,
    /// Type of the unit.
    #[prost(enumeration = "UnitType", tag = "5")]
    pub unit_type: i32,
    /// Type.
    #[prost(enumeration = "ActionType", tag = "6")]
    pub kind: i32,
    /// What diagnostics are about.
    #[prost(enumeration = "ActionLevel", tag = "7")]
    pub level: i32,
}

/// Outcome of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ActionStatus {
    /// Done.
    Success = 0,
    /// Failed, or not known to the component.
    Failed = 1,
}

/// Response to an action.
#[derive(Clone, PartialEq, Message)]
pub struct ActionResponse {
    /// Secret that identifies the component.
    #[prost(string, tag = "1")]
    pub token: String,
    /// Id of the request; `init` in the first message of a stream.
    #[prost(string, tag = "2")]
    pub id: String,
    /// Outcome.
    #[prost(enumeration = "ActionStatus", tag = "3")]
    pub status: i32,
    /// Result as JSON.
    #[prost(bytes = "vec", tag = "4")]
    pub result: Vec<u8>,
    /// Diagnostics.
    #[prost(message, repeated, tag = "5")]
    pub diagnostic: Vec<DiagnosticFile>,
}

/// A file of diagnostics.
#[derive(Clone, PartialEq, Message)]
pub struct DiagnosticFile {
    /// Short name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Name of the file.
    #[prost(string, tag = "2")]
    pub filename: String,
    /// What it contains.
    #[prost(string, tag = "3")]
    pub description: String,
    /// MIME type.
    #[prost(string, tag = "4")]
    pub content_type: String,
    /// Content.
    #[prost(bytes = "vec", tag = "5")]
    pub content: Vec<u8>,
    /// Time of creation.
    #[prost(message, optional, tag = "6")]
    pub generated: Option<Timestamp>,
}
