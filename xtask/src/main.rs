//! What developers and CI run: `cargo xtask COMMAND`. One module for each command.

mod admin;
mod bench;
mod conformance;
mod demo;
mod fuzz;
mod process;
mod reference;
mod shell;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What developers and CI run")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a release server next to another one, and print one table
    Bench(bench::BenchArgs),
    /// Make `docs/conformance.md` from the names of the tests.
    Conformance(conformance::ConformanceArgs),
    /// Start a server with an agent, as a person would; `./demo` calls this.
    Demo(demo::DemoArgs),
    /// Measure the house against its aims and enforce the hard stops.
    Tidy,
    /// Fuzz the parsers that read the network, or one of them.
    Fuzz(fuzz::FuzzArgs),
    /// Make what is generated: the documentation of the API in the code, and `docs/conformance.md`.
    Docs,
    /// Build the programs for release.
    Release,
    /// Run simulated agents: `muster drones`, built for release.
    Drones {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Tidy => tidy::run(),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Docs => docs(),
        Command::Release => release(),
        Command::Drones { arguments } => drones(&arguments),
    }
}

fn docs() -> anyhow::Result<()> {
    conformance::run(&conformance::ConformanceArgs::write())?;
    shell::run(shell::cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]))
}

fn release() -> anyhow::Result<()> {
    shell::run(shell::cargo(&["build", "--release", "--locked", "--package", "muster", "--package", "muster-agent"]))?;
    let folder = shell::target()?.join("release");
    println!("{}\n{}", folder.join("muster").display(), folder.join("muster-agent").display());
    Ok(())
}

fn drones(arguments: &[String]) -> anyhow::Result<()> {
    shell::run(shell::cargo(&["build", "--release", "--package", "muster"]))?;
    let mut command = std::process::Command::new(shell::target()?.join("release/muster"));
    command.arg("drones").args(arguments);
    shell::run(command)
}
