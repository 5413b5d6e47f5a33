//! Measures how many check-ins per second one core of the server handles, without holding them.

use std::time::Duration;

use super::drones::{Drones, Event, Target};
use super::server::Server;
use super::table::{Goal, Goals, Row, Table};
use super::{Bench, policy, say};
use crate::process::Usage;

/// Number of agents that check in repeatedly: enough to keep the server busy at all times.
const AGENTS: u32 = 256;

/// Results of one run.
struct Run {
    /// Check-ins per second of the server's CPU time, if that can be measured.
    per_core: Option<f64>,
    /// Check-ins per second.
    rate: f64,
    /// Bytes written to disk per check-in, if that can be measured.
    written: Option<f64>,
    /// CPU time of PostgreSQL in seconds, if the server uses it.
    database: Option<f64>,
    /// Number of check-ins.
    check_ins: f64,
}

/// Adds rows for check-ins with changes and for heartbeats.
pub fn measure(bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let change = ours(bench, "change")?;
    let other_change = theirs(bench, "change")?;
    let heartbeat = ours(bench, "heartbeat")?;
    let other_heartbeat = theirs(bench, "heartbeat")?;
    let per_core = |figure: &str, goals, ours: &Run, other: &Option<Run>| Row {
        figure: figure.into(),
        unit: "/s",
        goals,
        ours: ours.per_core.unwrap_or_default(),
        other: other.as_ref().and_then(|run| run.per_core),
    };
    table.add(
        bench.engine,
        per_core(
            "check-ins with changes, durable, per core of server CPU",
            Goals::new(Goal::AtLeast(35_000.0), Goal::AtLeast(12_000.0)),
            &change,
            &other_change,
        ),
    );
    table.add(
        bench.engine,
        per_core(
            "heartbeats without changes, per core of server CPU",
            Goals::sqlite(Goal::AtLeast(75_000.0)),
            &heartbeat,
            &other_heartbeat,
        ),
    );
    if let Some(database) = change.database {
        table.add(
            bench.engine,
            Row {
                figure: "CPU time of the database per check-in with changes".into(),
                unit: "µs",
                goals: Goals::NONE,
                ours: database * 1e6 / change.check_ins,
                other: None,
            },
        );
    }
    table.add(
        bench.engine,
        Row {
            figure: "written to disk per heartbeat".into(),
            unit: "bytes",
            goals: Goals::sqlite(Goal::AtMost(0.0)),
            ours: heartbeat.written.unwrap_or_default(),
            other: None,
        },
    );
    let wall = |figure: &str, run: &Run, other: &Option<Run>| Row {
        figure: figure.into(),
        unit: "/s",
        goals: Goals::NONE,
        ours: run.rate,
        other: other.as_ref().map(|run| run.rate),
    };
    table.add(bench.engine, wall("check-ins with changes, drones on the same cores", &change, &other_change));
    table.add(bench.engine, wall("heartbeats, drones on the same cores", &heartbeat, &other_heartbeat));
    Ok(())
}

fn ours(bench: &Bench, mode: &str) -> anyhow::Result<Run> {
    say(&format!("check-ins, {mode}"));
    // Without long polls, the server responds to each check-in immediately.
    let settings = ["timeouts.checkin_long_poll=0s", "timeouts.checkin_jitter=0s"];
    let server = Server::start(bench, &format!("check-in-{mode}"), &settings)?;
    let admin = server.admin();
    let policy = admin.make_policy("bench", &policy::real_sized(mode))?;
    let token = admin.make_token(&policy)?;
    let target = Target { url: &server.url, ca: &server.ca(), token: Some(&token) };
    let run = measure_one(bench, mode, &target, Some(server.process.usage()))?;
    run.ok_or_else(|| anyhow::anyhow!("no check-in got a response"))
}

fn theirs(bench: &Bench, mode: &str) -> anyhow::Result<Option<Run>> {
    let Some(other) = bench.other() else { return Ok(None) };
    let running = other.start("0s")?;
    let run = measure_one(bench, mode, &running.target(), running.usage)?;
    if run.is_none() {
        say("the other server holds check-ins instead of responding: no figure for it");
    }
    Ok(run)
}

/// Runs the drones. Returns `None` if no check-in got a response.
fn measure_one(bench: &Bench, mode: &str, target: &Target<'_>, server: Option<Usage>) -> anyhow::Result<Option<Run>> {
    let seconds = bench.sizes.seconds.to_string();
    let arguments = ["--mode", mode, "--seconds", &seconds, "--back-off", "1"];
    let drones = Drones::start(bench, target, AGENTS, &arguments)?;
    // Enrollment and the first check-ins must not count.
    drones.wait_for(Duration::from_secs(60), |event| matches!(event, Event::Began {}).then_some(()))?;
    let used = |usage: Usage| Ok::<_, anyhow::Error>((usage.cpu()?, usage.written()?));
    let before = server.map(used).transpose()?;
    let database = bench.database_cpu()?;
    let summary = drones.summary(Duration::from_secs(u64::from(bench.sizes.seconds) + 30))?;
    let after = server.map(used).transpose()?;
    let database = bench.database_cpu()?.zip(database).map(|(after, before)| after - before);
    let check_ins = summary.counts.check_ins as f64;
    // Failed check-ins are cheaper than successful ones, and would improve the figure.
    anyhow::ensure!(summary.counts.errors.is_empty(), "failures: {:?}", summary.counts.errors);
    if check_ins == 0.0 {
        return Ok(None);
    }
    let used = before.zip(after).map(|(before, after)| (after.0 - before.0, after.1 - before.1));
    Ok(Some(Run {
        per_core: used.map(|(cpu, _)| check_ins / cpu),
        rate: check_ins / summary.seconds,
        written: used.map(|(_, written)| written as f64 / check_ins),
        database,
        check_ins,
    }))
}
