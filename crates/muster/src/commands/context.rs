//! `muster context …`

use clap::{Args, Subcommand};
use serde::Serialize;

use super::connect::Connect;
use super::contexts::{Context, Contexts};
use super::failure::Failed;
use super::listing::{Column, OutputArg, column, or_dash, print_list};
use super::text::print_line;

/// Verbs of `context`.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List contexts, without their tokens
    #[command(after_help = "Examples:\n  muster context list")]
    List(ListArgs),
    /// Add or replace a context, and use it
    ///
    /// The connection flags, including the token, are stored in ~/.config/muster/contexts.toml, which only you can
    /// read.
    #[command(
        after_help = "Examples:\n  muster context add production --url https://fleet.example:8230 --ca ca.crt --token TOKEN"
    )]
    Add(OneArgs),
    /// Use a context for all commands that are run without connection flags
    #[command(after_help = "Examples:\n  muster context use production")]
    Use(OneArgs),
    /// Remove a context
    #[command(after_help = "Examples:\n  muster context remove production")]
    Remove(OneArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArg,
}

/// The context of a command.
#[derive(Args, Debug)]
pub struct OneArgs {
    /// Name of the context
    name: String,
}

#[derive(Serialize)]
struct Row {
    name: String,
    current: bool,
    url: String,
    space: Option<String>,
    has_token: bool,
}

const COLUMNS: &[Column<Row>] = &[
    column("NAME", |row| row.name.clone()),
    column("CURRENT", |row| if row.current { "yes" } else { "-" }.to_owned()),
    column("URL", |row| row.url.clone()),
    column("SPACE", |row| or_dash(row.space.as_deref())),
    column("TOKEN", |row| if row.has_token { "set" } else { "-" }.to_owned()),
];

impl ContextCommand {
    /// Runs the verb. Contacts no server.
    pub fn run(self, connect: &Connect) -> Result<(), Failed> {
        let mut all = Contexts::load()?;
        match self {
            Self::List(args) => return list(all, args.output),
            Self::Add(args) => {
                all.contexts.insert(args.name.clone(), described(connect)?);
                all.current = Some(args.name);
            }
            Self::Use(args) => {
                all.find(&args.name)?;
                all.current = Some(args.name);
            }
            Self::Remove(args) => {
                all.find(&args.name)?;
                all.contexts.remove(&args.name);
                all.current.take_if(|current| *current == args.name);
            }
        }
        all.save()?;
        print_line(format!("current context: {}", or_dash(all.current.as_deref())))
    }
}

fn described(connect: &Connect) -> Result<Context, Failed> {
    let url =
        connect.url.clone().ok_or_else(|| Failed::usage("--url is required").remedy("--url https://HOST:8230"))?;
    // Absolute, because later commands run in other directories.
    let ca = connect.ca.as_deref().map(camino::absolute_utf8).transpose()?;
    Ok(Context { url, token: connect.token.clone(), ca, space: connect.space.clone() })
}

fn list(all: Contexts, output: OutputArg) -> Result<(), Failed> {
    let current = all.current;
    let rows: Vec<Row> = all
        .contexts
        .into_iter()
        .map(|(name, context)| Row {
            current: current.as_deref() == Some(name.as_str()),
            name,
            url: context.url,
            space: context.space,
            has_token: context.token.is_some(),
        })
        .collect();
    print_list(&rows, output.output, COLUMNS, |row| row.name.clone())
}
