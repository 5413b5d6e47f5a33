//! `muster oidc-provider …`

use camino::Utf8PathBuf;
use clap::{Args, Subcommand, ValueEnum};
use muster_client::Client;
use muster_protocol::management::log_in::{CreateOidcProvider, NewUsers, OidcProvider, UpdateOidcProvider};

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one, wide};

/// Maximum size of a file with a client secret, bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Verbs of `oidc-provider`.
#[derive(Debug, Subcommand)]
pub enum OidcProviderCommand {
    /// List OpenID providers
    #[command(after_help = "Examples:\n  muster oidc-provider list")]
    List(ListArgs),
    /// Show an OpenID provider, with the redirect URI to register with it
    #[command(after_help = "Examples:\n  muster oidc-provider show corp --output json")]
    Show(ShowArgs),
    /// Add an OpenID provider for logins
    ///
    /// Register the printed redirect URI with the provider. Give roles to groups with `muster role bind ROLE --group
    /// GROUP`.
    #[command(
        after_help = "Examples:\n  muster oidc-provider create corp --issuer https://id.example.com --client-id muster --client-secret-file secret.txt --api-url https://fleet.example.com:8230\n  muster role bind auditor --group security"
    )]
    Create(CreateArgs),
    /// Change an OpenID provider; the change applies to later logins
    ///
    /// Settings whose flags are not passed stay unchanged.
    #[command(
        after_help = "Examples:\n  muster oidc-provider update corp --new-users create\n  muster oidc-provider update corp --client-secret-file secret.txt"
    )]
    Update(UpdateArgs),
    /// Delete an OpenID provider, and end the sessions of its users
    ///
    /// The users are kept, but can no longer log in through this provider.
    #[command(after_help = "Examples:\n  muster oidc-provider delete corp --yes")]
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
    /// Id of the provider
    id: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Fields of a provider that have defaults.
#[derive(Args, Debug)]
pub struct Fields {
    /// File with the client secret, read by this command; with an empty file, Muster is a public client
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<Utf8PathBuf>,
    /// Scope to request in addition to openid (repeatable) [default for a new provider: profile]
    #[arg(long = "scope", value_name = "NAME")]
    scopes: Vec<String>,
    /// Claim with the name of the user [default for a new provider: preferred_username]
    #[arg(long, value_name = "CLAIM")]
    user_name_claim: Option<String>,
    /// Claim with the groups, or the dotted path of a nested claim [default for a new provider: groups]
    #[arg(long, value_name = "CLAIM")]
    groups_claim: Option<String>,
    /// Prefix of the names of groups in role bindings [default for a new provider: none]
    #[arg(long, value_name = "TEXT")]
    group_prefix: Option<String>,
    /// First login of a person without a user [default for a new provider: refuse]
    #[arg(long, value_name = "WHAT")]
    new_users: Option<NewUsersArg>,
}

/// Values of `--new-users`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum NewUsersArg {
    /// Refuse the login until an administrator links a user
    Refuse,
    /// Create a user
    Create,
}

impl From<NewUsersArg> for NewUsers {
    fn from(arg: NewUsersArg) -> Self {
        match arg {
            NewUsersArg::Refuse => Self::Refuse,
            NewUsersArg::Create => Self::Create,
        }
    }
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Id: lower-case letters, digits and hyphens; part of the redirect URI
    id: String,
    /// Issuer URL, exactly as in the provider's discovery document
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// Client id that the provider assigned
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// URL at which browsers reach the management API
    #[arg(long, value_name = "URL")]
    api_url: String,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `update`.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// Id of the provider
    id: String,
    /// Client id that the provider assigned [default: unchanged]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// URL at which browsers reach the management API [default: unchanged]
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Id of the provider
    id: String,
    #[command(flatten)]
    care: Care,
}

const COLUMNS: &[Column<OidcProvider>] = &[
    column("ID", |one| one.id.clone()),
    column("ISSUER", |one| one.issuer.clone()),
    column("NEW USERS", |one| {
        match one.new_users {
            NewUsers::Refuse => "refuse",
            NewUsers::Create => "create",
        }
        .to_owned()
    }),
    column("REDIRECT URI", |one| one.redirect_uri.clone()),
    wide("CLIENT ID", |one| one.client_id.clone()),
    wide("SECRET", |one| if one.has_client_secret { "set" } else { "-" }.to_owned()),
    wide("SCOPES", |one| one.scopes.join(",")),
    wide("NAME CLAIM", |one| one.user_name_claim.clone()),
    wide("GROUPS CLAIM", |one| one.groups_claim.clone()),
    wide("GROUP PREFIX", |one| or_dash(Some(&one.group_prefix))),
];

fn id(provider: &OidcProvider) -> String {
    provider.id.clone()
}

impl OidcProviderCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => print_list(&client.oidc_providers().await?, args.output.output, COLUMNS, id),
            Self::Show(args) => print_one(&client.oidc_provider(&args.id).await?, args.output.output, COLUMNS, id),
            Self::Create(args) => args.run(client).await,
            Self::Update(args) => args.run(client).await,
            Self::Delete(args) => {
                let question = format!("Delete the OpenID provider {} and end the sessions of its users?", args.id);
                args.care
                    .delete(&args.id, &question, async |dry_run| client.delete_oidc_provider(&args.id, dry_run).await)
                    .await
            }
        }
    }
}

impl CreateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let Fields { client_secret_file, scopes, user_name_claim, groups_claim, group_prefix, new_users } = self.fields;
        let provider = CreateOidcProvider {
            id: self.id,
            issuer: self.issuer,
            client_id: self.client_id,
            client_secret: secret(client_secret_file)?,
            url: self.api_url,
            scopes: given(scopes),
            user_name_claim,
            groups_claim,
            group_prefix,
            new_users: new_users.map(Into::into),
        };
        print_one(&client.create_oidc_provider(&provider).await?, self.output.output, COLUMNS, id)
    }
}

impl UpdateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let Fields { client_secret_file, scopes, user_name_claim, groups_claim, group_prefix, new_users } = self.fields;
        let change = UpdateOidcProvider {
            client_id: self.client_id,
            client_secret: secret(client_secret_file)?,
            url: self.api_url,
            scopes: given(scopes),
            user_name_claim,
            groups_claim,
            group_prefix,
            new_users: new_users.map(Into::into),
        };
        print_one(&client.update_oidc_provider(&self.id, &change).await?, self.output.output, COLUMNS, id)
    }
}

fn given(scopes: Vec<String>) -> Option<Vec<String>> {
    // Without any, a new provider has the default, and an existing one keeps its own.
    Some(scopes).filter(|scopes| !scopes.is_empty())
}

/// Reads a client secret, without the newline that editors add.
fn secret(path: Option<Utf8PathBuf>) -> Result<Option<String>, Failed> {
    let Some(path) = path else { return Ok(None) };
    let failed = |error: &dyn std::fmt::Display| Failed::usage(format!("cannot read {path}: {error}"));
    if std::fs::metadata(&path).map_err(|error| failed(&error))?.len() > MAX_SECRET {
        return Err(failed(&"it is too large for a secret"));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
    Ok(Some(text.trim().to_owned()))
}
