//! `cargo xtask bench`: what a release server does, beside a bare Go server that does nothing but hold connections
//! (`bench/go-hold`), in the same run on the same machine; one table at the end.

mod check_in;
mod drones;
mod enroll;
mod fleet;
mod machine;
mod memory;
mod peer;
mod rest;
mod server;
mod table;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::shell;
use peer::Peer;
use table::Table;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Figure {
    /// Memory at rest.
    Rest,
    /// Durable enrolments.
    Enroll,
    /// Start on a large store: needs the store that `enroll` leaves.
    Restart,
    /// Check-ins answered at once.
    CheckIn,
    /// Memory of parked agents, a roll-out to them, actions to one of them, all of them coming back.
    Fleet,
}

/// Arguments of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// What to measure; everything when none is named.
    #[arg(value_enum)]
    figures: Vec<Figure>,
    /// Parked agents.
    #[arg(long, default_value_t = 10_000)]
    agents: u32,
    /// Agents of the large store.
    #[arg(long, default_value_t = 100_000)]
    stored: u32,
    /// Seconds for which check-ins are measured.
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Processes for the drones.
    #[arg(long, default_value_t = 2)]
    processes: u32,
    /// Write `docs/benchmarks.md`.
    #[arg(long)]
    write: bool,
    /// Measure this `muster` program instead of building one.
    #[arg(long, value_name = "FILE")]
    muster: Option<PathBuf>,
}

/// What every figure needs.
pub struct Bench {
    /// The `muster` program, built for release.
    pub muster: PathBuf,
    /// A folder that is emptied at the start.
    pub folder: PathBuf,
    /// The other server, where Go is installed.
    pub peer: Option<Peer>,
    /// Parked agents.
    pub agents: u32,
    /// Agents of the large store.
    pub stored: u32,
    /// Seconds of check-ins.
    pub seconds: u32,
    /// Processes for the drones.
    pub processes: u32,
}

/// Measures and prints.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let bench = prepare(args)?;
    let wanted = |figure| args.figures.is_empty() || args.figures.contains(&figure);
    let mut table = Table::default();
    let restart = wanted(Figure::Restart);
    if wanted(Figure::Rest) {
        rest::measure(&bench, &mut table)?;
    }
    if wanted(Figure::CheckIn) {
        check_in::measure(&bench, &mut table)?;
    }
    if wanted(Figure::Fleet) {
        fleet::measure(&bench, &mut table)?;
    }
    if wanted(Figure::Enroll) || restart {
        enroll::measure(&bench, &mut table, restart)?;
    }
    println!("\n{}", table.render());
    if args.write {
        anyhow::ensure!(args.figures.is_empty(), "--write wants the whole table");
        std::fs::write(shell::root().join("docs/benchmarks.md"), machine::page(&table))?;
    }
    Ok(())
}

fn prepare(args: &BenchArgs) -> anyhow::Result<Bench> {
    let target = shell::target()?;
    let muster = match &args.muster {
        Some(muster) => std::path::absolute(muster)?,
        None => {
            shell::run(shell::cargo(&["build", "--release", "--locked", "--package", "muster"]))?;
            target.join("release/muster")
        }
    };
    let folder = target.join("bench");
    if folder.try_exists()? {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let peer = Peer::build(&folder)?;
    Ok(Bench {
        muster,
        folder,
        peer,
        agents: args.agents,
        stored: args.stored,
        seconds: args.seconds,
        processes: args.processes,
    })
}

/// Says what is going on, beside the table.
pub fn say(what: &str) {
    eprintln!("bench: {what}");
}
