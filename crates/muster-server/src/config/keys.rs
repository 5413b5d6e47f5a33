//! The table of every key: its kind, its default, what it is for, and the flag that sets it.

use std::sync::LazyLock;
use std::time::Duration;

use super::names::{self, Key, Setting};
use super::value::{Kind, Raw, Value, write_span};
use muster_elastic::limits::{Limits, Operation};
use muster_fleet::upload_limits::UploadLimits;

/// One key of the configuration.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its name, sections divided by dots.
    pub key: String,
    /// What it holds.
    pub kind: Kind,
    /// Its default, as written in a file.
    pub default: Raw,
    /// What it is for; lines of prose.
    pub help: String,
    /// The flag of `muster serve` that sets it, when there is one beside `--set`.
    pub flag: Option<&'static str>,
    /// Whether a value is of the type in which the key is read.
    is_read_as_defined: fn(&Value) -> bool,
}

impl Definition {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("MUSTER_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// The default as a value.
    pub fn default_value(&self) -> Value {
        let value = self.kind.parse(&self.default).ok().filter(self.is_read_as_defined);
        value.expect("defaults are of their kind, and kinds of their key's type; a test reads them all")
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

/// The definition of `key`.
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
            "Folder of the database, the certificates and the keys.\nEmpty: /var/lib/muster for root, else $XDG_STATE_HOME/muster (~/.local/state/muster).",
        ),
        key(
            &names::DATABASE,
            Kind::Text,
            text(""),
            Some("--database"),
            "Address of the database. Empty: SQLite in the data folder.",
        ),
        key(
            &names::EXTERNAL_URL,
            Kind::Urls,
            Raw::List(Vec::new()),
            Some("--external-url"),
            "What agents are told as this server's addresses, each https://HOST:PORT.\nTheir hosts stand in the server's own certificate, beside this host's name and addresses.\nEmpty: the address that `agent.listen` came to, with its port (that of `local.listen` when it is `none`);\nthis host's name stands in place of 0.0.0.0 or [::].",
        ),
        key(
            &names::INSECURE_HTTP,
            Kind::Flag,
            Raw::Flag(false),
            Some("--insecure-http"),
            "Serve agents over plain HTTP. Loopback addresses only.",
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
            "Where agents connect. Port 0 takes any free port; `none` switches the listener off.",
        ),
        key(
            &names::LOCAL_LISTEN,
            Kind::Address,
            text("127.0.0.1:8221"),
            Some("--local-listen"),
            "Where the agent on this host connects, under limits of its own.",
        ),
        key(
            &names::ADMIN_LISTEN,
            Kind::Address,
            text("127.0.0.1:8230"),
            Some("--admin-listen"),
            "REST API and metrics. Plain HTTP on a loopback address, TLS on any other.",
        ),
        key(
            &names::ADMIN_HOSTS,
            Kind::Hosts,
            Raw::List(Vec::new()),
            None,
            "Further host names by which people reach `admin.listen`, such as a proxy's. Requests for other names are rejected:\na page in a browser must not reach this listener under its own name. Addresses, `localhost`, this host's name and the\nhosts of `external_url` are always served.",
        ),
    ]
}

fn tls() -> Vec<Definition> {
    vec![
        key(
            &names::TLS_CERT,
            Kind::Text,
            text(""),
            Some("--tls-cert"),
            "PEM file of a certificate and its chain, instead of one by the server's own CA.\nRead again when it changes and on SIGHUP.",
        ),
        key(
            &names::TLS_KEY,
            Kind::Text,
            text(""),
            Some("--tls-key"),
            "PEM file of the key that belongs to `tls.cert`.",
        ),
        key(
            &names::TLS_CLIENT_CA,
            Kind::Text,
            text(""),
            Some("--tls-client-ca"),
            "PEM file of CAs. A client that shows a certificate must show one by these; none is needed.",
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
            "How long a check-in is held when there is nothing to deliver; 0s: answered at once, which agents take as a\nreason to ask every second. Agents give up after 10 minutes.",
        ),
        key(
            &names::JITTER,
            ANY,
            text("30s"),
            None,
            "Upper bound of a random span that is taken off it, so that agents don't come back at once. Left at its default, it\nis never more than a tenth of timeouts.checkin_long_poll.",
        ),
        key(&names::MAX_POLL, SOME, text("1h"), None, "Highest span that an agent may ask for."),
        key(&names::HANDSHAKE, SOME, text("10s"), None, "Maximum duration of a TLS handshake, from its first byte."),
        key(
            &names::READ_HEADER,
            SOME,
            text("5s"),
            None,
            "Maximum time in which the head of a request must arrive, from its first byte.",
        ),
        key(
            &names::READ,
            SOME,
            text("1m"),
            None,
            "Body of a request, from the end of its head; 20s at most for any but a chunk of an upload.",
        ),
        key(
            &names::WRITE,
            SOME,
            text("10m"),
            None,
            "How long a client may be behind with taking a reply, from when it first takes no more.",
        ),
        key(&names::WRITE_STALL, SOME, text("30s"), None, "Longest pause of a client that does not read its reply."),
        key(
            &names::IDLE,
            SOME,
            text("75s"),
            None,
            "Maximum time that a connection may stay open without a request, also before its first one.\n\
             Behind a load balancer, make it longer than the balancer's own idle timeout for servers.\n\
             Of the connections that have not authenticated, one in sixteen of all (at least 16, at most 1024) may idle;\n\
             the others are closed after a response, and have `timeouts.read_header` to begin a request.",
        ),
        key(&names::DRAIN, ANY, text("10s"), None, "How long a stopping server waits for requests that run."),
    ]
}

fn limits() -> Vec<Definition> {
    let defaults = Limits::default();
    let mut keys = vec![key(
        &names::MAX_CONNECTIONS,
        NUMBER,
        Raw::Integer(0),
        None,
        "Requests at a time on the agent listener, held check-ins included; more get 429.\n\
         One connection in ten above that is accepted, more are closed at once.\n\
         One address gets at most half of the connections before it authenticates.\n\
         0: as many as the limit of open files allows. The other listeners take 256, or this if it is less.",
    )];
    keys.extend(Operation::ALL.iter().flat_map(|operation| operation_keys(*operation, &defaults)));
    keys.push(key(
        &names::MAX_DECOMPRESSED,
        SIZE,
        size(defaults.max_decompressed),
        None,
        "Highest size of a check-in's body after decompression, bytes.",
    ));
    keys
}

fn size(bytes: usize) -> Raw {
    i64::try_from(bytes).map_or(Raw::Other("a number too large"), Raw::Integer)
}

fn operation_keys(operation: Operation, defaults: &Limits) -> Vec<Definition> {
    let limit = defaults.of(operation);
    let what = operation_help(operation);
    let interval = format!("{what}\nOne more is let in each `interval`, up to `burst` saved up; 0 is no such limit.");
    vec![
        key(&names::interval(operation), ANY, text(&write_span(limit.interval)), None, &interval),
        key(&names::burst(operation), NUMBER, Raw::Integer(i64::from(limit.burst)), None, "How many may come at once."),
        key(&names::max(operation), NUMBER, size(limit.max), None, "How many may run at a time; 0 is no such limit."),
        key(
            &names::max_body(operation),
            SIZE,
            size(limit.max_body),
            None,
            "Highest size of a body, bytes; 0 is the bound of every body, 64 MiB.",
        ),
    ]
}

fn operation_help(operation: Operation) -> &'static str {
    match operation {
        Operation::Status => "Status requests.",
        Operation::Enroll => "Enrolments.",
        Operation::CheckIn => "Check-ins; a held one counts against `max` the whole time.",
        Operation::Ack => "Acknowledgements of actions.",
        Operation::AuditUnenroll => "Notices of uninstalled agents.",
        Operation::Artifact => "Artifact downloads.",
        Operation::UploadStart => "Beginnings of uploads.",
        Operation::UploadChunk => "Chunks of uploads; each running one holds its bytes in memory.",
        Operation::UploadEnd => "Ends of uploads.",
        Operation::FileDelivery => "Downloads of files by agents.",
        Operation::PgpRetrieval => "Requests for the PGP key of upgrades.",
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
            "Highest size of a file that an agent uploads, such as its diagnostics, bytes; 0 switches uploads off.",
        ),
        key(
            &names::UPLOAD_MAX_BYTES_PER_AGENT,
            FILES,
            number(max_bytes_per_agent),
            None,
            "Bytes of all files that are kept of an agent; one that would exceed it is refused. They are kept for 7 days.",
        ),
        key(
            &names::UPLOAD_MAX_OPEN_PER_AGENT,
            NUMBER,
            number(max_open_per_agent),
            None,
            "Uploads of an agent that may be under way at a time; it is told to come again with the next.",
        ),
        key(
            &names::UPLOAD_MIN_FREE_BYTES,
            FILES,
            number(min_free_bytes),
            None,
            "Free bytes on the data directory's disk below which uploads are rejected; agents retry.",
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
            "Highest version of agents that are let in: `MAJOR` takes any minor of it, or `MAJOR.MINOR`.",
        ),
        key(
            &names::LOWEST_VERSION,
            Kind::Version { minor: true },
            text("7.13"),
            None,
            "Lowest version of agents that are let in.",
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
            "Form of log lines.",
        ),
        key(
            &names::LOG_LEVEL,
            Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
            text("info"),
            Some("--log-level"),
            "Lowest level that is logged.",
        ),
    ]
}
