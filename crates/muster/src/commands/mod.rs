//! The administrator's commands: thin over the REST API, which can do whatever a command can.

mod action;
mod agent;
mod agent_orders;
mod confirm;
mod connect;
mod enrollment_key;
mod failure;
mod listing;
mod policy;
mod policy_file;
mod progress;
mod selection;
mod status;

use clap::Subcommand;

pub use self::connect::Connect;
pub use self::failure::{Failed, report};

/// `noun verb`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Agents: list, show, order, shut out
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Policies: what agents run
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Enrollment keys: what admits agents
    #[command(subcommand)]
    EnrollmentKey(enrollment_key::EnrollmentKeyCommand),
    /// Actions: orders given and how they stand
    #[command(subcommand)]
    Action(action::ActionCommand),
    /// The server and its agents, in numbers
    Status(status::StatusArgs),
}

/// Carries a command out.
pub async fn run(command: AdminCommand, connect: &Connect) -> Result<(), Failed> {
    let client = connect.client()?;
    match command {
        AdminCommand::Agent(command) => command.run(&client).await,
        AdminCommand::Policy(command) => command.run(&client).await,
        AdminCommand::EnrollmentKey(command) => command.run(&client).await,
        AdminCommand::Action(command) => command.run(&client).await,
        AdminCommand::Status(args) => args.run(&client).await,
    }
}
