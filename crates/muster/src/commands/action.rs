//! `muster action …`

use std::time::Duration;

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::action::{ActionStatus, ListActionStatus};

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_json, print_list, print_one, wide};
use super::progress::wait_for;

/// What can be done with actions.
#[derive(Debug, Subcommand)]
pub enum ActionCommand {
    /// List actions, newest first
    #[command(after_help = "Examples:\n  muster action list --limit 20")]
    List(ListArgs),
    /// Show one action with each agent's answer
    #[command(after_help = "Examples:\n  muster action show ACTION\n  muster action show ACTION --output json")]
    Show(ShowArgs),
    /// Withdraw an action
    #[command(after_help = "Examples:\n  muster action cancel ACTION --yes")]
    Cancel(CancelArgs),
    /// Wait until every agent has answered
    #[command(after_help = "Examples:\n  muster action wait ACTION --timeout 60")]
    Wait(WaitArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// The action's id
    action: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `cancel`.
#[derive(Args, Debug)]
pub struct CancelArgs {
    /// The action's id
    action: String,
    #[command(flatten)]
    care: Care,
}

/// Flags of `wait`.
#[derive(Args, Debug)]
pub struct WaitArgs {
    /// The action's id
    action: String,
    /// How long, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

const COLUMNS: &[Column<ActionStatus>] = &[
    column("ID", |action| action.action_id.clone()),
    column("TYPE", |action| action.kind.clone()),
    column("STATUS", |action| action.status.clone()),
    column("AGENTS", |action| action.nb_agents_actioned.to_string()),
    column("ACKED", |action| action.nb_agents_ack.to_string()),
    column("FAILED", |action| action.nb_agents_failed.to_string()),
    column("CREATED", |action| action.creation_time.clone()),
    wide("BY", |action| action.created_by.clone()),
    wide("STARTS", |action| or_dash(action.start_time.as_deref())),
    wide("EXPIRES", |action| or_dash(action.expiration.as_deref())),
    wide("COMPLETED", |action| or_dash(action.completion_time.as_deref())),
];

fn id(action: &ActionStatus) -> String {
    action.action_id.clone()
}

impl ActionCommand {
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => args.run(client).await,
            Self::Show(args) => args.run(client).await,
            Self::Cancel(args) => args.run(client).await,
            Self::Wait(args) => wait_for(client, &args.action, Duration::from_secs(args.timeout)).await,
        }
    }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let query = ListActionStatus { per_page: Some(self.limit), ..ListActionStatus::default() };
        let listed = client.action_status(&query).await?;
        print_list(&listed.items, self.output.output, COLUMNS, id)
    }
}

impl ShowArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let action = client.action(&self.action).await?;
        let results = client.action_results(&self.action, -1, 1000).await?;
        if matches!(self.output.output, Format::Json | Format::Yaml) {
            return print_json(&serde_json::json!({"action": action, "results": results}));
        }
        print_one(&action, self.output.output, COLUMNS, id)?;
        println!();
        let columns = &[
            column("AGENT", |result: &muster_protocol::management::action::ActionResult| result.agent_id.clone()),
            column("STATE", |result| result.state.clone()),
            column("WHEN", |result| or_dash(result.timestamp.as_deref())),
            column("ERROR", |result| or_dash(result.error.as_deref())),
        ];
        print_list(&results, Format::Table, columns, |result| result.agent_id.clone())
    }
}

impl CancelArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let action = client.action(&self.action).await?;
        let what = format!("{} for {} agents", action.kind, action.nb_agents_actioned);
        if self.care.dry_run {
            println!("would cancel {what}");
            return Ok(());
        }
        self.care.confirm(&format!("Cancel {what}?"))?;
        println!("{}", client.cancel_action(&self.action).await?.id);
        Ok(())
    }
}
