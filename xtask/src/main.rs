//! Tasks for developers and CI: `cargo xtask COMMAND`. Each command has a module.

mod admin;
mod bench;
mod browser;
mod conformance;
mod debian;
mod demo;
mod deny;
mod fuzz;
mod process;
mod reference;
mod release;
mod schemathesis;
mod screenshots;
mod shell;
mod simulate;
mod systemd;
mod tests;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks for developers and CI")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a release build of the server and another server
    Bench(bench::BenchArgs),
    /// Measure fleets of different sizes; with --write, update the table in `docs/scale.md`
    Scale(bench::scale::ScaleArgs),
    /// Generate `docs/conformance.md` from the names of the tests.
    Conformance(conformance::ConformanceArgs),
    /// Start a server with an agent; `./demo` calls this.
    Demo(demo::DemoArgs),
    /// Check licenses, sources, bans and known vulnerabilities of dependencies, without network access.
    Deny(deny::DenyArgs),
    /// Check the conventions of the repository and measure the code.
    Tidy,
    /// Build the tests, and run the test programs side by side.
    Test(tests::TestArgs),
    /// Fuzz the parsers of network input.
    Fuzz(fuzz::FuzzArgs),
    /// Compare the responses to generated requests with the OpenAPI document.
    Schemathesis(schemathesis::SchemathesisArgs),
    /// Take screenshots of all web pages of a fleet with simulated agents; with --write, replace those of the README.
    Screenshots(screenshots::ScreenshotsArgs),
    /// Generate the API documentation and `docs/conformance.md`.
    Docs,
    /// Test the installation of the agent in a booted Debian with systemd; needs root, debootstrap and systemd-nspawn.
    SystemdTest,
    /// Build the release programs, and packages of muster-agent: a signed one for upgrades, and one for Debian.
    Release(release::ReleaseArgs),
    /// Run the simulation of muster-agent with many seeds.
    Simulate(simulate::SimulateArgs),
    /// Load-test a server with a release build of `muster drones`.
    Drones {
        /// Arguments of `muster drones`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Scale(args) => bench::scale::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Deny(args) => deny::run(&args),
        Command::Tidy => tidy::run(),
        Command::Test(args) => tests::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Schemathesis(args) => schemathesis::run(&args),
        Command::Screenshots(args) => screenshots::run(&args),
        Command::Docs => docs(),
        Command::SystemdTest => systemd::run(),
        Command::Release(args) => release::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Drones { arguments } => drones(&arguments),
    }
}

fn docs() -> anyhow::Result<()> {
    conformance::run(&conformance::ConformanceArgs::write())?;
    // Private items are included, because the documentation is for contributors.
    shell::run(shell::cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]))
}

fn drones(arguments: &[String]) -> anyhow::Result<()> {
    shell::run(shell::cargo(&["build", "--release", "--package", "muster"]))?;
    let mut command = std::process::Command::new(shell::target()?.join("release/muster"));
    command.arg("drones").args(arguments);
    shell::run(command)
}
