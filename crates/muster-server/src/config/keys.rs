//! The configuration keys: type, default, meaning, and the flag that sets each.

use std::sync::LazyLock;
use std::time::Duration;

use super::value::{Kind, Raw, Value, write_span};
use muster_elastic::limits::{Limits, Operation};
use muster_fleet::upload_limits::UploadLimits;

/// One key of the configuration.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Name, with dots between sections.
    pub key: String,
    /// Type of its value.
    pub kind: Kind,
    /// Default, as written in a file.
    pub default: Raw,
    /// Meaning, in lines of prose.
    pub help: String,
    /// Flag of `muster serve` that sets it, if there is one besides `--set`.
    pub flag: Option<&'static str>,
}

impl Definition {
    /// Returns the environment variable that sets the key.
    pub fn variable(&self) -> String {
        format!("MUSTER_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// Returns the default as a value.
    pub fn default_value(&self) -> Value {
        self.kind.parse(&self.default).expect("defaults are of their kind; a test reads them all")
    }
}

const DAY: Duration = Duration::from_secs(86_400);
const ANY: Kind = Kind::Span { min: Duration::ZERO, max: DAY };
const SOME: Kind = Kind::Span { min: Duration::from_millis(1), max: DAY };
const SIZE: Kind = Kind::Count { max: 64 << 20 };
const FILES: Kind = Kind::Count { max: 1 << 50 };
const NUMBER: Kind = Kind::Count { max: 10_000_000 };

/// Every key, in the order of the default file.
pub static KEYS: LazyLock<Vec<Definition>> =
    LazyLock::new(|| [general(), listeners(), tls(), timeouts(), limits(), uploads(), agents(), log()].concat());

/// Returns the definition of `key`.
pub fn find(key: &str) -> Option<&'static Definition> {
    KEYS.iter().find(|definition| definition.key == key)
}

fn key(key: &str, kind: Kind, default: Raw, flag: Option<&'static str>, help: &str) -> Definition {
    Definition { key: key.into(), kind, default, help: help.into(), flag }
}

fn text(value: &str) -> Raw {
    Raw::Text(value.into())
}

fn general() -> Vec<Definition> {
    vec![
        key(
            "data_dir",
            Kind::Text,
            text(""),
            Some("--data-dir"),
            "Directory of the database, the certificates and the keys.\nDefault: /var/lib/muster for root, otherwise $XDG_STATE_HOME/muster (~/.local/state/muster).",
        ),
        key(
            "database",
            Kind::Text,
            text(""),
            Some("--database"),
            "URL of the database. Empty means SQLite in the data directory.",
        ),
        key(
            "external_url",
            Kind::Urls,
            Raw::List(Vec::new()),
            Some("--external-url"),
            "URLs at which agents reach this server, each https://HOST:PORT.\nThe server's own certificate covers their hosts, and this host's names and addresses.\nDefault: the bound address of `agent.listen` (of `local.listen` if that is `none`), with this host's name\nin place of 0.0.0.0 or [::].",
        ),
        key(
            "insecure_http",
            Kind::Flag,
            Raw::Flag(false),
            Some("--insecure-http"),
            "Serve agents over plain HTTP, on loopback addresses only.",
        ),
    ]
}

fn listeners() -> Vec<Definition> {
    vec![
        key(
            "agent.listen",
            Kind::Address,
            text("0.0.0.0:8220"),
            Some("--agent-listen"),
            "Listener for agents. Port 0 selects a free port; `none` disables the listener.",
        ),
        key(
            "local.listen",
            Kind::Address,
            text("127.0.0.1:8221"),
            Some("--local-listen"),
            "Listener for the agent on this host, with limits of its own.",
        ),
        key(
            "admin.listen",
            Kind::Address,
            text("127.0.0.1:8230"),
            Some("--admin-listen"),
            "Listener for the REST API and metrics: plain HTTP on a loopback address, TLS on any other.",
        ),
    ]
}

fn tls() -> Vec<Definition> {
    vec![
        key(
            "tls.cert",
            Kind::Text,
            text(""),
            Some("--tls-cert"),
            "PEM file with a certificate and its chain, instead of a certificate by the server's own CA.\nReloaded when it changes, and on SIGHUP.",
        ),
        key("tls.key", Kind::Text, text(""), Some("--tls-key"), "PEM file with the private key of `tls.cert`."),
        key(
            "tls.client_ca",
            Kind::Text,
            text(""),
            Some("--tls-client-ca"),
            "PEM file with CAs for optional client certificates: a certificate that is presented must chain to one of them.",
        ),
    ]
}

fn timeouts() -> Vec<Definition> {
    vec![
        key(
            "timeouts.checkin_long_poll",
            ANY,
            text("5m"),
            None,
            "Duration of a long poll: how long a check-in is held while nothing is due. With 0s check-ins are answered immediately, and\nagents poll about once a second. Agents time out after 10 minutes.",
        ),
        key(
            "timeouts.checkin_jitter",
            ANY,
            text("30s"),
            None,
            "Maximum of a random duration that is subtracted from the long poll, so that agents do not return all at once. The default is at most\na tenth of timeouts.checkin_long_poll.",
        ),
        key("timeouts.checkin_max_poll", SOME, text("1h"), None, "Maximum long poll that an agent may request."),
        key("timeouts.handshake", SOME, text("10s"), None, "Maximum time of a TLS handshake."),
        key(
            "timeouts.read_header",
            SOME,
            text("5s"),
            None,
            "Maximum time to read the head of a request, from its first byte.",
        ),
        key(
            "timeouts.read",
            SOME,
            text("1m"),
            None,
            "Maximum time to read the body of a request, from the end of its head; at most 20s except for chunks of uploads.",
        ),
        key("timeouts.write", SOME, text("10m"), None, "Maximum total time that a client may block a response."),
        key("timeouts.write_stall", SOME, text("30s"), None, "Maximum time without progress while a response is sent."),
        key("timeouts.idle", SOME, text("35s"), None, "Maximum idle time between two requests of a connection."),
        key("timeouts.drain", ANY, text("10s"), None, "Maximum time to wait for running requests on shutdown."),
    ]
}

fn limits() -> Vec<Definition> {
    let defaults = Limits::default();
    let mut keys = vec![key(
        "limits.max_connections",
        NUMBER,
        Raw::Integer(0),
        None,
        "Maximum number of concurrent requests on the agent listener, held check-ins included; more are answered 429.\n\
         Up to 10 % more connections are accepted, any further ones are closed.\n\
         0 means as many as the limit of open files allows. Other listeners accept 256, or this if it is less.",
    )];
    keys.extend(Operation::ALL.iter().flat_map(|operation| operation_keys(*operation, &defaults)));
    keys.push(key(
        "limits.checkin.max_body_decompressed",
        SIZE,
        size(defaults.max_decompressed),
        None,
        "Maximum size of a check-in's body after decompression, in bytes.",
    ));
    keys
}

fn size(bytes: usize) -> Raw {
    i64::try_from(bytes).map_or(Raw::Other("a number too large"), Raw::Integer)
}

fn operation_keys(operation: Operation, defaults: &Limits) -> Vec<Definition> {
    let limit = defaults.of(operation);
    let section = |field: &str| format!("limits.{}.{field}", operation.key());
    let what = operation_help(operation);
    let interval =
        format!("{what}\nToken bucket: one request per `interval`, with a capacity of `burst`; 0 means no rate limit.");
    vec![
        key(&section("interval"), ANY, text(&write_span(limit.interval)), None, &interval),
        key(&section("burst"), NUMBER, Raw::Integer(i64::from(limit.burst)), None, "Capacity of the token bucket."),
        key(&section("max"), NUMBER, size(limit.max), None, "Maximum number of concurrent requests; 0 means no limit."),
        key(
            &section("max_body"),
            SIZE,
            size(limit.max_body),
            None,
            "Maximum body size in bytes; 0 means the global limit of 64 MiB.",
        ),
    ]
}

fn operation_help(operation: Operation) -> &'static str {
    match operation {
        Operation::Status => "Status requests.",
        Operation::Enroll => "Enrolments.",
        Operation::CheckIn => "Check-ins. A held check-in counts against `max` for its whole duration.",
        Operation::Ack => "Acknowledgements of actions.",
        Operation::AuditUnenroll => "Reports of uninstalled agents.",
        Operation::Artifact => "Artifact downloads.",
        Operation::UploadStart => "Upload begin requests.",
        Operation::UploadChunk => "Upload chunks. Each running request holds its chunk in memory.",
        Operation::UploadEnd => "Upload complete requests.",
        Operation::FileDelivery => "File downloads by agents.",
        Operation::PgpRetrieval => "Requests for the PGP key that signs upgrades.",
    }
}

fn uploads() -> Vec<Definition> {
    let UploadLimits { max_bytes, max_bytes_per_agent, max_open_per_agent } = UploadLimits::default();
    let number = |number: u64| i64::try_from(number).map_or(Raw::Other("a number too large"), Raw::Integer);
    vec![
        key(
            "uploads.max_bytes",
            FILES,
            number(max_bytes),
            None,
            "Maximum size of an uploaded file, such as a diagnostics bundle, in bytes; 0 disables uploads.",
        ),
        key(
            "uploads.max_bytes_per_agent",
            FILES,
            number(max_bytes_per_agent),
            None,
            "Maximum total size of the files of one agent, in bytes; an upload that would exceed it is rejected. Files are kept for 7 days.",
        ),
        key(
            "uploads.max_open_per_agent",
            NUMBER,
            number(max_open_per_agent),
            None,
            "Maximum number of concurrent uploads of one agent; more are answered 429.",
        ),
    ]
}

fn agents() -> Vec<Definition> {
    vec![
        key(
            "agents.highest_version",
            Kind::Version { minor: false },
            text("9"),
            None,
            "Highest agent version that is accepted: `MAJOR` (any minor version) or `MAJOR.MINOR`.",
        ),
        key(
            "agents.lowest_version",
            Kind::Version { minor: true },
            text("7.13"),
            None,
            "Lowest agent version that is accepted.",
        ),
    ]
}

fn log() -> Vec<Definition> {
    vec![
        key("log.format", Kind::Choice(&["text", "json"]), text("text"), Some("--log-format"), "Format of log lines."),
        key(
            "log.level",
            Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
            text("info"),
            Some("--log-level"),
            "Minimum log level.",
        ),
    ]
}
