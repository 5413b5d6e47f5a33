//! Rows of live queries, printed as they arrive: the columns are those of the first rows.

use std::collections::BTreeMap;

use muster_core::csv;
use muster_core::fleetd::live::{MAX_COLUMNS, MAX_ROW_BYTES, MAX_ROWS};
use muster_core::plural::counted;
use muster_protocol::management::live_query::LiveQueryResult;
use serde_json::{Value, json};

use super::failure::Failed;
use super::listing::Format;
use super::text::{escaped_json, print_line, print_lines, printable};

/// Maximum width to which a column of a table is padded.
const MAX_WIDTH: usize = 60;

/// Prints results in a format.
pub struct RowPrinter {
    format: Format,
    /// The columns that are being printed, with their widths.
    columns: Vec<(String, usize)>,
    /// Whether the user was told of a column that a CSV file lacks.
    has_warned: bool,
    missing: Missing,
}

/// What the limits of a host's answer have cut off so far.
#[derive(Clone, Copy, Debug, Default)]
struct Missing {
    /// Number of hosts whose answers were cut.
    hosts: u64,
    /// Number of rows that are missing. Where columns were cut, none need be.
    rows: u64,
}

impl RowPrinter {
    /// Creates a printer.
    pub fn new(format: Format) -> Self {
        Self { format, columns: Vec::new(), has_warned: false, missing: Missing::default() }
    }

    /// Prints the results of hosts, all at once: whoever reads them is not woken for each. Their errors go to stderr.
    pub fn print(&mut self, results: &[LiveQueryResult]) -> Result<(), Failed> {
        let mut lines = Vec::new();
        for result in results {
            self.add(result, &mut lines)?;
        }
        print_lines(lines)
    }

    /// Ends the output. Fails if any answer was cut: a script must not take what is left for everything. In JSON, a last line
    /// says so, too; it has the fields of a result, without rows.
    pub fn finish(&self) -> Result<(), Failed> {
        let Missing { hosts, rows } = self.missing;
        if hosts == 0 {
            return Ok(());
        }
        if matches!(self.format, Format::Json | Format::Yaml) {
            let summary = json!({"rows": [], "truncated": true, "truncated_hosts": hosts, "missing_rows": rows});
            print_line(summary.to_string())?;
        }
        let what = if rows > 0 { counted(rows, "row") } else { "some columns".to_owned() };
        let verb = if rows == 1 { "is" } else { "are" };
        let kib = MAX_ROW_BYTES / 1024;
        let message = format!("the results are incomplete: {what} of {} {verb} missing", counted(hosts, "host"));
        Err(Failed::new(message).remedy(format!(
            "a host returns at most {MAX_ROWS} rows, {kib} KiB and {MAX_COLUMNS} columns: select fewer with WHERE or LIMIT, and name the columns"
        )))
    }

    /// Adds the lines of a result.
    fn add(&mut self, result: &LiveQueryResult, lines: &mut Vec<String>) -> Result<(), Failed> {
        if result.truncated {
            self.missing.hosts += 1;
            self.missing.rows += result.missing_rows;
        }
        if matches!(self.format, Format::Json | Format::Yaml) {
            // YAML contains JSON, and a line of it is one host.
            let text = serde_json::to_string(result).map_err(|error| Failed::new(error.to_string()))?;
            lines.push(escaped_json(&text));
            return Ok(());
        }
        let host = printable(if result.hostname.is_empty() { &result.agent_id } else { &result.hostname });
        if let Some(error) = &result.error {
            eprintln!("{host}: {}", printable(error));
        }
        if result.truncated {
            let what = if result.missing_rows > 0 { counted(result.missing_rows, "row") } else { "columns".into() };
            eprintln!("{host}: {what} above the limit missing");
        }
        match self.format {
            Format::Name => lines.push(host),
            _ => lines.extend(self.lines(&host, &result.rows)),
        }
        Ok(())
    }

    fn lines(&mut self, host: &str, rows: &[Value]) -> Vec<String> {
        // A CSV file can contain line breaks; what it cannot is replaced when it is written.
        let shown: fn(&str) -> String = if self.format == Format::Csv { str::to_owned } else { printable };
        let rows: Vec<BTreeMap<&str, String>> = rows.iter().map(|row| cells(host, row, shown)).collect();
        let mut lines = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let missing = row.keys().find(|name| !self.columns.iter().any(|(known, _)| known == *name));
            match missing {
                // A CSV file has one header.
                Some(name) if self.format == Format::Csv && !self.columns.is_empty() => self.warn(name),
                // Another table begins.
                Some(_) => {
                    self.columns = columns_of(&rows[at..]);
                    let names: Vec<String> = self.columns.iter().map(|(name, _)| printable(name)).collect();
                    lines.push(self.line(&names));
                }
                None => {}
            }
            let cells = self.columns.iter().map(|(name, _)| row.get(name.as_str()).cloned().unwrap_or_default());
            lines.push(self.line(&cells.collect::<Vec<_>>()));
        }
        lines
    }

    fn warn(&mut self, column: &str) {
        if !std::mem::replace(&mut self.has_warned, true) {
            eprintln!(
                "the column {} is not in the header and was left out: name the columns in the SQL",
                printable(column)
            );
        }
    }

    fn line(&self, cells: &[String]) -> String {
        if self.format == Format::Csv {
            return csv::record(cells);
        }
        let padded = cells.iter().zip(&self.columns).map(|(cell, (_, width))| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

/// Name of the column with the host.
const HOST: &str = "HOST";
/// Name of a column that has this name in the rows: a host could otherwise pass its rows off as another's.
const OTHER_HOST: &str = "HOST_";

fn cells<'r>(host: &str, row: &'r Value, shown: fn(&str) -> String) -> BTreeMap<&'r str, String> {
    let columns = row.as_object().into_iter().flatten();
    let named = |name: &'r str| if name == HOST { OTHER_HOST } else { name };
    let cells = columns.map(|(name, value)| (named(name), shown(value.as_str().unwrap_or_default())));
    std::iter::once((HOST, host.to_owned())).chain(cells).collect()
}

/// Returns the columns of rows, the host first, with the widths that fit them.
fn columns_of(rows: &[BTreeMap<&str, String>]) -> Vec<(String, usize)> {
    let mut widths: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, cell) in rows.iter().flatten() {
        let width = cell.chars().count().max(name.chars().count()).min(MAX_WIDTH);
        let known = widths.entry(name).or_default();
        *known = width.max(*known);
    }
    let host = widths.remove(HOST).map(|width| (HOST.to_owned(), width));
    host.into_iter().chain(widths.into_iter().map(|(name, width)| (name.to_owned(), width))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_answers_are_an_error_that_counts_what_is_missing() {
        let mut printer = RowPrinter::new(Format::Csv);
        let mut lines = Vec::new();
        let cut = |truncated, missing_rows| LiveQueryResult { truncated, missing_rows, ..LiveQueryResult::default() };
        printer.add(&cut(false, 0), &mut lines).unwrap();
        assert!(printer.finish().is_ok());
        printer.add(&cut(true, 0), &mut lines).unwrap();
        assert!(printer.finish().unwrap_err().to_string().contains("some columns of 1 host are missing"));
        printer.add(&cut(true, 24), &mut lines).unwrap();
        let told = printer.finish().unwrap_err().to_string();
        assert!(
            told.contains("incomplete: 24 rows of 2 hosts are missing\n  hint: a host returns at most 1000 rows"),
            "{told}"
        );
        assert!(lines.is_empty(), "{lines:?}");
    }

    #[test]
    fn rows_of_all_hosts_are_one_table() {
        let mut printer = RowPrinter::new(Format::Table);
        let lines = printer.lines("web-7", &[json!({"pid": "1", "name": "init\u{1b}[2J"}), json!({"pid": "23"})]);
        assert_eq!(lines, ["HOST   name      pid", "web-7  init\u{fffd}[2J  1", "web-7            23"]);
        assert_eq!(printer.lines("db", &[json!({"name": "sh", "pid": "4"})]), ["db     sh        4"]);
        assert_eq!(printer.lines("db", &[]), [""; 0]);
        let other = printer.lines("db", &[json!({"path": "/"})]);
        assert_eq!(other, ["HOST  path", "db    /"]);
        let forged = printer.lines("db", &[json!({"HOST": "web-7"})]);
        assert_eq!(forged, ["HOST  HOST_", "db    web-7"]);
    }

    #[test]
    fn csv_has_one_header_and_no_formulas() {
        let mut printer = RowPrinter::new(Format::Csv);
        let lines = printer.lines("a", &[json!({"x": "=1+1"}), json!({"x": "1"})]);
        assert_eq!(lines, ["HOST,x\r", "a,\"'=1+1\"\r", "a,1\r"]);
        assert_eq!(printer.lines("b", &[json!({"x": "2", "y": "3"})]), ["b,2\r"]);
        let lines = printer.lines("c", &[json!({"x": "<b>,\"\n2\r\n3\u{1b}"})]);
        assert_eq!(lines, ["c,\"<b>,\"\"\n2\r\n3\u{fffd}\"\r"]);
    }
}
