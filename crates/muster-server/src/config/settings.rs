//! The configuration in its final types, and the checks that look at several keys at once.

use muster_store::OpenError;
use muster_store::postgres::Address;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use camino::Utf8PathBuf;

use super::names::{self, Key};
use super::problem::{Problem, Source};
use super::value::write_span;
use super::{Layers, Values};
use muster_core::poll::PollLimits;
use muster_elastic::limits::{Limits, Operation, OperationLimit};
use muster_fleet::FleetSettings;
use muster_fleet::upload_limits::UploadLimits;
use muster_fleet::urls::OwnUrls;
use muster_listen::Timeouts;

/// Everything that the server was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of everything the server keeps.
    pub data_dir: Utf8PathBuf,
    /// The database of several servers, or of one that outgrew its file. `None`: SQLite in the data directory.
    pub database: Option<Address>,
    /// The file with the master key. `None`: `master.key` in the data directory.
    pub master_key_file: Option<Utf8PathBuf>,
    /// What agents are told as our addresses; may be empty.
    pub external_urls: Vec<String>,
    /// Plain HTTP for agents.
    pub insecure_http: bool,
    /// Listener addresses.
    pub listen: ListenConfig,
    /// Further names of the management listener's host.
    pub admin_hosts: Vec<String>,
    /// Where `/metrics` is served.
    pub metrics_on: MetricsOn,
    /// Certificates.
    pub tls: TlsConfig,
    /// How long check-ins are held.
    pub poll: PollLimits,
    /// Deadlines of connections.
    pub timeouts: Timeouts,
    /// Requests at a time on a listener; 0: as open files allow.
    pub max_connections: u64,
    /// Limits of an agent listener.
    pub limits: Limits,
    /// What agents may upload.
    pub uploads: UploadLimits,
    /// Highest agent version: major, and minor unless any.
    pub highest_version: (u32, Option<u32>),
    /// Lowest agent version.
    pub lowest_version: (u32, u32),
    /// Whether a fleet may begin although the directory holds keys of an earlier one. A flag of one start and no key:
    /// in a file it would undo the protection for good.
    pub new_fleet: bool,
    /// What the program is made of; not configured, but set by it.
    pub build: Build,
    /// JSON log lines instead of text.
    pub log_json: bool,
    /// Lowest level that is logged.
    pub log_level: String,
}

/// What a program is made of, as far as it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// The commit.
    pub hash: String,
    /// Its time, RFC 3339.
    pub time: String,
}

/// Where `/metrics` is served, which asks nobody who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsOn {
    /// On `admin.listen`, and on the socket.
    Listener,
    /// On the socket alone: to root, and to the user that runs the server.
    Socket,
}

/// Listener addresses; `None` is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// Agents.
    pub agent: Option<SocketAddr>,
    /// The agent on this host.
    pub local: Option<SocketAddr>,
    /// People and scripts.
    pub admin: Option<SocketAddr>,
}

/// Certificates.
#[derive(Clone, Debug, Default)]
pub struct TlsConfig {
    /// Certificate and key files, when the server is not to make its own.
    pub custom: Option<(Utf8PathBuf, Utf8PathBuf)>,
    /// CAs of client certificates.
    pub client_ca: Option<Utf8PathBuf>,
}

impl Config {
    /// The part that operations need. `derived` is this server's own address: see [`OwnUrls`].
    pub fn fleet_settings(&self, derived: String) -> FleetSettings {
        FleetSettings {
            long_poll: self.poll.default,
            poll_jitter: self.poll.jitter,
            max_poll: self.poll.max,
            urls: OwnUrls { configured: self.external_urls.clone(), derived: Some(derived) },
            highest_version: self.highest_version,
            lowest_version: self.lowest_version,
            build_hash: self.build.hash.clone(),
            ..FleetSettings::default()
        }
    }
}

impl Values {
    fn problem<T>(&self, key: &Key<T>, reason: impl Into<String>) -> Problem {
        Problem { source: self.source(key.name()), key: key.name().to_owned(), reason: reason.into() }
    }
}

/// Final types from values; what does not fit together becomes problems.
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
        metrics_on: values.read(&names::ADMIN_METRICS),
        tls: tls(values, problems),
        poll: poll(values),
        timeouts: timeouts(values),
        max_connections: values.read(&names::MAX_CONNECTIONS),
        limits: limits(values),
        uploads: uploads(values),
        highest_version: values.read(&names::HIGHEST_VERSION),
        lowest_version: (lowest_major, lowest_minor.unwrap_or(0)),
        new_fleet: false,
        build: Build::default(),
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

/// `/var/lib/muster` for root, else `$XDG_STATE_HOME/muster` or `~/.local/state/muster`; `None` without a home.
pub fn default_data_dir(root: bool, environment: &BTreeMap<String, String>) -> Option<Utf8PathBuf> {
    if root {
        return Some("/var/lib/muster".into());
    }
    let folder = |name: &str| environment.get(name).filter(|path| path.starts_with('/'));
    let state = folder("XDG_STATE_HOME").map(Utf8PathBuf::from);
    let state = state.or_else(|| folder("HOME").map(|home| Utf8PathBuf::from(home).join(".local/state")))?;
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
    TlsConfig { custom, client_ca: values.read(&names::TLS_CLIENT_CA) }
}

fn poll(values: &Values) -> PollLimits {
    let default = values.read(&names::LONG_POLL);
    let jitter = values.read(&names::JITTER);
    // An operator who shortens the poll need not know of the jitter.
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
    url.parse().map_err(|error: OpenError| problems.push(values.problem(&names::DATABASE, error.to_string()))).ok()
}

/// What single values can't tell.
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
    let PollLimits { default: long_poll, jitter, .. } = config.poll;
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
    let highest = (config.highest_version.0, config.highest_version.1.unwrap_or(u32::MAX));
    if config.lowest_version > highest {
        problems.push(values.problem(&names::LOWEST_VERSION, "exceeds agents.highest_version"));
    }
}
