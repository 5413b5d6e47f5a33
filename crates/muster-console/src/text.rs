//! Texts of values: times, statuses.

use std::fmt::{self, Write as _};

use askama::filters::{Html, Safe, escape};
use muster_core::event::EventKind;
use muster_core::raw_json;
use muster_core::reported::shortened_to;
use muster_core::status::Status;
use muster_core::time::Timestamp;
use serde::Deserialize;

use crate::preferences::Preferences;

/// Maximum length of a log level, bytes.
const MAX_LEVEL: usize = 40;

/// A time as people read it, relative to now, with the absolute time as its title.
pub struct Moment {
    /// `5 min ago`.
    pub relative: String,
    /// RFC 3339, in UTC.
    pub absolute: String,
    /// The time in the person's time zone.
    pub local: String,
}

impl Moment {
    /// Creates the text of a time.
    pub fn new(at: Timestamp, now: Timestamp) -> Self {
        Self { relative: relative(at, now), absolute: at.to_rfc3339_seconds(), local: local(at) }
    }

    /// Creates the text of a time that may be missing.
    pub fn of(at: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        at.map(|at| Self::new(at, now))
    }
}

/// Formats a time in the time zone of the person.
fn local(at: Timestamp) -> String {
    let Ok(at) = jiff::Timestamp::from_microsecond(at.as_micros()) else { return at.to_rfc3339_seconds() };
    at.to_zoned(Preferences::current().zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

fn relative(at: Timestamp, now: Timestamp) -> String {
    let is_future = at > now;
    let seconds = if is_future { at.since(now) } else { now.since(at) }.as_secs();
    match seconds {
        0..5 => "now".into(),
        _ if is_future => format!("in {}", length(seconds)),
        _ => format!("{} ago", length(seconds)),
    }
}

/// Returns a duration as people read it, such as `5 min`.
pub fn length(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// What a host reports about its operating system, as far as pages show it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    os: Os,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Os {
    full: String,
    name: String,
    version: String,
}

/// Returns the processor architecture of a host; empty if its agent does not report one.
pub fn architecture(metadata: Option<&str>) -> String {
    let name = metadata.and_then(|document| raw_json::text(document, &["host", "architecture"]));
    shortened_to(&name.unwrap_or_default(), MAX_LEVEL).into_owned()
}

/// Returns as which kind of user an agent runs; empty if it does not report it.
pub fn runs_as(metadata: Option<&str>) -> &'static str {
    match metadata.and_then(|document| raw_json::flag(document, &["elastic", "agent", "unprivileged"])) {
        Some(true) => "an unprivileged user",
        Some(false) => "root or SYSTEM",
        None => "",
    }
}

/// Returns the level at which an agent logs; empty if it does not report one.
pub fn log_level(metadata: Option<&str>) -> String {
    let level = metadata.and_then(|document| raw_json::text(document, &["elastic", "agent", "log_level"]));
    shortened_to(&level.unwrap_or_default(), MAX_LEVEL).into_owned()
}

/// Returns the name of the operating system in a host's metadata; empty if there is none.
pub fn os_name(metadata: Option<&str>) -> String {
    // Only these members are built: the agent decides what else is in the document.
    let Metadata { os } = metadata.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    // Agents put the full name together as `Debian GNU/Linux bookworm(12 (bookworm))`.
    if os.name.is_empty() { os.full } else { format!("{} {}", os.name, os.version).trim().to_owned() }
}

/// Returns what people call a platform.
pub fn platform_name(code: &str) -> &str {
    match code {
        "darwin" => "macOS",
        "linux" => "Linux",
        "windows" => "Windows",
        other => other,
    }
}

/// Returns a number with its digits in groups of three: `1,002`.
pub fn grouped(number: impl ToString + Copy) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of bytes as people read it.
pub fn size(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".to_owned(),
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    }
}

/// Returns the message of an error as a sentence of a page: with a capital letter, unless it begins with the name of a field.
pub fn sentence(message: &str) -> String {
    // For programs; what follows says what is wrong.
    let message = message.strip_prefix("KQLSyntaxError: ").unwrap_or(message);
    let first = message.split(' ').next().unwrap_or_default();
    let is_word = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'\'');
    if is_word { format!("{}{}", first[..1].to_ascii_uppercase(), &message[1..]) } else { message.to_owned() }
}

/// Returns a text with what it has in backticks as code. The texts of errors are also those of the API and the command line.
pub fn marked(text: impl AsRef<str>) -> Safe<String> {
    let (mut html, mut rest) = (String::new(), text.as_ref());
    let mut append = |text: &str, is_code: bool| {
        let Ok(Safe(escaped)) = escape(text, Html);
        // Writing to a string does not fail.
        let _ = if is_code { write!(html, "<code>{escaped}</code>") } else { write!(html, "{escaped}") };
    };
    while let Some((before, (code, after))) =
        rest.split_once('`').and_then(|(before, behind)| Some((before, behind.split_once('`')?)))
    {
        append(before, false);
        append(code, true);
        rest = after;
    }
    append(rest, false);
    Safe(html)
}

/// Returns the code of an event as people read it: `agent.upgrade.failed` is "Agent upgrade failed".
pub fn event_words(kind: EventKind) -> String {
    let words = match kind {
        // The codes are those of the API; the pages call these things by other names.
        EventKind::GatewayConnected | EventKind::GatewayLost => kind.as_str().replace("gateway", "server"),
        EventKind::TokenCreated | EventKind::TokenRevoked => kind.as_str().replace("token", "enrollment key"),
        EventKind::OutputFallback => "output uses its bootstrap settings".to_owned(),
        kind => kind.as_str().to_owned(),
    };
    sentence(&words.replace(['.', '_'], " "))
}

/// A status with the class of its color, and a sign for those who do not see colors.
pub struct Badge(pub Status);

impl Badge {
    /// Class of the style sheet.
    pub const fn class(&self) -> &'static str {
        match self.0 {
            Status::Online => "good",
            Status::Updating | Status::Enrolling => "busy",
            Status::Degraded | Status::Unenrolling | Status::Offline => "warn",
            Status::Error | Status::Orphaned | Status::Uninstalled => "bad",
            Status::Inactive | Status::Unenrolled => "quiet",
        }
    }

    /// The sign before the word.
    pub const fn sign(&self) -> &'static str {
        match self.0 {
            Status::Online => "●",
            Status::Updating | Status::Enrolling => "◐",
            Status::Degraded | Status::Unenrolling => "▲",
            Status::Offline => "○",
            Status::Error | Status::Orphaned | Status::Uninstalled => "✕",
            Status::Inactive | Status::Unenrolled => "–",
        }
    }
}

impl fmt::Display for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn codes_of_events_become_words() {
        let words = [EventKind::UpgradeRolledBack, EventKind::GatewayLost, EventKind::TokenRevoked].map(event_words);
        assert_eq!(words, ["Agent upgrade rolled back", "Server lost", "Enrollment key revoked"]);
    }

    #[test]
    fn numbers_have_groups_of_three_digits() {
        assert_eq!([0, 999, 1_002, 100_000, 1_234_567].map(grouped), ["0", "999", "1,002", "100,000", "1,234,567"]);
    }

    #[test]
    fn messages_are_sentences_unless_a_field_comes_first() {
        assert_eq!(sentence("the plan has changed"), "The plan has changed");
        assert_eq!(sentence("KQLSyntaxError: a field is missing"), "A field is missing");
        for kept in ["password: too short", "waves[0].soak: too long", "KQL is empty", "", "äh"] {
            assert_eq!(sentence(kept), kept);
        }
    }

    #[test]
    fn backticks_of_texts_become_code_and_nothing_in_them_becomes_markup() {
        let html = |text: &str| marked(text).0;
        assert_eq!(html("must be `a: <b>` or `c`"), "must be <code>a: &#60;b&#62;</code> or <code>c</code>");
        assert_eq!(html("<i> has one ` only"), "&#60;i&#62; has one ` only");
    }

    #[test]
    fn times_are_relative_in_the_largest_useful_unit() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let ago = |seconds| relative(now.minus(Duration::from_secs(seconds)), now);
        assert_eq!(
            [ago(0), ago(59), ago(61), ago(3_600), ago(172_800)],
            ["now", "59 s ago", "1 min ago", "1 h ago", "2 days ago"]
        );
        assert_eq!(os_name(Some(r#"{"os":{"name":"Debian","version":"12"}}"#)), "Debian 12");
        assert_eq!(log_level(Some(r#"{"elastic":{"agent":{"log_level":"debug"}}}"#)), "debug");
        assert_eq!((log_level(Some(r#"{"elastic":[]}"#)), log_level(None)), (String::new(), String::new()));
        assert_eq!((os_name(Some(r#"{"os":[]}"#)), os_name(None)), (String::new(), String::new()));
        assert_eq!(relative(now.plus(Duration::from_secs(120)), now), "in 2 min");
    }
}
