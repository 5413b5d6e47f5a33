//! The `muster` program: the server, and the command line to administer it.

mod commands;
mod documents;
#[cfg(test)]
mod reference;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::commands::doctor::DoctorArgs;
use self::commands::store::StoreCommand;
use self::commands::{AdminCommand, Failed, report};

/// After a burst of large bodies, jemalloc returns the memory to the system, which glibc's allocator does not. Its
/// settings are compiled in and therefore in `.cargo/config.toml`. Measurements are in docs/where-the-time-goes.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Run and administer a Muster fleet server
#[derive(Debug, Parser)]
#[command(
    name = "muster",
    version = env!("VERSION_TEXT"),
    after_help = "Examples:\n  muster serve\n  muster policy apply -f web.yml\n  muster enrollment-key create --policy web\n  muster agent list --filter status:offline\n  muster agent unenroll web-1\n\nExit codes: 0 success, 1 failure, 2 usage, 3 not found, 4 denied, 5 unreachable, 6 conflict"
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
    /// Copy the database of a fleet
    #[command(subcommand)]
    Store(StoreCommand),
    Doctor(DoctorArgs),
    /// Load-test a server with simulated agents
    #[command(
        after_help = "Examples:\n  muster drones --url https://127.0.0.1:8220 --ca /var/lib/muster/ca.crt --enrollment-token TOKEN --count 1000\n  muster drones --url https://127.0.0.1:8220 --ca ca.crt --enrollment-token TOKEN --mode change --rate 500 --seconds 30"
    )]
    Drones(muster_drones::DronesArgs),
    #[command(flatten)]
    Documents(documents::DocumentCommand),
}

fn main() -> ExitCode {
    // TLS libraries look for a process-wide provider. The call fails only if a provider is already installed, which is
    // fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Admin(command) => in_runtime(commands::run(command)),
        Command::Store(command) => report(command.run()),
        Command::Doctor(args) => report(args.run()),
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
    fn command_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
