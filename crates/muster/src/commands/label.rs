//! `muster label …`

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_core::plural::counted;
use muster_protocol::management::host::{Host, ListHosts};
use muster_protocol::management::label::{Label, LabelHosts, LabelKind, SaveLabel};

use super::confirm::Care;
use super::failure::Failed;
use super::find::{all_pages, only};
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_one, print_table, wide};
use super::selection::labelled;
use super::text::print_line;

/// Verbs of `label`.
#[derive(Debug, Subcommand)]
pub enum LabelCommand {
    /// List labels with their numbers of hosts
    #[command(after_help = "Examples:\n  muster label list\n  muster label list --output wide")]
    List(ListArgs),
    /// Show a label and its hosts
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster label show 'docker hosts'\n  muster label show 'All Linux' --output json"
    )]
    Show(ShowArgs),
    /// Create a label
    ///
    /// With --query, the label is dynamic: it has the hosts on which the SQL returns a row. They answer
    /// it within seconds, and then every hour. Without --query, you choose its hosts.
    #[command(
        after_help = "Examples:\n  muster label create 'docker hosts' --platform linux --query 'SELECT 1 FROM docker_info'\n  muster label create 'pilot group' --host web-7 --host web-8"
    )]
    Create(CreateArgs),
    /// Change a label
    #[command(
        after_help = "Examples:\n  muster label update 'pilot group' --name 'early adopters'\n  muster label update 'docker hosts' --all-platforms"
    )]
    Update(UpdateArgs),
    /// Delete a label
    #[command(after_help = "Examples:\n  muster label delete 'pilot group' --yes")]
    Delete(DeleteArgs),
    /// Add hosts to a manual label
    #[command(after_help = "Examples:\n  muster label add-hosts 'pilot group' web-9 web-10")]
    AddHosts(HostsArgs),
    /// Remove hosts from a manual label
    #[command(after_help = "Examples:\n  muster label remove-hosts 'pilot group' web-9")]
    RemoveHosts(HostsArgs),
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
    /// Label, by name or id
    label: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Name, unique in the space
    name: String,
    /// Description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// SQL: a host has the label if it returns a row
    #[arg(long, value_name = "SQL")]
    query: Option<String>,
    /// Platform whose hosts run the SQL: darwin, linux or windows (repeatable) [default: all]
    #[arg(long = "platform", value_name = "PLATFORM", requires = "query")]
    platforms: Vec<String>,
    /// Host of the label, by name, serial number, hardware UUID or id (repeatable)
    #[arg(long = "host", value_name = "HOST", conflicts_with = "query")]
    hosts: Vec<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `update`.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// Label, by name or id
    label: String,
    /// Name [default: unchanged]
    #[arg(long)]
    name: Option<String>,
    /// Description [default: unchanged]
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// SQL of a dynamic label [default: unchanged]
    #[arg(long, value_name = "SQL")]
    query: Option<String>,
    /// Platform whose hosts run the SQL: darwin, linux or windows (repeatable) [default: unchanged]
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<String>,
    /// Run the SQL on the hosts of all platforms
    #[arg(long, conflicts_with = "platforms")]
    all_platforms: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Label, by name or id
    label: String,
    #[command(flatten)]
    care: Care,
}

/// Flags of `add-hosts` and `remove-hosts`.
#[derive(Args, Debug)]
pub struct HostsArgs {
    /// Label, by name or id
    label: String,
    /// Hosts, by name, serial number, hardware UUID or id
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
}

const COLUMNS: &[Column<Label>] = &[
    column("NAME", |label| label.name.clone()),
    column("KIND", kind),
    column("HOSTS", |label| label.hosts.to_string()),
    wide("FAILING", |label| label.failing.to_string()),
    column("PLATFORMS", platforms),
    wide("DESCRIPTION", |label| or_dash(Some(&label.description))),
    wide("ID", |label| label.id.clone()),
];

const DETAILS: &[Column<Label>] = &[
    column("ID", |label| label.id.clone()),
    column("NAME", |label| label.name.clone()),
    column("KIND", kind),
    column("DESCRIPTION", |label| or_dash(Some(&label.description))),
    column("QUERY", |label| or_dash(label.query.as_deref())),
    column("PLATFORMS", platforms),
    column("HOSTS", |label| label.hosts.to_string()),
    column("FAILING", |label| label.failing.to_string()),
    column("LAST ERROR", |label| or_dash(label.error.as_deref())),
];

const HOSTS: &[Column<Host>] = &[
    column("HOST", |host| or_dash(Some(&host.hostname))),
    column("OS", |host| or_dash(Some(&host.os))),
    column("LAST SEEN", |host| or_dash(host.last_seen.as_deref())),
    column("ID", |host| host.id.clone()),
];

fn kind(label: &Label) -> String {
    match label.kind {
        LabelKind::BuiltIn => "built-in",
        LabelKind::Dynamic => "dynamic",
        LabelKind::Manual => "manual",
    }
    .into()
}

fn platforms(label: &Label) -> String {
    or_dash(Some(&label.platforms.join(", ")))
}

fn id(label: &Label) -> String {
    label.id.clone()
}

impl LabelCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => print_list(&client.labels().await?.items, args.output.output, COLUMNS, id),
            Self::Show(args) => args.run(client).await,
            Self::Create(args) => args.run(client).await,
            Self::Update(args) => args.run(client).await,
            Self::Delete(args) => args.run(client).await,
            Self::AddHosts(args) => {
                let label = find(client, &args.label).await?;
                let changed = client.add_label_hosts(&label.id, &LabelHosts { hosts: args.hosts }).await?;
                print_line(format!("added {} to the label {:?}", counted(changed, "host"), label.name))
            }
            Self::RemoveHosts(args) => {
                let label = find(client, &args.label).await?;
                let changed = client.remove_label_hosts(&label.id, &LabelHosts { hosts: args.hosts }).await?;
                print_line(format!("removed {} from the label {:?}", counted(changed, "host"), label.name))
            }
        }
    }
}

impl ShowArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let label = find(client, &self.label).await?;
        let format = self.output.output;
        print_one(&label, format, DETAILS, id)?;
        if !matches!(format, Format::Table | Format::Wide) {
            return Ok(());
        }
        let filter = labelled(&[label.name], None);
        let read = async |page, per_page| {
            client.hosts(&ListHosts { page, per_page, kuery: filter.clone(), ..ListHosts::default() }).await
        };
        let hosts = all_pages(read).await?;
        print_line("")?;
        print_table(&hosts, format == Format::Wide, HOSTS)
    }
}

impl CreateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let label = SaveLabel {
            name: Some(self.name),
            description: self.description,
            query: self.query,
            platforms: Some(self.platforms),
            hosts: self.hosts,
        };
        print_one(&client.create_label(&label).await?, self.output.output, DETAILS, id)
    }
}

impl UpdateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let found = find(client, &self.label).await?;
        // An empty list stands for all platforms, and must not be passed by accident.
        let platforms = (self.all_platforms || !self.platforms.is_empty()).then_some(self.platforms);
        let change = SaveLabel {
            name: self.name,
            description: self.description,
            query: self.query,
            platforms,
            hosts: Vec::new(),
        };
        print_one(&client.update_label(&found.id, &change).await?, self.output.output, DETAILS, id)
    }
}

impl DeleteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let found = find(client, &self.label).await?;
        let question = format!("Delete the label {:?}, which {} have?", found.name, counted(found.hosts, "host"));
        self.care.delete(&found.name, &question, async |dry_run| client.delete_label(&found.id, dry_run).await).await
    }
}

/// Finds a label by id or name.
async fn find(client: &Client, named: &str) -> Result<Label, Failed> {
    let mut found = client.labels().await?.items;
    found.retain(|label| label.id == named || label.name.to_lowercase() == named.to_lowercase());
    only("label", "name", named, found, id)
}
