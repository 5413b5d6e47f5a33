//! The configuration keys, with their types, defaults, meanings and flags.

use std::sync::LazyLock;
use std::time::Duration;

use super::names::{self, Key, Setting};
use super::value::{Kind, Raw, Value, write_span};
use muster_core::fleetd::identifier::HostIdentifier;
use muster_elastic::limits::{Limits, Operation};
use muster_fleet::upload_limits::UploadLimits;

/// One key of the configuration.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Name of the key, with dots between sections.
    pub key: String,
    /// Type of its value.
    pub kind: Kind,
    /// Default, as written in a file.
    pub default: Raw,
    /// Meaning, in one or more lines.
    pub help: String,
    /// Flag of `muster serve` that sets it, if there is one besides `--set`.
    pub flag: Option<&'static str>,
    /// Returns whether a value has the type in which the key is read.
    is_read_as_defined: fn(&Value) -> bool,
}

impl Definition {
    /// Returns the environment variable that sets the key.
    pub fn variable(&self) -> String {
        format!("MUSTER_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// Returns the default as a value.
    pub fn default_value(&self) -> Value {
        // Defaults are parsed like any other value, so that they cannot violate the limits of their kind.
        let value = self.kind.parse(&self.default).ok().filter(self.is_read_as_defined);
        value.expect("defaults are of their kind, and kinds of their key's type; a test reads them all")
    }
}

const DAY: Duration = Duration::from_secs(86_400);
// Deadlines longer than a day are likely to be mistakes in the unit.
const ANY: Kind = Kind::Span { min: Duration::ZERO, max: DAY };
const SOME: Kind = Kind::Span { min: Duration::from_millis(1), max: DAY };
const SIZE: Kind = Kind::Count { max: 64 << 20 };
const FILES: Kind = Kind::Count { max: 1 << 50 };
const NUMBER: Kind = Kind::Count { max: 10_000_000 };

/// Every key, in the order of the default file.
pub static KEYS: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    [general(), listeners(), auth(), outgoing(), tls(), timeouts(), limits(), uploads(), agents(), osquery(), log()]
        .concat()
});

/// Returns the definition of `key`.
pub fn find(key: &str) -> Option<&'static Definition> {
    KEYS.iter().find(|definition| definition.key == key)
}

fn key<T: Setting>(key: &Key<T>, kind: Kind, default: Raw, flag: Option<&'static str>, help: &str) -> Definition {
    let is_read_as_defined = |value: &Value| T::of(value).is_some();
    Definition { key: key.name().to_owned(), kind, default, help: help.into(), flag, is_read_as_defined }
}

fn text(value: &str) -> Raw {
    Raw::Text(value.into())
}

fn general() -> Vec<Definition> {
    vec![
        key(
            &names::DATA_DIR,
            Kind::Text,
            text(""),
            Some("--data-dir"),
            "Directory for the database, certificates and keys.\nDefault: /var/lib/muster for root, otherwise $XDG_STATE_HOME/muster (~/.local/state/muster).",
        ),
        key(
            &names::DATABASE,
            Kind::Text,
            text(""),
            Some("--database"),
            "URL of a PostgreSQL database: postgres://USER@HOST:PORT/DATABASE. Empty means SQLite in the data directory.\nThe server reads the password from PGPASSWORD, from the file in passfile= or PGPASSFILE, or from ~/.pgpass.\nConnections to other hosts use TLS and verify the database server (sslmode=verify-full, sslrootcert=FILE).",
        ),
        key(
            &names::MASTER_KEY_FILE,
            Kind::Text,
            text(""),
            Some("--master-key-file"),
            "File with the master key: 32 bytes, readable only by the server's user. The server never writes this file.\nDefault: `master.key` in the data directory, which the server creates at its first start. All servers of a fleet need the same key.",
        ),
        key(
            &names::EXTERNAL_URL,
            Kind::Urls,
            Raw::List(Vec::new()),
            Some("--external-url"),
            "URLs that agents use to connect to the fleet, each in the form https://HOST:PORT. They are stored in the database and\nshared by all servers; starting a server with different URLs replaces them. Without this key, a server uses the stored ones.\nA certificate signed by the fleet's own CA covers the hosts of these URLs, and the names and addresses of this host.\nIf this key was never set, agents use the address of the first server's `agent.listen` (`local.listen` if that is `none`),\nwith the host's name in place of 0.0.0.0 or [::].",
        ),
        key(
            &names::INSECURE_HTTP,
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
            &names::AGENT_LISTEN,
            Kind::Address,
            text("0.0.0.0:8220"),
            Some("--agent-listen"),
            "Listener for agents. Port 0 selects a free port; `none` disables the listener.",
        ),
        key(
            &names::LOCAL_LISTEN,
            Kind::Address,
            text("127.0.0.1:8221"),
            Some("--local-listen"),
            "Listener for the agent on this host. Its limits are separate from those of `agent.listen`.",
        ),
        key(
            &names::ADMIN_LISTEN,
            Kind::Address,
            text("127.0.0.1:8230"),
            Some("--admin-listen"),
            "Listener for the REST API and metrics. It uses plain HTTP on loopback addresses, and TLS on others.",
        ),
        key(
            &names::ADMIN_HOSTS,
            Kind::Hosts,
            Raw::List(Vec::new()),
            None,
            "Additional host names for `admin.listen`, such as the name of a reverse proxy. IP addresses, `localhost`, this host's name\nand the hosts of `external_url` are always allowed. Requests with any other `Host` are rejected, which protects against\nDNS rebinding.",
        ),
        key(
            &names::ADMIN_TRUSTED_PROXIES,
            Kind::Networks,
            Raw::List(Vec::new()),
            None,
            "Addresses and networks of reverse proxies in front of `admin.listen`, such as 127.0.0.1 or 10.0.0.0/24. The server takes the client's\naddress from the header `X-Forwarded-For` of their requests, and `https` from `X-Forwarded-Proto`. Without it, all users behind a proxy share its\naddress in the audit log, and the limit on failed logins.",
        ),
        key(
            &names::ADMIN_BASE_PATH,
            Kind::BasePath,
            text(""),
            None,
            "Path under which a reverse proxy publishes `admin.listen`, such as /muster. Pages, redirects, cookies and the OpenAPI\ndocument include it. The proxy may pass it on or strip it. The header `X-Forwarded-Prefix` is ignored.",
        ),
        key(
            &names::ADMIN_METRICS,
            Kind::Choice(&["listener", "socket"]),
            text("listener"),
            None,
            "Where `/metrics` is available without authentication. `listener`: on `admin.listen` and `admin.sock`, and thus to other users\nof this host. `socket`: only on `admin.sock`, to which only root and the server's user can connect.",
        ),
    ]
}

fn auth() -> Vec<Definition> {
    vec![key(
        &names::AUTH_BASIC,
        Kind::Flag,
        Raw::Flag(false),
        None,
        "Accept names and passwords in the header `Authorization: Basic` of the REST API, for clients that support nothing else.\nEvery request then requires a password hash. API tokens are always accepted.",
    )]
}

fn outgoing() -> Vec<Definition> {
    vec![key(
        &names::LOCAL_TARGETS,
        Kind::Flag,
        Raw::Flag(false),
        None,
        "Permit the server to connect to loopback and link-local addresses, to the addresses of its own interfaces, and to those of cloud metadata\nservices: for alerts, to issue the keys of outputs, and for connection tests. Without it, administrators of a space cannot use alerts and outputs to reach\nservices of the server's own host.",
    )]
}

fn tls() -> Vec<Definition> {
    vec![
        key(
            &names::TLS_CERT,
            Kind::Text,
            text(""),
            Some("--tls-cert"),
            "PEM file with a certificate and its chain, instead of a certificate signed by the fleet's own CA.\nReloaded on SIGHUP and when the file changes.",
        ),
        key(&names::TLS_KEY, Kind::Text, text(""), Some("--tls-key"), "PEM file with the private key of `tls.cert`."),
        key(
            &names::TLS_KEY_PASSPHRASE,
            Kind::Text,
            text(""),
            None,
            "File with the passphrase of `tls.key`, if the key is encrypted (PKCS#8). Only the first line is used.",
        ),
        key(
            &names::TLS_CLIENT_CA,
            Kind::Text,
            text(""),
            Some("--tls-client-ca"),
            "PEM file with the CAs of client certificates. A certificate that a client presents must chain to one of these CAs.",
        ),
        key(
            &names::TLS_CLIENT_AUTH,
            Kind::Choice(&["optional", "required"]),
            text("optional"),
            Some("--tls-client-auth"),
            "Whether agents need a client certificate, if `tls.client_ca` is set. `required` applies to `agent.listen`, except for\nthe status and ping endpoints and the pages for the users of hosts.",
        ),
        key(
            &names::TLS_CLIENT_CRL,
            Kind::Text,
            text(""),
            Some("--tls-client-crl"),
            "PEM file with the revocation list of each CA in `tls.client_ca`. Certificates of a CA without a list are rejected.\nReloaded on SIGHUP and when the file changes. An expired list stays in use.",
        ),
        key(
            &names::TLS_CLIENT_BIND_HOSTS,
            Kind::Flag,
            Raw::Flag(false),
            None,
            "Whether a host of fleetd that enrolls with a client certificate is bound to the names in it: its subject and its\nsubject alternative names. Requests and enrollments of the host with another certificate, or without one, are rejected.",
        ),
    ]
}

fn timeouts() -> Vec<Definition> {
    vec![
        key(
            &names::LONG_POLL,
            ANY,
            text("5m"),
            None,
            "Time for which the server holds a check-in while nothing is due (long poll). With 0s, the server responds immediately,\nand agents poll about once a second. Keep the value well below 10 minutes, the request timeout of Elastic Agents.",
        ),
        key(
            &names::JITTER,
            ANY,
            text("30s"),
            None,
            "Maximum random duration that is subtracted from each long poll, so that agents do not all check in at the same time.\nThe default is capped at a tenth of `timeouts.checkin_long_poll`.",
        ),
        key(&names::MAX_POLL, SOME, text("1h"), None, "Maximum duration of a long poll that an agent can request."),
        key(&names::HANDSHAKE, SOME, text("10s"), None, "Maximum duration of a TLS handshake, from its first byte."),
        key(
            &names::READ_HEADER,
            SOME,
            text("5s"),
            None,
            "Maximum time to receive the head of a request, from its first byte.",
        ),
        key(
            &names::READ,
            SOME,
            text("1m"),
            None,
            "Maximum time to receive the body of a request, from the end of its head. Capped at 20s, except for upload chunks.",
        ),
        key(&names::WRITE, SOME, text("10m"), None, "Maximum total time that a client may block a response."),
        key(&names::WRITE_STALL, SOME, text("30s"), None, "Maximum time without progress while a response is sent."),
        key(
            &names::IDLE,
            SOME,
            text("75s"),
            None,
            "Maximum time that a connection can be idle, including the time before its first request.\n\
             Behind a load balancer, it must be longer than the load balancer's idle timeout for server connections.\n\
             One sixteenth of all connections (at least 16, at most 1024) can be idle without authentication. Further\n\
             unauthenticated connections must send a request within `timeouts.read_header`, and are closed after the response.",
        ),
        key(&names::DRAIN, ANY, text("10s"), None, "Maximum time to wait for in-flight requests during shutdown."),
    ]
}

fn limits() -> Vec<Definition> {
    let defaults = Limits::default();
    let mut keys = vec![key(
        &names::MAX_CONNECTIONS,
        NUMBER,
        Raw::Integer(0),
        None,
        "Maximum number of concurrent requests on the agent listener, including held check-ins. Further requests\n\
             are rejected with 429. The listener accepts 10 % more connections than this number, and closes further connections\n\
             immediately unless they can replace another one.\n\
         Unauthenticated connections from one address can use at most half of the listener's connections. When all are in use, a\n\
             new connection replaces an unauthenticated one that has sent no request.\n\
         0 derives the value from the limit on open files. On the other listeners, the limit is 256, or this value if it is lower.",
    )];
    keys.extend(Operation::ALL.iter().flat_map(|operation| operation_keys(*operation, &defaults)));
    keys.push(key(
        &names::MAX_DECOMPRESSED,
        SIZE,
        size(defaults.max_decompressed),
        None,
        "Maximum size of the decompressed body of a check-in, in bytes.",
    ));
    keys
}

fn size(bytes: usize) -> Raw {
    i64::try_from(bytes).map_or(Raw::Other("a number too large"), Raw::Integer)
}

fn operation_keys(operation: Operation, defaults: &Limits) -> Vec<Definition> {
    let limit = defaults.of(operation);
    let interval = format!(
        "Rate limit for {}: one request per `interval`, in bursts of up to `burst` requests; 0 means no limit.",
        requests(operation)
    );
    vec![
        key(&names::interval(operation), ANY, text(&write_span(limit.interval)), None, &interval),
        key(
            &names::burst(operation),
            NUMBER,
            Raw::Integer(i64::from(limit.burst)),
            None,
            "Maximum number of requests in a burst.",
        ),
        key(&names::max(operation), NUMBER, size(limit.max), None, concurrent(operation)),
        key(
            &names::max_body(operation),
            SIZE,
            size(limit.max_body),
            None,
            "Maximum body size in bytes; 0 means the global limit of 64 MiB.",
        ),
    ]
}

fn requests(operation: Operation) -> &'static str {
    match operation {
        Operation::Status => "status requests",
        Operation::Enroll => "enrollments",
        Operation::CheckIn => "check-ins",
        Operation::Ack => "acks",
        Operation::AuditUnenroll => "reports of uninstalled agents",
        Operation::Artifact => "artifact downloads",
        Operation::UploadStart => "requests that start an upload",
        Operation::UploadChunk => "upload chunks",
        Operation::UploadEnd => "requests that complete an upload",
        Operation::FileDelivery => "file downloads by agents",
        Operation::PgpRetrieval => "requests for the public PGP key that verifies upgrades",
    }
}

fn concurrent(operation: Operation) -> &'static str {
    match operation {
        Operation::CheckIn => "Maximum number of concurrent requests, including held check-ins; 0 means no limit.",
        Operation::UploadChunk => {
            "Maximum number of concurrent requests, each with a chunk in memory; 0 means no limit."
        }
        _ => "Maximum number of concurrent requests; 0 means no limit.",
    }
}

fn uploads() -> Vec<Definition> {
    let UploadLimits { max_bytes, max_bytes_per_agent, max_open_per_agent, min_free_bytes } = UploadLimits::default();
    let number = |number: u64| i64::try_from(number).map_or(Raw::Other("a number too large"), Raw::Integer);
    vec![
        key(
            &names::UPLOAD_MAX_BYTES,
            FILES,
            number(max_bytes),
            None,
            "Maximum size of an uploaded file, such as a diagnostics bundle, in bytes; 0 disables uploads.",
        ),
        key(
            &names::UPLOAD_MAX_BYTES_PER_AGENT,
            FILES,
            number(max_bytes_per_agent),
            None,
            "Maximum total size of an agent's uploaded files, in bytes. Files are kept for 7 days.",
        ),
        key(
            &names::UPLOAD_MAX_OPEN_PER_AGENT,
            NUMBER,
            number(max_open_per_agent),
            None,
            "Maximum number of concurrent uploads of one agent; further uploads are rejected with 429.",
        ),
        key(
            &names::UPLOAD_MIN_FREE_BYTES,
            FILES,
            number(min_free_bytes),
            None,
            "Minimum free disk space in the data directory, in bytes. If less is free, uploads are rejected, and agents retry.",
        ),
    ]
}

fn agents() -> Vec<Definition> {
    vec![
        key(
            &names::HIGHEST_VERSION,
            Kind::Version { minor: false },
            text("9"),
            None,
            "Highest accepted version of agents: `MAJOR` (any minor version) or `MAJOR.MINOR`.",
        ),
        key(
            &names::LOWEST_VERSION,
            Kind::Version { minor: true },
            text("7.13"),
            None,
            "Lowest accepted version of agents.",
        ),
    ]
}

fn osquery() -> Vec<Definition> {
    vec![
        key(
            &names::OSQUERY_LOG_DIRECTORY,
            Kind::Text,
            text(""),
            None,
            "Directory for the logs of osquery: osquery_result.log and osquery_status.log, in JSON lines. It must exist, and belongs\nto one server. Empty means that the log lines of hosts are discarded.",
        ),
        key(
            &names::OSQUERY_LOG_FILE_BYTES,
            FILES,
            Raw::Integer(100 << 20),
            None,
            "Size in bytes at which an osquery log is rotated.",
        ),
        key(
            &names::OSQUERY_LOG_FILES,
            Kind::Count { max: 1000 },
            Raw::Integer(10),
            None,
            "Maximum number of files of each osquery log, including the current one. The oldest is deleted; 0 means 1.",
        ),
        key(
            &names::OSQUERY_FORWARD_URL,
            Kind::Text,
            text(""),
            None,
            "URL to which the lines of both logs are sent by POST, such as the `/v1/logs` of an OpenTelemetry Collector. Requires\n`osquery.log_directory`, whose files keep the lines until the receiver has accepted them.",
        ),
        key(
            &names::OSQUERY_FORWARD_FORMAT,
            Kind::Choice(&["ndjson", "otlp"]),
            text("ndjson"),
            None,
            "Format of these requests. `ndjson`: the lines as they are in the files. `otlp`: OTLP over HTTP with JSON.",
        ),
        key(
            &names::OSQUERY_FORWARD_AUTHORIZATION,
            Kind::Text,
            text(""),
            None,
            "File with the value of the header `Authorization` of these requests, such as `Bearer TOKEN`.",
        ),
        key(
            &names::OSQUERY_FORWARD_CA,
            Kind::Text,
            text(""),
            None,
            "PEM file with the CAs that sign the receiver's certificate, instead of those of the system.",
        ),
        key(
            &names::OSQUERY_PUSH,
            Kind::Flag,
            Raw::Flag(false),
            None,
            "Whether orbit keeps a WebSocket connection open, over which the server tells it that queries are due. Needs a version of\norbit that supports it.",
        ),
        key(
            &names::OSQUERY_IDENTIFIER,
            Kind::Choice(&HostIdentifier::NAMES),
            text("provided"),
            None,
            "Identifier by which the server recognizes the host of an osqueryd that enrolls. `provided`: the one that osqueryd sends.\n`uuid`, `instance`, `hostname`: the one in its details, or the provided one if that is missing.",
        ),
        key(
            &names::OSQUERY_COOLDOWN,
            ANY,
            text("0s"),
            None,
            "Minimum time between two enrollments of an osqueryd; 0s for no limit. Of two hosts with the same\nidentifier, one is then rejected, instead of both replacing each other.",
        ),
    ]
}

fn log() -> Vec<Definition> {
    vec![
        key(
            &names::LOG_FORMAT,
            Kind::Choice(&["text", "json"]),
            text("text"),
            Some("--log-format"),
            "Format of log lines.",
        ),
        key(
            &names::LOG_LEVEL,
            Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
            text("info"),
            Some("--log-level"),
            "Minimum log level.",
        ),
    ]
}
