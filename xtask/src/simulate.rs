//! `cargo xtask simulate`: the simulation of muster-agent with many seeds.

use clap::Args;

use crate::shell;

/// Arguments of `simulate`.
#[derive(Args)]
pub struct SimulateArgs {
    /// Number of seeds of each simulation.
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
}

/// Runs every simulation that takes a number of seeds.
pub fn run(args: &SimulateArgs) -> anyhow::Result<()> {
    // The names of these tests begin or continue with `under_random_`.
    let arguments = ["test", "--release", "--package", "muster-agent", "--test", "simulation", "--", "under_random_"];
    let mut command = shell::cargo(&arguments);
    command.env("MUSTER_SIMULATION_SEEDS", args.seeds.to_string());
    command.env("MUSTER_SIMULATION_FIRST_SEED", args.first_seed.to_string());
    shell::run(command)
}
