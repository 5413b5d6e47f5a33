//! `muster role …`: roles, and who has them.

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::identity::{Binding, CreateBinding, ListBindings, Role, SaveRole};

use super::confirm::Care;
use super::failure::Failed;
use super::find::all_pages;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one, wide};

/// Verbs of `role`.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// List roles
    #[command(after_help = "Examples:\n  muster role list\n  muster role list --output wide")]
    List(ListArgs),
    /// Show a role with its privileges
    #[command(after_help = "Examples:\n  muster role show helpdesk")]
    Show(ShowArgs),
    /// Create a role
    #[command(after_help = "Examples:\n  muster role create tagger --privilege agents.read --privilege agents.tag")]
    Create(SaveArgs),
    /// Change a role; the change applies to all users and groups that have it
    #[command(after_help = "Examples:\n  muster role update tagger --name tagger --privilege agents.read")]
    Update(UpdateArgs),
    /// Delete a role that is not in use
    #[command(after_help = "Examples:\n  muster role delete tagger")]
    Delete(DeleteArgs),
    /// List role bindings: users and groups, with their roles and scopes
    #[command(after_help = "Examples:\n  muster role bindings\n  muster role bindings --user ann")]
    Bindings(BindingsArgs),
    /// Assign a role to a user or a group
    ///
    /// Without --in-space, the role applies to the whole installation.
    #[command(
        after_help = "Examples:\n  muster role bind helpdesk --user ann\n  muster role bind fleet-operator --group ops --in-space default\n  muster role bind upgrade-operator --user ann --in-space default --policy web"
    )]
    Bind(BindArgs),
    /// Remove a role binding
    #[command(after_help = "Examples:\n  muster role unbind BINDING-ID")]
    Unbind(DeleteArgs),
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
    /// Id of the role
    role: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct SaveArgs {
    /// Name
    name: String,
    /// Description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Privilege, such as agents.read (repeatable)
    #[arg(long = "privilege", value_name = "NAME")]
    privileges: Vec<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `update`.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// Id of the role
    role: String,
    /// Name [default: unchanged]
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Description [default: unchanged]
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Privilege; the given privileges replace those of the role (repeatable) [default: unchanged]
    #[arg(long = "privilege", value_name = "NAME")]
    privileges: Vec<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete` and `unbind`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Id
    id: String,
    #[command(flatten)]
    care: Care,
}

/// Flags of `bindings`.
#[derive(Args, Debug)]
pub struct BindingsArgs {
    /// List the roles of this user, by id or name
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `bind`.
#[derive(Args, Debug)]
pub struct BindArgs {
    /// Id of the role
    role: String,
    /// User or service account, by id or name
    #[arg(long, required_unless_present = "group", conflicts_with = "group")]
    user: Option<String>,
    /// Group of the OpenID Connect provider
    #[arg(long)]
    group: Option<String>,
    /// Limit the role to a space
    #[arg(long = "in-space", value_name = "SPACE")]
    in_space: Option<String>,
    /// Limit the role to this policy of the space, by id or name (repeatable)
    #[arg(long = "policy", value_name = "POLICY", requires = "in_space", conflicts_with = "tags")]
    policies: Vec<String>,
    /// Limit the role to the agents of the space with this tag (repeatable)
    #[arg(long = "tag", value_name = "TAG", requires = "in_space")]
    tags: Vec<String>,
    #[command(flatten)]
    output: OutputArg,
}

const COLUMNS: &[Column<Role>] = &[
    column("ID", |role| role.id.clone()),
    column("NAME", |role| role.name.clone()),
    column("BUILT IN", |role| if role.built_in { "yes" } else { "no" }.to_owned()),
    column("DESCRIPTION", |role| or_dash(Some(&role.description))),
    wide("PRIVILEGES", |role| or_dash(Some(&role.privileges.join(",")))),
];

const BINDINGS: &[Column<Binding>] = &[
    column("ID", |binding| binding.id.clone()),
    column("ROLE", |binding| binding.role.clone()),
    column("USER", |binding| or_dash(binding.user.as_deref())),
    column("GROUP", |binding| or_dash(binding.group.as_deref())),
    column("WHERE", place),
    wide("CREATED", |binding| binding.created_at.clone()),
    wide("CREATED BY", |binding| or_dash(Some(&binding.created_by))),
];

fn place(binding: &Binding) -> String {
    let Some(space) = &binding.space else { return "everywhere".to_owned() };
    match (binding.policies.as_slice(), binding.tags.as_slice()) {
        ([], []) => format!("space {space}"),
        (policies, []) => format!("space {space}, policies {}", policies.join(",")),
        (_, tags) => format!("space {space}, tags {}", tags.join(",")),
    }
}

impl RoleCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => print_list(&client.roles().await?, args.output.output, COLUMNS, |role| role.id.clone()),
            Self::Show(args) => {
                print_one(&client.role(&args.role).await?, args.output.output, COLUMNS, |role| role.id.clone())
            }
            Self::Create(args) => {
                let SaveArgs { name, description, privileges, output } = args;
                let role = client.create_role(&SaveRole { name, description, privileges }).await?;
                print_one(&role, output.output, COLUMNS, |role| role.id.clone())
            }
            Self::Update(args) => args.run(client).await,
            Self::Delete(args) => {
                let question = format!("Delete the role {}?", args.id);
                args.care.delete(&args.id, &question, async |dry_run| client.delete_role(&args.id, dry_run).await).await
            }
            Self::Bindings(args) => args.run(client).await,
            Self::Bind(args) => args.run(client).await,
            Self::Unbind(args) => {
                let question = format!("Remove the role binding {}?", args.id);
                args.care
                    .delete(&args.id, &question, async |dry_run| client.delete_binding(&args.id, dry_run).await)
                    .await
            }
        }
    }
}

impl UpdateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let before = client.role(&self.role).await?;
        // The API replaces the privileges as a whole.
        let role = SaveRole {
            name: self.name.unwrap_or(before.name),
            description: self.description.or(Some(before.description)),
            privileges: if self.privileges.is_empty() { before.privileges } else { self.privileges },
        };
        let role = client.update_role(&before.id, &role).await?;
        print_one(&role, self.output.output, COLUMNS, |role| role.id.clone())
    }
}

impl BindingsArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let all = all_pages(async |page, per_page| {
            client.bindings(&ListBindings { user: self.user.clone(), page, per_page }).await
        })
        .await?;
        print_list(&all, self.output.output, BINDINGS, |binding| binding.id.clone())
    }
}

impl BindArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let Self { role, user, group, in_space: space, policies, tags, output } = self;
        let binding = client.create_binding(&CreateBinding { user, group, role, space, policies, tags }).await?;
        if !binding.without_effect.is_empty() {
            let names = binding.without_effect.join(", ");
            eprintln!(
                "muster: warning: these privileges have no effect in this binding, because they need a wider scope: {names}"
            );
        }
        print_one(&binding, output.output, BINDINGS, |binding| binding.id.clone())
    }
}
