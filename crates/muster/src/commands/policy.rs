//! `muster policy …`

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};
use muster_client::{Client, Failure};
use muster_protocol::management::agent_policy::{
    AgentPolicy, Difference, ListAgentPolicies, Revision, Rollback, SaveAgentPolicy,
};

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_json, print_list, print_one, wide};
use super::policy_file;

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List policies
    #[command(after_help = "Examples:\n  muster policy list --output wide")]
    List(ListArgs),
    /// Show a policy; with --full what agents get
    #[command(after_help = "Examples:\n  muster policy show web\n  muster policy show web --full --output yaml")]
    Show(ShowArgs),
    /// Make an empty policy
    #[command(after_help = "Examples:\n  muster policy create web --description 'Web servers'")]
    Create(CreateArgs),
    /// Make or change a policy from a file
    #[command(
        after_help = "Examples:\n  muster policy apply -f web.yml\n  muster policy apply -f web.yml --dry-run\n  muster policy apply -f web.yml --secret DB_PASSWORD=@password.txt"
    )]
    Apply(ApplyArgs),
    /// What changed between two revisions
    #[command(after_help = "Examples:\n  muster policy diff web 3 5\n  muster policy diff web 4")]
    Diff(DiffArgs),
    /// Numbers, times and authors of a policy's revisions
    #[command(after_help = "Examples:\n  muster policy revisions web")]
    Revisions(ShowRevisionsArgs),
    /// Make a new revision with the content of an earlier one
    #[command(after_help = "Examples:\n  muster policy rollback web --to 3 --yes")]
    Rollback(RollbackArgs),
    /// Delete a policy that no agent is on
    #[command(after_help = "Examples:\n  muster policy delete web --yes")]
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
    /// The policy, by name or id
    policy: String,
    /// What agents get
    #[arg(long)]
    full: bool,
    /// With --full: a revision other than the newest
    #[arg(long, requires = "full")]
    revision: Option<i64>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Its name
    name: String,
    /// What it is for
    #[arg(long, default_value = "")]
    description: String,
    /// Data namespace
    #[arg(long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `apply`.
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// The file (YAML); - for standard input
    #[arg(long, short, value_name = "FILE")]
    file: Utf8PathBuf,
    /// A secret that the file's config names as $co.elastic.secret{NAME}; @FILE reads the value (repeatable)
    #[arg(long = "secret", value_name = "NAME=VALUE")]
    secrets: Vec<String>,
    /// Tell what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `diff`.
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// The policy, by name or id
    policy: String,
    /// The earlier revision
    from: i64,
    /// The later one; the newest unless given
    to: Option<i64>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `revisions`.
#[derive(Args, Debug)]
pub struct ShowRevisionsArgs {
    /// The policy, by name or id
    policy: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `rollback`.
#[derive(Args, Debug)]
pub struct RollbackArgs {
    /// The policy, by name or id
    policy: String,
    /// The revision whose content comes back
    #[arg(long, value_name = "REVISION")]
    to: i64,
    #[command(flatten)]
    care: Care,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// The policy, by name or id
    policy: String,
    #[command(flatten)]
    care: Care,
}

const COLUMNS: &[Column<AgentPolicy>] = &[
    column("ID", |policy| policy.id.clone()),
    column("NAME", |policy| policy.name.clone()),
    column("REVISION", |policy| policy.revision.to_string()),
    column("AGENTS", |policy| policy.agents.to_string()),
    column("UPDATED", |policy| policy.updated_at.clone()),
    wide("BY", |policy| policy.updated_by.clone()),
    wide("DEFAULT", |policy| if policy.is_default { "yes" } else { "no" }.to_owned()),
    wide("NAMESPACE", |policy| policy.namespace.clone()),
    wide("DESCRIPTION", |policy| or_dash(Some(&policy.description))),
    wide("SECRETS", |policy| policy.secret_names.join(",")),
];

const REVISIONS: &[Column<Revision>] = &[
    column("REVISION", |revision| revision.revision.to_string()),
    column("CREATED", |revision| revision.created_at.clone()),
    column("BY", |revision| revision.created_by.clone()),
];

const CHANGES: &[Column<Difference>] = &[
    column("PATH", |change| change.path.clone()),
    column("BEFORE", |change| value(change.before.as_ref())),
    column("AFTER", |change| value(change.after.as_ref())),
];

fn value(value: Option<&serde_json::Value>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// The policy of that id, else of that name.
pub async fn find_policy(client: &Client, named: &str) -> Result<AgentPolicy, Failed> {
    match client.agent_policy(named).await {
        Err(error) if error.failure() == Failure::NotFound => {}
        other => return Ok(other?),
    }
    let listed = all_policies(client).await?.into_iter().find(|policy| policy.name == named);
    let found = listed.ok_or_else(|| {
        Failed::not_found(format!("no policy has the name or id {named:?}")).remedy("muster policy list shows them")
    })?;
    Ok(client.agent_policy(&found.id).await?)
}

async fn all_policies(client: &Client) -> Result<Vec<AgentPolicy>, Failed> {
    let mut policies = Vec::new();
    for page in 1.. {
        let query = ListAgentPolicies {
            page: Some(page),
            per_page: Some(100),
            with_agent_count: Some(true),
            ..ListAgentPolicies::default()
        };
        let listed = client.agent_policies(&query).await?;
        let last = listed.items.len() < 100;
        policies.extend(listed.items);
        if last {
            break;
        }
    }
    Ok(policies)
}

impl PolicyCommand {
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => {
                print_list(&all_policies(client).await?, args.output.output, COLUMNS, |policy| policy.id.clone())
            }
            Self::Show(args) => args.run(client).await,
            Self::Create(args) => args.run(client).await,
            Self::Apply(args) => args.run(client).await,
            Self::Diff(args) => args.run(client).await,
            Self::Revisions(args) => {
                let policy = find_policy(client, &args.policy).await?;
                let revisions = client.policy_revisions(&policy.id).await?;
                print_list(&revisions, args.output.output, REVISIONS, |revision| revision.revision.to_string())
            }
            Self::Rollback(args) => args.run(client).await,
            Self::Delete(args) => args.run(client).await,
        }
    }
}

fn print_policy(policy: &AgentPolicy, format: Format) -> Result<(), Failed> {
    print_one(policy, format, COLUMNS, |policy| policy.id.clone())
}

impl ShowArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = find_policy(client, &self.policy).await?;
        if !self.full {
            return print_policy(&policy, self.output.output);
        }
        let full = client.full_agent_policy(&policy.id, self.revision).await?;
        let format = if self.output.output == Format::Json { Format::Json } else { Format::Yaml };
        print_one(&full, format, &[], |_| String::new())
    }
}

impl CreateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = SaveAgentPolicy {
            name: self.name,
            namespace: Some(self.namespace),
            description: Some(self.description),
            ..SaveAgentPolicy::default()
        };
        print_policy(&client.create_agent_policy(&policy).await?, self.output.output)
    }
}

impl ApplyArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let wanted = policy_file::read(&self.file, &self.secrets)?;
        let existing = match find_policy(client, &wanted.name).await {
            Ok(policy) => Some(policy),
            Err(failed) if failed.is_not_found() => None,
            Err(failed) => return Err(failed),
        };
        if self.dry_run {
            return print_plan(existing.as_ref(), &wanted);
        }
        let applied = match existing {
            Some(policy) => client.update_agent_policy(&policy.id, &wanted).await?,
            None => client.create_agent_policy(&wanted).await?,
        };
        print_policy(&applied, self.output.output)
    }
}

fn print_plan(existing: Option<&AgentPolicy>, wanted: &SaveAgentPolicy) -> Result<(), Failed> {
    let Some(existing) = existing else {
        println!("would create the policy {:?}", wanted.name);
        return Ok(());
    };
    let changes = policy_file::changes(existing, wanted)?;
    if changes.is_empty() && wanted.secrets.is_none() {
        println!("the policy {:?} is as the file says", wanted.name);
        return Ok(());
    }
    println!("would change the policy {:?} (revision {}):", wanted.name, existing.revision);
    for name in wanted.secrets.iter().flatten().map(|(name, _)| name) {
        println!("secret {name} would be stored anew");
    }
    print_list(&changes, Format::Table, CHANGES, |change| change.path.clone())
}

impl DiffArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = find_policy(client, &self.policy).await?;
        let diff = client.policy_diff(&policy.id, self.from, self.to.unwrap_or(policy.revision)).await?;
        if self.output.output == Format::Json {
            return print_json(&diff);
        }
        print_list(&diff.changes, self.output.output, CHANGES, |change| change.path.clone())
    }
}

impl RollbackArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = find_policy(client, &self.policy).await?;
        if self.care.dry_run {
            let diff = client.policy_diff(&policy.id, policy.revision, self.to).await?;
            return print_list(&diff.changes, Format::Table, CHANGES, |change| change.path.clone());
        }
        let what = format!("Put {} agents of {:?} on the content of revision {}?", policy.agents, policy.name, self.to);
        self.care.confirm(&what)?;
        let rolled = client.roll_back_policy(&policy.id, &Rollback { revision: self.to, force: None }).await?;
        print_policy(&rolled, Format::Table)
    }
}

impl DeleteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = find_policy(client, &self.policy).await?;
        if self.care.dry_run {
            println!("would delete the policy {:?} and its enrollment keys", policy.name);
            return Ok(());
        }
        self.care.confirm(&format!("Delete the policy {:?} and its enrollment keys?", policy.name))?;
        println!("deleted {}", client.delete_agent_policy(&policy.id, false).await?.name);
        Ok(())
    }
}
