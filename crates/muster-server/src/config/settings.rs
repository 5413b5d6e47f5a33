//! The configuration in its final types, and the checks that look at several keys at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use camino::Utf8PathBuf;

use super::problem::{Problem, Source};
use super::value::{Value, write_span};
use super::{Layers, Values};
use muster_core::poll::PollLimits;
use muster_elastic::limits::{Limits, Operation, OperationLimit};
use muster_fleet::FleetSettings;
use muster_fleet::upload_limits::UploadLimits;
use muster_listen::Timeouts;

/// Everything that the server was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of everything the server keeps.
    pub data_dir: Utf8PathBuf,
    /// What agents are told as our addresses; may be empty.
    pub external_urls: Vec<String>,
    /// Plain HTTP for agents.
    pub insecure_http: bool,
    /// Listener addresses.
    pub listen: ListenConfig,
    /// Further names of the management listener's host.
    pub admin_hosts: Vec<String>,
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
    /// The part that operations need. `fallback` is told to agents when no external address is configured.
    pub fn fleet_settings(&self, fallback: &str) -> FleetSettings {
        let external_urls =
            if self.external_urls.is_empty() { vec![fallback.to_owned()] } else { self.external_urls.clone() };
        FleetSettings {
            long_poll: self.poll.default,
            poll_jitter: self.poll.jitter,
            max_poll: self.poll.max,
            external_urls,
            highest_version: self.highest_version,
            lowest_version: self.lowest_version,
            build_hash: self.build.hash.clone(),
            ..FleetSettings::default()
        }
    }
}

impl Values {
    fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), Value::Flag(true))
    }

    fn count(&self, key: &str) -> u64 {
        if let Value::Count(count) = self.get(key) { *count } else { 0 }
    }

    fn span(&self, key: &str) -> Duration {
        if let Value::Span(span) = self.get(key) { *span } else { Duration::ZERO }
    }

    fn text(&self, key: &str) -> &str {
        if let Value::Text(text) = self.get(key) { text } else { "" }
    }

    fn path(&self, key: &str) -> Option<Utf8PathBuf> {
        Some(self.text(key)).filter(|path| !path.is_empty()).map(Utf8PathBuf::from)
    }

    fn address(&self, key: &str) -> Option<SocketAddr> {
        if let Value::Address(address) = self.get(key) { *address } else { None }
    }

    fn version(&self, key: &str) -> (u32, Option<u32>) {
        if let Value::Version(major, minor) = self.get(key) { (*major, *minor) } else { (0, None) }
    }

    fn problem(&self, key: &str, reason: impl Into<String>) -> Problem {
        Problem { source: self.source(key), key: key.to_owned(), reason: reason.into() }
    }
}

/// Final types from values; what does not fit together becomes problems.
pub(super) fn build(values: &Values, layers: &Layers, problems: &mut Vec<Problem>) -> Config {
    let (lowest_major, lowest_minor) = values.version("agents.lowest_version");
    let config = Config {
        data_dir: data_dir(values, layers, problems),
        external_urls: external_urls(values),
        insecure_http: values.flag("insecure_http"),
        listen: ListenConfig {
            agent: values.address("agent.listen"),
            local: values.address("local.listen"),
            admin: values.address("admin.listen"),
        },
        admin_hosts: if let Value::Hosts(hosts) = values.get("admin.hosts") { hosts.clone() } else { Vec::new() },
        tls: tls(values, problems),
        poll: poll(values),
        timeouts: timeouts(values),
        max_connections: values.count("limits.max_connections"),
        limits: limits(values),
        uploads: uploads(values),
        highest_version: values.version("agents.highest_version"),
        lowest_version: (lowest_major, lowest_minor.unwrap_or(0)),
        new_fleet: false,
        build: Build::default(),
        log_json: values.text("log.format") == "json",
        log_level: values.text("log.level").to_owned(),
    };
    check(&config, values, problems);
    config
}

fn external_urls(values: &Values) -> Vec<String> {
    if let Value::Urls(urls) = values.get("external_url") { urls.clone() } else { Vec::new() }
}

fn data_dir(values: &Values, layers: &Layers, problems: &mut Vec<Problem>) -> Utf8PathBuf {
    if let Some(path) = values.path("data_dir") {
        return path;
    }
    default_data_dir(layers.root, &layers.environment).unwrap_or_else(|| {
        problems.push(values.problem("data_dir", "there is no home folder to derive it from; set it"));
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
    let custom = match (values.path("tls.cert"), values.path("tls.key")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            problems.push(values.problem("tls.cert", "needs tls.key beside it"));
            None
        }
        (None, Some(_)) => {
            problems.push(values.problem("tls.key", "needs tls.cert beside it"));
            None
        }
    };
    TlsConfig { custom, client_ca: values.path("tls.client_ca") }
}

fn poll(values: &Values) -> PollLimits {
    let default = values.span("timeouts.checkin_long_poll");
    let jitter = values.span("timeouts.checkin_jitter");
    // An operator who shortens the poll need not know of the jitter.
    let is_default = matches!(values.source("timeouts.checkin_jitter"), Source::Default);
    PollLimits {
        default,
        jitter: if is_default { jitter.min(default / 10) } else { jitter },
        max: values.span("timeouts.checkin_max_poll"),
    }
}

fn timeouts(values: &Values) -> Timeouts {
    Timeouts {
        handshake: values.span("timeouts.handshake"),
        read_header: values.span("timeouts.read_header"),
        read: values.span("timeouts.read"),
        write: values.span("timeouts.write"),
        write_stall: values.span("timeouts.write_stall"),
        idle: values.span("timeouts.idle"),
        hold: values.span("timeouts.checkin_max_poll"),
        drain: values.span("timeouts.drain"),
    }
}

fn limits(values: &Values) -> Limits {
    let mut limits = Limits::default();
    limits.read_timeout = values.span("timeouts.read");
    limits.max_decompressed = size(values.count("limits.checkin.max_body_decompressed"));
    for operation in Operation::ALL {
        *limits.of_mut(operation) = operation_limit(values, operation.key());
    }
    limits
}

fn uploads(values: &Values) -> UploadLimits {
    UploadLimits {
        max_bytes: values.count("uploads.max_bytes"),
        max_bytes_per_agent: values.count("uploads.max_bytes_per_agent"),
        max_open_per_agent: values.count("uploads.max_open_per_agent"),
        min_free_bytes: values.count("uploads.min_free_bytes"),
    }
}

fn operation_limit(values: &Values, name: &str) -> OperationLimit {
    let key = |field: &str| format!("limits.{name}.{field}");
    OperationLimit {
        interval: values.span(&key("interval")),
        burst: u32::try_from(values.count(&key("burst"))).unwrap_or(u32::MAX),
        max: size(values.count(&key("max"))),
        max_body: size(values.count(&key("max_body"))),
    }
}

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// What single values can't tell.
fn check(config: &Config, values: &Values, problems: &mut Vec<Problem>) {
    for (key, address) in [("agent.listen", config.listen.agent), ("local.listen", config.listen.local)] {
        if let Some(address) = address.filter(|address| config.insecure_http && !address.ip().is_loopback()) {
            let reason = format!("{address} is not a loopback address, and insecure_http is on: use 127.0.0.1, or TLS");
            problems.push(values.problem(key, reason));
        }
    }
    for url in config.external_urls.iter().filter(|url| url.starts_with("http:") && !config.insecure_http) {
        problems.push(values.problem("external_url", format!("{url} is plain HTTP, and insecure_http is off")));
    }
    let PollLimits { default: long_poll, jitter, .. } = config.poll;
    if !jitter.is_zero() && jitter >= long_poll {
        let reason = format!("must be shorter than timeouts.checkin_long_poll, {}", write_span(long_poll));
        problems.push(values.problem("timeouts.checkin_jitter", reason));
    }
    if !values.text("database").is_empty() {
        let reason = "only SQLite in the data folder is supported by this version; leave it out";
        problems.push(values.problem("database", reason));
    }
    let UploadLimits { max_bytes, max_bytes_per_agent, .. } = config.uploads;
    if max_bytes > max_bytes_per_agent {
        problems.push(values.problem("uploads.max_bytes", "is above uploads.max_bytes_per_agent"));
    }
    check_versions(config, values, problems);
}

fn check_versions(config: &Config, values: &Values, problems: &mut Vec<Problem>) {
    let highest = (config.highest_version.0, config.highest_version.1.unwrap_or(u32::MAX));
    if config.lowest_version > highest {
        problems.push(values.problem("agents.lowest_version", "is above agents.highest_version"));
    }
}
