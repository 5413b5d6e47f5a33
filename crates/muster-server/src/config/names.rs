//! The names of all keys, with the types of their values. Values can only be read in the type of their key, and a
//! misspelled name does not compile.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

use camino::Utf8PathBuf;
use muster_elastic::limits::Operation;
use muster_management::base_path::BasePath;

use super::network::Network;
use super::settings::{ClientAuth, MetricsOn};
use super::value::Value;
use muster_core::fleetd::identifier::HostIdentifier;
use muster_notify::LogFormat;

/// A key with values of type `T`.
#[derive(Clone, Debug)]
pub struct Key<T> {
    name: Cow<'static, str>,
    values: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    const fn of(name: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), values: PhantomData }
    }

    fn of_operation(operation: Operation, field: &str) -> Self {
        Self { name: format!("limits.{}.{field}", operation.key()).into(), values: PhantomData }
    }

    /// Returns the name, with dots between sections.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Type of a configuration value.
pub trait Setting: Sized {
    /// Converts the value to this type; `None` if it is of another kind.
    fn of(value: &Value) -> Option<Self>;
}

impl Setting for bool {
    fn of(value: &Value) -> Option<Self> {
        if let Value::Flag(flag) = value { Some(*flag) } else { None }
    }
}

impl Setting for MetricsOn {
    fn of(value: &Value) -> Option<Self> {
        match String::of(value)?.as_str() {
            "listener" => Some(Self::Listener),
            "socket" => Some(Self::Socket),
            _ => None,
        }
    }
}

impl Setting for ClientAuth {
    fn of(value: &Value) -> Option<Self> {
        match String::of(value)?.as_str() {
            "optional" => Some(Self::Optional),
            "required" => Some(Self::Required),
            _ => None,
        }
    }
}

impl Setting for HostIdentifier {
    fn of(value: &Value) -> Option<Self> {
        Self::parse(&String::of(value)?)
    }
}

impl Setting for LogFormat {
    fn of(value: &Value) -> Option<Self> {
        match String::of(value)?.as_str() {
            "ndjson" => Some(Self::Ndjson),
            "otlp" => Some(Self::Otlp),
            _ => None,
        }
    }
}

impl Setting for u64 {
    fn of(value: &Value) -> Option<Self> {
        if let Value::Count(count) = value { Some(*count) } else { None }
    }
}

impl Setting for Duration {
    fn of(value: &Value) -> Option<Self> {
        if let Value::Span(span) = value { Some(*span) } else { None }
    }
}

impl Setting for String {
    fn of(value: &Value) -> Option<Self> {
        if let Value::Text(text) = value { Some(text.clone()) } else { None }
    }
}

/// An empty string is `None`.
impl Setting for Option<Utf8PathBuf> {
    fn of(value: &Value) -> Option<Self> {
        String::of(value).map(|text| Some(text).filter(|text| !text.is_empty()).map(Utf8PathBuf::from))
    }
}

impl Setting for BasePath {
    fn of(value: &Value) -> Option<Self> {
        String::of(value)?.parse().ok()
    }
}

/// `none` is `None`.
impl Setting for Option<SocketAddr> {
    fn of(value: &Value) -> Option<Self> {
        if let Value::Address(address) = value { Some(*address) } else { None }
    }
}

impl Setting for Vec<String> {
    fn of(value: &Value) -> Option<Self> {
        if let Value::Urls(items) | Value::Hosts(items) = value { Some(items.clone()) } else { None }
    }
}

impl Setting for Vec<Network> {
    fn of(value: &Value) -> Option<Self> {
        if let Value::Networks(networks) = value { Some(networks.clone()) } else { None }
    }
}

/// Major version, and minor version unless any is accepted.
impl Setting for (u32, Option<u32>) {
    fn of(value: &Value) -> Option<Self> {
        if let Value::Version(major, minor) = value { Some((*major, *minor)) } else { None }
    }
}

macro_rules! keys {
    ($($name:ident: $type:ty = $key:literal;)+) => {
        $(#[doc = concat!("`", $key, "`.")] pub const $name: Key<$type> = Key::of($key);)+
    };
}

keys! {
    DATA_DIR: Option<Utf8PathBuf> = "data_dir";
    DATABASE: String = "database";
    MASTER_KEY_FILE: Option<Utf8PathBuf> = "master_key_file";
    EXTERNAL_URL: Vec<String> = "external_url";
    INSECURE_HTTP: bool = "insecure_http";
    AGENT_LISTEN: Option<SocketAddr> = "agent.listen";
    LOCAL_LISTEN: Option<SocketAddr> = "local.listen";
    ADMIN_LISTEN: Option<SocketAddr> = "admin.listen";
    ADMIN_HOSTS: Vec<String> = "admin.hosts";
    ADMIN_TRUSTED_PROXIES: Vec<Network> = "admin.trusted_proxies";
    ADMIN_BASE_PATH: BasePath = "admin.base_path";
    ADMIN_METRICS: MetricsOn = "admin.metrics";
    AUTH_BASIC: bool = "auth.basic";
    LOCAL_TARGETS: bool = "outgoing.allow_local_targets";
    TLS_CERT: Option<Utf8PathBuf> = "tls.cert";
    TLS_KEY: Option<Utf8PathBuf> = "tls.key";
    TLS_KEY_PASSPHRASE: Option<Utf8PathBuf> = "tls.key_passphrase";
    TLS_CLIENT_CA: Option<Utf8PathBuf> = "tls.client_ca";
    TLS_CLIENT_AUTH: ClientAuth = "tls.client_auth";
    TLS_CLIENT_CRL: Option<Utf8PathBuf> = "tls.client_crl";
    TLS_CLIENT_BIND_HOSTS: bool = "tls.client_bind_hosts";
    LONG_POLL: Duration = "timeouts.checkin_long_poll";
    JITTER: Duration = "timeouts.checkin_jitter";
    MAX_POLL: Duration = "timeouts.checkin_max_poll";
    HANDSHAKE: Duration = "timeouts.handshake";
    READ_HEADER: Duration = "timeouts.read_header";
    READ: Duration = "timeouts.read";
    WRITE: Duration = "timeouts.write";
    WRITE_STALL: Duration = "timeouts.write_stall";
    IDLE: Duration = "timeouts.idle";
    DRAIN: Duration = "timeouts.drain";
    MAX_CONNECTIONS: u64 = "limits.max_connections";
    MAX_DECOMPRESSED: u64 = "limits.checkin.max_body_decompressed";
    UPLOAD_MAX_BYTES: u64 = "uploads.max_bytes";
    UPLOAD_MAX_BYTES_PER_AGENT: u64 = "uploads.max_bytes_per_agent";
    UPLOAD_MAX_OPEN_PER_AGENT: u64 = "uploads.max_open_per_agent";
    UPLOAD_MIN_FREE_BYTES: u64 = "uploads.min_free_bytes";
    OSQUERY_LOG_DIRECTORY: Option<Utf8PathBuf> = "osquery.log_directory";
    OSQUERY_LOG_FILE_BYTES: u64 = "osquery.log_file_bytes";
    OSQUERY_LOG_FILES: u64 = "osquery.log_files";
    OSQUERY_FORWARD_URL: String = "osquery.forward_url";
    OSQUERY_FORWARD_FORMAT: LogFormat = "osquery.forward_format";
    OSQUERY_FORWARD_AUTHORIZATION: Option<Utf8PathBuf> = "osquery.forward_authorization_file";
    OSQUERY_FORWARD_CA: Option<Utf8PathBuf> = "osquery.forward_ca";
    OSQUERY_PUSH: bool = "osquery.push";
    OSQUERY_IDENTIFIER: HostIdentifier = "osquery.host_identifier";
    OSQUERY_COOLDOWN: Duration = "osquery.enroll_cooldown";
    HIGHEST_VERSION: (u32, Option<u32>) = "agents.highest_version";
    LOWEST_VERSION: (u32, Option<u32>) = "agents.lowest_version";
    LOG_FORMAT: String = "log.format";
    LOG_LEVEL: String = "log.level";
}

/// Interval at which a token is added to the bucket of an operation.
pub fn interval(operation: Operation) -> Key<Duration> {
    Key::of_operation(operation, "interval")
}

/// Capacity of the token bucket of an operation.
pub fn burst(operation: Operation) -> Key<u64> {
    Key::of_operation(operation, "burst")
}

/// Maximum number of concurrent requests of an operation.
pub fn max(operation: Operation) -> Key<u64> {
    Key::of_operation(operation, "max")
}

/// Maximum body size of an operation, in bytes.
pub fn max_body(operation: Operation) -> Key<u64> {
    Key::of_operation(operation, "max_body")
}
