//! Administration commands. Each is a thin layer over the REST API, so that everything a command does is available in
//! the API.

mod action;
mod agent;
mod agent_actions;
mod agent_moves;
mod agent_retention;
mod alert;
mod alert_target;
mod audit;
mod audit_file;
mod authorities;
mod backup;
mod ca;
mod carve;
mod change;
mod confirm;
mod connect;
mod context;
mod contexts;
pub mod doctor;
mod enrollment_key;
mod failure;
mod find;
mod fleetd;
mod fleetd_options;
mod host;
mod host_check;
mod host_facts;
mod host_inventory;
mod host_show;
mod label;
mod listing;
mod login;
mod network_object;
mod network_object_test;
mod node;
mod oidc_provider;
mod out_file;
mod output;
mod pack;
mod package;
mod policy;
mod policy_file;
mod policy_names;
mod policy_recovery;
mod progress;
mod query;
mod query_rows;
mod respond;
mod role;
mod rollout;
mod script;
mod selection;
mod software;
mod software_install;
mod software_installer;
mod space;
mod status;
pub mod store;
mod text;
mod times;
mod token;
mod transcode;
mod uninstall_token;
mod user;

use clap::{Args, Subcommand};

use self::connect::Connect;
pub use self::failure::{Failed, report};
use self::network_object::{DownloadSourceFields, NetworkCommand, ProxyFields, ServerHostFields};
pub use self::text::print_line;

/// A command in the form `noun verb`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Manage agents
    Agent(Noun<agent::AgentCommand>),
    /// List, show and delete hosts, with all agents that run on them
    Host(Noun<host::HostCommand>),
    /// Run SQL on hosts with osquery, and print the rows as they arrive
    Query(Noun<query::QueryCommand>),
    /// Run scripts on hosts with orbit, and save scripts under a name
    Script(Noun<script::ScriptCommand>),
    /// List and download archives of files that hosts with osquery have uploaded
    Carve(Noun<carve::CarveCommand>),
    /// List and show the software on hosts with osquery
    Software(Noun<software::SoftwareCommand>),
    /// Manage host checks: yes-or-no questions that hosts with osquery answer
    HostCheck(Noun<host_check::HostCheckCommand>),
    /// Manage labels: groups of hosts, selected by SQL or by hand
    Label(Noun<label::LabelCommand>),
    /// Manage packs: scheduled queries of osquery for some hosts
    Pack(Noun<pack::PackCommand>),
    /// Show and replace the osquery configuration of hosts
    FleetdOptions(Noun<fleetd_options::FleetdOptionsCommand>),
    /// Deliver fleetd to hosts
    Fleetd(Noun<fleetd::FleetdCommand>),
    /// Manage policies
    Policy(Noun<policy::PolicyCommand>),
    /// Change policies in waves, and halt automatically if agents become unhealthy
    Rollout(Noun<rollout::RolloutCommand>),
    /// Manage enrollment keys
    EnrollmentKey(Noun<enrollment_key::EnrollmentKeyCommand>),
    /// List, cancel and wait for actions
    Action(Noun<action::ActionCommand>),
    /// Export the CA certificate that agents trust, and its fingerprint
    Ca(Noun<ca::CaCommand>),
    /// Show outputs, their health, and the keys of agents
    Output(Noun<output::OutputCommand>),
    /// Manage Fleet Server hosts: the URLs at which agents reach the fleet
    ServerHost(Noun<NetworkCommand<ServerHostFields>>),
    /// Manage proxies for agents
    Proxy(Noun<NetworkCommand<ProxyFields>>),
    /// Manage download sources, from which agents download their binaries
    DownloadSource(Noun<NetworkCommand<DownloadSourceFields>>),
    /// Upload packages of muster-agent, to which agents can be upgraded
    Package(Noun<package::PackageCommand>),
    /// List, show and replace the uninstall tokens of policies
    UninstallToken(Noun<uninstall_token::UninstallTokenCommand>),
    /// Send events of agents, policies and servers to webhooks, mail and syslog
    Alert(Noun<alert::AlertCommand>),
    /// Read, export and verify the audit log
    Audit(Noun<audit::AuditCommand>),
    /// List and follow changes
    Change(Noun<change::ChangeCommand>),
    /// Create and restore backups
    Backup(Noun<backup::BackupCommand>),
    /// List, drain and resume the servers of the fleet
    Node(Noun<node::NodeCommand>),
    /// Manage users and service accounts
    User(Noun<user::UserCommand>),
    /// Manage roles and role bindings
    Role(Noun<role::RoleCommand>),
    /// Manage API tokens
    Token(Noun<token::TokenCommand>),
    /// Let people log in through OpenID providers
    OidcProvider(Noun<oidc_provider::OidcProviderCommand>),
    /// Approve or deny the login of a device
    Device(Noun<login::DeviceCommand>),
    /// Manage spaces
    Space(Noun<space::SpaceCommand>),
    /// Log in with a code that you approve in a browser, and store the token in a context
    ///
    /// Without --url, logs in to --context or the current context again.
    #[command(
        after_help = "Examples:\n  muster login --url https://fleet.example:8230 --ca ca.crt\n  muster login --context production"
    )]
    Login {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        args: login::LoginArgs,
    },
    /// Manage the servers that commands connect to
    Context(Noun<context::ContextCommand>),
    /// Show the server's state, the number of agents by status, and recently rejected requests
    Status {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        args: status::StatusArgs,
    },
}

/// The verbs of a noun, with the connection flags.
#[derive(Args, Debug)]
pub struct Noun<V: Subcommand> {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: V,
}

/// Runs a command.
pub async fn run(command: AdminCommand) -> Result<(), Failed> {
    match command {
        AdminCommand::Agent(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Host(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Query(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Script(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Carve(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Software(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::HostCheck(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Pack(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Label(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Fleetd(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::FleetdOptions(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Policy(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Rollout(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::EnrollmentKey(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Action(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Ca(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Output(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::ServerHost(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Proxy(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::DownloadSource(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Package(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::UninstallToken(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Alert(noun) => noun.verb.run(&noun.connect.client()?).await,
        // Without a client yet: a file is verified without a server.
        AdminCommand::Audit(noun) => noun.verb.run(&noun.connect).await,
        AdminCommand::Change(noun) => noun.verb.run(&noun.connect.client()?).await,
        // Without a client yet: a backup is restored without a server.
        AdminCommand::Backup(noun) => noun.verb.run(&noun.connect).await,
        AdminCommand::Node(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::User(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Role(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Token(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::OidcProvider(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Device(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Login { connect, args } => args.run(&connect).await,
        AdminCommand::Space(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Context(noun) => noun.verb.run(&noun.connect),
        AdminCommand::Status { connect, args } => args.run(&connect.client()?).await,
    }
}
