//! `muster status`: the server's state, the number of agents by status, outputs whose settings fail, and recently rejected
//! requests.

use clap::Args;
use muster_client::Client;
use muster_protocol::management::node::Nodes;
use muster_protocol::management::output::OutputHealth;
use muster_protocol::management::refused::RefusedRequests;
use muster_protocol::management::status::AgentStatusResults;
use serde::Serialize;

use super::failure::Failed;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_one, print_table};
use super::node;
use super::text::print_line;

/// Flags of `status`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  muster status\n  muster status --output json")]
pub struct StatusArgs {
    #[command(flatten)]
    output: OutputArg,
}

#[derive(Serialize)]
struct Overview {
    server: String,
    agents: AgentStatusResults,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Nodes>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<FailingOutput>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Vec<RefusedRequests>>,
}

/// An output with bootstrap settings that is not healthy.
#[derive(Serialize)]
struct FailingOutput {
    name: String,
    #[serde(flatten)]
    health: OutputHealth,
}

/// Outputs per request: all of them, since there are few.
const MOST_OUTPUTS: u32 = 1000;

/// Number of rejected requests in a table. `--output json` prints all that the server has.
const SHOWN: usize = 5;

const REFUSED: &[Column<RefusedRequests>] = &[
    column("REJECTED", |it| it.last.clone()),
    column("COUNT", |it| it.count.to_string()),
    column("ADDRESS", |it| or_dash(Some(&it.address))),
    column("AGENT OR KEY", |it| or_dash(it.agent_id.as_deref().or(it.api_key_id.as_deref()))),
    column("REQUEST", |it| it.operation.clone()),
    column("REASON", |it| it.reason.clone()),
    column("REMEDY", |it| or_dash(Some(&it.remedy))),
];

const OUTPUTS: &[Column<FailingOutput>] = &[
    column("OUTPUT", |it| it.name.clone()),
    column("HEALTH", |it| it.health.state.clone()),
    column("SINCE", |it| or_dash(it.health.since.as_deref())),
    column("MESSAGE", |it| it.health.message.clone()),
];

const COLUMNS: &[Column<Overview>] = &[
    column("SERVER", |it| it.server.clone()),
    column("AGENTS", |it| it.agents.all.to_string()),
    column("ONLINE", |it| it.agents.online.to_string()),
    // The words of `agent list`, so that each of them can be used in a filter.
    column("DEGRADED", |it| it.agents.degraded.to_string()),
    column("ERROR", |it| it.agents.error.saturating_sub(it.agents.degraded).to_string()),
    column("UPDATING", |it| {
        let others = it.agents.enrolling.saturating_add(it.agents.unenrolling);
        it.agents.updating.saturating_sub(others).to_string()
    }),
    column("ENROLLING", |it| it.agents.enrolling.to_string()),
    column("UNENROLLING", |it| it.agents.unenrolling.to_string()),
    column("OFFLINE", |it| it.agents.offline.to_string()),
    column("INACTIVE", |it| it.agents.inactive.to_string()),
    column("UNINSTALLED", |it| it.agents.uninstalled.to_string()),
    column("ORPHANED", |it| it.agents.orphaned.to_string()),
    column("UNENROLLED", |it| it.agents.unenrolled.to_string()),
];

impl StatusArgs {
    /// Prints the state of the server and the number of agents by status.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let server = client.server_status().await?;
        let agents = client.agent_status(None).await?;
        // Not everybody may see these; the rest is printed all the same.
        let refused = if_permitted(client.refused_requests().await, "rejected requests")?;
        let nodes = if_permitted(client.nodes().await, "servers")?;
        let outputs = if_permitted(failing_outputs(client).await, "outputs")?.unwrap_or_default();
        let overview = Overview { server: server.status.overall.level, agents, nodes, outputs, refused };
        print_one(&overview, self.output.output, COLUMNS, |it| it.server.clone())?;
        let is_table = matches!(self.output.output, Format::Table | Format::Wide);
        let nodes = overview.nodes.as_ref().map(|nodes| nodes.items.as_slice()).unwrap_or_default();
        // A single server is the one that was asked.
        if is_table && nodes.len() > 1 {
            print_table(nodes, false, node::COLUMNS)?;
        }
        if is_table && !overview.outputs.is_empty() {
            print_table(&overview.outputs, false, OUTPUTS)?;
        }
        let refused = overview.refused.as_deref().unwrap_or_default();
        if is_table && !refused.is_empty() {
            // The newest requests come first.
            let latest = &refused[..refused.len().min(SHOWN)];
            print_table(latest, true, REFUSED)?;
            if let more @ 1.. = refused.len() - latest.len() {
                print_line(format!("{more} more: muster status --output json"))?;
            }
        }
        Ok(())
    }
}

/// Returns the outputs that have bootstrap settings, and are not healthy: the others do not concern the server itself.
async fn failing_outputs(client: &Client) -> muster_client::Result<Vec<FailingOutput>> {
    let mut failing = Vec::new();
    for output in client.outputs(1, MOST_OUTPUTS).await?.items {
        if output.fields.contains_key("bootstrap") {
            let health = client.output_health(&output.id).await?;
            if health.state == "DEGRADED" {
                failing.push(FailingOutput { name: output.name, health });
            }
        }
    }
    Ok(failing)
}

/// Returns `None` for what the caller has no privilege to read, and says so.
fn if_permitted<T>(found: Result<T, muster_client::Error>, what: &str) -> Result<Option<T>, Failed> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(muster_client::Error::Answered(body)) if body.status_code == 403 => {
            eprintln!("muster: {what} not shown: {}", body.message);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
