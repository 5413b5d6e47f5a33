//! `muster`: the server and the admin's tool.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Fleet control plane: the server, and the tool to manage it
#[derive(Debug, Parser)]
#[command(name = "muster", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
}

fn main() -> ExitCode {
    // First of all: libraries that speak TLS expect a provider. It can be there only if someone came before us.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
    }
}
