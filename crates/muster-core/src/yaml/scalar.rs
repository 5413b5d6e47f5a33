//! Interpretation of plain scalars, and detection of ambiguous ones.
//!
//! The library that agents parse their own files with accepts the booleans, octal numbers and digit groups of YAML 1.1.
//! Numbers from this server reach it as JSON, and therefore as 64-bit floats. A number is accepted only if it is
//! formatted back to the text that was written.

use serde_json::{Number, Value};

/// Largest integer up to which a 64-bit float represents every integer.
const MAX_EXACT: u64 = 1 << 53;

// `true` and `false` mean the same in every version; these words do not.
const YES: [&str; 8] = ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON"];
const NO: [&str; 8] = ["n", "N", "no", "No", "NO", "off", "Off", "OFF"];

/// Reason why a plain scalar is rejected, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ambiguous {
    pub reason: String,
    pub remedy: String,
}

/// Returns the value of a plain scalar.
pub(super) fn plain(text: &str) -> Result<Value, Ambiguous> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    for (words, meaning) in [(YES, "true"), (NO, "false")] {
        if words.contains(&text) {
            return Err(Ambiguous {
                reason: format!("agents read `{text}` as the boolean {meaning}, but YAML 1.2 as a string"),
                remedy: format!("write `{meaning}`, or quote it: \"{text}\""),
            });
        }
    }
    if !looks_like_a_number(text) {
        return Ok(Value::String(text.to_owned()));
    }
    exact(text).map_or_else(|| Err(changed(text)), |number| Ok(Value::Number(number)))
}

/// Checks whether a plain scalar can be a key: agents reject keys that they do not parse as strings.
pub(super) fn plain_key(text: &str) -> Result<(), Ambiguous> {
    let what = match plain(text) {
        Ok(Value::String(_)) => return Ok(()),
        Ok(Value::Null) => "null",
        Ok(Value::Bool(_)) => "a boolean",
        Ok(_) => "a number",
        Err(_) if looks_like_a_number(text) => "a number",
        Err(_) => "a boolean",
    };
    let reason = format!("a key must be a string, but agents read `{text}` as {what}");
    Err(Ambiguous { reason, remedy: format!("quote it: \"{text}\"") })
}

/// Returns the number that is formatted exactly as `text` and fits into a 64-bit float.
fn exact(text: &str) -> Option<Number> {
    if let Ok(integer) = text.parse::<i64>() {
        return (integer.unsigned_abs() <= MAX_EXACT && integer.to_string() == text).then(|| integer.into());
    }
    // Without a point it is not a float: an integer over 64 bits must not lose digits as one.
    let number = text.contains('.').then(|| Number::from_f64(text.parse().ok()?))??;
    (number.to_string() == text).then_some(number)
}

fn changed(text: &str) -> Ambiguous {
    let quote = format!("quote it if it is a string: \"{text}\"");
    match meaning(text) {
        Some(read) => Ambiguous {
            reason: format!("agents read the number `{text}` as {read}"),
            remedy: format!("{quote}; else write `{read}`"),
        },
        None => Ambiguous { reason: format!("agents cannot represent the number `{text}`"), remedy: quote },
    }
}

/// Returns the number that agents read, in an unambiguous form; `None` if there is none. It is used for the remedy
/// only.
fn meaning(text: &str) -> Option<String> {
    // YAML 1.1 allows underscores between digits.
    let digits = text.replace('_', "");
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let lower = digits.to_ascii_lowercase();
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| lower.strip_prefix(prefix).map(|digits| u64::from_str_radix(digits, radix)));
    let integer = match radix {
        Some(read) => read.ok(),
        // A leading zero means octal in YAML 1.1. `0899` is not octal and falls through to the float.
        None if lower.len() > 1 && lower.starts_with('0') => u64::from_str_radix(&lower, 8).ok(),
        None => lower.parse().ok(),
    };
    let read = match integer {
        Some(0) => "0".to_owned(),
        Some(integer) if integer <= MAX_EXACT => format!("{sign}{integer}"),
        Some(_) => return None,
        None => format!("{sign}{}", lower.parse::<f64>().ok().filter(|float| float.is_finite())?),
    };
    exact(&read).map(|_| read)
}

/// Returns whether YAML 1.1, YAML 1.2 or the agents' library would parse the text as a number.
fn looks_like_a_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    if matches!(lower.as_str(), ".inf" | ".nan") {
        return true;
    }
    let is_made_of = |digits: &str, radix: u32| {
        digits.chars().any(|c| c.is_digit(radix)) && digits.chars().all(|c| c == '_' || c.is_digit(radix))
    };
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return is_made_of(digits, radix);
        }
    }
    let (mantissa, exponent) = lower.split_once('e').map_or((lower.as_str(), None), |(m, e)| (m, Some(e)));
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    // A decimal number begins with a digit or a point; `_1` is a string everywhere.
    !mantissa.starts_with('_')
        && is_made_of(&mantissa.replacen('.', "", 1), 10)
        && exponent.is_none_or(|exponent| !exponent.is_empty() && exponent.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn unambiguous_scalars_are_accepted() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("True", json!(true)),
            ("false", json!(false)),
            ("0", json!(0)),
            ("-17", json!(-17)),
            ("9007199254740992", json!(9_007_199_254_740_992_i64)),
            ("1.5", json!(1.5)),
            ("-0.25", json!(-0.25)),
            ("2.0", json!(2.0)),
            ("8.18.8", json!("8.18.8")),
            ("2026-11-28", json!("2026-11-28")),
            ("10:30", json!("10:30")),
            ("1h", json!("1h")),
            ("127.0.0.1", json!("127.0.0.1")),
            ("Yess", json!("Yess")),
            ("e5", json!("e5")),
            ("-", json!("-")),
            (".", json!(".")),
            ("_1", json!("_1")),
            ("0xyz", json!("0xyz")),
            ("1e", json!("1e")),
        ] {
            assert_eq!(plain(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn numbers_that_would_change_are_rejected_with_a_remedy() {
        for (text, read) in [
            ("0600", Some("384")),
            ("0471", Some("313")),
            ("-010", Some("-8")),
            ("00", Some("0")),
            ("0899", Some("899")),
            ("1.10", Some("1.1")),
            ("9.0000", Some("9")),
            ("+5", Some("5")),
            ("-0", Some("0")),
            (".5", Some("0.5")),
            ("5.", Some("5")),
            ("1_000", Some("1000")),
            ("1_0.5", Some("10.5")),
            ("0x1F", Some("31")),
            ("0o17", Some("15")),
            ("0b101", Some("5")),
            ("1e3", Some("1000")),
            ("1.5E+3", Some("1500")),
            ("9007199254740993", None),
            ("18446744073709551616", None),
            ("123456789012345678901234567890", None),
            (".inf", None),
            ("-.Inf", None),
            (".NaN", None),
            ("1e999", None),
            ("0xffffffffffffffffff", None),
        ] {
            let rejected = plain(text).unwrap_err();
            assert!(rejected.reason.contains(&format!("`{text}`")), "{rejected:?}");
            assert!(rejected.remedy.contains(&format!("\"{text}\"")), "{rejected:?}");
            let remedy = read.map(|read| format!("write `{read}`"));
            assert_eq!(rejected.remedy.contains("write `"), remedy.is_some(), "{text}: {rejected:?}");
            assert!(remedy.is_none_or(|remedy| rejected.remedy.ends_with(&remedy)), "{text}: {rejected:?}");
        }
    }

    #[test]
    fn words_that_only_agents_parse_as_booleans_are_rejected() {
        for (word, meaning) in [
            ("yes", "true"),
            ("On", "true"),
            ("y", "true"),
            ("YES", "true"),
            ("no", "false"),
            ("OFF", "false"),
            ("n", "false"),
            ("N", "false"),
        ] {
            let rejected = plain(word).unwrap_err();
            assert_eq!(rejected.remedy, format!("write `{meaning}`, or quote it: \"{word}\""));
        }
    }

    #[test]
    fn only_strings_are_accepted_as_keys() {
        for key in ["a", "ssl.verification_mode", "8.18.8", "a b", "1h"] {
            assert_eq!(plain_key(key), Ok(()), "{key}");
        }
        for (key, what) in
            [("yes", "a boolean"), ("true", "a boolean"), ("80", "a number"), ("0600", "a number"), ("~", "null")]
        {
            let rejected = plain_key(key).unwrap_err();
            assert!(rejected.reason.ends_with(&format!("as {what}")), "{rejected:?}");
            assert_eq!(rejected.remedy, format!("quote it: \"{key}\""));
        }
    }

    proptest! {
        #[test]
        fn accepted_numbers_are_formatted_as_written(text in "[-+]?[0-9_]{0,20}(\\.[0-9_]{0,6})?([eE][-+]?[0-9]{1,2})?") {
            match plain(&text) {
                Ok(Value::Number(number)) => prop_assert_eq!(number.to_string(), text),
                Ok(Value::String(string)) => prop_assert_eq!(string, text),
                Ok(value) => prop_assert!(value.is_null() && text.is_empty()),
                Err(rejected) => prop_assert!(rejected.remedy.contains(&text)),
            }
        }
    }
}
