//! `cargo xtask bench` measures a release build of the server and another server, in the same run on the same machine,
//! and prints one table. The other server is a bare Go server that only holds connections (`bench/go-hold`), or the one
//! of `--against`.

mod burst;
mod check_in;
mod drones;
mod enroll;
mod fleet;
mod identity;
mod machine;
mod memory;
mod other;
mod policy;
mod rest;
mod server;
mod table;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::shell;
use other::Other;
use table::Table;

/// The groups of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Figure {
    /// Memory of an idle server
    Rest,
    /// Durable enrollments
    Enroll,
    /// Start on the large store that `enroll` creates
    Restart,
    /// Check-ins without long poll
    CheckIn,
    /// Parked agents: memory, delivery of a policy, actions, a bulk reassignment, reconnects
    Fleet,
    /// Memory after a burst of large requests
    Burst,
    /// Requests with API tokens, while others send random ones
    Identity,
}

/// Arguments of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Figures to measure [default: all]
    #[arg(value_enum)]
    figures: Vec<Figure>,
    /// Number of parked agents
    #[arg(long, default_value_t = 10_000)]
    agents: u32,
    /// Number of agents in the large store
    #[arg(long, default_value_t = 100_000)]
    stored: u32,
    /// Duration of the check-in measurements, in seconds
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Number of processes for the drones
    #[arg(long, default_value_t = 2)]
    processes: u32,
    /// Seconds between the burst of large requests and the memory measurement
    #[arg(long, default_value_t = 30)]
    after_burst: u32,
    /// Write `docs/benchmarks.md`
    #[arg(long)]
    write: bool,
    /// Measure this `muster` program instead of building one
    #[arg(long, value_name = "FILE")]
    muster: Option<PathBuf>,
    #[command(flatten)]
    against: Against,
}

/// The other server.
#[derive(Args)]
pub struct Against {
    /// Run the same drones against another server of the protocol: the URL of a running server, or a program that is
    /// started as `PROGRAM -dir DIR -hold DURATION`, which writes DIR/ca.crt, DIR/token and DIR/listen.json as
    /// bench/go-hold does
    #[arg(long, value_name = "URL-or-PROGRAM")]
    against: Option<String>,
    /// With a URL: PEM file with the CA certificate to trust
    #[arg(long, value_name = "FILE", requires = "against")]
    against_ca: Option<PathBuf>,
    /// With a URL: enrollment token; if it is not set, the server must not verify credentials
    #[arg(long, value_name = "TOKEN", env = "BENCH_TOKEN", hide_env_values = true, requires = "against")]
    against_token: Option<String>,
    /// With a URL: process id of the server, if it runs on this machine; required to measure CPU time and memory
    #[arg(long, value_name = "PID", requires = "against")]
    against_pid: Option<u32>,
}

/// Parameters of all figures.
pub struct Bench {
    /// Release build of the `muster` program.
    pub muster: PathBuf,
    /// Directory for all data, which is emptied at the start.
    pub directory: PathBuf,
    /// The other server.
    pub other: Option<Other>,
    /// Number of parked agents.
    pub agents: u32,
    /// Number of agents in the large store.
    pub stored: u32,
    /// Duration of the check-in measurements, in seconds.
    pub seconds: u32,
    /// Seconds between the burst and the memory measurement.
    pub after_burst: u32,
    /// Number of processes for the drones.
    pub processes: u32,
}

/// Measures the selected figures and prints the table.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let bench = prepare(args)?;
    let wanted = |figure| args.figures.is_empty() || args.figures.contains(&figure);
    let mut table = Table::new(bench.other.as_ref().map_or("other", Other::name));
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
    if wanted(Figure::Burst) {
        burst::measure(&bench, &mut table)?;
    }
    if wanted(Figure::Identity) {
        identity::measure(&bench, &mut table)?;
    }
    // Enrollments come last: the start is measured on the store that they create.
    if wanted(Figure::Enroll) || restart {
        enroll::measure(&bench, &mut table, restart)?;
    }
    println!("\n{}", table.render());
    if args.write {
        // A partial page would remove the figures of the last complete run.
        anyhow::ensure!(args.figures.is_empty(), "--write requires all figures");
        std::fs::write(shell::root().join("docs/benchmarks.md"), machine::page(&table))?;
    }
    Ok(())
}

fn prepare(args: &BenchArgs) -> anyhow::Result<Bench> {
    let target = shell::target()?;
    let muster = match &args.muster {
        // Absolute, because the program is started in other directories.
        Some(muster) => std::path::absolute(muster)?,
        None => {
            shell::run(shell::cargo(&["build", "--release", "--locked", "--package", "muster"]))?;
            target.join("release/muster")
        }
    };
    let directory = target.join("bench");
    // A store of an earlier run would distort the figures.
    if directory.try_exists()? {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    let other = Other::choose(&args.against, &directory)?;
    Ok(Bench {
        muster,
        directory,
        other,
        agents: args.agents,
        stored: args.stored,
        seconds: args.seconds,
        after_burst: args.after_burst,
        processes: args.processes,
    })
}

/// Prints progress to standard error. The table is printed to standard output.
pub fn say(what: &str) {
    eprintln!("bench: {what}");
}
