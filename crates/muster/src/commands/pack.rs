//! `muster pack …`

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::pack::{Pack, QueryFailures, SavePack};
use serde_json::Value;

use super::confirm::Care;
use super::failure::Failed;
use super::find::only;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_one, print_table, wide};
use super::policy_file::{problems_of, read_text};
use super::print_line;

/// Verbs of `pack`.
#[derive(Debug, Subcommand)]
pub enum PackCommand {
    /// List the packs of the space and of all spaces
    #[command(after_help = "Examples:\n  muster pack list\n  muster pack list --output wide")]
    List(ListArgs),
    /// Show a pack
    ///
    /// Also shows queries that fail on hosts, or that osqueryd does not run there any more because it
    /// crashed or was killed while it ran them (denylisted). With --output json or yaml, shows the whole pack.
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster pack show it-compliance\n  muster pack show it-compliance --output yaml"
    )]
    Show(ShowArgs),
    /// Save a pack from a file in the format of osquery, YAML or JSON
    ///
    /// A pack with this name is replaced. Hosts get it with their configuration, usually within a minute.
    #[command(
        after_help = "Examples:\n  muster pack apply it-compliance -f it-compliance.conf --platform linux\n  muster pack apply docker -f docker.yml --label 'docker hosts' --dry-run\n  muster pack apply Global -f global.yml --all-spaces"
    )]
    Apply(ApplyArgs),
    /// Delete a pack
    #[command(after_help = "Examples:\n  muster pack delete it-compliance --yes")]
    Delete(DeleteArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Pack, by name or id
    pack: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `apply`.
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// Name: with `pack_delimiter: /`, the default, results of its queries are named pack/NAME/QUERY
    name: String,
    /// File with the pack, or - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: Utf8PathBuf,
    /// Description
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// Platform whose hosts get it: darwin, linux or windows (repeatable) [default: all]
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<String>,
    /// Only hosts with one of these labels (repeatable) [default: all hosts]
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// For the hosts of all spaces
    #[arg(long)]
    all_spaces: bool,
    /// Validate on the server and print what would be saved, without saving it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Pack, by name or id
    pack: String,
    #[command(flatten)]
    care: Care,
}

const COLUMNS: &[Column<Pack>] = &[
    column("NAME", |pack| pack.name.clone()),
    column("QUERIES", queries),
    column("FAILING", |pack| pack.failures.len().to_string()),
    column("SPACES", spaces),
    column("PLATFORMS", |pack| or_dash(Some(&pack.platforms.join(", ")))),
    column("LABELS", |pack| or_dash(Some(&pack.labels.join(", ")))),
    wide("DESCRIPTION", |pack| or_dash(Some(&pack.description))),
    wide("VERSION", |pack| pack.version.to_string()),
    wide("ID", |pack| pack.id.clone()),
];

const DETAILS: &[Column<Pack>] = &[
    column("ID", |pack| pack.id.clone()),
    column("NAME", |pack| pack.name.clone()),
    column("VERSION", |pack| pack.version.to_string()),
    column("DESCRIPTION", |pack| or_dash(Some(&pack.description))),
    column("SPACES", spaces),
    column("PLATFORMS", |pack| or_dash(Some(&pack.platforms.join(", ")))),
    column("LABELS", |pack| or_dash(Some(&pack.labels.join(", ")))),
    column("QUERIES", queries),
];

/// A query of a pack, as it is printed.
struct Scheduled {
    name: String,
    interval: String,
    sql: String,
}

const SCHEDULED: &[Column<Scheduled>] = &[
    column("QUERY", |query| query.name.clone()),
    column("INTERVAL", |query| query.interval.clone()),
    column("SQL", |query| query.sql.clone()),
];

const FAILURES: &[Column<QueryFailures>] = &[
    column("QUERY", |failures| failures.query.clone()),
    column("HOSTS FAILING", |failures| failures.failing.to_string()),
    column("HOSTS DENYLISTED", |failures| failures.denylisted.to_string()),
    column("NAME", |failures| failures.name.clone()),
];

/// Returns the queries of a pack, with the SQL of each in one line.
fn scheduled(pack: &Pack) -> Vec<Scheduled> {
    let one = |(name, query): (&String, &Value)| Scheduled {
        name: name.clone(),
        interval: member(query, "interval"),
        sql: member(query, "query").split_whitespace().collect::<Vec<_>>().join(" "),
    };
    pack.pack.get("queries").and_then(Value::as_object).into_iter().flatten().map(one).collect()
}

fn queries(pack: &Pack) -> String {
    scheduled(pack).len().to_string()
}

/// Formats a member of a query: osquery takes numbers as strings, too.
fn member(query: &Value, name: &str) -> String {
    match query.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => or_dash(None),
    }
}

fn spaces(pack: &Pack) -> String {
    if pack.all_spaces { "all" } else { "this" }.into()
}

fn id(pack: &Pack) -> String {
    pack.id.clone()
}

impl PackCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => print_list(&client.packs().await?, args.output.output, COLUMNS, id),
            Self::Show(args) => args.run(client).await,
            Self::Apply(args) => args.run(client).await,
            Self::Delete(args) => args.run(client).await,
        }
    }
}

impl ShowArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let (pack, format) = (find(client, &self.pack).await?, self.output.output);
        print_one(&pack, format, DETAILS, id)?;
        if !matches!(format, Format::Table | Format::Wide) {
            return Ok(());
        }
        let scheduled = scheduled(&pack);
        if !scheduled.is_empty() {
            print_line("")?;
            print_table(&scheduled, false, SCHEDULED)?;
        }
        if !pack.failures.is_empty() {
            print_line("")?;
            print_table(&pack.failures, false, FAILURES)?;
        }
        Ok(())
    }
}

impl ApplyArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let pack = SavePack {
            name: self.name,
            description: self.description,
            platforms: self.platforms,
            labels: self.labels,
            all_spaces: self.all_spaces,
            pack: read_text(&self.file)?,
        };
        let saved = if self.dry_run { client.try_save_pack(&pack).await } else { client.save_pack(&pack).await };
        let saved = saved.map_err(|error| problems_of(&self.file, error))?;
        print_one(&saved, self.output.output, DETAILS, id)
    }
}

impl DeleteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let found = find(client, &self.pack).await?;
        let whose = if found.all_spaces { " of all spaces" } else { "" };
        let question = format!("Delete the pack {:?}{whose}?", found.name);
        self.care.delete(&found.name, &question, async |dry_run| client.delete_pack(&found.id, dry_run).await).await
    }
}

/// Finds a pack by id or name.
async fn find(client: &Client, named: &str) -> Result<Pack, Failed> {
    let mut found = client.packs().await?;
    found.retain(|pack| pack.id == named || pack.name.to_lowercase() == named.to_lowercase());
    only("pack", "name", named, found, id)
}
