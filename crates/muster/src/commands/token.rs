//! `muster token …`

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::identity::{CreateToken, ListTokens, Token};

use super::confirm::Care;
use super::failure::Failed;
use super::find::all_pages;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_one, wide};
use super::text::print_line;

/// Verbs of `token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List API tokens
    ///
    /// By default, lists your own tokens; over the server's Unix socket, lists all tokens.
    #[command(after_help = "Examples:\n  muster token list\n  muster token list --owner ci\n  muster token list --all")]
    List(ListArgs),
    /// Show an API token, without its secret
    #[command(after_help = "Examples:\n  muster token show TOKEN-ID")]
    Show(ShowArgs),
    /// Create an API token
    ///
    /// The token is printed only once.
    #[command(
        after_help = "Examples:\n  muster token create --owner ci --name pipeline --expires 30d\n  muster token create --owner ci --privilege policies.read --privilege policies.update --output json"
    )]
    Create(CreateArgs),
    /// Revoke an API token; requests with it are rejected immediately
    #[command(after_help = "Examples:\n  muster token revoke TOKEN-ID")]
    Revoke(RevokeArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// List the tokens of this user, by id or name
    #[arg(long, conflicts_with = "all")]
    owner: Option<String>,
    /// List the tokens of all users
    #[arg(long)]
    all: bool,
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

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// User or service account, by id or name [default: you]
    #[arg(long)]
    owner: Option<String>,
    /// Name
    #[arg(long)]
    name: Option<String>,
    /// Privilege, such as agents.read (repeatable) [default: all that the owner has]
    #[arg(long = "privilege", value_name = "NAME")]
    privileges: Vec<String>,
    /// Expiration: a duration (30d, 12h), a time (RFC 3339) or, for service accounts, never [default: 90d]
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `revoke`.
#[derive(Args, Debug)]
pub struct RevokeArgs {
    /// Id of the token
    id: String,
    #[command(flatten)]
    care: Care,
}

const COLUMNS: &[Column<Token>] = &[
    column("ID", |token| token.id.clone()),
    column("NAME", |token| token.name.clone()),
    column("STATE", state),
    column("EXPIRES", |token| or_dash(token.expires_at.as_deref())),
    column("LAST USED", |token| or_dash(token.last_used_at.as_deref())),
    wide("OWNER", |token| token.owner.clone()),
    wide("PRIVILEGES", |token| or_dash(Some(&token.privileges.join(",")))),
    wide("CREATED", |token| token.created_at.clone()),
    wide("CREATED BY", |token| or_dash(Some(&token.created_by))),
];

fn state(token: &Token) -> String {
    match (token.active, &token.revoked_at) {
        (true, _) => "active",
        (false, Some(_)) => "revoked",
        (false, None) => "expired",
    }
    .to_owned()
}

impl TokenCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => args.run(client).await,
            Self::Show(args) => {
                print_one(&client.token(&args.id).await?, args.output.output, COLUMNS, |token| token.id.clone())
            }
            Self::Create(args) => args.run(client).await,
            Self::Revoke(args) => {
                if args.care.dry_run {
                    client.revoke_token(&args.id, true).await?;
                    return print_line(format!("would revoke {}", args.id));
                }
                args.care.confirm(&format!("Revoke the API token {}?", args.id))?;
                client.revoke_token(&args.id, false).await?;
                print_line(format!("{}: revoked", args.id))
            }
        }
    }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let owner = if self.all { Some("*".to_owned()) } else { self.owner };
        let all =
            all_pages(async |page, per_page| client.tokens(&ListTokens { owner: owner.clone(), page, per_page }).await)
                .await?;
        print_list(&all, self.output.output, COLUMNS, |token| token.id.clone())
    }
}

impl CreateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let new = CreateToken {
            name: self.name,
            owner: self.owner,
            privileges: Some(self.privileges).filter(|names| !names.is_empty()),
            expiration: self.expires,
        };
        let token = client.create_token(&new).await?;
        match self.output.output {
            // A script that captures the output gets the token, as with enrollment keys.
            Format::Table | Format::Name => print_line(token.token.unwrap_or_default()),
            other => print_one(&token, other, COLUMNS, |token| token.id.clone()),
        }
    }
}
