//! The configuration in its final types, and checks that involve several keys.

use muster_core::error_chain::chain;
use muster_core::fleetd::identifier::HostIdentifier;
use muster_management::base_path::BasePath;
use muster_store::OpenError;
use muster_store::postgres::Address;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use camino::Utf8PathBuf;

use super::names::{self, Key};
use super::network::Network;
use super::problem::{Problem, Source};
use super::value::write_span;
use super::{Layers, Values};
use crate::host_logs::files::Rotation;
use crate::host_logs::forward::ForwardConfig;
use muster_core::poll::PollLimits;
use muster_elastic::limits::{Limits, Operation, OperationLimit};
use muster_fleet::FleetSettings;
use muster_fleet::outgoing::LocalTargets;
use muster_fleet::upload_limits::UploadLimits;
use muster_fleet::urls::OwnUrls;
use muster_listen::Timeouts;

/// The configuration of the server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Data directory.
    pub data_dir: Utf8PathBuf,
    /// Address of the PostgreSQL database; `None` means SQLite in the data directory.
    pub database: Option<Address>,
    /// File with the master key; `None` means `master.key` in the data directory.
    pub master_key_file: Option<Utf8PathBuf>,
    /// URLs of the fleet for agents; can be empty.
    pub external_urls: Vec<String>,
    /// Whether agents are served over plain HTTP.
    pub insecure_http: bool,
    /// Listener addresses.
    pub listen: ListenConfig,
    /// Additional host names of the management listener.
    pub admin_hosts: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Path under which a proxy publishes the management listener.
    pub base_path: BasePath,
    /// Where `/metrics` is served.
    pub metrics_on: MetricsOn,
    /// Whether the REST API accepts names and passwords in requests.
    pub accepts_basic: bool,
    /// Whether the server connects to local addresses for alerts and outputs.
    pub local_targets: LocalTargets,
    /// Certificates.
    pub tls: TlsConfig,
    /// Durations of long polls.
    pub poll: PollLimits,
    /// Deadlines of connections.
    pub timeouts: Timeouts,
    /// Maximum number of concurrent requests on a listener; 0 derives it from the limit on open files.
    pub max_connections: u64,
    /// Request limits of a listener for agents.
    pub limits: Limits,
    /// Limits on uploads from agents.
    pub uploads: UploadLimits,
    /// Maximum version of agents: major, and minor unless any minor version is accepted.
    pub highest_version: (u32, Option<u32>),
    /// Minimum version of agents: major and minor.
    pub lowest_version: (u32, u32),
    /// Whether a new fleet may be started although the directory contains keys of an earlier one. This is a flag
    /// instead of a key, because a key in a file would permanently disable the protection.
    pub new_fleet: bool,
    /// Version control information of the build, set by the program.
    pub build: Build,
    /// Directory for the logs of hosts; `None` discards them.
    pub host_logs: Option<Utf8PathBuf>,
    /// Size and number of the files of host logs.
    pub host_log_rotation: Rotation,
    /// Where the lines of host logs are forwarded to.
    pub host_log_forward: Option<ForwardConfig>,
    /// Whether orbit gets hints over WebSocket.
    pub push: bool,
    /// Identifier by which the host of an osqueryd is recognized.
    pub host_identifier: HostIdentifier,
    /// Time in which an osqueryd may not enroll again.
    pub enroll_cooldown: Duration,
    /// Whether log lines are JSON instead of text.
    pub log_json: bool,
    /// Minimum log level.
    pub log_level: String,
}

/// Version control information of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// Hash of the commit.
    pub hash: String,
    /// Time of the commit, RFC 3339.
    pub time: String,
}

/// Where `/metrics` is served, without authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsOn {
    /// On `admin.listen` and on the Unix socket.
    Listener,
    /// Only on the Unix socket, to which only root and the user that runs the server can connect.
    Socket,
}

/// Listener addresses; `None` disables the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// Agents.
    pub agent: Option<SocketAddr>,
    /// The agent on this host.
    pub local: Option<SocketAddr>,
    /// Administrators and scripts.
    pub admin: Option<SocketAddr>,
}

/// Certificates.
#[derive(Clone, Debug, Default)]
pub struct TlsConfig {
    /// Certificate and key files; `None` means that the server creates its own.
    pub custom: Option<(Utf8PathBuf, Utf8PathBuf)>,
    /// File with the passphrase of the key.
    pub key_passphrase: Option<Utf8PathBuf>,
    /// CAs of client certificates.
    pub client_ca: Option<Utf8PathBuf>,
    /// Revocation lists of these CAs.
    pub client_crl: Option<Utf8PathBuf>,
    /// Whether agents need a client certificate.
    pub client_auth: ClientAuth,
    /// Whether hosts of fleetd are bound to the certificates that they enroll with.
    pub client_bind_hosts: bool,
}

/// Whether agents need a client certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// A certificate is verified if a client presents one.
    #[default]
    Optional,
    /// Requests of agents are rejected without one.
    Required,
}

impl Config {
    /// Returns the settings of the fleet. `derived` is this server's own address ([`OwnUrls`]).
    pub fn fleet_settings(&self, derived: String) -> FleetSettings {
        FleetSettings {
            long_poll: self.poll.default,
            poll_jitter: self.poll.jitter,
            max_poll: self.poll.max,
            urls: OwnUrls { configured: self.external_urls.clone(), derived: Some(derived) },
            highest_version: self.highest_version,
            lowest_version: self.lowest_version,
            build_hash: self.build.hash.clone(),
            accepts_basic: self.accepts_basic,
            enroll_cooldown: self.enroll_cooldown,
            ..FleetSettings::default()
        }
    }
}

impl Values {
    fn problem<T>(&self, key: &Key<T>, reason: impl Into<String>) -> Problem {
        Problem { source: self.source(key.name()), key: key.name().to_owned(), reason: reason.into() }
    }
}

/// Converts values to their final types. Adds a problem for each inconsistency.
pub(super) fn build(values: &Values, layers: &Layers, problems: &mut Vec<Problem>) -> Config {
    let (lowest_major, lowest_minor) = values.read(&names::LOWEST_VERSION);
    let config = Config {
        data_dir: data_dir(values, layers, problems),
        database: database(values, problems),
        master_key_file: values.read(&names::MASTER_KEY_FILE),
        external_urls: values.read(&names::EXTERNAL_URL),
        insecure_http: values.read(&names::INSECURE_HTTP),
        listen: ListenConfig {
            agent: values.read(&names::AGENT_LISTEN),
            local: values.read(&names::LOCAL_LISTEN),
            admin: values.read(&names::ADMIN_LISTEN),
        },
        admin_hosts: values.read(&names::ADMIN_HOSTS),
        trusted_proxies: values.read(&names::ADMIN_TRUSTED_PROXIES),
        base_path: values.read(&names::ADMIN_BASE_PATH),
        metrics_on: values.read(&names::ADMIN_METRICS),
        accepts_basic: values.read(&names::AUTH_BASIC),
        local_targets: match values.read(&names::LOCAL_TARGETS) {
            true => LocalTargets::Permitted,
            false => LocalTargets::Refused,
        },
        tls: tls(values, problems),
        poll: poll(values),
        timeouts: timeouts(values),
        max_connections: values.read(&names::MAX_CONNECTIONS),
        limits: limits(values),
        uploads: uploads(values),
        highest_version: values.read(&names::HIGHEST_VERSION),
        lowest_version: (lowest_major, lowest_minor.unwrap_or(0)),
        // The program sets it, as well as `build`.
        new_fleet: false,
        build: Build::default(),
        host_logs: values.read(&names::OSQUERY_LOG_DIRECTORY),
        host_log_rotation: Rotation {
            bytes: values.read(&names::OSQUERY_LOG_FILE_BYTES),
            files: values.read(&names::OSQUERY_LOG_FILES),
        },
        host_log_forward: forward(values, problems),
        push: values.read(&names::OSQUERY_PUSH),
        host_identifier: values.read(&names::OSQUERY_IDENTIFIER),
        enroll_cooldown: values.read(&names::OSQUERY_COOLDOWN),
        log_json: values.read(&names::LOG_FORMAT) == "json",
        log_level: values.read(&names::LOG_LEVEL),
    };
    check(&config, values, problems);
    config
}

fn data_dir(values: &Values, layers: &Layers, problems: &mut Vec<Problem>) -> Utf8PathBuf {
    if let Some(path) = values.read(&names::DATA_DIR) {
        return path;
    }
    default_data_dir(layers.root, &layers.environment).unwrap_or_else(|| {
        problems.push(values.problem(&names::DATA_DIR, "not set, and there is no home directory for the default"));
        Utf8PathBuf::new()
    })
}

/// Returns `/var/lib/muster` for root, otherwise `$XDG_STATE_HOME/muster` or `~/.local/state/muster`; `None` without a
/// home directory.
pub fn default_data_dir(root: bool, environment: &BTreeMap<String, String>) -> Option<Utf8PathBuf> {
    if root {
        return Some("/var/lib/muster".into());
    }
    // Relative paths are ignored, as the XDG specification demands.
    let directory = |name: &str| environment.get(name).filter(|path| path.starts_with('/'));
    let state = directory("XDG_STATE_HOME").map(Utf8PathBuf::from);
    let state = state.or_else(|| directory("HOME").map(|home| Utf8PathBuf::from(home).join(".local/state")))?;
    Some(state.join("muster"))
}

fn tls(values: &Values, problems: &mut Vec<Problem>) -> TlsConfig {
    let custom = match (values.read(&names::TLS_CERT), values.read(&names::TLS_KEY)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            problems.push(values.problem(&names::TLS_CERT, "requires tls.key"));
            None
        }
        (None, Some(_)) => {
            problems.push(values.problem(&names::TLS_KEY, "requires tls.cert"));
            None
        }
    };
    let client_ca = values.read(&names::TLS_CLIENT_CA);
    let client_crl = values.read(&names::TLS_CLIENT_CRL);
    let client_auth = values.read(&names::TLS_CLIENT_AUTH);
    // Without the CAs, neither would have an effect.
    if client_ca.is_none() && client_crl.is_some() {
        problems.push(values.problem(&names::TLS_CLIENT_CRL, "requires tls.client_ca"));
    }
    if client_ca.is_none() && client_auth == ClientAuth::Required {
        problems.push(values.problem(&names::TLS_CLIENT_AUTH, "`required` requires tls.client_ca"));
    }
    let client_bind_hosts = values.read(&names::TLS_CLIENT_BIND_HOSTS);
    if client_ca.is_none() && client_bind_hosts {
        problems.push(values.problem(&names::TLS_CLIENT_BIND_HOSTS, "requires tls.client_ca"));
    }
    let key_passphrase = values.read(&names::TLS_KEY_PASSPHRASE);
    if custom.is_none() && key_passphrase.is_some() {
        problems.push(values.problem(&names::TLS_KEY_PASSPHRASE, "requires tls.key"));
    }
    TlsConfig { custom, key_passphrase, client_ca, client_crl, client_auth, client_bind_hosts }
}

fn forward(values: &Values, problems: &mut Vec<Problem>) -> Option<ForwardConfig> {
    let url = values.read(&names::OSQUERY_FORWARD_URL);
    if url.is_empty() {
        return None;
    }
    // The files are the buffer: without them, lines would be lost while the receiver is unavailable.
    if values.read(&names::OSQUERY_LOG_DIRECTORY).is_none() {
        problems.push(values.problem(&names::OSQUERY_FORWARD_URL, "requires osquery.log_directory"));
    }
    Some(ForwardConfig {
        url,
        format: values.read(&names::OSQUERY_FORWARD_FORMAT),
        authorization_file: values.read(&names::OSQUERY_FORWARD_AUTHORIZATION),
        ca: values.read(&names::OSQUERY_FORWARD_CA),
    })
}

fn poll(values: &Values) -> PollLimits {
    let default = values.read(&names::LONG_POLL);
    let jitter = values.read(&names::JITTER);
    // The default adapts to the poll, so that an administrator who shortens the poll does not have to change the
    // jitter.
    let is_default = matches!(values.source(names::JITTER.name()), Source::Default);
    PollLimits {
        default,
        jitter: if is_default { jitter.min(default / 10) } else { jitter },
        max: values.read(&names::MAX_POLL),
    }
}

fn timeouts(values: &Values) -> Timeouts {
    Timeouts {
        handshake: values.read(&names::HANDSHAKE),
        read_header: values.read(&names::READ_HEADER),
        read: values.read(&names::READ),
        write: values.read(&names::WRITE),
        write_stall: values.read(&names::WRITE_STALL),
        idle: values.read(&names::IDLE),
        // A held check-in ends at the latest after the longest poll that an agent can request.
        hold: values.read(&names::MAX_POLL),
        drain: values.read(&names::DRAIN),
    }
}

fn limits(values: &Values) -> Limits {
    let mut limits = Limits::default();
    limits.read_timeout = values.read(&names::READ);
    limits.max_decompressed = size(values.read(&names::MAX_DECOMPRESSED));
    for operation in Operation::ALL {
        *limits.of_mut(operation) = operation_limit(values, operation);
    }
    limits
}

fn uploads(values: &Values) -> UploadLimits {
    UploadLimits {
        max_bytes: values.read(&names::UPLOAD_MAX_BYTES),
        max_bytes_per_agent: values.read(&names::UPLOAD_MAX_BYTES_PER_AGENT),
        max_open_per_agent: values.read(&names::UPLOAD_MAX_OPEN_PER_AGENT),
        min_free_bytes: values.read(&names::UPLOAD_MIN_FREE_BYTES),
    }
}

fn operation_limit(values: &Values, operation: Operation) -> OperationLimit {
    OperationLimit {
        interval: values.read(&names::interval(operation)),
        burst: u32::try_from(values.read(&names::burst(operation))).unwrap_or(u32::MAX),
        max: size(values.read(&names::max(operation))),
        max_body: size(values.read(&names::max_body(operation))),
    }
}

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn database(values: &Values, problems: &mut Vec<Problem>) -> Option<Address> {
    let url = values.read(&names::DATABASE);
    if url.is_empty() {
        return None;
    }
    url.parse()
        .map_err(|error: OpenError| problems.push(values.problem(&names::DATABASE, chain(&error).to_string())))
        .ok()
}

/// Checks that involve several keys.
fn check(config: &Config, values: &Values, problems: &mut Vec<Problem>) {
    for (key, address) in [(names::AGENT_LISTEN, config.listen.agent), (names::LOCAL_LISTEN, config.listen.local)] {
        if let Some(address) = address.filter(|address| config.insecure_http && !address.ip().is_loopback()) {
            let reason =
                format!("insecure_http requires a loopback address, but this is {address}: use 127.0.0.1, or TLS");
            problems.push(values.problem(&key, reason));
        }
    }
    for url in config.external_urls.iter().filter(|url| url.starts_with("http:") && !config.insecure_http) {
        problems
            .push(values.problem(&names::EXTERNAL_URL, format!("{url} is plain HTTP, which requires insecure_http")));
    }
    if config.insecure_http && config.tls.client_auth == ClientAuth::Required {
        problems.push(values.problem(&names::TLS_CLIENT_AUTH, "`required` has no effect with insecure_http"));
    }
    let PollLimits { default: long_poll, jitter, .. } = config.poll;
    // The jitter is subtracted from the poll, so that a longer jitter could make polls return immediately.
    if !jitter.is_zero() && jitter >= long_poll {
        let reason = format!("must be shorter than timeouts.checkin_long_poll, {}", write_span(long_poll));
        problems.push(values.problem(&names::JITTER, reason));
    }
    let UploadLimits { max_bytes, max_bytes_per_agent, .. } = config.uploads;
    if max_bytes > max_bytes_per_agent {
        problems.push(values.problem(&names::UPLOAD_MAX_BYTES, "exceeds uploads.max_bytes_per_agent"));
    }
    check_versions(config, values, problems);
}

fn check_versions(config: &Config, values: &Values, problems: &mut Vec<Problem>) {
    // Without a minor version, all of the major version are accepted.
    let highest = (config.highest_version.0, config.highest_version.1.unwrap_or(u32::MAX));
    if config.lowest_version > highest {
        problems.push(values.problem(&names::LOWEST_VERSION, "exceeds agents.highest_version"));
    }
}
