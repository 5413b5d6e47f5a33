//! Rows of live queries, printed as they arrive: the columns are those of the first rows.

use std::collections::BTreeMap;

use muster_core::csv;
use muster_protocol::management::live_query::LiveQueryResult;
use serde_json::Value;

use super::failure::Failed;
use super::listing::Format;
use super::text::{escaped_json, print_lines, printable};

/// Maximum width to which a column of a table is padded.
const MAX_WIDTH: usize = 60;

/// Prints results in a format.
pub struct RowPrinter {
    format: Format,
    /// The columns that are being printed, with their widths.
    columns: Vec<(String, usize)>,
    /// Whether the user was told of a column that a CSV file lacks.
    has_warned: bool,
}

impl RowPrinter {
    /// Creates a printer.
    pub fn new(format: Format) -> Self {
        Self { format, columns: Vec::new(), has_warned: false }
    }

    /// Prints the results of hosts, all at once: whoever reads them is not woken for each. Their errors go to stderr.
    pub fn print(&mut self, results: &[LiveQueryResult]) -> Result<(), Failed> {
        let mut lines = Vec::new();
        for result in results {
            self.add(result, &mut lines)?;
        }
        print_lines(lines)
    }

    /// Adds the lines of a result.
    fn add(&mut self, result: &LiveQueryResult, lines: &mut Vec<String>) -> Result<(), Failed> {
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
            eprintln!("{host}: rows or columns above the limit are missing");
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
    use serde_json::json;

    use super::*;

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
