//! `muster user …`

use std::io::{self, BufRead as _, IsTerminal as _};

use clap::{Args, Subcommand};
use muster_client::{Account, Client};
use muster_core::shell;
use muster_protocol::management::identity::{
    CreateUser, ListUsers, LoggedIn, SetPassword, SetupLink, UpdateUser, UseSetupLink, User,
};
use muster_protocol::management::log_in::LinkUser;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::confirm::Care;
use super::failure::Failed;
use super::find::all_pages;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_one, wide};
use super::text::print_line;

/// Verbs of `user`.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List users
    #[command(after_help = "Examples:\n  muster user list\n  muster user list --service-accounts --output json")]
    List(ListArgs),
    /// Show a user
    #[command(after_help = "Examples:\n  muster user show ann")]
    Show(ShowArgs),
    /// Create a user or a service account, without privileges
    ///
    /// Users set their password with a set-up link (`muster user setup-link`), unless you set it with --password-stdin. Service
    /// accounts have no password; create an API token with `muster token create`.
    #[command(
        after_help = "Examples:\n  muster user create ann --full-name 'Ann Lee'\n  muster user create ci --service-account\n  muster role bind helpdesk --user ann"
    )]
    Create(CreateArgs),
    /// List your browser sessions, or those of a user
    ///
    /// The time of last use may be up to five minutes out of date.
    #[command(after_help = "Examples:\n  muster user sessions ann\n  muster user sessions --output json")]
    Sessions(SessionsArgs),
    /// Lock a user: end all of the user's sessions, and reject the password and all API tokens
    #[command(after_help = "Examples:\n  muster user lock ann")]
    Lock(OneArgs),
    /// Unlock a user
    #[command(after_help = "Examples:\n  muster user unlock ann")]
    Unlock(OneArgs),
    /// Set a user's password, and end all of the user's sessions
    #[command(
        after_help = "Examples:\n  muster user reset-password admin\n  muster user reset-password admin --password-stdin"
    )]
    ResetPassword(PasswordArgs),
    /// Create a one-time link for setting a user's password
    ///
    /// The link is valid for an hour, and invalidates earlier ones.
    #[command(after_help = "Examples:\n  muster user setup-link ann")]
    SetupLink(ShowArgs),
    /// Set your password with the token of a set-up link
    #[command(after_help = "Examples:\n  muster user setup TOKEN --url https://fleet.example:8230")]
    Setup(SetupArgs),
    /// Link a user to a person at an OpenID provider, and end all of the user's sessions
    ///
    /// `muster status` lists refused logins with the subject of the person.
    #[command(after_help = "Examples:\n  muster user link ann --provider corp --subject 248289761001")]
    Link(LinkArgs),
    /// Unlink a user from the OpenID provider, and end all of the user's sessions
    #[command(after_help = "Examples:\n  muster user unlink ann")]
    Unlink(OneArgs),
    /// Delete a user, and the user's API tokens, sessions and role bindings
    #[command(after_help = "Examples:\n  muster user delete ann\n  muster user delete ci --yes")]
    Delete(DeleteArgs),
}

/// Flags of `link`.
#[derive(Args, Debug)]
pub struct LinkArgs {
    /// User, by id or name
    user: String,
    /// Id of the OpenID provider
    #[arg(long, value_name = "ID")]
    provider: String,
    /// Subject of the person at the provider
    #[arg(long, value_name = "TEXT")]
    subject: String,
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// List service accounts instead of users
    #[arg(long)]
    service_accounts: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show` and `setup-link`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// User, by id or name
    user: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `sessions`.
#[derive(Args, Debug)]
pub struct SessionsArgs {
    /// User, by id or name
    user: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// The user of a command.
#[derive(Args, Debug)]
pub struct OneArgs {
    /// User, by id or name
    user: String,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Name: letters, digits, and any of . _ - @ +
    name: String,
    /// Full name
    #[arg(long, value_name = "TEXT")]
    full_name: Option<String>,
    /// Create a service account
    #[arg(long, conflicts_with = "password_stdin")]
    service_account: bool,
    /// Read the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `reset-password`.
#[derive(Args, Debug)]
pub struct PasswordArgs {
    /// User, by id or name
    user: String,
    /// Read the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
}

/// Flags of `setup`.
#[derive(Args, Debug)]
pub struct SetupArgs {
    /// Set-up token, as printed by `muster user setup-link`
    #[arg(value_name = "TOKEN")]
    link: String,
    /// Read the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// User, by id or name
    user: String,
    #[command(flatten)]
    care: Care,
}

const COLUMNS: &[Column<User>] = &[
    column("NAME", |user| user.name.clone()),
    column("FULL NAME", |user| or_dash(Some(&user.full_name))),
    column("STATE", |user| if user.locked { "locked" } else { "active" }.to_owned()),
    column("PASSWORD", |user| if user.has_password { "set" } else { "-" }.to_owned()),
    wide("PROVIDER", |user| or_dash(user.issuer.as_deref())),
    wide("CREATED", |user| user.created_at.clone()),
    wide("CREATED BY", |user| or_dash(Some(&user.created_by))),
    wide("ID", |user| user.id.clone()),
];

const SESSIONS: &[Column<LoggedIn>] = &[
    column("LOGGED IN", |session| session.created_at.clone()),
    column("ADDRESS", |session| or_dash(session.address.as_deref())),
    column("LAST USED", |session| or_dash(session.last_used_at.as_deref())),
    column("EXPIRES", |session| session.expires_at.clone()),
    wide("ID", |session| session.id.clone()),
];

fn id(user: &User) -> String {
    user.id.clone()
}

impl UserCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => args.run(client).await,
            Self::Show(args) => print_one(&client.user(&args.user).await?, args.output.output, COLUMNS, id),
            Self::Create(args) => args.run(client).await,
            Self::Sessions(args) => {
                let found = client.sessions(args.user.as_deref()).await?;
                print_list(&found, args.output.output, SESSIONS, |session| session.id.clone())
            }
            Self::Lock(args) => args.set_locked(client, true).await,
            Self::Unlock(args) => args.set_locked(client, false).await,
            Self::ResetPassword(args) => {
                // Before the password is asked for, so that an unknown name fails at once.
                let user = client.user(&args.user).await?;
                let password = read_password(&format!("New password of {}", user.name), args.password_stdin)?;
                client.set_password(&user.id, &SetPassword { password }).await?;
                print_line(format!("{}: password set", user.name))
            }
            Self::Link(args) => {
                let LinkArgs { user, provider, subject } = args;
                let user = client.link_user(&user, &LinkUser { provider, subject }).await?;
                print_line(format!("{}: linked with {}", user.name, or_dash(user.issuer.as_deref())))
            }
            Self::Unlink(args) => {
                let user = client.unlink_user(&args.user).await?;
                print_line(format!("{}: not linked", user.name))
            }
            Self::SetupLink(args) => args.setup_link(client).await,
            Self::Setup(args) => {
                let password = read_password("New password", args.password_stdin)?;
                let user = client.use_setup_link(&UseSetupLink { token: args.link, password }).await?;
                print_line(format!("{}: password set", user.name))
            }
            Self::Delete(args) => args.run(client).await,
        }
    }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let account = if self.service_accounts { Account::Service } else { Account::Person };
        let users =
            all_pages(async |page, per_page| client.users(account, &ListUsers { page, per_page }).await).await?;
        print_list(&users, self.output.output, COLUMNS, id)
    }
}

impl CreateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let account = if self.service_account { Account::Service } else { Account::Person };
        let password = if self.password_stdin { Some(first_line()?) } else { None };
        let new = CreateUser { name: self.name, full_name: self.full_name, password };
        let user = client.create_user(account, &new).await?;
        print_one(&user, self.output.output, COLUMNS, id)
    }
}

impl OneArgs {
    async fn set_locked(self, client: &Client, locked: bool) -> Result<(), Failed> {
        let change = UpdateUser { locked: Some(locked), ..UpdateUser::default() };
        let user = client.update_user(&self.user, &change).await?;
        print_line(format!("{}: {}", user.name, if locked { "locked" } else { "unlocked" }))
    }
}

impl ShowArgs {
    async fn setup_link(self, client: &Client) -> Result<(), Failed> {
        let link = client.create_setup_link(&self.user).await?;
        if !matches!(self.output.output, Format::Table | Format::Wide) {
            let columns: &[Column<SetupLink>] =
                &[column("TOKEN", |link| link.token.clone()), column("EXPIRES", |link| link.expires_at.clone())];
            return print_one(&link, self.output.output, columns, |link| link.token.clone());
        }
        let url = pages_url(client.target());
        let token = utf8_percent_encode(&link.token, NON_ALPHANUMERIC);
        print_line(format!("valid until {}; to set the password, the user opens", link.expires_at))?;
        print_line(format!("  {url}/setup?token={token}"))?;
        print_line("or runs")?;
        print_line(format!("  muster user setup {} {}", shell::argument(&link.token), shell::option("--url", &url)))
    }
}

/// Returns the address of the web pages of a server, which may be known by its socket only.
fn pages_url(target: &str) -> String {
    if target.contains("://") {
        return target.trim_end_matches('/').to_owned();
    }
    let listen = std::path::Path::new(target).with_file_name("listen.json");
    let address = std::fs::read(listen).ok().and_then(|text| {
        let listen: serde_json::Value = serde_json::from_slice(&text).ok()?;
        listen["admin"].as_str()?.parse::<std::net::SocketAddr>().ok()
    });
    match address {
        // Plain HTTP is possible on the server's host only.
        Some(address) if address.ip().is_loopback() => format!("http://{address}"),
        Some(address) if !address.ip().is_unspecified() => format!("https://{address}"),
        _ => "https://SERVER:8230".to_owned(),
    }
}

impl DeleteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let user = client.user(&self.user).await?;
        let question = format!("Delete the user {} and the API tokens of this user?", user.name);
        self.care.delete(&user.name, &question, async |dry_run| client.delete_user(&user.id, dry_run).await).await
    }
}

/// Reads a password: twice from the terminal, or from stdin.
fn read_password(prompt: &str, from_stdin: bool) -> Result<String, Failed> {
    if from_stdin {
        return first_line();
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failed::usage("cannot ask for a password without a terminal").remedy("pass --password-stdin"));
    }
    let asked =
        dialoguer::Password::new().with_prompt(prompt).with_confirmation("Again", "the passwords differ").interact();
    asked.map_err(|error| Failed::new(format!("cannot ask for a password: {error}")))
}

fn first_line() -> Result<String, Failed> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    // Only the line end is removed, because spaces can be a part of the password.
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
