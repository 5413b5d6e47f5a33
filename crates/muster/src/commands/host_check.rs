//! `muster host-check …`

use clap::{Args, Subcommand, ValueEnum};
use muster_client::Client;
use muster_protocol::management::host_check::{
    CheckChange, CheckDay, CheckResponse, CheckedHost, HostCheck, ListCheckedHosts, SaveHostCheck,
};

use super::confirm::Care;
use super::failure::Failed;
use super::find::{all_pages, only};
use super::host::find as find_host;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_one, print_table, wide};
use super::text::print_line;

/// Number of days that `show` shows.
const DAYS_SHOWN: usize = 8;

/// Verbs of `host-check`.
#[derive(Debug, Subcommand)]
pub enum HostCheckCommand {
    /// List host checks with the numbers of hosts that pass and fail
    #[command(after_help = "Examples:\n  muster host-check list\n  muster host-check list --output wide")]
    List(ListArgs),
    /// Show a host check, the numbers of hosts of the last week, and the hosts that fail it
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster host-check show 'disk encrypted'\n  muster host-check show 'disk encrypted' --hosts passing\n  muster host-check show 'disk encrypted' --output json"
    )]
    Show(ShowArgs),
    /// Show how the answers to a host check changed
    ///
    /// Shows how many hosts passed and failed at the end of each of the last 90 days (UTC), and now.
    /// With --host, shows the latest changes of the answer of a host, at most 20.
    #[command(
        after_help = "Examples:\n  muster host-check history 'disk encrypted'\n  muster host-check history 'disk encrypted' --output json\n  muster host-check history 'disk encrypted' --host web-7"
    )]
    History(HistoryArgs),
    /// Create a host check: SQL that returns a row on a host that passes
    ///
    /// Hosts with osquery answer it within seconds, and then every hour.
    #[command(
        after_help = "Examples:\n  muster host-check create 'disk encrypted' --platform linux --query 'SELECT 1 FROM disk_encryption WHERE encrypted = 1' --resolution 'Ask IT to encrypt the disk'"
    )]
    Create(CreateArgs),
    /// Change a host check
    #[command(
        after_help = "Examples:\n  muster host-check update 'disk encrypted' --platform linux --platform darwin\n  muster host-check update 'disk encrypted' --name 'encrypted disks'"
    )]
    Update(UpdateArgs),
    /// Delete a host check with its results
    #[command(after_help = "Examples:\n  muster host-check delete 'disk encrypted' --yes")]
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
    /// Host check, by id or name
    check: String,
    /// Hosts to list
    #[arg(long, value_enum, default_value_t)]
    hosts: Hosts,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `history`.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// Host check, by id or name
    check: String,
    /// Host whose answers to show, by id, name, serial number or hardware UUID [default: numbers of all hosts]
    #[arg(long)]
    host: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Hosts that `show` lists.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Hosts {
    /// Those that fail
    #[default]
    Failing,
    /// Those that pass
    Passing,
    /// Those on which the query did not run the last time
    Error,
}

/// Fields of a check.
#[derive(Args, Debug)]
pub struct Fields {
    /// Description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// What the user of a host can do if it fails
    #[arg(long, value_name = "TEXT")]
    resolution: Option<String>,
    /// Platform whose hosts are checked: darwin, linux or windows (repeatable) [default: all]
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<String>,
    /// Check only hosts with one of these labels (repeatable) [default: all hosts]
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Name, unique in the space
    name: String,
    /// SQL: a host passes if it returns a row
    #[arg(long, value_name = "SQL")]
    query: String,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `update`.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// Host check, by id or name
    check: String,
    /// Name [default: unchanged]
    #[arg(long)]
    name: Option<String>,
    /// SQL [default: unchanged]
    #[arg(long, value_name = "SQL")]
    query: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// Check the hosts of all platforms
    #[arg(long, conflicts_with = "platforms")]
    all_platforms: bool,
    /// Check hosts whatever labels they have
    #[arg(long, conflicts_with = "labels")]
    any_label: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Host check, by id or name
    check: String,
    #[command(flatten)]
    care: Care,
}

const COLUMNS: &[Column<HostCheck>] = &[
    column("NAME", |check| check.name.clone()),
    column("PASSING", |check| check.passing.to_string()),
    column("FAILING", |check| check.failing.to_string()),
    column("ERRORS", |check| check.errors.to_string()),
    column("PLATFORMS", platforms),
    wide("LAST ERROR", |check| or_dash(check.error.as_deref())),
    wide("DESCRIPTION", |check| or_dash(Some(&check.description))),
    wide("ID", |check| check.id.clone()),
];

const DETAILS: &[Column<HostCheck>] = &[
    column("ID", |check| check.id.clone()),
    column("NAME", |check| check.name.clone()),
    column("DESCRIPTION", |check| or_dash(Some(&check.description))),
    column("QUERY", |check| check.query.clone()),
    column("RESOLUTION", |check| or_dash(Some(&check.resolution))),
    column("PLATFORMS", platforms),
    column("LABELS", |check| or_dash(Some(&check.labels.join(", ")))),
    column("PASSING", |check| check.passing.to_string()),
    column("FAILING", |check| check.failing.to_string()),
    column("ERRORS", |check| check.errors.to_string()),
    column("LAST ERROR", |check| or_dash(check.error.as_deref())),
];

const DAYS: &[Column<CheckDay>] = &[
    column("DAY", |day| day.day.clone()),
    column("PASSING", |day| day.passing.to_string()),
    column("FAILING", |day| day.failing.to_string()),
];

const CHANGES: &[Column<CheckChange>] = &[
    column("SINCE", |change| change.since.clone()),
    column("RESULT", |change| if change.passes { "passes".into() } else { "fails".into() }),
];

const HOSTS: &[Column<CheckedHost>] = &[
    column("HOST", |host| or_dash(Some(&host.hostname))),
    column("SINCE", |host| host.since.clone()),
    column("ERROR", |host| or_dash(host.error.as_deref())),
    column("ID", |host| or_dash(host.id.as_deref())),
];

fn platforms(check: &HostCheck) -> String {
    if check.platforms.is_empty() { "all".to_owned() } else { check.platforms.join(", ") }
}

fn id(check: &HostCheck) -> String {
    check.id.clone()
}

impl HostCheckCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => print_list(&client.host_checks().await?.items, args.output.output, COLUMNS, id),
            Self::Show(args) => args.run(client).await,
            Self::History(args) => args.run(client).await,
            Self::Create(args) => args.run(client).await,
            Self::Update(args) => args.run(client).await,
            Self::Delete(args) => args.run(client).await,
        }
    }
}

impl ShowArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let check = find(client, &self.check).await?;
        let format = self.output.output;
        print_one(&check, format, DETAILS, id)?;
        if !matches!(format, Format::Table | Format::Wide) {
            return Ok(());
        }
        let days = client.host_check_days(&check.id).await?.items;
        if days.len() > 1 {
            print_line("")?;
            print_table(&days[days.len().saturating_sub(DAYS_SHOWN)..], false, DAYS)?;
        }
        let response = Some(match self.hosts {
            Hosts::Failing => CheckResponse::Failing,
            Hosts::Passing => CheckResponse::Passing,
            Hosts::Error => CheckResponse::Error,
        });
        let read = async |page, per_page| {
            let query = ListCheckedHosts { page, per_page, response };
            client.checked_hosts(&check.id, &query).await
        };
        let hosts = all_pages(read).await?;
        print_line("")?;
        print_table(&hosts, format == Format::Wide, HOSTS)
    }
}

impl HistoryArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let check = find(client, &self.check).await?;
        let format = self.output.output;
        let Some(named) = self.host else {
            let days = client.host_check_days(&check.id).await?.items;
            return print_list(&days, format, DAYS, |day| day.day.clone());
        };
        let host = find_host(client, &named).await?;
        let Some(answer) = host.checks.into_iter().find(|one| one.id == check.id) else {
            let message = format!("the host check {:?} does not apply to the host {named:?}", check.name);
            return Err(Failed::not_found(message));
        };
        print_list(&answer.history, format, CHANGES, |change| change.since.clone())
    }
}

impl CreateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let Fields { description, resolution, platforms, labels } = self.fields;
        let check = SaveHostCheck {
            name: Some(self.name),
            query: Some(self.query),
            description,
            resolution,
            platforms: Some(platforms),
            labels: Some(labels),
        };
        print_one(&client.create_host_check(&check).await?, self.output.output, DETAILS, id)
    }
}

impl UpdateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let found = find(client, &self.check).await?;
        let Fields { description, resolution, platforms, labels } = self.fields;
        // An empty list stands for all hosts, and must not be passed by accident.
        let platforms = (self.all_platforms || !platforms.is_empty()).then_some(platforms);
        let labels = (self.any_label || !labels.is_empty()).then_some(labels);
        let change = SaveHostCheck { name: self.name, query: self.query, description, resolution, platforms, labels };
        print_one(&client.update_host_check(&found.id, &change).await?, self.output.output, DETAILS, id)
    }
}

impl DeleteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let found = find(client, &self.check).await?;
        let question = format!("Delete the host check {:?} with its results?", found.name);
        self.care
            .delete(&found.name, &question, async |dry_run| client.delete_host_check(&found.id, dry_run).await)
            .await
    }
}

/// Finds a check by id or name.
async fn find(client: &Client, named: &str) -> Result<HostCheck, Failed> {
    let mut found = client.host_checks().await?.items;
    found.retain(|check| check.id == named || check.name.eq_ignore_ascii_case(named));
    only("host check", "name", named, found, id)
}
