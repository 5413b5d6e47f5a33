//! `muster enrollment-key …`

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::enrollment_key::{CreateEnrollmentKey, EnrollmentKey};

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_one, wide};
use super::policy::find_policy;

/// What can be done with enrollment keys.
#[derive(Debug, Subcommand)]
pub enum EnrollmentKeyCommand {
    /// List keys
    #[command(after_help = "Examples:\n  muster enrollment-key list --output wide")]
    List(ListArgs),
    /// Make a key; prints its token, which agents enroll with
    #[command(
        after_help = "Examples:\n  muster enrollment-key create --policy 'Default policy'\n  muster enrollment-key create --policy web --tag prod --expires 7d --max-uses 50 --output json"
    )]
    Create(CreateArgs),
    /// Revoke a key: it admits nobody from now on; agents that came in by it stay
    #[command(after_help = "Examples:\n  muster enrollment-key revoke KEY --yes")]
    Revoke(RevokeArgs),
    /// Revoke a key and make another like it, in one step
    #[command(after_help = "Examples:\n  muster enrollment-key replace KEY --yes --output json")]
    Replace(ReplaceArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Keys that match: 'policy_id:"…"'
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
    #[arg(long, value_name = "N")]
    max_uses: Option<i64>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `revoke`.
#[derive(Args, Debug)]
pub struct RevokeArgs {
    /// The key's id
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
    /// The key's id
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

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut keys = Vec::new();
        for page in 1.. {
            let listed = client.enrollment_keys(page, 100, self.filter.as_deref()).await?;
            let last = listed.items.len() < 100;
            keys.extend(listed.items);
            if last {
                break;
            }
        }
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
        let key = client.enrollment_key(&self.key).await?;
        let used = format!("{} agents came in by it and stay", key.uses);
        if self.care.dry_run {
            println!("would revoke {} ({}); {used}", key.id, key.name);
            return Ok(());
        }
        self.care.confirm(&format!("Revoke the key {:?}? {used}.", key.name))?;
        if self.delete {
            client.delete_enrollment_key(&key.id).await?;
        } else {
            client.revoke_enrollment_key(&key.id).await?;
        }
        println!(
            "revoked {}; see who came in by it: muster agent list --filter 'enrollment_key_id:\"{}\"'",
            key.id, key.id
        );
        Ok(())
    }
}

impl ReplaceArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let key = client.enrollment_key(&self.key).await?;
        if self.care.dry_run {
            println!("would revoke {} ({}) and make another like it", key.id, key.name);
            return Ok(());
        }
        self.care.confirm(&format!("Revoke the key {:?} and make another like it?", key.name))?;
        print_created(&client.replace_enrollment_key(&key.id).await?, self.output.output)
    }
}

fn print_created(key: &EnrollmentKey, format: Format) -> Result<(), Failed> {
    print_one(key, format, CREATED, id)
}
