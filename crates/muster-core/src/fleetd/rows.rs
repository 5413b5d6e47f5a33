//! Results of osquery: rows of columns, all of them strings.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// A row: the values of its columns.
pub type Row<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// Maximum length of the JSON text of a result that is decoded, bytes.
const RESULT_BYTES: usize = 256 * 1024;

#[derive(PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Borrowed<'a>(#[serde(borrow)] BTreeMap<Text<'a>, Text<'a>>);

fn plain(row: Borrowed<'_>) -> Row<'_> {
    row.0.into_iter().map(|(column, value)| (column.0, value.0)).collect()
}

/// Decodes a row. Anything but an object of strings is an empty row, because no part of a request must fail for one value
/// (FL8).
pub fn row(raw: &str) -> Row<'_> {
    if raw.len() > RESULT_BYTES {
        return Row::new();
    }
    serde_json::from_str(raw).map(plain).unwrap_or_default()
}

/// Decodes the rows of a result. Anything but an array of objects of strings has no rows: older versions of osquery send an
/// empty string instead of an empty array (FL §1.8).
pub fn rows(raw: &str) -> Vec<Row<'_>> {
    if raw.len() > RESULT_BYTES {
        return Vec::new();
    }
    let decoded: Vec<Borrowed<'_>> = serde_json::from_str(raw).unwrap_or_default();
    decoded.into_iter().map(plain).collect()
}

/// Decodes the status of a query: a number, or a numeric string (FL30). `None` for anything else.
pub fn status(raw: &str) -> Option<i64> {
    let text = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
    text.parse().ok()
}

/// Returns the status of a query with these JSON texts of its status and its rows; `None` if it was not answered. Rows without a status are
/// those of a query that succeeded: osqueryd always sends one, other programs leave out 0, as FleetDM allows.
pub fn outcome(code: Option<&str>, rows: Option<&str>) -> Option<i64> {
    match code {
        Some(code) => status(code),
        None => rows.map(|_| 0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fl30_only_arrays_of_objects_of_strings_have_rows() {
        assert_eq!(rows(r#"[{"a":"1","b":"\u00fc"},{}]"#).len(), 2);
        assert_eq!(rows(r#"[{"a":"\u00fc"}]"#)[0]["a"], "ü");
        for none in ["[]", "\"\"", "null", "{}", "[1]", r#"[{"a":1}]"#, r#"[{"a":{}}]"#, "[", ""] {
            assert!(rows(none).is_empty(), "{none}");
        }
        assert!(rows(&format!("[{{\"a\":\"{}\"}}]", "x".repeat(RESULT_BYTES))).is_empty(), "bounded");
    }

    #[test]
    fn fl30_statuses_are_numbers_or_numeric_strings() {
        assert_eq!([status("0"), status("\"1\""), status("-3")], [Some(0), Some(1), Some(-3)]);
        assert_eq!([status("\"x\""), status("true"), status("\""), status("")], [None; 4]);
    }

    #[test]
    fn rows_without_a_status_are_those_of_a_query_that_succeeded() {
        assert_eq!([outcome(Some("1"), Some("[]")), outcome(Some("x"), Some("[]"))], [Some(1), None]);
        assert_eq!([outcome(None, Some("[]")), outcome(None, None)], [Some(0), None]);
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(raw in ".*") {
            let _ = (rows(&raw), row(&raw), status(&raw));
        }
    }
}
