//! `cargo xtask bench` measures a release build of the server and another server, in the same run on the same machine,
//! and prints one table. Each figure is measured on both engines. The other server is a bare Go server that only holds connections (`bench/go-hold`), or the one
//! of `--against`.

mod agent;
mod burst;
mod check_in;
mod connection;
mod drones;
mod elastic_agent;
mod enroll;
mod fleet;
mod fleetd;
mod identity;
mod lists;
mod machine;
mod memory;
mod nodes;
mod other;
mod pages;
mod policy;
mod postgres;
mod rest;
pub mod scale;
mod server;
mod software;
mod table;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::shell;
pub use drones::now_us;
use other::Other;
use postgres::Cluster;
use table::{Engine, Table};

/// The groups of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Figure {
    /// Memory of an idle server
    Rest,
    /// Durable enrollments
    Enroll,
    /// Start on the large store that `enroll` creates
    Restart,
    /// Pages, searches and counts of that store, while other agents check in
    Lists,
    /// Check-ins without long poll
    CheckIn,
    /// Parked agents: memory, delivery of a policy, actions, a bulk reassignment, reconnects
    Fleet,
    /// Hosts of fleetd: enrollments, load, a live query
    Fleetd,
    /// Hosts with software: searches, storage
    Software,
    /// Memory after a burst of large requests
    Burst,
    /// Time until a revocation is in force on another server, on PostgreSQL
    Nodes,
    /// Requests with API tokens, while others send random ones
    Identity,
    /// The agent: size, memory, idle CPU and disk writes, start, application of a policy
    Agent,
}

/// Arguments of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Figures to measure [default: all]
    #[arg(value_enum)]
    figures: Vec<Figure>,
    /// Engines to measure; PostgreSQL must be installed [default: all]
    #[arg(long = "engine", value_enum, value_delimiter = ',')]
    engines: Vec<Engine>,
    #[command(flatten)]
    sizes: Sizes,
    /// Write `docs/benchmarks.md`
    #[arg(long)]
    write: bool,
    /// Measure this `muster` program instead of building one
    #[arg(long, value_name = "FILE")]
    muster: Option<PathBuf>,
    /// Measure this `muster-agent` program instead of building one
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Also measure this `elastic-agent` program at the same server, beside muster-agent
    #[arg(long, value_name = "FILE", env = "MUSTER_BENCH_ELASTIC_AGENT")]
    elastic_agent: Option<PathBuf>,
    #[command(flatten)]
    against: Against,
}

impl BenchArgs {
    fn agents(&self) -> agent::Programs<'_> {
        agent::Programs { muster_agent: self.agent.as_deref(), elastic_agent: self.elastic_agent.as_deref() }
    }
}

/// Sizes and durations.
#[derive(Args, Clone)]
pub struct Sizes {
    /// Number of parked agents
    #[arg(long, default_value_t = 10_000)]
    pub agents: u32,
    /// Number of agents in the large store
    #[arg(long, default_value_t = 100_000)]
    pub stored: u32,
    /// Duration of the check-in measurements, in seconds
    #[arg(long, default_value_t = 8)]
    pub seconds: u32,
    /// Number of processes for the drones
    #[arg(long, default_value_t = 2)]
    pub processes: u32,
    /// Seconds between the burst of large requests and the memory measurement
    #[arg(long, default_value_t = 30)]
    pub after_burst: u32,
    /// Time for which the idle agent is measured, in seconds
    #[arg(long, default_value_t = 600)]
    pub idle: u32,
}

/// The other server.
#[derive(Args)]
pub struct Against {
    /// Run the same drones against another server that implements the protocol: the URL of a running server, or a
    /// program that is started as `PROGRAM -dir DIR -hold DURATION`, which writes DIR/ca.crt, DIR/token and
    /// DIR/listen.json as bench/go-hold does
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
    /// The engine that is measured now.
    pub engine: Engine,
    other: Option<Other>,
    cluster: Option<Cluster>,
    /// Sizes and durations.
    pub sizes: Sizes,
}

impl Bench {
    /// Returns the other server, for the figures of one engine only: it has no database.
    pub fn other(&self) -> Option<&Other> {
        self.other.as_ref().filter(|_| self.engine == Engine::Sqlite)
    }

    /// Creates a database, and returns its address; `None` if the engine is embedded.
    pub fn database(&self) -> anyhow::Result<Option<String>> {
        self.cluster().map(Cluster::database).transpose()
    }

    /// Returns the CPU time of PostgreSQL so far, in seconds; `None` if the engine is embedded.
    pub fn database_cpu(&self) -> anyhow::Result<Option<f64>> {
        self.cluster().map(Cluster::cpu).transpose()
    }

    /// Returns the version of PostgreSQL; an empty string if it is not measured.
    fn version(&self) -> anyhow::Result<String> {
        Ok(self.cluster.as_ref().map(Cluster::version).transpose()?.unwrap_or_default())
    }

    fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref().filter(|_| self.engine == Engine::Postgres)
    }
}

/// Measures the selected figures and prints the table.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let (mut bench, engines) = prepare(args.muster.as_deref(), &args.engines, args.sizes.clone())?;
    bench.other = Other::choose(&args.against, &bench.directory)?;
    let wanted = |figure| args.figures.is_empty() || args.figures.contains(&figure);
    let mut table = Table::new(bench.other.as_ref().map_or("other", Other::name));
    // Enrollments come last: the start is measured on the store that they create.
    let figures = [
        Figure::Agent,
        Figure::Rest,
        Figure::CheckIn,
        Figure::Fleet,
        Figure::Fleetd,
        Figure::Software,
        Figure::Burst,
        Figure::Nodes,
        Figure::Identity,
        Figure::Enroll,
    ];
    for figure in figures {
        for engine in &engines {
            bench.engine = *engine;
            match figure {
                // What needs the large store is measured after the enrollments.
                Figure::Enroll | Figure::Restart | Figure::Lists => {
                    let then = enroll::Then { restart: wanted(Figure::Restart), lists: wanted(Figure::Lists) };
                    if wanted(Figure::Enroll) || then.restart || then.lists {
                        enroll::measure(&bench, &mut table, then)?;
                    }
                }
                _ if !wanted(figure) => {}
                Figure::Rest => rest::measure(&bench, &mut table)?,
                Figure::CheckIn => check_in::measure(&bench, &mut table)?,
                Figure::Fleetd => fleetd::measure(&bench, &mut table)?,
                Figure::Software => software::measure(&bench, &mut table)?,
                Figure::Fleet => fleet::measure(&bench, &mut table)?,
                Figure::Burst => burst::measure(&bench, &mut table)?,
                Figure::Nodes => nodes::measure(&bench, &mut table)?,
                Figure::Identity => identity::measure(&bench, &mut table)?,
                // The agent does not depend on the engine.
                Figure::Agent if *engine == Engine::Postgres => {}
                Figure::Agent => agent::measure(&bench, &mut table, args.agents())?,
            }
        }
    }
    println!("\n{}", table.render());
    if args.write {
        // A partial page would remove the figures of the last complete run.
        anyhow::ensure!(args.figures.is_empty() && engines.len() == 2, "--write requires all figures on both engines");
        std::fs::write(shell::root().join("docs/benchmarks.md"), machine::page(&table, &bench.version()?))?;
    }
    Ok(())
}

/// Returns the parameters, and the engines to measure. Builds the program, unless there is one.
fn prepare(muster: Option<&Path>, engines: &[Engine], sizes: Sizes) -> anyhow::Result<(Bench, Vec<Engine>)> {
    let target = shell::target()?;
    let muster = match muster {
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
    let log = directory.join("postgres.log");
    let cluster = if engines == [Engine::Sqlite] { None } else { Cluster::start(&log)? };
    let engines = match (&cluster, engines) {
        (None, [Engine::Sqlite] | []) => vec![Engine::Sqlite],
        (None, _) => anyhow::bail!("PostgreSQL is not installed; use --engine sqlite"),
        (Some(_), []) => vec![Engine::Sqlite, Engine::Postgres],
        (Some(_), engines) => engines.to_vec(),
    };
    Ok((Bench { muster, directory, engine: Engine::Sqlite, other: None, cluster, sizes }, engines))
}

/// Prints progress to standard error. The table is printed to standard output.
pub fn say(what: &str) {
    eprintln!("bench: {what}");
}

/// Returns the 99th percentile; `None` if there are no latencies.
pub fn p99(mut latencies: Vec<std::time::Duration>) -> Option<std::time::Duration> {
    latencies.sort();
    latencies.get(latencies.len() * 99 / 100).copied()
}
