//! `cargo xtask scale`: how memory, CPU time, check-ins and the delivery of a policy grow with the number of agents.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use nix::sys::resource::{Resource, getrlimit};
use serde_json::json;

use super::drones::{Drones, Event, Target, now_us};
use super::server::Server;
use super::table::{Engine, number};
use super::{Bench, Sizes, machine, policy, prepare, say};
use crate::shell;

/// Number of agents that check in repeatedly, on a store with all the others.
const BUSY: u32 = 256;
/// Duration of the measurement of a parked fleet.
const REST: Duration = Duration::from_secs(30);
/// As in [`super::fleet`].
const STILL: Duration = Duration::from_secs(4);
/// Comments in `docs/scale.md` around the table.
const BEGIN: &str = "<!-- begin: cargo xtask scale -->\n";
const END: &str = "<!-- end: cargo xtask scale -->\n";

/// Arguments of `scale`.
#[derive(Args)]
pub struct ScaleArgs {
    /// Numbers of agents, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 50_000, 100_000])]
    agents: Vec<u32>,
    /// Engines to measure; PostgreSQL must be installed [default: all]
    #[arg(long = "engine", value_enum, value_delimiter = ',')]
    engines: Vec<Engine>,
    /// Write the table in `docs/scale.md`
    #[arg(long)]
    write: bool,
    /// Measure this `muster` program instead of building one
    #[arg(long, value_name = "FILE")]
    muster: Option<PathBuf>,
}

/// The figures of a fleet.
struct Measured {
    engine: Engine,
    agents: u32,
    servers: usize,
    /// Resident memory of all servers, bytes.
    resident: u64,
    /// Cores that the parked fleet uses: those of the servers, and those of the database.
    rest: (f64, Option<f64>),
    /// Seconds until all have acknowledged a policy of 32 KiB, and the CPU time of servers and database for it.
    roll_out: (f64, f64, Option<f64>),
    /// Check-ins with changes per second of one server's CPU time, and the microseconds of the database for each.
    check_ins: (f64, Option<f64>),
}

/// Measures fleets of all sizes, and prints a table.
pub fn run(args: &ScaleArgs) -> anyhow::Result<()> {
    let sizes = Sizes { agents: 0, stored: 0, seconds: 8, processes: 2, after_burst: 0, idle: 0 };
    let (mut bench, engines) = prepare(args.muster.as_deref(), &args.engines, sizes)?;
    let mut table = String::from(
        "| engine | agents | servers | memory of the servers | per agent | parked: servers | parked: database | policy to all | \
         servers | database | check-ins per core | database |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for engine in engines {
        bench.engine = engine;
        for agents in &args.agents {
            match measure(&bench, *agents)? {
                Some(measured) => {
                    let line = measured.line();
                    say(line.trim_end());
                    table.push_str(&line);
                }
                None => say(&format!("{agents} agents need more open files than one server has: skipped")),
            }
        }
    }
    let text = format!("{}\n\n{table}", machine::line(&bench.version()?));
    println!("\n{text}");
    if args.write { write(&text) } else { Ok(()) }
}

fn write(text: &str) -> anyhow::Result<()> {
    let path = shell::root().join("docs/scale.md");
    let page = std::fs::read_to_string(&path)?;
    let (before, rest) = page.split_once(BEGIN).context("docs/scale.md: no place for the table")?;
    let (_, after) = rest.split_once(END).context("docs/scale.md: the place for the table does not end")?;
    Ok(std::fs::write(&path, format!("{before}{BEGIN}{text}{END}{after}"))?)
}

/// Measures a fleet; `None` if one server can't hold it, and the engine allows no other.
fn measure(bench: &Bench, agents: u32) -> anyhow::Result<Option<Measured>> {
    // A part of the limit is left for files and for connections that are being replaced.
    let each = u32::try_from(getrlimit(Resource::RLIMIT_NOFILE)?.1)?.min(1 << 20) / 5 * 4;
    let count = agents.div_ceil(each);
    if count > 1 && bench.engine == Engine::Sqlite {
        return Ok(None);
    }
    say(&format!("{agents} agents on {count} servers"));
    let name = format!("scale-{agents}");
    let mut servers = vec![Server::start(bench, &name, &[])?];
    for number in 1..count {
        servers.push(servers[0].join(&format!("{name}-{number}"))?);
    }
    let admin = servers[0].admin();
    let policy = admin.make_policy("bench", &policy::real_sized("first"))?;
    let token = admin.make_token(&policy)?;
    let drones = park(bench, &servers, &token, agents)?;
    let resident = servers.iter().map(|server| server.process.usage().resident()).sum::<anyhow::Result<u64>>()?;
    say("the parked fleet");
    let before = Used::so_far(bench, &servers)?;
    std::thread::sleep(REST);
    let rest = Used::so_far(bench, &servers)?.since(&before);
    let rest = (rest.servers / REST.as_secs_f64(), rest.database.map(|cpu| cpu / REST.as_secs_f64()));
    let roll_out = roll_out(bench, &servers, &drones, &policy)?;
    drop(drones);
    let count = servers.len();
    // The others are not needed any more, and would only use memory.
    let first = servers.swap_remove(0);
    drop(servers);
    let check_ins = check_ins(bench, first, &token)?;
    Ok(Some(Measured { engine: bench.engine, agents, servers: count, resident, rest, roll_out, check_ins }))
}

/// Enrolls all agents, an equal number at each server, and waits until they are parked.
fn park(bench: &Bench, servers: &[Server], token: &str, agents: u32) -> anyhow::Result<Vec<Drones>> {
    let count = u32::try_from(servers.len())?;
    let share = |number: u32| (agents * (number + 1)).div_ceil(count) - (agents * number).div_ceil(count);
    let mut all = Vec::new();
    for (server, number) in servers.iter().zip(0..) {
        let target = Target { url: &server.url, ca: &server.ca(), token: Some(token) };
        let first = (agents * number).div_ceil(count).to_string();
        let arguments = ["--mode", "live", "--back-off", "0.5", "--back-off-max", "1", "--first", &first];
        let drones = Drones::start(bench, &target, share(number), &arguments)?;
        // One after the other: the drones must not take the CPU time of the server from each other.
        drones.wait_parked(share(number), STILL, Duration::from_secs(900))?;
        all.push(drones);
    }
    Ok(all)
}

fn roll_out(
    bench: &Bench,
    servers: &[Server],
    drones: &[Drones],
    policy: &str,
) -> anyhow::Result<(f64, f64, Option<f64>)> {
    say("a policy for all agents");
    let before = Used::so_far(bench, servers)?;
    let began = now_us();
    let body = json!({"name": "bench", "namespace": "default", "config": policy::real_sized("second")});
    let made = servers[0].admin().put(&format!("/api/fleet/agent_policies/{policy}"), &body)?;
    let wanted = format!("policy:{policy}:{}", made["item"]["revision"]);
    let mut last = began;
    for drones in drones {
        let acked = drones.wait_for(Duration::from_secs(300), |event| match event {
            Event::Revision { action_id, acked_us, .. } if action_id == wanted => acked_us.into_iter().max(),
            _ => None,
        })?;
        last = last.max(acked);
    }
    let used = Used::so_far(bench, servers)?.since(&before);
    Ok(((last - began) as f64 / 1e6, used.servers, used.database))
}

/// Measures check-ins on the store that has all agents, without long polls.
fn check_ins(bench: &Bench, server: Server, token: &str) -> anyhow::Result<(f64, Option<f64>)> {
    say("check-ins on the store of all agents");
    let server = server.restart_with(&["timeouts.checkin_long_poll=0s", "timeouts.checkin_jitter=0s"])?;
    let target = Target { url: &server.url, ca: &server.ca(), token: Some(token) };
    let seconds = bench.sizes.seconds.to_string();
    // From a number that no parked agent has.
    let arguments = ["--mode", "change", "--seconds", &seconds, "--back-off", "1", "--first", "1000000"];
    let drones = Drones::start(bench, &target, BUSY, &arguments)?;
    drones.wait_for(Duration::from_secs(60), |event| matches!(event, Event::Began {}).then_some(()))?;
    let servers = std::slice::from_ref(&server);
    // From here on, the drones only check in: enrolling is not measured.
    let before = Used::so_far(bench, servers)?;
    let summary = drones.summary(Duration::from_secs(u64::from(bench.sizes.seconds) + 30))?;
    let used = Used::so_far(bench, servers)?.since(&before);
    let count = summary.counts.check_ins as f64;
    anyhow::ensure!(summary.counts.errors.is_empty(), "failures: {:?}", summary.counts.errors);
    Ok((count / used.servers, used.database.map(|cpu| cpu * 1e6 / count)))
}

/// CPU time in seconds.
struct Used {
    servers: f64,
    database: Option<f64>,
}

impl Used {
    fn so_far(bench: &Bench, servers: &[Server]) -> anyhow::Result<Self> {
        let each = servers.iter().map(|server| server.process.usage().cpu());
        Ok(Self { servers: each.sum::<anyhow::Result<f64>>()?, database: bench.database_cpu()? })
    }

    fn since(&self, before: &Self) -> Self {
        let database = self.database.zip(before.database).map(|(after, before)| after - before);
        Self { servers: self.servers - before.servers, database }
    }
}

impl Measured {
    fn line(&self) -> String {
        let mut line = format!("| {} | {} | {} ", self.engine.title(), number(f64::from(self.agents)), self.servers);
        let mut cell = |value: Option<f64>, unit: &str| {
            let text = value.map(|value| format!("{} {unit}", number(value))).unwrap_or_default();
            let _ = write!(line, "| {text} ");
        };
        cell(Some(self.resident as f64 / 1e6), "MB");
        cell(Some(self.resident as f64 / 1024.0 / f64::from(self.agents)), "KiB");
        cell(Some(100.0 * self.rest.0), "%");
        cell(self.rest.1.map(|cores| 100.0 * cores), "%");
        cell(Some(self.roll_out.0), "s");
        cell(Some(self.roll_out.1), "s");
        cell(self.roll_out.2, "s");
        cell(Some(self.check_ins.0), "/s");
        cell(self.check_ins.1, "µs");
        line.push_str("|\n");
        line
    }
}
