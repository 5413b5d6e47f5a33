//! `muster change …`

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::time::Duration;

use clap::{Args, Subcommand};
use muster_client::{Client, Error};
use muster_core::csv;
use muster_protocol::management::change::{Change, ListChanges};

use super::failure::Failed;
use super::listing::{Column, Format, OutputArg, column, print_list};

/// Pause before a broken stream is opened again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Verbs of `change`.
#[derive(Debug, Subcommand)]
pub enum ChangeCommand {
    /// List the objects that were changed after a given change
    ///
    /// If an object was changed several times, only its last change is listed. The server keeps the newest 100,000 changes.
    #[command(
        after_help = "Examples:\n  muster change list --after 1200\n  muster change list --after 1200 --output json"
    )]
    List(ListArgs),
    /// Print changes as they are made, one per line
    ///
    /// Reconnects after an interruption and continues with the next change. Press Ctrl-C to stop.
    #[command(after_help = "Examples:\n  muster change watch\n  muster change watch --after 1200 --output json")]
    Watch(WatchArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Number of the last change that you have seen
    #[arg(long, value_name = "NO")]
    after: i64,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `watch`.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// Number of the last change that you have seen; default: the newest
    #[arg(long, value_name = "NO")]
    after: Option<i64>,
    #[command(flatten)]
    output: OutputArg,
}

const COLUMNS: &[Column<Change>] = &[
    column("NO", |change| change.seq.to_string()),
    column("KIND", |change| change.kind.clone()),
    column("ID", |change| change.id.clone()),
    column("CHANGE", |change| word(change).to_owned()),
];

fn word(change: &Change) -> &'static str {
    if change.deleted { "deleted" } else { "changed" }
}

impl ChangeCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => args.run(client).await,
            Self::Watch(args) => args.run(client).await,
        }
    }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut query = ListChanges { after: Some(self.after), limit: Some(1000) };
        let mut changes: Vec<Change> = Vec::new();
        loop {
            let page = client.changes(&query).await?;
            changes.extend(page.items);
            query.after = Some(page.next);
            if !page.has_more {
                break;
            }
        }
        print_list(&changes, self.output.output, COLUMNS, |change| change.id.clone())
    }
}

impl WatchArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        // Known from the beginning, so that nothing is lost if the stream breaks before the first change.
        let newest = client.changes(&ListChanges { after: self.after, limit: Some(1) }).await?.next;
        let mut last = self.after.unwrap_or(newest);
        loop {
            let mut printed = Ok(());
            let ended = client
                .follow_changes(Some(last), &mut |change| {
                    last = change.seq;
                    printed = print(&change, self.output.output);
                    if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })
                .await;
            match (printed, ended) {
                // Whoever reads the lines has seen enough.
                (Err(error), _) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                (Err(error), _) => return Err(error.into()),
                // The server ended the stream, or the connection was lost.
                (Ok(()), Ok(()) | Err(Error::Broken { .. } | Error::Unreachable { .. })) => {
                    tokio::time::sleep(RECONNECT).await;
                }
                (Ok(()), Err(error)) => return Err(error.into()),
            }
        }
    }
}

fn print(change: &Change, format: Format) -> io::Result<()> {
    let line = match format {
        Format::Name => change.id.clone(),
        // YAML contains JSON, and a line of it is one change.
        Format::Json | Format::Yaml => serde_json::to_string(change)?,
        Format::Csv => csv::record(&[&change.seq.to_string(), &change.kind, &change.id, word(change)]),
        Format::Table | Format::Wide => format!("{} {} {} {}", change.seq, change.kind, change.id, word(change)),
    };
    writeln!(io::stdout().lock(), "{line}")
}
