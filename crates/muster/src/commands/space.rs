//! `muster space …`

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::identity::{CreateSpace, Space, UpdateSpace};

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one};

/// Verbs of `space`.
#[derive(Debug, Subcommand)]
pub enum SpaceCommand {
    /// List spaces
    #[command(after_help = "Examples:\n  muster space list")]
    List(ListArgs),
    /// Show a space
    #[command(after_help = "Examples:\n  muster space show default")]
    Show(ShowArgs),
    /// Create a space
    #[command(after_help = "Examples:\n  muster space create lab --name Laboratory")]
    Create(CreateArgs),
    /// Change the name or the description of a space
    #[command(after_help = "Examples:\n  muster space update lab --name 'The laboratory'")]
    Update(UpdateArgs),
    /// Delete an empty space
    ///
    /// Its fleetd options, the results of queries, scripts and installs in it, and the role bindings in it are deleted, too.
    #[command(after_help = "Examples:\n  muster space delete lab")]
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
    /// Id of the space
    id: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Id: lower-case letters, digits, _ and -
    id: String,
    /// Name [default: the id]
    #[arg(long)]
    name: Option<String>,
    /// Description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `update`.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// Id of the space
    id: String,
    /// Name [default: unchanged]
    #[arg(long)]
    name: Option<String>,
    /// Description [default: unchanged]
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Id of the space
    id: String,
    #[command(flatten)]
    care: Care,
}

const COLUMNS: &[Column<Space>] = &[
    column("ID", |space| space.id.clone()),
    column("NAME", |space| space.name.clone()),
    column("DESCRIPTION", |space| or_dash(Some(&space.description))),
];

fn id(space: &Space) -> String {
    space.id.clone()
}

impl SpaceCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => print_list(&client.spaces().await?, args.output.output, COLUMNS, id),
            Self::Show(args) => print_one(&client.space(&args.id).await?, args.output.output, COLUMNS, id),
            Self::Create(args) => {
                let CreateArgs { id: new, name, description, output } = args;
                let space = client.create_space(&CreateSpace { id: new, name, description }).await?;
                print_one(&space, output.output, COLUMNS, id)
            }
            Self::Update(args) => {
                // The API requires a name.
                let before = client.space(&args.id).await?;
                let change = UpdateSpace { name: args.name.unwrap_or(before.name), description: args.description };
                print_one(&client.update_space(&args.id, &change).await?, args.output.output, COLUMNS, id)
            }
            Self::Delete(args) => {
                let question = format!("Delete the space {} with its fleetd options and the results in it?", args.id);
                args.care
                    .delete(&args.id, &question, async |dry_run| client.delete_space(&args.id, dry_run).await)
                    .await
            }
        }
    }
}
