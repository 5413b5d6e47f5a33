//! Timestamps and clocks.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Point in time, in microseconds since the Unix epoch, which is also how it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// Error for a string that is not an RFC 3339 timestamp.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 timestamp: {0:?}")]
pub struct NotATimestamp(String);

/// Source of the current time, passed as a parameter so that tests run a day in a second.
pub trait Clock: Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Returns the time since a fixed moment by a monotonic clock, to distinguish an adjusted clock from elapsed time.
    /// The default is for clocks that are never adjusted.
    fn steady(&self) -> Duration {
        self.now().since(Timestamp::from_micros(0))
    }
}

impl Timestamp {
    /// Creates a timestamp from microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the minutes since the Unix epoch.
    pub const fn as_minutes(self) -> i64 {
        self.0 / 60_000_000
    }

    /// Returns the milliseconds since the Unix epoch; 0 for earlier times.
    pub fn as_unix_millis(self) -> u64 {
        u64::try_from(self.0 / 1000).unwrap_or(0)
    }

    /// Adds `duration`; saturates instead of overflowing.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        // Wrapping around would turn an expiration far in the future into one in the past.
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// Subtracts `duration`; saturates instead of overflowing.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// Returns the time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses RFC 3339 with any offset and any fraction (EA124). Digits below a microsecond are dropped.
    pub fn parse_rfc3339(text: &str) -> Result<Self, NotATimestamp> {
        // Truncated in the error, because the text comes from a request.
        let parsed: jiff::Timestamp = text.parse().map_err(|_| NotATimestamp(text.chars().take(64).collect()))?;
        Ok(Self(parsed.as_microsecond()))
    }

    /// Formats as RFC 3339 in UTC with seconds: `2026-01-02T03:04:05Z` (EA §3.6).
    pub fn to_rfc3339_seconds(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%SZ")
    }

    /// Formats as RFC 3339 in UTC with milliseconds: `2026-01-02T03:04:05.678Z`.
    pub fn to_rfc3339_millis(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S.%3fZ")
    }

    fn format(self, pattern: &str) -> String {
        // Saturated values are outside the years that jiff supports.
        let clamped = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::MAX);
        clamped.strftime(pattern).to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_fractions_are_parsed_and_printed_in_utc() {
        let parsed = Timestamp::parse_rfc3339("2026-01-02T03:05:00.2+01:00").unwrap();
        assert_eq!(parsed.to_rfc3339_millis(), "2026-01-02T02:05:00.200Z");
        assert_eq!(parsed.to_rfc3339_seconds(), "2026-01-02T02:05:00Z");
        assert!(Timestamp::parse_rfc3339("2026-01-02T03:04:05.123456789Z").is_ok());
        assert!(Timestamp::parse_rfc3339("yesterday").is_err());
    }

    #[test]
    fn arithmetic_saturates() {
        let far = Timestamp::from_micros(i64::MAX);
        assert_eq!(far.plus(Duration::from_secs(1)), far);
        assert_eq!(Timestamp::from_micros(5).since(Timestamp::from_micros(9)), Duration::ZERO);
    }
}
