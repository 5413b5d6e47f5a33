//! One way to print lists and single things: a table for people, JSON or YAML for programs, names for pipes.

use std::io::{self, Write as _};

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::failure::Failed;

/// The forms in which things are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns, for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// The API's own JSON
    Json,
    /// The same as YAML
    Yaml,
    /// Ids alone, one a line
    Name,
}

/// `--output`.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArg {
    /// How to print
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// A column: its heading, whether it is for `wide` only, and what stands in it.
pub struct Column<T> {
    heading: &'static str,
    wide: bool,
    cell: fn(&T) -> String,
}

/// A column of every table.
pub const fn column<T>(heading: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { heading, wide: false, cell }
}

/// A column of wide tables.
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
        Format::Table | Format::Wide => print_table(items, format == Format::Wide, columns),
    }
}

/// Prints one thing: as JSON or YAML, else as `key: value` lines.
pub fn print_one<T: Serialize>(
    item: &T,
    format: Format,
    columns: &[Column<T>],
    name: fn(&T) -> String,
) -> Result<(), Failed> {
    match format {
        Format::Json => print_json(item),
        Format::Yaml => print_yaml(item),
        Format::Name => print_lines([name(item)]),
        Format::Table | Format::Wide => {
            let width = columns.iter().map(|column| column.heading.len()).max().unwrap_or(0);
            print_lines(columns.iter().map(|column| {
                let heading = column.heading.to_lowercase();
                format!("{heading:<width$}  {}", printable(&(column.cell)(item)))
            }))
        }
    }
}

/// Prints anything as JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), Failed> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failed::new(error.to_string()))?;
    print_lines([text])
}

fn print_yaml(value: &impl Serialize) -> Result<(), Failed> {
    let text = serde_saphyr::to_string(value).map_err(|error| Failed::new(error.to_string()))?;
    print_lines([text.trim_end().to_owned()])
}

fn print_table<T>(items: &[T], with_wide: bool, columns: &[Column<T>]) -> Result<(), Failed> {
    let shown: Vec<_> = columns.iter().filter(|column| with_wide || !column.wide).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(shown.iter().map(|column| column.heading));
    for item in items {
        table.add_row(shown.iter().map(|column| printable(&(column.cell)(item))));
    }
    print_lines(table.lines().map(|line| line.trim_end().to_owned()))
}

/// Text from agents must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Prints lines; a reader that has seen enough ends the command quietly.
pub fn print_lines(lines: impl IntoIterator<Item = String>) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    for line in lines {
        match writeln!(out, "{line}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

/// `-` for what is not there.
pub fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_cannot_steer_the_terminal() {
        assert_eq!(printable("web\u{1b}[31m-1\r\n"), "web\u{fffd}[31m-1\u{fffd}\u{fffd}");
    }
}
