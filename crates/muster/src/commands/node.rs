//! `muster node …`

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::node::{LostNode, Node};

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_table, wide};
use super::text::print_line;

/// Verbs of `node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the servers of the fleet
    #[command(after_help = "Examples:\n  muster node list\n  muster node list --output json")]
    List(ListArgs),
    /// Move a server's agents to the other servers, before maintenance
    ///
    /// The server ends its held check-ins over up to 30 seconds and reports that it is not ready, so that the load
    /// balancer sends the agents to other servers. It remains drained until `muster node resume` or a restart.
    #[command(after_help = "Examples:\n  muster node drain server-1\n  muster node drain server-1 --dry-run")]
    Drain(DrainArgs),
    /// Resume a drained server, so that it accepts agents again
    #[command(after_help = "Examples:\n  muster node resume server-1")]
    Resume(OneArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `drain`.
#[derive(Args, Debug)]
pub struct DrainArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    care: Care,
}

/// The server of a command.
#[derive(Args, Debug)]
pub struct OneArgs {
    /// Server, by id or name
    node: String,
}

/// Columns of a table of nodes.
pub const COLUMNS: &[Column<Node>] = &[
    column("NAME", |node| node.name.clone()),
    column("STATE", |node| if node.draining { "draining" } else { "ready" }.to_owned()),
    column("VERSION", |node| or_dash(Some(&node.version))),
    column("ADDRESSES", |node| or_dash(Some(&node.addresses.join(",")))),
    column("SINCE", |node| node.started_at.clone()),
    wide("ID", |node| node.id.clone()),
    wide("LEASE ENDS", |node| node.expires_at.clone()),
];

const LOST: &[Column<LostNode>] = &[
    column("LOST", |node| node.name.clone()),
    column("SECONDS AGO", |node| node.lost_seconds_ago.to_string()),
    column("ID", |node| node.id.clone()),
];

impl NodeCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => args.run(client).await,
            Self::Drain(args) => args.run(client).await,
            Self::Resume(args) => {
                let node = args.find(client).await?;
                client.resume_node(&node.id).await?;
                print_line(format!("{}: accepts agents", node.name))
            }
        }
    }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let nodes = client.nodes().await?;
        print_list(&nodes.items, self.output.output, COLUMNS, |node| node.id.clone())?;
        if matches!(self.output.output, Format::Table | Format::Wide) && !nodes.lost.is_empty() {
            return print_table(&nodes.lost, true, LOST);
        }
        Ok(())
    }
}

impl DrainArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let node = self.one.find(client).await?;
        if self.care.dry_run {
            client.try_drain_node(&node.id).await?;
            return print_line(format!("would send the agents of {} to other servers", node.name));
        }
        self.care.confirm(&format!("Send the agents of {} to other servers?", node.name))?;
        client.drain_node(&node.id).await?;
        print_line(format!("{} is draining: its agents move to other servers", node.name))
    }
}

impl OneArgs {
    /// Finds the node by id, else by name.
    async fn find(&self, client: &Client) -> Result<Node, Failed> {
        let nodes = client.nodes().await?.items;
        if let Some(node) = nodes.iter().find(|node| node.id == self.node) {
            return Ok(node.clone());
        }
        let named: Vec<&Node> = nodes.iter().filter(|node| node.name == self.node).collect();
        match named.as_slice() {
            [node] => Ok((*node).clone()),
            [] => Err(Failed::not_found(format!("no server has the id or name {:?}", self.node))),
            _ => {
                let message = format!("{} servers are named {:?}", named.len(), self.node);
                Err(Failed::new(message).remedy("use an id: muster node list --output wide"))
            }
        }
    }
}
