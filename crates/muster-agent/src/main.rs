//! The endpoint agent's program.

use std::process::ExitCode;

use clap::Parser;
use muster_agent::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One thread does: the agent waits most of its life, and a thread costs memory.
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => ExitCode::from(runtime.block_on(cli::main(cli))),
        Err(error) => {
            eprintln!("Error: the runtime can't start: {error}");
            ExitCode::FAILURE
        }
    }
}
