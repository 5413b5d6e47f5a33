//! How a person wants pages shown: the theme and the time zone, which the browser keeps in cookies.
//!
//! Every page and every time on it depends on them, so they are in the task of the request instead of in all signatures.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use jiff::civil;
use jiff::tz::TimeZone;
use muster_core::Error;
use muster_core::time::Timestamp;
use muster_listen::cookie;
use muster_management::credentials;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Name of the cookie with the theme.
const THEME: &str = "muster_theme";
/// Name of the cookie with the time zone.
const ZONE: &str = "muster_zone";
/// Seconds that a browser keeps them: 400 days, the maximum of browsers.
const LIFETIME: u64 = 400 * 24 * 3600;
/// Length of a time without a zone, bytes: `2026-01-31T20:00:00`.
const LOCAL: usize = 19;
/// Maximum length of the name of a time zone, bytes.
const MAX_ZONE: usize = 64;

tokio::task_local! {
    static CURRENT: Preferences;
}

/// How a person wants pages shown.
#[derive(Clone, Debug)]
pub struct Preferences {
    /// `light`, `dark`, or empty for the system's.
    pub theme: &'static str,
    /// The time zone of absolute times.
    pub zone: TimeZone,
}

impl Default for Preferences {
    fn default() -> Self {
        Self { theme: "", zone: TimeZone::UTC }
    }
}

impl Preferences {
    /// Returns those of the request that is being answered.
    pub fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    /// Name of the time zone.
    pub fn zone_name(&self) -> String {
        self.zone.iana_name().unwrap_or("UTC").to_owned()
    }

    fn of(headers: &HeaderMap) -> Self {
        let zone = cookie(headers, ZONE).unwrap_or_default();
        let zone = percent_decode_str(zone).decode_utf8_lossy();
        Self {
            theme: theme(cookie(headers, THEME).unwrap_or_default()),
            zone: time_zone(&zone).unwrap_or(TimeZone::UTC),
        }
    }
}

/// Name of the person's time zone.
pub fn zone_name() -> String {
    Preferences::current().zone_name()
}

/// Parses a time: RFC 3339, or a day or time as browsers send it, without a zone. Then the person's is meant.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(at) = Timestamp::parse_rfc3339(text) {
        return Some(at);
    }
    // The parser would ignore an offset.
    let local = text.parse::<civil::DateTime>().ok().filter(|_| text.len() <= LOCAL)?;
    let at = local.to_zoned(Preferences::current().zone).ok()?;
    Some(Timestamp::from_micros(at.timestamp().as_microsecond()))
}

/// Returns a time as a field of browsers shows it: in the person's time zone, to the minute.
pub fn in_field(at: Timestamp) -> String {
    let Ok(at) = jiff::Timestamp::from_microsecond(at.as_micros()) else { return at.to_rfc3339_seconds() };
    at.to_zoned(Preferences::current().zone).strftime("%Y-%m-%dT%H:%M").to_string()
}

/// Answers a request with the preferences of its browser.
pub async fn apply(request: Request, next: Next) -> Response {
    let preferences = Preferences::of(request.headers());
    CURRENT.scope(preferences, next.run(request)).await
}

/// Returns the cookie that sets the theme; an empty name, or an unknown one, is the system's.
///
/// # Errors
/// Never for a known name.
pub fn theme_cookie(name: &str) -> Result<HeaderValue, Error> {
    credentials::set_cookie(THEME, theme(name), LIFETIME, false)
}

/// Returns the cookie that sets the time zone.
///
/// # Errors
/// If the server does not know the time zone.
pub fn zone_cookie(name: &str) -> Result<HeaderValue, Error> {
    time_zone(name).ok_or_else(|| {
        Error::invalid("zone", format!("there is no time zone {:?}", name.chars().take(MAX_ZONE).collect::<String>()))
            .remedy("use a name such as Europe/Berlin, or UTC")
    })?;
    let content = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
    credentials::set_cookie(ZONE, &content, LIFETIME, false)
}

fn theme(name: &str) -> &'static str {
    match name {
        "light" => "light",
        "dark" => "dark",
        _ => "",
    }
}

fn time_zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name.len() > MAX_ZONE {
        return None;
    }
    TimeZone::get(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn times_without_a_zone_are_in_that_of_the_person() {
        let berlin = Preferences { zone: TimeZone::get("Europe/Berlin").unwrap(), ..Preferences::default() };
        CURRENT
            .scope(berlin, async {
                let parsed = |text: &str| parse_time(text).map(Timestamp::to_rfc3339_seconds);
                assert_eq!(parsed("2026-01-31").as_deref(), Some("2026-01-30T23:00:00Z"));
                assert_eq!(parsed("2026-07-31T20:00").as_deref(), Some("2026-07-31T18:00:00Z"));
                assert_eq!(parsed("2026-07-31T20:00:00Z").as_deref(), Some("2026-07-31T20:00:00Z"));
                for invalid in ["", "tomorrow", "2026-07-31T20:00:00 +02:00", "2026-13-01"] {
                    assert_eq!(parsed(invalid), None, "{invalid}");
                }
                assert_eq!(in_field(parse_time("2026-07-31T20:00:59Z").unwrap()), "2026-07-31T22:00");
            })
            .await;
    }
}
