//! Parsing of times in requests: a duration from now (`30d`, `12h`, `45m`, `90s`) or an RFC 3339 time.

use std::time::Duration;

use muster_core::Error;
use muster_core::time::Timestamp;

/// Maximum length of a duration in bytes; longer numbers don't fit a `u64`.
const MAX_DURATION_TEXT: usize = 20;

/// Parses an expiration time, which must be after `now`.
pub fn parse_end(field: &str, text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    let end = match parse_duration(text) {
        Some(duration) => now.plus(duration),
        None => Timestamp::parse_rfc3339(text)
            .map_err(|_| Error::invalid(field, "must be a duration (30d, 12h, 45m, 90s) or an RFC 3339 time"))?,
    };
    if end > now { Ok(end) } else { Err(Error::invalid(field, "must be in the future")) }
}

/// Parses an RFC 3339 time.
pub fn parse_time(field: &str, text: &str) -> Result<Timestamp, Error> {
    Timestamp::parse_rfc3339(text).map_err(|_| Error::invalid(field, "must be an RFC 3339 time"))
}

/// Parses a duration; `None` if it is malformed.
pub fn parse_duration(text: &str) -> Option<Duration> {
    // Splits before the last byte; `None` inside a multi-byte character, which is no unit either.
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let plain = text.len() <= MAX_DURATION_TEXT && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = if plain { digits.parse().ok()? } else { return None };
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return None,
    };
    Some(Duration::from_secs(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

    #[test]
    fn mg70_durations_and_times_are_parsed_and_other_input_is_rejected() {
        assert_eq!(parse_end("expiration", "90s", NOW).unwrap(), NOW.plus(Duration::from_secs(90)));
        assert_eq!(parse_end("expiration", "2d", NOW).unwrap(), NOW.plus(Duration::from_secs(172_800)));
        assert!(parse_end("expiration", "2096-01-01T00:00:00Z", NOW).is_ok());
        for bad in
            ["5 minutes", "", "s", "-5s", "1w", "0s", "1969-01-01T00:00:00Z", "1.5h", "9ä", "111111111111111111111d"]
        {
            let error = parse_end("expiration", bad, NOW).expect_err(bad);
            assert_eq!(error.field.as_deref(), Some("expiration"), "{bad}");
        }
    }

    #[test]
    fn huge_duration_saturates() {
        assert!(parse_end("expiration", "9999999999999999999d", NOW).is_ok());
    }
}
