//! `muster enrollment-key …`

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::enrollment_key::{CreateEnrollmentKey, EnrollmentKey};

use super::confirm::Care;
use super::failure::Failed;
use super::find::{all_keys, find_key, find_policy};
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_one, wide};
use super::text::print_line;

/// What can be done with enrollment keys.
#[derive(Debug, Subcommand)]
pub enum EnrollmentKeyCommand {
    /// List keys
    #[command(
        after_help = "Examples:\n  muster enrollment-key list --output wide\n  muster enrollment-key list --filter active:true --output name"
    )]
    List(ListArgs),
    /// Make a key; prints its token, which agents enroll with
    #[command(
        after_help = "Examples:\n  muster enrollment-key create --policy 'Default policy'\n  muster enrollment-key create --policy web --tag prod --expires 7d --max-uses 50 --output json"
    )]
    Create(CreateArgs),
    /// Revoke a key: it admits nobody from now on; agents that came in by it stay
    #[command(
        after_help = "Examples:\n  muster enrollment-key revoke web --yes\n  muster enrollment-key revoke 0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60 --dry-run"
    )]
    Revoke(RevokeArgs),
    /// Revoke a key and make another like it, in one step
    #[command(after_help = "Examples:\n  muster enrollment-key replace web --yes --output json")]
    Replace(ReplaceArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Keys that match; fields: id, name, policy_id, tags, active, hidden
    #[arg(long, value_name = "KQL")]
    filter: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Policy that agents get, by name or id; without it assignment rules decide
    #[arg(long)]
    policy: Option<String>,
    /// What to call the key
    #[arg(long)]
    name: Option<String>,
    /// Tag that agents get (repeatable)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// When it ends: 30m, 12h, 7d, or a time in RFC 3339
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// How many agents it admits
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    max_uses: Option<i64>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `revoke`.
#[derive(Args, Debug)]
pub struct RevokeArgs {
    /// The key, by id or name
    key: String,
    /// Remove the key from lists as well
    #[arg(long)]
    delete: bool,
    #[command(flatten)]
    care: Care,
}

/// Flags of `replace`.
#[derive(Args, Debug)]
pub struct ReplaceArgs {
    /// The key, by id or name
    key: String,
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    output: OutputArg,
}

const COLUMNS: &[Column<EnrollmentKey>] = &[
    column("ID", |key| key.id.clone()),
    column("NAME", |key| key.name.clone()),
    column("ACTIVE", |key| if key.active { "yes" } else { "no" }.to_owned()),
    column("POLICY", |key| or_dash(key.policy_id.as_deref())),
    column("USES", |key| key.max_uses.map_or_else(|| key.uses.to_string(), |max| format!("{}/{max}", key.uses))),
    column("EXPIRES", |key| or_dash(key.expire_at.as_deref())),
    wide("TAGS", |key| key.tags.join(",")),
    wide("CREATED", |key| key.created_at.clone()),
    wide("BY", |key| key.created_by.clone()),
    wide("LAST USED", |key| or_dash(key.last_used_at.as_deref())),
];

const CREATED: &[Column<EnrollmentKey>] = &[
    column("ID", |key| key.id.clone()),
    column("NAME", |key| key.name.clone()),
    column("POLICY", |key| or_dash(key.policy_id.as_deref())),
    column("TOKEN", |key| or_dash(key.api_key.as_deref())),
];

impl EnrollmentKeyCommand {
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => args.run(client).await,
            Self::Create(args) => args.run(client).await,
            Self::Revoke(args) => args.run(client).await,
            Self::Replace(args) => args.run(client).await,
        }
    }
}

fn id(key: &EnrollmentKey) -> String {
    key.id.clone()
}

/// Enrolments, in words.
fn times(uses: i64) -> String {
    if uses == 1 { "1 agent has".to_owned() } else { format!("{uses} agents have") }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let keys = all_keys(client, self.filter.as_deref()).await?;
        print_list(&keys, self.output.output, COLUMNS, id)
    }
}

impl CreateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = match &self.policy {
            Some(named) => Some(find_policy(client, named).await?.id),
            None => None,
        };
        let key = CreateEnrollmentKey {
            policy_id: policy,
            name: self.name,
            expiration: self.expires,
            tags: (!self.tags.is_empty()).then_some(self.tags),
            max_uses: self.max_uses,
            ..CreateEnrollmentKey::default()
        };
        print_created(&client.create_enrollment_key(&key).await?, self.output.output)
    }
}

impl RevokeArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let key = find_key(client, &self.key).await?;
        let used = format!("{} used it so far; whoever came in by it stays", times(key.uses));
        if self.care.dry_run {
            client.try_revoke_enrollment_key(&key.id).await?;
            return print_line(format!("would revoke the key {:?} ({}); {used}", key.name, key.id));
        }
        self.care.confirm(&format!("Revoke the key {:?} ({used})?", key.name))?;
        if self.delete {
            client.delete_enrollment_key(&key.id).await?;
        } else {
            client.revoke_enrollment_key(&key.id).await?;
        }
        print_line(format!(
            "revoked {0}; who came in by it: muster agent list --filter 'enrollment_key_id:\"{0}\"'",
            key.id
        ))
    }
}

impl ReplaceArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let key = find_key(client, &self.key).await?;
        if self.care.dry_run {
            client.try_replace_enrollment_key(&key.id).await?;
            return print_line(format!("would revoke the key {:?} ({}) and make another like it", key.name, key.id));
        }
        self.care.confirm(&format!("Revoke the key {:?} and make another like it?", key.name))?;
        print_created(&client.replace_enrollment_key(&key.id).await?, self.output.output)
    }
}

fn print_created(key: &EnrollmentKey, format: Format) -> Result<(), Failed> {
    print_one(key, format, CREATED, id)
}
