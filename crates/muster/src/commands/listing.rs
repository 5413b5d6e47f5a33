//! Output formats: tables for people, JSON and YAML for programs, ids for pipes, CSV for spreadsheets.

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use muster_core::csv;
use muster_core::error_chain::chain;
use serde::Serialize;

use super::failure::Failed;
use super::text::{escaped_json, one_line, print_line, print_lines, printable_lines};
use super::transcode::Text;

/// An output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Table
    #[default]
    Table,
    /// Table with more columns
    Wide,
    /// JSON, with the fields of the API
    Json,
    /// YAML, with the fields of the API
    Yaml,
    /// One id per line
    Name,
    /// CSV (RFC 4180) with all columns; cells that a spreadsheet would interpret as formulas are prefixed with an apostrophe
    Csv,
}

/// `--output`.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArg {
    /// Output format
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// A table column: its heading, whether it is for `wide` only, and its cell.
pub struct Column<T> {
    heading: &'static str,
    wide: bool,
    cell: fn(&T) -> String,
}

/// Returns a column of every table.
pub const fn column<T>(heading: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { heading, wide: false, cell }
}

/// Returns a column of wide tables only.
pub const fn wide<T>(heading: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { heading, wide: true, cell }
}

/// Prints a list.
pub fn print_list<T: Serialize>(
    items: &[T],
    format: Format,
    columns: &[Column<T>],
    name: fn(&T) -> String,
) -> Result<(), Failed> {
    match format {
        Format::Json => print_json(&items),
        Format::Yaml => print_yaml(&items),
        Format::Name => print_lines(items.iter().map(name)),
        Format::Csv => print_lines(csv_records(items, columns)),
        Format::Table | Format::Wide => print_table(items, format == Format::Wide, columns),
    }
}

/// Prints one item: as JSON or YAML, else one field per line.
pub fn print_one<T: Serialize>(
    item: &T,
    format: Format,
    columns: &[Column<T>],
    name: fn(&T) -> String,
) -> Result<(), Failed> {
    match format {
        Format::Json => print_json(item),
        Format::Yaml => print_yaml(item),
        Format::Name => print_line(name(item)),
        Format::Csv => print_lines(csv_records(std::slice::from_ref(item), columns)),
        Format::Table | Format::Wide => print_fields(item, columns),
    }
}

/// Prints one field per line.
pub fn print_fields<T>(item: &T, columns: &[Column<T>]) -> Result<(), Failed> {
    let width = columns.iter().map(|column| column.heading.len()).max().unwrap_or(0);
    print_lines(columns.iter().map(|column| {
        let heading = column.heading.to_lowercase();
        // Further lines are indented, so that a text of an agent cannot look like a field.
        let value = printable_lines((column.cell)(item).trim_end());
        let value = value.replace('\n', &format!("\n{:width$}  ", ""));
        format!("{heading:<width$}  {value}")
    }))
}

/// Prints anything as JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), Failed> {
    print_line(escaped_json(&pretty(value)?))
}

/// Formats the JSON in two steps, because the first text contains documents of agents with their original white space.
fn pretty(value: &impl Serialize) -> Result<String, Failed> {
    // Serialized twice: embedded JSON text of agents would otherwise keep its own indentation.
    let text = serde_json::to_string(value);
    text.and_then(|text| serde_json::to_string_pretty(&Text(&text)))
        .map_err(|error| Failed::new(chain(&error).to_string()))
}

/// Prints anything as YAML.
pub fn print_yaml(value: &impl Serialize) -> Result<(), Failed> {
    // Via JSON, because the YAML serializer does not support embedded JSON text.
    let json = serde_json::to_string(value).map_err(|error| Failed::new(chain(&error).to_string()))?;
    let text = serde_saphyr::to_string(&Text(&json)).map_err(|error| Failed::new(chain(&error).to_string()))?;
    print_line(printable_lines(text.trim_end()))
}

/// Prints rows under headings.
pub fn print_table<T>(items: &[T], with_wide: bool, columns: &[Column<T>]) -> Result<(), Failed> {
    // The whole table is formatted first, because the widths of columns depend on all rows.
    print_lines(table_lines(items, with_wide, columns))
}

fn table_lines<T>(items: &[T], with_wide: bool, columns: &[Column<T>]) -> Vec<String> {
    let shown: Vec<_> = columns.iter().filter(|column| with_wide || !column.wide).collect();
    let mut table = Table::new();
    // Cells are never wrapped, so that each item is one line for grep and other tools.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(shown.iter().map(|column| column.heading));
    for item in items {
        table.add_row(shown.iter().map(|column| {
            let cell = one_line(&(column.cell)(item));
            if with_wide { cell } else { cut(cell) }
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Maximum width of a cell of a table that is not wide, so that one long name does not widen all rows.
const MAX_CELL: usize = 80;

fn cut(cell: String) -> String {
    if cell.chars().count() <= MAX_CELL {
        return cell;
    }
    cell.chars().take(MAX_CELL - 1).chain(['…']).collect()
}

/// Returns the heading and the rows as CSV.
fn csv_records<T>(items: &[T], columns: &[Column<T>]) -> impl Iterator<Item = String> {
    let heading = csv::record(&columns.iter().map(|column| column.heading).collect::<Vec<_>>());
    let row = move |item| csv::record(&columns.iter().map(|column| (column.cell)(item)).collect::<Vec<_>>());
    std::iter::once(heading).chain(items.iter().map(row))
}

/// Returns `-` for an absent or empty string.
pub fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column<(&str, &str)>] = &[
        column("NAME", |row| row.0.to_owned()),
        column("STATE", |row| row.1.to_owned()),
        wide("BOTH", |row| format!("{row:?}")),
    ];

    #[test]
    fn columns_are_aligned() {
        let lines = table_lines(&[("web\u{1b}[31m", "on"), ("a", "off")], false, COLUMNS);
        assert_eq!(lines, ["NAME      STATE", "web\u{fffd}[31m  on", "a         off"]);
        assert_eq!(table_lines(&[], true, COLUMNS), ["NAME  STATE  BOTH"]);
        let long = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
        let lines = table_lines(&[(long, "a\nb")], false, COLUMNS);
        assert_eq!(lines[1], format!("{}…  a↵b", "x".repeat(79)));
        assert!(table_lines(&[(long, "on")], true, COLUMNS)[1].starts_with(long));
        // Each of these characters takes two cells of a terminal, and the accent none.
        let lines = table_lines(&[("東京", "on"), ("e\u{301}a", "off")], false, COLUMNS);
        assert_eq!(lines, ["NAME  STATE", "東京  on", "e\u{301}a    off"]);
    }

    #[test]
    fn cells_of_csv_are_quoted_and_never_formulas() {
        let rows: Vec<_> = csv_records(&[("=1+1", "a \"b\", c"), ("\t@x", "-")], COLUMNS).collect();
        assert_eq!(rows[0], "NAME,STATE,BOTH\r");
        assert!(rows[1].starts_with("\"'=1+1\",\"a \"\"b\"\", c\","), "{rows:?}");
        assert!(rows[2].starts_with("\"'\u{fffd}@x\",-,"), "{rows:?}");
    }

    #[test]
    fn missing_values_are_printed_as_a_dash() {
        assert_eq!([or_dash(None), or_dash(Some("")), or_dash(Some("x"))], ["-", "-", "x"]);
    }
}
