//! `muster output …`

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::output::{Output, OutputHealth, OutputKeyCounts};
use serde::Serialize;
use serde_json::Value;

use super::failure::Failed;
use super::find::if_there;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one, wide};
use super::text::printable;

/// Outputs per request: all of them, since there are few.
const PER_PAGE: u32 = 1000;

/// Verbs of `output`.
#[derive(Debug, Subcommand)]
pub enum OutputCommand {
    /// List outputs
    #[command(after_help = "Examples:\n  muster output list\n  muster output list --output json")]
    List(ListArgs),
    /// Show an output, its health, and the number of its agents' API keys
    ///
    /// OUTPUT can also be the name of an output in the `config` of a policy.
    #[command(after_help = "Examples:\n  muster output show main\n  muster output show default --output json")]
    Show(ShowArgs),
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
    /// Output, by name or id
    #[arg(value_name = "OUTPUT")]
    name: String,
    #[command(flatten)]
    output: OutputArg,
}

/// An output with its health.
#[derive(Serialize)]
struct Shown {
    /// Id, or the name in a policy.
    id: String,
    /// The output; `None` if it is defined in policies only.
    output: Option<Output>,
    /// Its health.
    health: OutputHealth,
}

const COLUMNS: &[Column<Output>] = &[
    column("ID", |output| output.id.clone()),
    column("NAME", |output| output.name.clone()),
    column("TYPE", |output| output.kind.clone()),
    column("DEFAULT", |output| if output.is_default { "yes" } else { "-" }.to_owned()),
    column("HOSTS", hosts),
    wide("UPDATED", |output| output.updated_at.clone()),
];

const DETAILS: &[Column<Shown>] = &[
    column("ID", |shown| shown.id.clone()),
    column("NAME", |shown| or_dash(shown.output.as_ref().map(|output| output.name.as_str()))),
    column("TYPE", |shown| or_dash(shown.output.as_ref().map(|output| output.kind.as_str()))),
    column("HOSTS", |shown| shown.output.as_ref().map_or_else(|| "-".to_owned(), hosts)),
    column("HEALTH", |shown| shown.health.state.clone()),
    column("MESSAGE", |shown| shown.health.message.clone()),
    column("SINCE", |shown| or_dash(shown.health.since.as_deref())),
    column("KEYS", |shown| shown.health.keys.as_ref().map_or_else(|| "-".to_owned(), keys)),
];

fn hosts(output: &Output) -> String {
    let hosts = output.fields.get("hosts").and_then(Value::as_array).into_iter().flatten();
    hosts.filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

fn keys(counts: &OutputKeyCounts) -> String {
    let OutputKeyCounts { issued, wanted, outdated, failed, to_invalidate } = counts;
    format!(
        "{issued} issued, {wanted} to create, {outdated} to update, {failed} rejected, {to_invalidate} to invalidate"
    )
}

impl OutputCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => {
                let outputs = client.outputs(1, PER_PAGE).await?.items;
                print_list(&outputs, args.output.output, COLUMNS, |output| output.id.clone())
            }
            Self::Show(args) => args.run(client).await,
        }
    }
}

impl ShowArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let output = find(client, &self.name).await?;
        let id = output.as_ref().map_or(self.name.clone(), |output| output.id.clone());
        let health = if_there(client.output_health(&id).await)?.ok_or_else(|| {
            Failed::not_found(format!("no output with the name or id {:?}", self.name))
                .remedy("list outputs: muster output list")
        })?;
        for warning in output.iter().flat_map(|output| &output.warnings) {
            eprintln!("muster: warning: {}", printable(warning));
        }
        print_one(&Shown { id, output, health }, self.output.output, DETAILS, |shown| shown.id.clone())
    }
}

/// Returns the output with this id, else with this name.
async fn find(client: &Client, named: &str) -> Result<Option<Output>, Failed> {
    let outputs = client.outputs(1, PER_PAGE).await?.items;
    let by_id = outputs.iter().position(|output| output.id == named);
    let place = by_id.or_else(|| outputs.iter().position(|output| output.name == named));
    Ok(place.and_then(|place| outputs.into_iter().nth(place)))
}
