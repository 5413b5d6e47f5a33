//! The results of a live query as a table: hosts of any number, with columns and rows of any number, on a page of bounded size.

use std::collections::BTreeSet;

use muster_core::Error;
use muster_core::authorization::QueriesRunSaved;
use muster_core::live_query::{LiveQuery, LiveResult};
use muster_fleet::Fleet;
use muster_fleet::authority::Authorized;
use muster_fleet::live_queries::MAX_PAGE;
use serde_json::{Map, Value};

use super::super::facts::cut;
use crate::agents::agent::name_or_id;

/// Maximum number of rows on a page, of columns, and of errors.
const ROWS: usize = 200;
const COLUMNS: usize = 40;
const ERRORS: usize = 50;

/// A part of the results.
#[derive(Default)]
pub struct Table {
    /// Names of the columns, without that of the host.
    pub columns: Vec<String>,
    /// Number of columns that are not shown.
    pub more_columns: usize,
    /// The rows.
    pub rows: Vec<Row>,
    /// Number of rows of the shown hosts that are not shown.
    pub more_rows: usize,
    /// The hosts that answered with an error.
    pub errors: Vec<Failed>,
    /// Number of the last answer of this part, if there may be more.
    pub next: Option<u64>,
}

/// A row.
pub struct Row {
    /// Id of the host; empty if it is unknown.
    pub host: String,
    /// Name of the host.
    pub name: String,
    /// A cell for each column.
    pub cells: Vec<String>,
}

/// A host that answered with an error.
pub struct Failed {
    /// Id of the host; empty if it is unknown.
    pub host: String,
    /// Name of the host.
    pub name: String,
    /// The error.
    pub error: String,
}

/// A row before the columns are known.
struct Found {
    host: String,
    name: String,
    cells: Map<String, Value>,
}

/// Returns the rows of an answer: objects of strings. The server wrote them itself.
pub fn rows_of(answer: &LiveResult) -> Vec<Map<String, Value>> {
    serde_json::from_str(&answer.answer.rows).unwrap_or_default()
}

/// Returns the text of a cell.
pub fn text_of(cell: Option<&Value>) -> String {
    match cell {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Reads the answers after a number, until the page is full.
pub async fn read(fleet: &Fleet, query: &Authorized<LiveQuery, QueriesRunSaved>, after: u64) -> Result<Table, Error> {
    let (mut table, mut found, mut position) = (Table::default(), Vec::new(), after);
    'parts: loop {
        let answers = fleet.live_queries().results(query, position, MAX_PAGE).await?;
        if answers.is_empty() {
            break;
        }
        for answer in answers {
            position = answer.seq;
            take(&mut table, &mut found, &answer);
            if found.len() >= ROWS || table.errors.len() >= ERRORS {
                // A page ends with a whole answer: the next one begins with another host.
                table.next = Some(position).filter(|position| *position < query.answered);
                break 'parts;
            }
        }
    }
    Ok(finished(table, found))
}

fn take(table: &mut Table, found: &mut Vec<Found>, answer: &LiveResult) {
    let host = answer.host.as_ref().map(ToString::to_string).unwrap_or_default();
    let name = cut(name_or_id(&answer.hostname, answer.agent.as_str()));
    if let Some(error) = &answer.answer.error {
        table.errors.push(Failed { host: host.clone(), name: name.clone(), error: cut(error) });
    }
    let rows = rows_of(answer);
    let fits = ROWS.saturating_sub(found.len());
    table.more_rows += rows.len().saturating_sub(fits);
    let row = |cells| Found { host: host.clone(), name: name.clone(), cells };
    found.extend(rows.into_iter().take(fits).map(row));
}

/// Makes the table of all columns that any row has.
fn finished(table: Table, found: Vec<Found>) -> Table {
    let all: BTreeSet<&String> = found.iter().flat_map(|row| row.cells.keys()).collect();
    // Sorted by name, so the order of the columns does not depend on which host answered first.
    let names: Vec<String> = all.iter().take(COLUMNS).map(|name| (*name).clone()).collect();
    let more_columns = all.len() - names.len();
    let row = |row: Found| Row {
        cells: names.iter().map(|name| cut(&text_of(row.cells.get(name)))).collect(),
        host: row.host,
        name: row.name,
    };
    let rows = found.into_iter().map(row).collect();
    Table { columns: names.iter().map(|name| cut(name)).collect(), more_columns, rows, ..table }
}

#[cfg(test)]
mod tests {
    use muster_core::id::AgentId;
    use muster_core::live_query::HostAnswer;
    use muster_core::time::Timestamp;

    use super::*;

    fn answer(rows: &str, error: Option<&str>) -> LiveResult {
        let answer = HostAnswer { error: error.map(str::to_owned), rows: rows.to_owned(), ..HostAnswer::default() };
        let (agent, at) = (AgentId::trusted("a"), Timestamp::from_micros(0));
        LiveResult { seq: 1, agent, host: None, hostname: " ".into(), at, answer }
    }

    fn table(answers: &[LiveResult]) -> Table {
        let (mut table, mut found) = (Table::default(), Vec::new());
        answers.iter().for_each(|answer| take(&mut table, &mut found, answer));
        finished(table, found)
    }

    #[test]
    fn rows_with_different_columns_are_one_table() {
        let shown = table(&[answer(r#"[{"b":"1"},{"a":"2"}]"#, None), answer("[]", Some("no such table"))]);
        assert_eq!(shown.columns, ["a", "b"]);
        assert_eq!(shown.rows.iter().map(|row| row.cells.join(",")).collect::<Vec<_>>(), [",1", "2,"]);
        assert_eq!((shown.errors.len(), shown.rows[0].name.as_str()), (1, "a"), "a blank name would be invisible");
    }

    #[test]
    fn a_page_is_bounded_whatever_hosts_answer() {
        let wide: Map<String, Value> =
            (0..99).map(|number| (format!("c{number:02}"), "x".repeat(900).into())).collect();
        let rows = serde_json::to_string(&vec![wide; 300]).unwrap();
        let shown = table(&[answer(&rows, None)]);
        assert_eq!((shown.columns.len(), shown.more_columns, shown.rows.len(), shown.more_rows), (40, 59, 200, 100));
        assert!(shown.rows[0].cells[0].len() <= 300);
    }
}
