//! `muster`: the server and the administrator's tool.
mod commands;
use clap::Parser;
#[derive(Parser)]
struct Cli { #[command(flatten)] connect: commands::Connect, #[command(subcommand)] command: commands::AdminCommand }
#[tokio::main]
async fn main() -> std::process::ExitCode { let cli = Cli::parse(); commands::report(commands::run(cli.command, &cli.connect).await) }
