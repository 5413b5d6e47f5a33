//! `muster store …`
//!
//! The only commands that use the store itself and not the REST API: no server may run meanwhile.

use std::ops::ControlFlow;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use muster_core::error_chain::chain;
use muster_server::data_dir::{DATABASE, DataDir};
use muster_store::copy::{Copied, CopiedTable, CopyError, Place, Progress, Stage, copy, count_rows};
use muster_store::postgres::Address;
use serde::Serialize;

use super::failure::Failed;
use super::listing::{Column, Format, OutputArg, column, print_json, print_list, print_table, print_yaml};
use super::text::{print_line, print_lines};

/// Verbs of `store`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy the database of a stopped fleet to an empty database, for example from SQLite to PostgreSQL
    ///
    /// Stop all servers of the fleet first. The source is not changed. The target must be empty, or contain an interrupted copy of the same
    /// source, which is then resumed. At the end, both databases are read and compared, and the command prints the number of rows and a
    /// digest of each table. Servers do not start with an incomplete copy.
    ///
    /// master.key is not in the database, and is not copied. Servers that use the copy need it.
    #[command(
        after_help = "Examples:\n  muster store copy --from /var/lib/muster --to 'postgres://muster@db.example:5432/muster'\n  muster store copy --from 'postgres://muster@db.example:5432/muster' --to /srv/muster\n  muster store copy --from /var/lib/muster --to /srv/muster --dry-run"
    )]
    Copy(CopyArgs),
}

/// Flags of `copy`.
#[derive(Args, Debug)]
pub struct CopyArgs {
    /// Database to copy: a data directory, the file muster.db, or postgres://USER@HOST:PORT/DATABASE
    #[arg(long, value_name = "SOURCE")]
    from: String,
    /// Empty database to copy to: a data directory, a file, or postgres://USER@HOST:PORT/DATABASE
    #[arg(long, value_name = "TARGET")]
    to: String,
    /// Check both databases and print the number of rows in each table, without copying anything
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// A table in the output.
#[derive(Serialize)]
struct Table {
    table: &'static str,
    rows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

impl From<CopiedTable> for Table {
    fn from(CopiedTable { name, rows, digest }: CopiedTable) -> Self {
        Self { table: name, rows, digest: Some(digest) }
    }
}

/// The result, as JSON and YAML show it.
#[derive(Serialize)]
struct Report {
    from: String,
    to: String,
    dry_run: bool,
    continued: bool,
    replaced_strings: u64,
    tables: Vec<Table>,
}

const COLUMNS: &[Column<Table>] = &[
    column("TABLE", |table| table.table.to_owned()),
    column("ROWS", |table| table.rows.to_string()),
    column("DIGEST", |table| table.digest.clone().unwrap_or_default()),
];

impl StoreCommand {
    /// Runs the verb. Blocks.
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Self::Copy(args) => args.run(),
        }
    }
}

impl CopyArgs {
    fn run(&self) -> Result<(), Failed> {
        let from = Located::source(&self.from)?;
        let to = Located::target(&self.to, self.dry_run)?;
        let mut report = Report {
            from: from.place.to_string(),
            to: to.place.to_string(),
            dry_run: self.dry_run,
            continued: false,
            replaced_strings: 0,
            tables: Vec::new(),
        };
        if self.dry_run {
            let counted = count_rows(&from.place, &to.place)?;
            report.tables = counted.into_iter().map(|(table, rows)| Table { table, rows, digest: None }).collect();
            return self.print(&report);
        }
        let Copied { tables, is_continued, replaced } = with_progress(&from.place, &to.place)?;
        (report.continued, report.replaced_strings) = (is_continued, replaced);
        report.tables = tables.into_iter().map(Table::from).collect();
        self.print(&report)?;
        eprintln!("muster: {}", next_steps(&from, &to, replaced));
        Ok(())
    }

    fn print(&self, report: &Report) -> Result<(), Failed> {
        match self.output.output {
            Format::Json => print_json(report),
            Format::Yaml => print_yaml(report),
            Format::Csv => print_list(&report.tables, Format::Csv, COLUMNS, |table| table.table.to_owned()),
            Format::Name => print_lines(report.tables.iter().map(|table| table.table.to_owned())),
            Format::Table | Format::Wide => {
                print_table(&report.tables, false, COLUMNS)?;
                let rows: u64 = report.tables.iter().map(|table| table.rows).sum();
                let what = if report.dry_run { "to copy" } else { "copied and verified" };
                print_line(format!("{rows} rows {what}, from {} to {}", report.from, report.to))
            }
        }
    }
}

fn with_progress(from: &Place, to: &Place) -> Result<Copied, Failed> {
    // On a pipe, the bar is not shown.
    let bar = ProgressBar::new(0).with_style(style());
    let copied = copy(from, to, &mut |progress: Progress| {
        let doing = match progress.stage {
            Stage::Copying => "copying",
            Stage::Verifying => "verifying",
        };
        bar.set_length(progress.total);
        bar.set_position(progress.rows);
        bar.set_message(format!("{doing} {}", progress.table));
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    Ok(copied?)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A database, and the lock of its data directory.
struct Located {
    place: Place,
    directory: Option<Utf8PathBuf>,
    _lock: Option<DataDir>,
}

impl Located {
    fn source(text: &str) -> Result<Self, Failed> {
        let Some(database) = file_of(text) else { return Self::database(text) };
        if !database.is_file() {
            return Err(Failed::not_found(format!("{database} does not exist")));
        }
        Self::file(database, false)
    }

    fn target(text: &str, dry_run: bool) -> Result<Self, Failed> {
        let Some(database) = file_of(text) else { return Self::database(text) };
        // A dry run creates no directory.
        let creates = database.file_name() == Some(DATABASE) && !dry_run;
        Self::file(database, creates)
    }

    fn database(url: &str) -> Result<Self, Failed> {
        let address: Address = url.parse().map_err(|error| Failed::usage(chain(&error).to_string()))?;
        Ok(Self { place: address.into(), directory: None, _lock: None })
    }

    /// Takes the lock of the data directory that a file is in. Another server that has it is refused.
    fn file(database: Utf8PathBuf, creates: bool) -> Result<Self, Failed> {
        let directory = database.parent().unwrap_or(Utf8Path::new("")).to_owned();
        // Only a data directory has a lock. The file can also be a copy in another place.
        let lock = if creates || directory.join("lock").is_file() {
            Some(DataDir::open(&directory).map_err(|error| Failed::new(chain(&error).to_string()))?)
        } else {
            None
        };
        Ok(Self { place: Place::File(database.into()), directory: Some(directory), _lock: lock })
    }
}

/// The file that a path means; `None` for a URL.
fn file_of(text: &str) -> Option<Utf8PathBuf> {
    if text.contains("://") {
        return None;
    }
    let path = Utf8Path::new(text);
    let is_file = path.is_file() || (path.extension() == Some("db") && !path.is_dir());
    Some(if is_file { path.to_owned() } else { path.join(DATABASE) })
}

/// What remains to be done by hand.
fn next_steps(from: &Located, to: &Located, replaced: u64) -> String {
    let key = match &from.directory {
        Some(directory) => directory.join("master.key").to_string(),
        None => "master.key from the data directory of a server of the source".to_owned(),
    };
    let into = match &to.directory {
        Some(directory) => directory.to_string(),
        None => "the data directory of each server that will use the copy, unless it is already there".to_owned(),
    };
    let nul = match replaced {
        0 => String::new(),
        strings => format!("PostgreSQL cannot store NUL: it was replaced by U+FFFD in {strings} strings\n  "),
    };
    format!(
        "{nul}the copy does not contain the master key: copy {key} to {into}\n  hint: do not start a server on the source; \
         the copy would lack what agents report to it"
    )
}

impl From<CopyError> for Failed {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::NoFleet(_) => Self::not_found(chain(&error).to_string()),
            CopyError::Same(_) => Self::usage(chain(&error).to_string()),
            error => Self::new(chain(&error).to_string()),
        }
    }
}
