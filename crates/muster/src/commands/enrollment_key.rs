//! `muster enrollment-key …`....

use clap::{Args, Subcommand};
use muster_client::{Client, Failure};
use muster_core::shell;
use muster_protocol::management::agent::{Agent, ListAgents};
use muster_protocol::management::agent_policy::AgentPolicy;
use muster_protocol::management::enrollment_key::{CreateEnrollmentKey, EnrollmentKey};

use super::confirm::Care;
use super::failure::Failed;
use super::find::{all_keys, find_key, find_policy, hostname};
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_one, print_table, wide};
use super::policy_names::{Named, with_policy_name, with_policy_names};
use super::text::{print_line, tag};

/// Verbs of `enrollment-key`.
#[derive(Debug, Subcommand)]
pub enum EnrollmentKeyCommand {
    /// List enrollment keys
    #[command(
        after_help = "Examples:\n  muster enrollment-key list --output wide\n  muster enrollment-key list --filter active:true --output name"
    )]
    List(ListArgs),
    /// Create an enrollment key and print its token
    #[command(
        after_help = "Examples:\n  muster enrollment-key create --policy 'Default policy'\n  muster enrollment-key create --policy web --tag prod --expires 7d --max-uses 50 --output json\n  muster enrollment-key create --family fleetd\n  muster enrollment-key create --one-time --name web-7 --hardware-uuid 4C4C4544-0042-3510-8052-B7C04F584432"
    )]
    Create(CreateArgs),
    /// Show an enrollment key and its token
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster enrollment-key show web\n  muster enrollment-key show web --output json"
    )]
    Show(ShowArgs),
    /// Revoke an enrollment key
    ///
    /// Agents can no longer enroll with the key. Agents that have already enrolled with it are
    /// not affected. This cannot be undone; only an enroll secret of fleetd can be created again,
    /// with `muster enrollment-key create --family fleetd --secret VALUE`.
    #[command(
        after_help = "Examples:\n  muster enrollment-key revoke web --yes\n  muster enrollment-key revoke 0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60 --dry-run"
    )]
    Revoke(RevokeArgs),
    /// Revoke an enrollment key and create a new one with the same settings
    #[command(after_help = "Examples:\n  muster enrollment-key replace web --yes --output json")]
    Replace(ReplaceArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Filter. Fields: id, name, family, policy_id, tags, active, hidden
    #[arg(long, value_name = "KQL")]
    filter: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Agent family; `fleetd` creates an enroll secret for orbit and osqueryd
    #[arg(long, value_name = "FAMILY", default_value = "elastic", value_parser = ["elastic", "fleetd"])]
    family: String,
    /// Existing enroll secret, such as one from a Fleet server [default: generated]
    #[arg(long, value_name = "VALUE")]
    secret: Option<String>,
    /// Policy for agents that enroll with the key, by name or id [default: the default policy at the time of enrollment]
    #[arg(long)]
    policy: Option<String>,
    /// Name of the key [default: the policy's name, with a number appended if it is taken]
    #[arg(long)]
    name: Option<String>,
    /// Tags for agents that enroll with the key, separated by commas (repeatable)
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',', value_parser = tag)]
    tags: Vec<String>,
    /// Expiration: a duration (30m, 12h, 7d) or a time (RFC 3339) [default: never]
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Maximum number of enrollments; orbit and osqueryd of a host count as two [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    max_uses: Option<i64>,
    /// Create a one-time secret for one host: for its orbit and its osqueryd once each, the second within an hour of the first [expires after a day by default]
    #[arg(long, conflicts_with_all = ["secret", "max_uses", "policy"])]
    one_time: bool,
    /// With --one-time: hardware UUID of the host [default: the first host that uses it]
    #[arg(long, value_name = "UUID", requires = "one_time")]
    hardware_uuid: Option<String>,
    /// With --one-time: serial number of the host
    #[arg(long, value_name = "NUMBER", requires = "one_time")]
    serial: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Enrollment key, by id or name
    key: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `revoke`.
#[derive(Args, Debug)]
pub struct RevokeArgs {
    /// Enrollment key, by id or name
    key: String,
    /// Also remove the key from lists
    #[arg(long)]
    delete: bool,
    #[command(flatten)]
    care: Care,
}

/// Flags of `replace`.
#[derive(Args, Debug)]
pub struct ReplaceArgs {
    /// Enrollment key, by id or name
    key: String,
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    output: OutputArg,
}

const COLUMNS: &[Column<Named<EnrollmentKey>>] = &[
    column("ID", |key| key.id.clone()),
    column("NAME", |key| key.name.clone()),
    column("FAMILY", |key| key.family.clone()),
    column("ACTIVE", |key| if key.active { "yes" } else { "no" }.to_owned()),
    column("POLICY", Named::policy),
    column("USES", |key| key.max_uses.map_or_else(|| key.uses.to_string(), |max| format!("{}/{max}", key.uses))),
    column("EXPIRES", |key| or_dash(key.expire_at.as_deref())),
    wide("POLICY ID", |key| or_dash(key.policy_id.as_deref())),
    wide("TAGS", |key| or_dash(Some(&key.tags.join(",")))),
    wide("CREATED", |key| key.created_at.clone()),
    wide("BY", |key| key.created_by.clone()),
    wide("LAST USED", |key| or_dash(key.last_used_at.as_deref())),
];

const DETAILS: &[Column<Named<EnrollmentKey>>] = &[
    column("ID", |key| key.id.clone()),
    column("NAME", |key| key.name.clone()),
    column("FAMILY", |key| key.family.clone()),
    column("ACTIVE", |key| if key.active { "yes" } else { "no" }.to_owned()),
    column("POLICY", Named::policy),
    column("POLICY ID", |key| or_dash(key.policy_id.as_deref())),
    column("USES", |key| key.uses.to_string()),
    column("MAX USES", |key| key.max_uses.map_or_else(|| "-".to_owned(), |max| max.to_string())),
    column("TAGS", |key| or_dash(Some(&key.tags.join(", ")))),
    column("CREATED", |key| key.created_at.clone()),
    column("BY", |key| key.created_by.clone()),
    column("EXPIRES", |key| or_dash(key.expire_at.as_deref())),
    column("REVOKED", |key| or_dash(key.revoked_at.as_deref())),
    column("LAST USED", |key| or_dash(key.last_used_at.as_deref())),
    // The last row, so that scripts can read the token from the last line.
    column("TOKEN", |key| or_dash(key.api_key.as_deref())),
];

const CREATED: &[Column<Named<EnrollmentKey>>] = &[
    column("ID", |key| key.id.clone()),
    column("NAME", |key| key.name.clone()),
    column("POLICY", Named::policy),
    column("TOKEN", |key| or_dash(key.api_key.as_deref())),
];

impl EnrollmentKeyCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => args.run(client).await,
            Self::Create(args) => args.run(client).await,
            Self::Show(args) => args.run(client).await,
            Self::Revoke(args) => args.run(client).await,
            Self::Replace(args) => args.run(client).await,
        }
    }
}

fn id(key: &Named<EnrollmentKey>) -> String {
    key.id.clone()
}

const ENROLLED: &[Column<Agent>] = &[
    column("AGENT", |agent| agent.id.clone()),
    column("HOST", |agent| or_dash(Some(&hostname(agent)))),
    column("ENROLLED", |agent| agent.enrolled_at.clone()),
    column("FROM", |agent| or_dash(Some(&agent.first_address))),
];

/// Agents of a replaced key that are printed.
const SHOWN: u32 = 100;

/// Formats the number of agents that enrolled with a key.
fn enrolled(uses: i64) -> String {
    if uses == 1 { "1 agent has".to_owned() } else { format!("{uses} agents have") }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let keys = all_keys(client, self.filter.as_deref()).await?;
        let format = self.output.output;
        // The API returns only the ids of policies.
        let keys = with_policy_names(client, format, keys, |key| key.policy_id.as_deref()).await?;
        print_list(&keys, format, COLUMNS, id)
    }
}

impl CreateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = match &self.policy {
            Some(named) => Some(find_policy(client, named).await?),
            None => None,
        };
        // Names are unique per policy, so that the default name may need a number.
        let name = match self.name {
            Some(name) => name,
            None => free_name(client, policy.as_ref()).await?,
        };
        let key = CreateEnrollmentKey {
            // A one-time secret is one of fleetd.
            family: if self.one_time {
                Some("fleetd".into())
            } else {
                (self.family != "elastic").then_some(self.family)
            },
            secret: self.secret,
            policy_id: policy.map(|policy| policy.id),
            name: Some(name),
            expiration: self.expires,
            tags: (!self.tags.is_empty()).then_some(self.tags),
            max_uses: self.max_uses,
            one_time: self.one_time.then_some(true),
            hardware_uuid: self.hardware_uuid,
            serial: self.serial,
            ..CreateEnrollmentKey::default()
        };
        print_created(client, client.create_enrollment_key(&key).await?, self.output.output).await
    }
}

impl ShowArgs {
    /// Shows the token only to those who may read it.
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut key = find_key(client, &self.key).await?;
        if key.retrievable {
            key = match client.enrollment_key(&key.id).await {
                Err(error) if error.failure() == Failure::Refused => key,
                read => read?,
            };
        }
        let format = self.output.output;
        let key = with_policy_name(client, format, key, |key| key.policy_id.as_deref()).await?;
        print_one(&key, format, DETAILS, id)
    }
}

/// Returns the default name: the name of the policy, with the first free number if that name is taken. Revoked keys do
/// not occupy their names.
async fn free_name(client: &Client, policy: Option<&AgentPolicy>) -> Result<String, Failed> {
    let filter = policy.map(|policy| format!("policy_id:\"{}\"", policy.id));
    let mut keys = all_keys(client, filter.as_deref()).await?;
    // Names of revoked keys can be reused.
    keys.retain(|key| key.revoked_at.is_none() && key.policy_id.as_ref() == policy.map(|policy| &policy.id));
    let base = policy.map_or("key", |policy| policy.name.as_str());
    let numbered = (2..).map(|number| format!("{base} {number}"));
    let free = |name: &String| !keys.iter().any(|key| key.name == *name);
    Ok(std::iter::once(base.to_owned()).chain(numbered).find(free).unwrap_or_default())
}

impl RevokeArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let key = find_key(client, &self.key).await?;
        // Revoking a key does not affect the access keys of agents, which users often expect.
        let used = format!("{} enrolled with it and will not be affected", enrolled(key.uses));
        if self.care.dry_run {
            client.try_revoke_enrollment_key(&key.id).await?;
            return print_line(format!("would revoke the key {:?} ({}); {used}", key.name, key.id));
        }
        self.care.confirm(&format!("Revoke the key {:?} ({used})?", key.name))?;
        // Deleting a key also revokes it.
        if self.delete {
            client.delete_enrollment_key(&key.id).await?;
        } else {
            client.revoke_enrollment_key(&key.id).await?;
        }
        // After a compromise, the next step is to find the agents that enrolled with the key.
        let filter = shell::option("--filter", &format!("enrollment_key_id:\"{}\"", key.id));
        print_line(format!("revoked {}; agents that enrolled with it: muster agent list {filter}", key.id))?;
        let is_shared_secret = key.family == "fleetd" && key.one_time.is_none();
        print_line(if is_shared_secret {
            "to use the same secret again: muster enrollment-key create --family fleetd --secret VALUE"
        } else {
            "this is final; to enroll agents, create a new key: muster enrollment-key create"
        })
    }
}

impl ReplaceArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let key = find_key(client, &self.key).await?;
        if self.care.dry_run {
            client.try_replace_enrollment_key(&key.id).await?;
            return print_line(format!("would revoke the key {:?} ({}) and create a new one", key.name, key.id));
        }
        // Asks even though a new key is created, because the old token stops working.
        self.care.confirm(&format!("Revoke the key {:?} and create a new one?", key.name))?;
        let format = self.output.output;
        print_created(client, client.replace_enrollment_key(&key.id).await?, format).await?;
        if matches!(format, Format::Table | Format::Wide) { print_enrolled(client, &key).await } else { Ok(()) }
    }
}

/// Prints the agents that enrolled with a key: after a compromise, each of them may be the attacker's.
async fn print_enrolled(client: &Client, key: &EnrollmentKey) -> Result<(), Failed> {
    let filter = format!("enrollment_key_id:\"{}\"", key.id);
    let query = ListAgents {
        kuery: Some(filter.clone()),
        show_inactive: Some(true),
        per_page: Some(SHOWN),
        ..ListAgents::default()
    };
    let found = client.agents(&query).await?;
    if found.total == 0 {
        return print_line("no agent enrolled with the replaced key");
    }
    let count = i64::try_from(found.total).unwrap_or(i64::MAX);
    print_line(format!("{} enrolled with the replaced key and will not be affected:", enrolled(count)))?;
    print_table(&found.items, false, ENROLLED)?;
    if found.total > u64::from(SHOWN) {
        print_line(format!("all of them: muster agent list {}", shell::option("--filter", &filter)))?;
    }
    Ok(())
}

async fn print_created(client: &Client, key: EnrollmentKey, format: Format) -> Result<(), Failed> {
    let key = with_policy_name(client, format, key, |key| key.policy_id.as_deref()).await?;
    print_one(&key, format, CREATED, id)
}
