//! The drones by themselves, for working on them: `cargo run --release -p muster-drones --example drones -- --help`.
//! Users have `muster drones`.

use clap::Parser as _;

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: muster_drones::DronesArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    muster_drones::run(&Cli::parse().args).await
}
