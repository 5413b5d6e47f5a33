//! How a person wants pages shown: the theme and the time zone, which the browser keeps in cookies.
//!
//! Every page and every time on it depends on them, so they are in the task of the request instead of in all signatures.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use jiff::tz::TimeZone;
use muster_core::Error;
use muster_listen::cookie;
use muster_management::credentials;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Name of the cookie with the theme.
const THEME: &str = "muster_theme";
/// Name of the cookie with the time zone.
const ZONE: &str = "muster_zone";
/// Seconds that a browser keeps them: 400 days, the maximum of browsers.
const LIFETIME: u64 = 400 * 24 * 3600;
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
