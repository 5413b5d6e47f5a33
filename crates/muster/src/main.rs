//! `muster`: the server and the administrator's tool.

mod commands;
mod documents;
#[cfg(test)]
mod reference;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::commands::{AdminCommand, Failed, report};

/// Fleet control plane: the server, and the tool to manage it
#[derive(Debug, Parser)]
#[command(
    name = "muster",
    version,
    after_help = "Examples:\n  muster serve\n  muster policy apply -f web.yml\n  muster enrollment-key create --policy web\n  muster agent list --filter status:offline\n  muster agent unenroll web-1\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 unreachable, 6 conflict"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    #[command(flatten)]
    Admin(AdminCommand),
    /// Load-test a server with simulated agents
    #[command(
        after_help = "Examples:\n  muster drones --url https://127.0.0.1:8220 --ca /var/lib/muster/ca.crt --enrollment-token TOKEN --count 1000\n  muster drones --url https://127.0.0.1:8220 --ca ca.crt --enrollment-token TOKEN --mode change --rate 500 --seconds 30"
    )]
    Drones(muster_drones::DronesArgs),
    #[command(flatten)]
    Documents(documents::DocumentCommand),
}

fn main() -> ExitCode {
    // First of all: libraries that speak TLS expect a provider. It can be there only if someone came before us.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Admin(command) => in_runtime(commands::run(command)),
        Command::Drones(args) => in_runtime(drones(args)),
        Command::Documents(command) => report(command.run()),
    }
}

async fn drones(args: muster_drones::DronesArgs) -> Result<(), Failed> {
    muster_drones::run(&args).await.map_err(|error| Failed::new(format!("{error:#}")))
}

fn in_runtime(work: impl Future<Output = Result<(), Failed>>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => report(runtime.block_on(work)),
        Err(error) => report(Err(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn every_command_can_be_built() {
        Cli::command().debug_assert();
    }
}
