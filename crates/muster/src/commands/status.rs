//! `muster status`.

use clap::Args;
use muster_client::Client;
use muster_protocol::management::status::AgentStatusResults;
use serde::Serialize;

use super::failure::Failed;
use super::listing::{Column, OutputArg, column, print_one};

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
}

const COLUMNS: &[Column<Overview>] = &[
    column("SERVER", |it| it.server.clone()),
    column("AGENTS", |it| it.agents.all.to_string()),
    column("ONLINE", |it| it.agents.online.to_string()),
    column("UNHEALTHY", |it| it.agents.error.to_string()),
    column("UPDATING", |it| it.agents.updating.to_string()),
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
        let overview = Overview { server: server.status.overall.level, agents: client.agent_status(None).await? };
        print_one(&overview, self.output.output, COLUMNS, |it| it.server.clone())
    }
}
