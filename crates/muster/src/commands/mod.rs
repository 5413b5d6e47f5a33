//! The administrator's commands: thin over the REST API, which can do whatever a command can.

mod action;
mod agent;
mod agent_moves;
mod agent_orders;
mod authorities;
mod confirm;
mod connect;
mod enrollment_key;
mod failure;
mod find;
mod listing;
mod policy;
mod policy_file;
mod policy_names;
mod policy_plan;
mod progress;
mod selection;
mod status;
mod text;
mod times;
mod transcode;

use clap::{Args, Subcommand};

use self::connect::Connect;
pub use self::failure::{Failed, report};
pub use self::text::print_line;

/// `noun verb`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Agents: list, show, order, shut out
    Agent(Noun<agent::AgentCommand>),
    /// Policies: what agents run
    Policy(Noun<policy::PolicyCommand>),
    /// Enrollment keys: what admits agents
    EnrollmentKey(Noun<enrollment_key::EnrollmentKeyCommand>),
    /// Actions: orders given and how they stand
    Action(Noun<action::ActionCommand>),
    /// The server and its agents, in numbers
    Status {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        args: status::StatusArgs,
    },
}

/// A noun's verbs, and how to reach the server.
#[derive(Args, Debug)]
pub struct Noun<V: Subcommand> {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: V,
}

/// Carries a command out.
pub async fn run(command: AdminCommand) -> Result<(), Failed> {
    match command {
        AdminCommand::Agent(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Policy(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::EnrollmentKey(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Action(noun) => noun.verb.run(&noun.connect.client()?).await,
        AdminCommand::Status { connect, args } => args.run(&connect.client()?).await,
    }
}
