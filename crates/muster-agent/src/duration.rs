//! Parses durations such as `250ms`, `30s`, `5m` and `1h30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Parses a duration.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("invalid duration {text:?}: expected the form 250ms, 30s, 5m or 1h30m");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        // A number without a unit is an error.
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        total = total.checked_add(of_unit(number, &rest[digits..unit]).ok_or_else(bad)?).ok_or_else(bad)?;
        rest = &rest[unit..];
    }
    Ok(total)
}

/// Parses the maximum time of a step that cannot be done in no time.
pub fn parse_limit(text: &str) -> Result<Duration, String> {
    let limit = parse(text)?;
    if limit.is_zero() { Err("a limit of 0 leaves no time".into()) } else { Ok(limit) }
}

fn of_unit(number: u64, unit: &str) -> Option<Duration> {
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// For `#[serde(deserialize_with)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!((parse("0s"), parse_limit("0s").is_err()), (Ok(Duration::ZERO), true));
        for bad in ["", "5", "m", "5x", "-5s", "99999999999999999999s", "9999999999999999d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
