//! `muster action …`....

use std::collections::HashSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::action::{ActionResult, ActionStatus, ListActionStatus};
use serde::Serialize;

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{
    Column, Format, OutputArg, column, or_dash, print_fields, print_json, print_list, print_table, print_yaml, wide,
};
use super::policy_names::{Named, with_policy_name};
use super::progress::wait_for;
use super::selection::agents;
use super::text::print_line;
use super::times::seconds;

/// Verbs of `action`.
#[derive(Debug, Subcommand)]
pub enum ActionCommand {
    /// List actions, newest first
    ///
    /// Cancellations are not listed; a cancelled action has the status CANCELLED.
    #[command(
        after_help = "Examples:\n  muster action list --limit 20\n  muster action list --filter 'type:upgrade and not status:complete'\n  muster action list --filter 'agent_id:\"7c9d6f7e-0a51-4f0f-9d0c-0d8f1f0d5a11\"'\n  muster action list --latest 24h --output json"
    )]
    List(ListArgs),
    /// Show an action and the result of each agent
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster action show 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11\n  muster action show 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11 --output json"
    )]
    Show(ShowArgs),
    /// Cancel an action
    ///
    /// Agents that have run it or have begun to run it are not affected. For an upgrade, a warning states how many agents
    /// have begun it. Agents do not acknowledge a cancellation.
    #[command(after_help = "Examples:\n  muster action cancel 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11 --yes")]
    Cancel(CancelArgs),
    /// Wait until every agent has acknowledged an action
    #[command(after_help = "Examples:\n  muster action wait 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11 --timeout 60")]
    Wait(WaitArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Filter. Fields: id, type, status, agent_id, policy_id, created_by
    #[arg(long, value_name = "KQL")]
    filter: Option<String>,
    /// Maximum number of actions
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Maximum age of the actions, such as 30m, 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    latest: Option<i64>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Id of the action
    action: String,
    /// Maximum number of results
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u32,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `cancel`.
#[derive(Args, Debug)]
pub struct CancelArgs {
    /// Id of the action
    action: String,
    #[command(flatten)]
    care: Care,
}

/// Flags of `wait`.
#[derive(Args, Debug)]
pub struct WaitArgs {
    /// Id of the action
    action: String,
    /// Maximum time in seconds
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

const DETAILS: &[Column<Named<ActionStatus>>] = &[
    column("ID", |action| action.action_id.clone()),
    column("TYPE", |action| action.kind.clone()),
    column("STATUS", |action| action.status.clone()),
    column("AGENTS", |action| action.nb_agents_actioned.to_string()),
    column("ACKED", |action| action.nb_agents_ack.to_string()),
    column("FAILED", |action| action.nb_agents_failed.to_string()),
    column("VERSION", |action| or_dash(action.version.as_deref())),
    column("POLICY", Named::policy),
    column("CREATED", |action| action.creation_time.clone()),
    column("BY", |action| action.created_by.clone()),
    column("STARTS", |action| or_dash(action.start_time.as_deref())),
    column("EXPIRES", |action| or_dash(action.expiration.as_deref())),
    column("COMPLETED", |action| or_dash(action.completion_time.as_deref())),
    column("CANCELLED", |action| or_dash(action.cancellation_time.as_deref())),
];

const RESULTS: &[Column<ActionResult>] = &[
    column("AGENT", |result| result.agent_id.clone()),
    column("HOST", |result| or_dash(result.hostname.as_deref())),
    column("STATE", |result| result.state.clone()),
    column("WHEN", |result| or_dash(result.timestamp.as_deref())),
    column("ERROR", |result| or_dash(result.error.as_deref())),
    wide("FIELDS", |result| result.fields.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
];

/// Rows per request.
const PER_PAGE: u32 = 1000;

fn id(action: &ActionStatus) -> String {
    action.action_id.clone()
}

impl ActionCommand {
    /// Runs the verb.
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
        let mut query = ListActionStatus {
            per_page: Some(self.limit.min(PER_PAGE)),
            kuery: self.filter.clone(),
            // The API expects milliseconds.
            latest: self.latest.map(|seconds| seconds.unsigned_abs().saturating_mul(1000)),
            ..ListActionStatus::default()
        };
        let (mut actions, mut unreadable) = (Vec::new(), 0);
        let total = loop {
            let listed = client.action_status(&query).await?;
            actions.extend(listed.items);
            unreadable += listed.unreadable;
            if listed.next_search_after.is_none() || actions.len() >= self.limit as usize {
                break listed.total;
            }
            query.search_after = listed.next_search_after;
        };
        super::find::warn_of_unreadable(unreadable, "actions");
        // The last page may exceed the limit.
        actions.truncate(self.limit as usize);
        print_list(&actions, self.output.output, COLUMNS, id)?;
        // Printed to stderr, so that stdout contains only the list.
        if (actions.len() as u64) < total {
            eprintln!("muster: showing the newest {} of {total} actions\n  hint: raise --limit", actions.len());
        }
        Ok(())
    }
}

impl ShowArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let action = client.action(&self.action).await?;
        let format = self.output.output;
        // The id is known without reading the results.
        if format == Format::Name {
            return print_line(action.action_id);
        }
        let results = results(client, &self.action, self.limit as usize).await?;
        let whole = Whole { action: &action, results: &results };
        match format {
            Format::Json => print_json(&whole),
            Format::Yaml => print_yaml(&whole),
            _ => {
                let action = with_policy_name(client, format, action, policy).await?;
                print_for_people(&action, results, format == Format::Wide)
            }
        }
    }
}

/// Returns the policy that the action is about.
fn policy(action: &ActionStatus) -> Option<&str> {
    // A reassignment has the new policy, and a policy change the policy that changed.
    action.new_policy_id.as_deref().or(action.policy_id.as_deref()).filter(|id| !id.is_empty())
}

/// An action with the result of each agent.
#[derive(Serialize)]
struct Whole<'a> {
    action: &'a ActionStatus,
    results: &'a [ActionResult],
}

/// Returns at most `limit` results.
async fn results(client: &Client, action: &str, limit: usize) -> Result<Vec<ActionResult>, Failed> {
    let mut found: Vec<ActionResult> = Vec::new();
    let mut seen = HashSet::new();
    let mut after = -1;
    loop {
        let some = client.action_results(action, after, PER_PAGE).await?;
        // A page that is not full is the last one.
        let last = some.len() < PER_PAGE as usize;
        // Positions have gaps where agents were deleted, so that pages may overlap.
        found.extend(some.into_iter().filter(|result| seen.insert(result.agent_id.clone())));
        if last || found.len() >= limit {
            found.truncate(limit);
            return Ok(found);
        }
        after += i64::from(PER_PAGE);
    }
}

/// Prints the action and its results. Ineligible agents are not among the results; they are added from the errors.
fn print_for_people(
    action: &Named<ActionStatus>,
    mut results: Vec<ActionResult>,
    with_wide: bool,
) -> Result<(), Failed> {
    print_fields(action, DETAILS)?;
    // The latest errors can be of agents that are not among the printed results.
    let known: HashSet<String> = results.iter().map(|result| result.agent_id.clone()).collect();
    let others = action.latest_errors.iter().filter(|error| !known.contains(&error.agent_id));
    results.extend(others.map(|error| ActionResult {
        agent_id: error.agent_id.clone(),
        hostname: error.hostname.clone(),
        state: "failed".to_owned(),
        timestamp: Some(error.timestamp.clone()),
        error: Some(error.error.clone()),
        fields: None,
    }));
    print_line("")?;
    print_table(&results, with_wide, RESULTS)
}

impl CancelArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let action = client.action(&self.action).await?;
        let count = u64::try_from(action.nb_agents_actioned).unwrap_or(0);
        let what = format!("{} for {}", action.kind, agents(count));
        if self.care.dry_run {
            client.try_cancel_action(&self.action).await?;
            return print_line(format!("would cancel {what}"));
        }
        // As with all commands, a change for a single agent needs no confirmation.
        if count > 1 {
            self.care.confirm(&format!("Cancel {what}?"))?;
        }
        let cancelled = client.cancel_action(&self.action).await?;
        if cancelled.continuing > 0 {
            // Printed to stderr, so that stdout contains only the id.
            let begun = agents(cancelled.continuing);
            eprintln!("muster: warning: {begun} had begun the upgrade: it is not interrupted, and can still complete");
        }
        print_line(cancelled.id)
    }
}
