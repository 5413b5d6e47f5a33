//! Live queries on the wire: names of queries, and answers of hosts (FL §1.7, §1.8).

use serde_json::{Map, Value};

use super::rows;
use crate::id::LiveQueryId;
use crate::live_query::HostAnswer;
use crate::raw_json;
use crate::reported::shortened_to;

/// Prefix of the names of live queries, which is followed by the id.
pub const PREFIX: &str = "fleet_distributed_query_";

/// SQL of the discovery, without which osqueryd would run the query, too. Every query has one (FL24).
pub const DISCOVERY: &str = "SELECT 1";

/// Returns the name under which hosts get a live query.
pub fn name(id: &LiveQueryId) -> String {
    format!("{PREFIX}{id}")
}

/// Maximum number of rows of a host that are kept.
pub const MAX_ROWS: u64 = 1_000;
/// Maximum length of the rows of a host that are kept, bytes of JSON.
pub const MAX_ROW_BYTES: usize = 256 * 1024;
/// Maximum number of columns of a row that are kept.
pub const MAX_COLUMNS: usize = 256;
/// Maximum length of an error, bytes.
const MAX_ERROR: usize = 1024;

/// Reads the answer of a host: the JSON text of its rows, its status and its message. Rows above a limit are left out.
pub fn answer(rows: Option<&str>, status: Option<&str>, message: Option<&str>) -> HostAnswer {
    // Versions without statuses send the rows of queries that succeeded only.
    let status = status.map_or(Some(0), rows::status);
    if status != Some(0) {
        let message = message.and_then(raw_json::as_text).unwrap_or_default();
        let error = if message.trim().is_empty() {
            format!("osquery reported the status {}", status.map_or("unknown".to_owned(), |status| status.to_string()))
        } else {
            // PostgreSQL stores no null characters.
            shortened_to(message.trim(), MAX_ERROR).replace('\0', "\u{fffd}")
        };
        return HostAnswer { error: Some(error), rows: "[]".to_owned(), ..HostAnswer::default() };
    }
    bounded(rows.unwrap_or("[]"))
}

/// Decodes rows one by one, so that a large result needs no more memory than what is kept of it.
fn bounded(raw: &str) -> HostAnswer {
    let (mut kept, mut row_count, mut missing_rows, mut has_wide) = (String::from("["), 0, 0, false);
    let mut is_full = false;
    raw_json::each_element(raw, |element| {
        // The rest is only counted.
        if is_full {
            missing_rows += 1;
            return true;
        }
        let row = rows::row(element);
        // An element that is no object of strings, or that is too long to be one row, is dropped (FL164), which must be seen.
        if row.is_empty() && !is_empty_object(element) {
            missing_rows += 1;
            return true;
        }
        has_wide |= row.len() > MAX_COLUMNS;
        let columns = row.into_iter().take(MAX_COLUMNS);
        let columns: Map<String, Value> =
            columns.map(|(column, value)| (column.into_owned(), value.into_owned().into())).collect();
        let text = Value::Object(columns).to_string();
        if row_count >= MAX_ROWS || kept.len() + text.len() + 2 > MAX_ROW_BYTES {
            is_full = true;
            missing_rows += 1;
            return true;
        }
        if row_count > 0 {
            kept.push(',');
        }
        kept.push_str(&text);
        row_count += 1;
        true
    });
    kept.push(']');
    HostAnswer { error: None, rows: kept, row_count, is_truncated: has_wide || missing_rows > 0, missing_rows }
}

fn is_empty_object(element: &str) -> bool {
    element.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).is_some_and(|rest| rest.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_kept_as_they_are() {
        let found = answer(Some(r#"[{"pid":"1","name":"\u00fcx"},{}]"#), Some("0"), Some("\"\""));
        assert_eq!(found.rows, r#"[{"name":"üx","pid":"1"},{}]"#);
        assert_eq!((found.row_count, found.is_truncated, found.error), (2, false, None));
    }

    #[test]
    fn fl30_an_empty_string_is_no_row_and_statuses_may_be_strings() {
        for none in [Some("[]"), Some("\"\""), Some("null"), Some("7"), Some("[1]"), None] {
            let found = answer(none, Some("\"0\""), None);
            assert_eq!((found.rows.as_str(), found.row_count, found.error), ("[]", 0, None), "{none:?}");
        }
    }

    #[test]
    fn fl164_rows_that_are_no_objects_of_strings_are_dropped_and_reported() {
        let found = answer(Some(r#"[{"pid":1},{"pid":"2"},{ },7]"#), Some("0"), None);
        assert_eq!((found.rows.as_str(), found.row_count, found.is_truncated), (r#"[{"pid":"2"},{}]"#, 2, true));
        assert_eq!(found.missing_rows, 2);
    }

    #[test]
    fn fl37_a_query_that_failed_or_is_denylisted_has_its_message() {
        let denied = answer(Some("[]"), Some("1"), Some("\"distributed query is denylisted\""));
        assert_eq!(denied.error.as_deref(), Some("distributed query is denylisted"));
        assert_eq!(answer(Some("[]"), Some("1"), None).error.as_deref(), Some("osquery reported the status 1"));
        assert!(answer(Some("[]"), Some("true"), None).error.is_some());
    }

    #[test]
    fn rows_and_columns_of_a_host_are_limited() {
        let many = format!("[{}]", vec![r#"{"a":"1"}"#; 1_007].join(","));
        let found = answer(Some(&many), Some("0"), None);
        assert_eq!((found.row_count, found.is_truncated, found.missing_rows), (MAX_ROWS, true, 7));
        let columns: Vec<String> = (0..10_000).map(|n| format!("\"c{n}\":\"\"")).collect();
        let found = answer(Some(&format!("[{{{}}}]", columns.join(","))), Some("0"), None);
        assert_eq!((found.row_count, found.is_truncated, found.missing_rows), (1, true, 0));
        let row: Map<String, Value> = serde_json::from_str::<Vec<_>>(&found.rows).unwrap().remove(0);
        assert_eq!(row.len(), MAX_COLUMNS);
        let wide = format!(r#"[{{"a":"1"}},{{"a":"{}"}},{{"a":"2"}}]"#, "x".repeat(MAX_ROW_BYTES));
        let found = answer(Some(&wide), Some("0"), None);
        assert_eq!((found.row_count, found.is_truncated), (2, true));
    }

    proptest! {
        #[test]
        fn answers_are_bounded_json(rows in ".*", status in ".{0,4}", message in ".{0,9}") {
            let found = answer(Some(&rows), Some(&status), Some(&message));
            prop_assert!(serde_json::from_str::<Vec<Map<String, Value>>>(&found.rows).is_ok());
        }
    }
}
