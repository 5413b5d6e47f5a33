//! Values of configuration keys: their types, and how they are parsed and formatted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::network::Network;
use muster_management::base_path::BasePath;

/// Type of a configuration value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Boolean.
    Flag,
    /// Non-negative integer with a maximum.
    Count {
        /// Maximum.
        max: u64,
    },
    /// Duration, written `250ms`, `30s`, `5m`, with a minimum and a maximum.
    Span {
        /// Minimum.
        min: Duration,
        /// Maximum.
        max: Duration,
    },
    /// One of several words.
    Choice(&'static [&'static str]),
    /// `ADDRESS:PORT`, or `none`.
    Address,
    /// Path under which a reverse proxy publishes the server; empty for none.
    BasePath,
    /// String, such as a path; empty means unset.
    Text,
    /// List of `https://HOST[:PORT]` URLs.
    Urls,
    /// List of host names, without ports.
    Hosts,
    /// List of IP addresses and networks (`ADDRESS/PREFIX`).
    Networks,
    /// Version: major and, with `minor` set, a required minor.
    Version {
        /// Whether the minor version is required.
        minor: bool,
    },
}

/// A value as its source wrote it.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// String; values from the environment and flags are always strings.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Flag(bool),
    /// A list of strings.
    List(Vec<String>),
    /// A TOML type that no key takes, by its name.
    Other(&'static str),
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// See [`Kind::Flag`].
    Flag(bool),
    /// See [`Kind::Count`].
    Count(u64),
    /// See [`Kind::Span`].
    Span(Duration),
    /// See [`Kind::Choice`], [`Kind::BasePath`] and [`Kind::Text`].
    Text(String),
    /// See [`Kind::Address`].
    Address(Option<SocketAddr>),
    /// See [`Kind::Urls`].
    Urls(Vec<String>),
    /// See [`Kind::Hosts`].
    Hosts(Vec<String>),
    /// See [`Kind::Networks`].
    Networks(Vec<Network>),
    /// See [`Kind::Version`].
    Version(u32, Option<u32>),
}

impl Kind {
    /// Parses `raw`, or returns the reason why it is invalid.
    pub fn parse(&self, raw: &Raw) -> Result<Value, String> {
        match self {
            Self::Flag => flag(raw).map(Value::Flag),
            Self::Count { max } => count(raw, *max).map(Value::Count),
            Self::Span { min, max } => span(text(raw)?, *min, *max).map(Value::Span),
            Self::Choice(words) => choice(text(raw)?, words).map(Value::Text),
            Self::Address => address(text(raw)?).map(Value::Address),
            Self::BasePath => {
                let path: Result<BasePath, _> = text(raw)?.parse();
                path.map(|path| Value::Text(path.to_string())).map_err(|error| error.to_string())
            }
            Self::Text => text(raw).map(|text| Value::Text(text.to_owned())),
            Self::Urls => items(raw)?.iter().map(|text| url(text)).collect::<Result<_, _>>().map(Value::Urls),
            Self::Hosts => items(raw)?.iter().map(|text| host(text)).collect::<Result<_, _>>().map(Value::Hosts),
            Self::Networks => {
                items(raw)?.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(Value::Networks)
            }
            Self::Version { minor } => version(&version_text(raw)?, *minor),
        }
    }

    /// Returns the name of the type for the documentation.
    pub fn describe(&self) -> String {
        match self {
            Self::Flag => "boolean".into(),
            Self::Count { .. } => "integer".into(),
            Self::Span { .. } => "duration".into(),
            Self::Choice(words) => alternatives(words),
            Self::Address => "`ADDRESS:PORT` or `none`".into(),
            Self::BasePath => "path".into(),
            Self::Text => "string".into(),
            Self::Urls => "list of URLs".into(),
            Self::Hosts => "list of host names".into(),
            Self::Networks => "list of addresses and networks".into(),
            Self::Version { .. } => "version".into(),
        }
    }
}

/// Returns the words as an enumeration: "`a`, `b` or `c`".
fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => quoted.concat(),
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(value) => write!(f, "{value}"),
            Self::Count(value) => write!(f, "{value}"),
            Self::Span(value) => write!(f, "{:?}", write_span(*value)),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Address(Some(value)) => write!(f, "\"{value}\""),
            Self::Address(None) => f.write_str("\"none\""),
            Self::Urls(values) | Self::Hosts(values) => write!(f, "{values:?}"),
            Self::Networks(values) => {
                let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
                write!(f, "{texts:?}")
            }
            Self::Version(major, Some(minor)) => write!(f, "\"{major}.{minor}\""),
            Self::Version(major, None) => write!(f, "\"{major}\""),
        }
    }
}

fn text(raw: &Raw) -> Result<&str, String> {
    match raw {
        Raw::Text(text) => Ok(text),
        Raw::Integer(_) => Err("expected a string in quotes, found a number".into()),
        Raw::Flag(_) => Err("expected a string in quotes, found a boolean".into()),
        Raw::List(_) => Err("expected a string, found a list".into()),
        Raw::Other(what) => Err(format!("expected a string in quotes, found {what}")),
    }
}

fn flag(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Flag(value) => Ok(*value),
        // From an environment variable or a flag, which only have strings.
        Raw::Text(text) if text == "true" => Ok(true),
        Raw::Text(text) if text == "false" => Ok(false),
        _ => Err("expected true or false".into()),
    }
}

fn count(raw: &Raw, max: u64) -> Result<u64, String> {
    let number = match raw {
        // TOML integers are signed.
        Raw::Integer(number) => u64::try_from(*number).ok(),
        Raw::Text(text) => text.parse().ok(),
        _ => None,
    };
    match number {
        Some(number) if number <= max => Ok(number),
        Some(number) => Err(format!("{number} exceeds the maximum of {max}")),
        None => Err("expected a non-negative integer".into()),
    }
}

fn choice(text: &str, words: &[&str]) -> Result<String, String> {
    if words.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not one of {}", words.join(", ")))
}

/// Units of time. Of those with the same suffix, the longest comes first.
const UNITS: [(&str, u128); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses `250ms`, `1m30s`, `0`.
pub fn parse_span(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0u128;
    // The sum is computed in nanoseconds as u128, so that it cannot overflow before the final check.
    while !rest.is_empty() {
        // Each number needs a unit: `90` could mean seconds or minutes.
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == &rest[..end])?;
        // The sum may not overflow either, whatever the single parts are.
        total = total.checked_add(u128::from(number).checked_mul(*nanos)?)?;
        rest = &rest[end..];
    }
    let whole = (!text.is_empty()).then_some(total)?;
    Some(Duration::from_nanos(u64::try_from(whole).ok()?))
}

/// Formats a duration in the largest unit that represents it exactly.
pub fn write_span(span: Duration) -> String {
    let nanos = span.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    // From the largest unit down, so that 3600 s are written as 1h.
    let (name, unit) = UNITS.iter().rev().find(|(_, unit)| nanos.is_multiple_of(*unit)).unwrap_or(&UNITS[0]);
    format!("{}{name}", nanos / unit)
}

fn span(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let span = parse_span(text).ok_or_else(|| format!("{text:?} is not a duration, such as 250ms, 30s or 5m"))?;
    if span < min || span > max {
        return Err(format!("{text} is outside {} to {}", write_span(min), write_span(max)));
    }
    Ok(span)
}

fn address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "none" {
        return Ok(None);
    }
    if let Ok(address) = text.parse() {
        return Ok(Some(address));
    }
    let wrong = || format!("{text:?} is not a listen address; use ADDRESS:PORT or none");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    match host {
        // Only these names are resolved: a listener must not depend on DNS.
        "localhost" => Ok(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))),
        "" => Ok(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))),
        _ => Err(wrong()),
    }
}

/// Returns the items of a list. In variables and flags, lists are separated by commas.
fn items(raw: &Raw) -> Result<Vec<String>, String> {
    Ok(match raw {
        Raw::List(list) => list.clone(),
        // Empty items are skipped, so that a trailing comma does no harm.
        raw => text(raw)?.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect(),
    })
}

fn host(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not a host name; omit the scheme and the port");
    // Parsed as an authority: what is more than a host, such as a port, then differs from its host.
    let authority: http::uri::Authority = text.parse().map_err(|_| wrong())?;
    let plain = authority.host() == text && !text.contains(['*', '@']);
    plain.then(|| text.to_ascii_lowercase()).ok_or_else(wrong)
}

/// Parses `https://HOST:PORT` and removes a trailing slash.
fn url(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not a server URL; use https://HOST:PORT");
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "https" | "http")).ok_or_else(wrong)?;
    // A user in the URL would end up in every policy.
    let authority = uri.authority().filter(|a| !a.host().is_empty() && !a.as_str().contains('@')).ok_or_else(wrong)?;
    // Agents append their own paths.
    if uri.path() != "/" && !uri.path().is_empty() || uri.query().is_some() {
        return Err(format!("{text:?} has a path; use https://HOST:PORT"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    // A wildcard or 0.0.0.0 is a valid listen address, but agents cannot connect to it.
    if host.contains('*') || host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) {
        return Err(format!(
            "{text:?} is not a host that agents can connect to; use the name or address of this server"
        ));
    }
    match authority.port_u16() {
        // An empty port counts as missing. A port that is not a valid number is a malformed URL.
        None if !authority.as_str().ends_with([']', ':']) && authority.as_str() != authority.host() => Err(wrong()),
        Some(0) => Err(format!("{text:?} has port 0; use the port that agents connect to")),
        Some(_) => Ok(format!("{scheme}://{authority}")),
        None => Err(format!(
            "{text:?} has no port; use {scheme}://{}:8220, or another port that agents connect to",
            authority.host()
        )),
    }
}

fn version_text(raw: &Raw) -> Result<String, String> {
    match raw {
        // `9` without quotes is an integer in TOML. `9.5` would be a float, for which 9.50 is the same: it needs
        // quotes.
        Raw::Integer(number) => Ok(number.to_string()),
        raw => text(raw).map(str::to_owned),
    }
}

fn version(text: &str, minor: bool) -> Result<Value, String> {
    let wrong = || {
        let form = if minor { "MAJOR.MINOR" } else { "MAJOR or MAJOR.MINOR" };
        format!("{text:?} is not a version; use {form} in quotes")
    };
    // Parsed strictly: `9.x` and `9.` are mistakes, not wildcards.
    let mut parts = text.split('.').map(str::parse::<u32>);
    let major = parts.next().and_then(Result::ok).ok_or_else(wrong)?;
    let second = parts.next().transpose().map_err(|_| wrong())?;
    if parts.next().is_some() || (minor && second.is_none()) {
        return Err(wrong());
    }
    Ok(Value::Version(major, second))
}
