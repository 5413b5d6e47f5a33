//! The `muster-agent` program.

use std::process::ExitCode;

use clap::Parser;
use muster_agent::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A single thread is sufficient: the agent mostly waits, and each thread costs memory.
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => ExitCode::from(runtime.block_on(cli::main(cli))),
        Err(error) => {
            eprintln!("Error: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
