//! Durations in forms, which are entered and shown with a unit: `90s`, `30m`, `12h`, `14d`. The API has seconds.

use muster_core::Error;
use muster_core::policy::problem::shortened;
use muster_fleet::moment::parse_duration;

/// Parses the duration in a field, in seconds.
///
/// # Errors
/// If it has no unit, or is malformed. Only `0` is the same in all units.
pub fn parse(field: &str, text: &str) -> Result<u64, Error> {
    let text = text.trim();
    if text == "0" {
        return Ok(0);
    }
    let reason = || match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        true => format!("the unit is missing: `{0}s`, `{0}m`, `{0}h` or `{0}d`", shortened(text)),
        false => format!("`{}` is not a duration", shortened(&text.replace('`', "'"))),
    };
    let found = parse_duration(text).ok_or_else(|| {
        Error::invalid(field, reason()).remedy("enter a number with a unit, such as 90s, 30m, 12h or 14d")
    });
    Ok(found?.as_secs())
}

/// Parses the duration in a field that may be empty.
///
/// # Errors
/// Those of [`parse`].
pub fn parse_optional(field: &str, text: &str) -> Result<Option<u64>, Error> {
    if text.trim().is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

/// Returns a duration as it is entered, in the largest unit that fits: `30m`.
pub fn written(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60)];
    let fitting = units.into_iter().find(|(_, length)| seconds > 0 && seconds.is_multiple_of(*length));
    let (unit, length) = fitting.unwrap_or(("s", 1));
    format!("{}{unit}", seconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_as_it_is_written_and_needs_a_unit() {
        for (seconds, text) in [(0, "0s"), (90, "90s"), (1_800, "30m"), (43_200, "12h"), (1_209_600, "14d")] {
            assert_eq!((written(seconds).as_str(), parse("f", text).unwrap()), (text, seconds));
        }
        assert_eq!((parse("f", " 0 ").unwrap(), parse_optional("f", " ").unwrap()), (0, None));
        assert_eq!(parse("f", "30").unwrap_err().message, "f: the unit is missing: `30s`, `30m`, `30h` or `30d`");
        for bad in ["", "soon", "1.5h", "-1s", "a`b"] {
            assert!(parse("f", bad).unwrap_err().message.ends_with("is not a duration"), "{bad}");
        }
    }
}
