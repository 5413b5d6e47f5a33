//! `muster uninstall-token …`

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::uninstall_token::{ListUninstallTokens, UninstallToken};

use super::confirm::Care;
use super::failure::Failed;
use super::find::{all_pages, find_policy};
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one};
use super::print_line;

/// Verbs of `uninstall-token`.
#[derive(Debug, Subcommand)]
pub enum UninstallTokenCommand {
    /// List the newest uninstall token of each policy, without its value
    #[command(after_help = "Examples:\n  muster uninstall-token list\n  muster uninstall-token list --search web")]
    List(ListArgs),
    /// Show an uninstall token, and record this in the audit log
    ///
    /// Agents of a policy with tamper protection can be uninstalled only with this
    /// token: elastic-agent uninstall --uninstall-token TOKEN
    #[command(after_help = "Examples:\n  muster uninstall-token show 3e0c5f1e-2a1b-4c6d-9e8f-0a1b2c3d4e5f")]
    Show(ShowArgs),
    /// Replace the uninstall token of a protected policy
    ///
    /// Agents that have not received the new revision of the policy
    /// still need the former token, which can still be shown.
    #[command(after_help = "Examples:\n  muster uninstall-token rotate web --yes")]
    Rotate(RotateArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only policies whose id or name contains this string
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Id of the token
    id: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `rotate`.
#[derive(Args, Debug)]
pub struct RotateArgs {
    /// Policy, by name or id
    policy: String,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

const COLUMNS: &[Column<UninstallToken>] = &[
    column("ID", |token| token.id.clone()),
    column("POLICY", |token| or_dash(token.policy_name.as_deref())),
    column("POLICY ID", |token| token.policy_id.clone()),
    column("CREATED", |token| token.created_at.clone()),
];

const DETAILS: &[Column<UninstallToken>] = &[
    column("ID", |token| token.id.clone()),
    column("POLICY", |token| or_dash(token.policy_name.as_deref())),
    column("POLICY ID", |token| token.policy_id.clone()),
    column("CREATED", |token| token.created_at.clone()),
    column("TOKEN", |token| or_dash(token.token.as_deref())),
];

impl UninstallTokenCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => {
                let tokens = every(client, args.search).await?;
                print_list(&tokens, args.output.output, COLUMNS, |token| token.id.clone())
            }
            Self::Show(args) => {
                let token = client.uninstall_token(&args.id).await?;
                print_one(&token, args.output.output, DETAILS, |token| token.id.clone())
            }
            Self::Rotate(args) => args.run(client).await,
        }
    }
}

impl RotateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = find_policy(client, &self.policy).await?;
        let care = Care { yes: self.yes, dry_run: false };
        care.confirm(&format!("Replace the uninstall token of the policy {:?}?", policy.name))?;
        print_line(client.rotate_uninstall_token(&policy.id).await?.message)
    }
}

async fn every(client: &Client, search: Option<String>) -> Result<Vec<UninstallToken>, Failed> {
    let search = search.as_ref();
    all_pages(async |page, per_page| {
        let query = ListUninstallTokens { page, per_page, search: search.cloned(), ..ListUninstallTokens::default() };
        client.uninstall_tokens(&query).await
    })
    .await
}
