//! The `muster-agent` program.

use std::process::ExitCode;

use clap::Parser;
use muster_agent::cli::{self, Cli};
use muster_agent::launch;

fn main() -> ExitCode {
    if let Some(code) = launch::run_if_asked(std::env::args_os().skip(1)) {
        return code;
    }
    launch::forbid_cores();
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
