//! Measures durable enrollments, and the start of a server on the resulting store.

use std::time::Duration;

use super::drones::{Drones, Target};
use super::server::Server;
use super::table::{Goal, Goals, Row, Table};
use super::{Bench, lists, policy, say};
use crate::process::Usage;

/// Number of measured starts, whose median counts.
const STARTS: usize = 5;

/// What is measured on the store that the enrollments create.
#[derive(Clone, Copy)]
pub struct Then {
    /// The start.
    pub restart: bool,
    /// Pages and counts.
    pub lists: bool,
}

/// Results of one run.
struct Run {
    /// Enrollments per second.
    rate: f64,
    /// Enrollments per second of the server's CPU time, if that can be measured.
    per_core: Option<f64>,
    /// CPU time of PostgreSQL per enrollment in seconds, if the server uses it.
    database: Option<f64>,
}

/// Adds rows for enrollments and, if selected, for what is measured on the resulting store.
pub fn measure(bench: &Bench, table: &mut Table, then: Then) -> anyhow::Result<()> {
    say("enrollments");
    let server = Server::start(bench, "enroll", &[])?;
    let admin = server.admin();
    let policy = admin.make_policy("bench", &policy::real_sized("enroll"))?;
    let token = admin.make_token(&policy)?;
    // New connections are slower, so that only a part of the agents enrolls over them. The others fill the store.
    let few = bench.sizes.agents.min(bench.sizes.stored / 4);
    let target = Target { url: &server.url, ca: &server.ca(), token: Some(&token) };
    let usage = Some(server.process.usage());
    let each = enroll(bench, &target, usage, few, &["--fresh-connections"])?;
    let lasting = enroll(bench, &target, usage, bench.sizes.stored / 2 - few, &["--first", &few.to_string()])?;
    let tagged = admin.make_token_with_tag(&policy, lists::TAG)?;
    let target = Target { token: Some(&tagged), ..target };
    let half = bench.sizes.stored / 2;
    enroll(bench, &target, usage, bench.sizes.stored - half, &["--first", &half.to_string()])?;
    let other = theirs(bench, few)?;
    add(bench, table, &each, other.as_ref(), &lasting);
    let server = if then.restart { start(bench, server, table)? } else { server };
    if then.lists { lists::measure(bench, server, &policy, &token, table) } else { Ok(()) }
}

fn add(bench: &Bench, table: &mut Table, each: &Run, other: Option<&Run>, lasting: &Run) {
    let row = |figure: &str, goals, ours, other| Row { figure: figure.into(), unit: "/s", goals, ours, other };
    table.add(
        bench.engine,
        row(
            "enrollments per core of server CPU, each with its TLS handshake",
            Goals::sqlite(Goal::AtLeast(4_000.0)),
            each.per_core.unwrap_or_default(),
            other.and_then(|other| other.per_core),
        ),
    );
    let goals = Goals::new(Goal::None, Goal::AtLeast(1_500.0));
    let figure = "enrollments, each with its TLS handshake, drones on the same cores";
    table.add(bench.engine, row(figure, goals, each.rate, other.map(|other| other.rate)));
    let goals = Goals::new(Goal::AtLeast(4_000.0), Goal::AtLeast(1_500.0));
    let figure = "enrollments over persistent connections, drones on the same cores";
    table.add(bench.engine, row(figure, goals, lasting.rate, None));
    if let Some(database) = lasting.database {
        let figure = "CPU time of the database per enrollment".into();
        table.add(bench.engine, Row { figure, unit: "µs", goals: Goals::NONE, ours: database * 1e6, other: None });
    }
}

/// Enrolls agents at the other server, if it supports enrollments.
fn theirs(bench: &Bench, count: u32) -> anyhow::Result<Option<Run>> {
    let Some(other) = bench.other() else { return Ok(None) };
    let running = other.start("300s")?;
    if running.token.is_none() {
        return Ok(None);
    }
    say("enrollments at the other server");
    enroll(bench, &running.target(), running.usage, count, &["--fresh-connections"]).map(Some)
}

fn enroll(
    bench: &Bench,
    target: &Target<'_>,
    server: Option<Usage>,
    count: u32,
    arguments: &[&str],
) -> anyhow::Result<Run> {
    let arguments = [&["--mode", "enroll", "--in-flight", "64"], arguments].concat();
    let before = server.map(Usage::cpu).transpose()?;
    let database = bench.database_cpu()?;
    let summary = Drones::start(bench, target, count, &arguments)?.summary(Duration::from_secs(900))?;
    let after = server.map(Usage::cpu).transpose()?;
    let database = bench.database_cpu()?.zip(database).map(|(after, before)| (after - before) / f64::from(count));
    let all = summary.counts.enrolled == u64::from(count);
    anyhow::ensure!(all, "{} of {count} enrolled: {:?}", summary.counts.enrolled, summary.counts.errors);
    let cpu = before.zip(after).map(|(before, after)| after - before);
    // CPU time is measured in clock ticks, so that a very short run may use none.
    let per_core = cpu.filter(|cpu| *cpu > 0.0).map(|cpu| f64::from(count) / cpu);
    Ok(Run { rate: f64::from(count) / summary.seconds, per_core, database })
}

/// Measures the time from the start of the process, after `kill -9`, until it accepts connections.
fn start(bench: &Bench, mut server: Server, table: &mut Table) -> anyhow::Result<Server> {
    let stored = bench.sizes.stored;
    say("starts on the resulting store");
    let mut took = Vec::new();
    for _ in 0..STARTS {
        server = server.restart()?;
        took.push(server.took.as_secs_f64());
    }
    // The figure is valid only if the store still contains all agents.
    let total = server.admin().get("/api/fleet/agents?perPage=1&showInactive=true")?;
    anyhow::ensure!(total["total"] == stored, "{} of {stored} agents exist after the start", total["total"]);
    took.sort_by(f64::total_cmp);
    table.add(
        bench.engine,
        Row {
            figure: format!("start on a store of {stored} agents, after kill -9, until ready"),
            unit: "s",
            goals: Goals::new(Goal::AtMost(0.1), Goal::AtMost(1.0)),
            ours: took[STARTS / 2],
            other: None,
        },
    );
    Ok(server)
}
