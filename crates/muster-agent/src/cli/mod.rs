//! The command line.

mod enroll;
mod run;
mod status;
mod tools;
mod unenroll;
mod upgrade;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Parser, Subcommand};

use crate::base_dir::{self, BadBase};
use crate::exit::{self, Failure};
use crate::net::Transport;
use crate::net::http1::Http1;
use crate::net::tls;
use crate::paths::Layout;
use crate::state::enrollment::Trust;
use muster_core::error_chain::chain;

/// Endpoint agent that applies a policy, runs actions and supervises programs
#[derive(Debug, Parser)]
#[command(name = "muster-agent", version = crate::version::agent_version(), max_term_width = 100)]
pub struct Cli {
    /// Directory in which the agent stores its data
    #[arg(long, global = true, env = "MUSTER_AGENT_BASE_PATH", default_value = "/opt/muster-agent")]
    base_path: Utf8PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enroll this host in a fleet
    Enroll(enroll::Args),
    /// Run the agent
    Run(run::Args),
    /// Show the agent's status
    Status(status::Args),
    /// Upgrade the agent, or return to the previous version
    ///
    /// The daemon carries out the upgrade, even if this command is
    /// interrupted. If the new version does not work, the daemon
    /// returns to the previous one.
    #[command(
        after_help = "Examples:\n  muster-agent upgrade 0.2.0\n  muster-agent upgrade 0.2.0 --source-uri file:///mnt/packages\n  muster-agent upgrade 0.1.0 --rollback"
    )]
    Upgrade(upgrade::Args),
    /// Watch an upgrade
    #[command(hide = true)]
    Watch(upgrade::WatchArgs),
    /// Count a start during an upgrade
    #[command(hide = true)]
    Guard,
    /// Restart the daemon and its components
    Restart,
    /// Print the versions of this program and of the daemon
    Version(tools::VersionArgs),
    /// Print the log of the agent or of a component
    Logs(tools::LogsArgs),
    /// Write a diagnostics bundle without secrets, also if no daemon is running
    Diagnostics(tools::DiagnosticsArgs),
    /// Print completions for a shell
    Completions(tools::CompletionsArgs),
    /// Unenroll this host: stop all programs, notify the server, and delete credentials and policy
    Unenroll(unenroll::Args),
}

/// Runs the command; returns the exit code.
pub async fn main(cli: Cli) -> u8 {
    match dispatch(cli).await {
        Ok(code) => code,
        // Failures are printed only here. Every command returns them with their exit code.
        Err(failure) => {
            eprintln!("Error: {}", failure.message);
            if let Some(hint) = failure.hint {
                eprintln!("hint: {hint}");
            }
            failure.code
        }
    }
}

async fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let layout = Layout::new(absolute(&cli.base_path)?);
    match cli.command {
        Command::Enroll(args) => enroll::run(&layout, args).await,
        Command::Run(args) => run::run(&layout, &args).await,
        Command::Status(args) => status::run(&layout, &args).await,
        Command::Upgrade(args) => upgrade::run(&layout, &args).await,
        Command::Watch(args) => upgrade::watch(&layout, &args).await,
        Command::Guard => upgrade::guard(&layout),
        Command::Restart => tools::restart(&layout).await,
        Command::Version(args) => tools::version(&layout, &args).await,
        Command::Logs(args) => tools::logs(&layout, &args).await,
        Command::Diagnostics(args) => tools::diagnostics(&layout, &args).await,
        Command::Completions(args) => Ok(tools::completions(&args)),
        Command::Unenroll(args) => unenroll::run(&layout, &args).await,
    }
}

fn absolute(path: &Utf8Path) -> Result<Utf8PathBuf, Failure> {
    // The path must be absolute, because programs run in other working directories and get paths below this one.
    let made = std::path::absolute(path).map_err(|error| Failure::new(exit::USAGE, format!("{path}: {error}")))?;
    Utf8PathBuf::from_path_buf(made)
        .map_err(|path| Failure::new(exit::USAGE, format!("{} is not UTF-8", path.display())))
}

/// Creates a network client that verifies servers as specified in `trust`.
fn transport(trust: &Trust) -> Result<std::sync::Arc<dyn Transport>, Failure> {
    let tls = tls::client_config(trust).map_err(|error| Failure::new(exit::TLS, chain(&error).to_string()))?;
    Ok(std::sync::Arc::new(Http1::new(tls)))
}

/// Checks that the base path is a directory that this agent may own.
fn check_base(base: &Utf8Path) -> Result<(), Failure> {
    base_dir::check(base).map_err(|error| {
        let (code, hint) = match &error {
            BadBase::Io { .. } => (exit::PERMISSION, "run muster-agent as a user that can write there, or"),
            BadBase::Owner { .. } => (exit::PERMISSION, "run muster-agent as the owner, or"),
            _ => (exit::USAGE, "the agent needs its own directory:"),
        };
        Failure::new(code, format!("--base-path: {error}"))
            .hint(format!("{hint} pass --base-path with a directory that is empty or does not exist yet"))
    })
}
