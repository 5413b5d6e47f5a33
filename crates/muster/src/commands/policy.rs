//! `muster policy …`....

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::agent_policy::{
    AgentPolicy, AppliedPolicy, ApplyOutcome, Difference, Revision, Rollback, SaveAgentPolicy,
};

use serde_json::{Value, json};

use super::confirm::Care;
use super::failure::Failed;
use super::find::{all_policies, find_policy};
use super::listing::{
    Column, Format, OutputArg, column, or_dash, print_json, print_list, print_one, print_table, print_yaml, wide,
};
use super::policy_file::PolicyFileArgs;
use super::policy_recovery::RecoveryCodeArgs;
use super::selection::agents;
use super::text::print_line;

/// Verbs of `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List policies
    #[command(
        after_help = "Examples:\n  muster policy list --output wide\n  muster policy list --filter 'name:web*' --output name"
    )]
    List(ListArgs),
    /// Show a policy; with --full, the compiled policy that agents receive
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster policy show web\n  muster policy show web --full --output yaml"
    )]
    Show(ShowArgs),
    /// Create an empty policy
    #[command(
        after_help = "Examples:\n  muster policy create web --description 'Web servers'\n  muster policy create web --auto-upgrade 9.5.2=100\n  muster policy create web --auto-upgrade 9.5.2=90 --auto-upgrade 9.6.0=10"
    )]
    Create(CreateArgs),
    /// Create or update a policy from a file
    #[command(
        after_help = "Examples:\n  muster policy apply -f web.yml --dry-run\n  muster policy apply -f web.yml --dry-run --output json\n  muster policy apply -f web.yml --yes\n  muster policy apply -f web.yml --secret DB_PASSWORD=@password.txt"
    )]
    Apply(ApplyArgs),
    /// Compare two revisions of a policy
    #[command(after_help = "Examples:\n  muster policy diff web 3 5\n  muster policy diff web 4")]
    Diff(DiffArgs),
    /// List the revisions of a policy
    #[command(after_help = "Examples:\n  muster policy revisions web")]
    Revisions(RevisionsArgs),
    /// Roll back a policy: create a revision with the content of an earlier one
    #[command(
        after_help = "Examples:\n  muster policy rollback web --to 3 --dry-run\n  muster policy rollback web --to 3 --yes"
    )]
    Rollback(RollbackArgs),
    /// Create the recovery code of a protected policy, print it once, and keep only its hash
    ///
    /// Agents of the policy accept it like the uninstall token, also if the server is lost. A former code is replaced: agents
    /// accept it until they have the new revision.
    #[command(
        after_help = "Examples:\n  muster policy recovery-code web\n  muster policy recovery-code web --yes > recovery-code.txt\n  muster policy recovery-code web --remove --yes"
    )]
    RecoveryCode(RecoveryCodeArgs),
    /// Replace the key that signs policies and actions
    ///
    /// Every policy gets a new revision with the new key. Agents receive it signed with the key that they have, even if
    /// they were offline.
    #[command(after_help = "Examples:\n  muster policy rotate-signing-key --yes")]
    RotateSigningKey(RotateSigningKeyArgs),
    /// Delete a policy and its enrollment keys; the policy must have no agents
    ///
    /// This cannot be undone.
    #[command(after_help = "Examples:\n  muster policy delete web --yes")]
    Delete(DeleteArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Filter. Fields: id, name, namespace, description, is_managed, is_default
    #[arg(long, value_name = "KQL")]
    filter: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Policy, by name or id
    policy: String,
    /// Show the compiled policy that agents receive
    #[arg(long)]
    full: bool,
    /// With --full: revision to show [default: the newest]
    #[arg(long, requires = "full")]
    revision: Option<i64>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Name of the policy
    name: String,
    /// Description
    #[arg(long, default_value = "")]
    description: String,
    /// Data namespace
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Upgrade this percentage of the policy's agents to this version automatically (repeatable)
    #[arg(long, value_name = "VERSION=PERCENT", value_parser = required_version)]
    auto_upgrade: Vec<Value>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `apply`.
#[derive(Args, Debug)]
pub struct ApplyArgs {
    #[command(flatten)]
    policy: PolicyFileArgs,
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `diff`.
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// Policy, by name or id
    policy: String,
    /// Earlier revision
    from: i64,
    /// Later revision [default: the newest]
    to: Option<i64>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `revisions`.
#[derive(Args, Debug)]
pub struct RevisionsArgs {
    /// Policy, by name or id
    policy: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `rollback`.
#[derive(Args, Debug)]
pub struct RollbackArgs {
    /// Policy, by name or id
    policy: String,
    /// Revision to return to
    #[arg(long, value_name = "REVISION")]
    to: i64,
    /// Roll back even if the policy is managed
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `rotate-signing-key`.
#[derive(Args, Debug)]
pub struct RotateSigningKeyArgs {
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Policy, by name or id
    policy: String,
    /// Delete even if the policy is managed
    #[arg(long)]
    force: bool,
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
    wide("DEFAULT", |policy| yes_or_no(policy.is_default)),
    wide("NAMESPACE", |policy| policy.namespace.clone()),
    wide("DESCRIPTION", |policy| or_dash(Some(&policy.description))),
    wide("SECRETS", |policy| policy.secret_names.join(",")),
];

const REVISIONS: &[Column<Revision>] = &[
    column("REVISION", |revision| revision.revision.to_string()),
    column("CREATED", |revision| revision.created_at.clone()),
    column("BY", |revision| revision.created_by.clone()),
];

const DETAILS: &[Column<AgentPolicy>] = &[
    column("ID", |policy| policy.id.clone()),
    column("NAME", |policy| policy.name.clone()),
    column("DESCRIPTION", |policy| or_dash(Some(&policy.description))),
    column("REVISION", |policy| policy.revision.to_string()),
    column("AGENTS", |policy| policy.agents.to_string()),
    column("DEFAULT", |policy| yes_or_no(policy.is_default)),
    column("MANAGED", |policy| yes_or_no(policy.is_managed)),
    column("RECOVERY CODE", |policy| yes_or_no(policy.has_recovery_code)),
    column("NAMESPACE", |policy| policy.namespace.clone()),
    column("UPGRADES TO", |policy| or_dash(Some(&auto_upgrades(policy)))),
    column("SECRETS", |policy| or_dash(Some(&policy.secret_names.join(", ")))),
    column("CREATED", |policy| policy.created_at.clone()),
    column("UPDATED", |policy| policy.updated_at.clone()),
    column("BY", |policy| policy.updated_by.clone()),
];

/// Parses `VERSION=PERCENT`. The server checks both.
fn required_version(text: &str) -> Result<Value, String> {
    let (version, percentage) = text.split_once('=').ok_or("must be VERSION=PERCENT, such as 9.5.2=100")?;
    let percentage = percentage.strip_suffix('%').unwrap_or(percentage);
    let percentage: f64 = percentage.parse().map_err(|_| format!("{percentage:?} is not a number"))?;
    Ok(json!({"version": version, "percentage": percentage}))
}

/// The versions to which agents are upgraded automatically, as in `--auto-upgrade`.
fn auto_upgrades(policy: &AgentPolicy) -> String {
    let rows = policy.fields.get("required_versions").and_then(Value::as_array);
    let shown = |row: &Value| Some(format!("{}={}", row["version"].as_str()?, row["percentage"].as_f64()?));
    rows.into_iter().flatten().filter_map(shown).collect::<Vec<_>>().join(", ")
}

fn yes_or_no(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// Columns of a difference.
pub const CHANGES: &[Column<Difference>] = &[
    column("PATH", |change| change.path.clone()),
    column("BEFORE", |change| value(change.before.as_ref())),
    column("AFTER", |change| value(change.after.as_ref())),
];

fn value(value: Option<&Value>) -> String {
    // As JSON, so that the string "1" differs from the number 1.
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

impl PolicyCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => args.run(client).await,
            Self::Show(args) => args.run(client).await,
            Self::Create(args) => args.run(client).await,
            Self::Apply(args) => args.run(client).await,
            Self::Diff(args) => args.run(client).await,
            Self::Revisions(args) => args.run(client).await,
            Self::Rollback(args) => args.run(client).await,
            Self::RecoveryCode(args) => args.run(client).await,
            Self::RotateSigningKey(args) => args.run(client).await,
            Self::Delete(args) => args.run(client).await,
        }
    }
}

fn print_policy(policy: &AgentPolicy, format: Format) -> Result<(), Failed> {
    print_one(policy, format, DETAILS, |policy| policy.id.clone())
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policies = all_policies(client, self.filter.as_deref()).await?;
        print_list(&policies, self.output.output, COLUMNS, |policy| policy.id.clone())
    }
}

impl ShowArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = find_policy(client, &self.policy).await?;
        let format = self.output.output;
        // The id is the same with and without --full.
        if !self.full || format == Format::Name {
            return print_policy(&policy, format);
        }
        let full = client.full_agent_policy(&policy.id, self.revision).await?;
        // The compiled policy is a tree, which no table can show.
        if format == Format::Json { print_json(&full) } else { print_yaml(&full) }
    }
}

impl CreateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = SaveAgentPolicy {
            name: self.name,
            namespace: Some(self.namespace),
            description: Some(self.description),
            fields: (!self.auto_upgrade.is_empty())
                .then(|| ("required_versions".to_owned(), Value::Array(self.auto_upgrade)))
                .into_iter()
                .collect(),
            ..SaveAgentPolicy::default()
        };
        print_policy(&client.create_agent_policy(&policy).await?, self.output.output)
    }
}

impl ApplyArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut file = self.policy.read()?;
        // The dry run reports errors before anything changes, and returns the differences for the confirmation.
        let plan = client.try_apply_policy(&file.request).await.map_err(|error| file.failed(error))?;
        if self.care.dry_run {
            file.warn(&plan);
            return self.print_plan(&plan);
        }
        let AgentPolicy { name, agents: count, .. } = &plan.policy;
        // One agent or none can be changed without confirmation, as with the commands for agents.
        if *count > 1 && plan.outcome == ApplyOutcome::Changed {
            self.care.confirm(&format!("Update the policy {name:?} of {}?", agents(*count)))?;
        }
        // The dry run is valid only for this revision: if the policy has changed since, the server reports a conflict.
        file.request.expected_revision = Some(plan.previous_revision.unwrap_or(0));
        let applied = client.apply_policy(&file.request).await.map_err(|error| file.failed(error))?;
        file.warn(&applied);
        let done = match applied.outcome {
            ApplyOutcome::Created => "created",
            ApplyOutcome::Changed => "updated",
            ApplyOutcome::Unchanged => "no changes to",
        };
        let AgentPolicy { name, revision, .. } = &applied.policy;
        match self.output.output {
            Format::Table | Format::Wide => print_line(format!("{done} the policy {name:?}, revision {revision}")),
            format => print_policy(&applied.policy, format),
        }
    }

    fn print_plan(&self, plan: &AppliedPolicy) -> Result<(), Failed> {
        // For programs, the plan has the format of the API.
        match self.output.output {
            Format::Json => return print_json(plan),
            Format::Yaml => return print_yaml(plan),
            _ => {}
        }
        let (name, before) = (&plan.policy.name, plan.previous_revision.unwrap_or(0));
        match plan.outcome {
            ApplyOutcome::Created => return print_line(format!("would create the policy {name:?}")),
            ApplyOutcome::Unchanged => {
                return print_line(format!("the policy {name:?} is up to date (revision {before})"));
            }
            ApplyOutcome::Changed => {}
        }
        print_line(format!("would update the policy {name:?} (currently revision {before}):"))?;
        // Only names of secrets are printed: the API does not return their values.
        for secret in &plan.secrets {
            print_line(format!("new value for the secret {secret}"))?;
        }
        if plan.changes.is_empty() { Ok(()) } else { print_table(&plan.changes, false, CHANGES) }
    }
}

impl DiffArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = find_policy(client, &self.policy).await?;
        let diff = client.policy_diff(&policy.id, self.from, self.to.unwrap_or(policy.revision)).await?;
        match self.output.output {
            Format::Json => print_json(&diff),
            Format::Yaml => print_yaml(&diff),
            format => print_list(&diff.changes, format, CHANGES, |change| change.path.clone()),
        }
    }
}

impl RevisionsArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = find_policy(client, &self.policy).await?;
        let revisions = client.policy_revisions(&policy.id).await?;
        print_list(&revisions, self.output.output, REVISIONS, |revision| revision.revision.to_string())
    }
}

impl RollbackArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = find_policy(client, &self.policy).await?;
        let request = Rollback { revision: self.to, force: self.force.then_some(true) };
        let AgentPolicy { id, name, agents: count, .. } = &policy;
        let what = format!("the policy {name:?} of {} back to revision {}", agents(*count), self.to);
        if self.care.dry_run {
            // Validates the rollback. The differences are only for display.
            client.try_roll_back_policy(id, &request).await?;
            let diff = client.policy_diff(id, policy.revision, self.to).await?;
            // For programs, the result is only the differences, as in `policy diff`.
            return match self.output.output {
                Format::Json => print_json(&diff),
                Format::Yaml => print_yaml(&diff),
                _ => {
                    print_line(format!("would roll {what}:"))?;
                    print_table(&diff.changes, false, CHANGES)
                }
            };
        }
        // Fails before the user is asked if the revision does not exist.
        client.policy_revision(id, self.to).await?;
        self.care.confirm(&format!("Roll {what}?"))?;
        let rolled = client.roll_back_policy(id, &request).await?;
        print_policy(&rolled, self.output.output)
    }
}

impl RotateSigningKeyArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let care = Care { yes: self.yes, dry_run: false };
        care.confirm("Replace the key that signs policies and actions? Every policy gets a new revision.")?;
        print_line(client.rotate_signing_key().await?.message)
    }
}

impl DeleteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = find_policy(client, &self.policy).await?;
        if self.care.dry_run {
            client.try_delete_agent_policy(&policy.id, self.force).await?;
            return print_line(format!("would delete the policy {:?} and its enrollment keys", policy.name));
        }
        // Always asks, because a deletion cannot be undone.
        self.care.confirm(&format!("Delete the policy {:?} and its enrollment keys?", policy.name))?;
        let deleted = client.delete_agent_policy(&policy.id, self.force).await?;
        print_line(format!("deleted the policy {:?}", deleted.name))
    }
}
