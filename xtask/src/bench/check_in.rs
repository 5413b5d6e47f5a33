//! Check-ins answered at once: how many a second one core of the server takes.

use std::time::Duration;

use serde_json::json;

use super::drones::{Drones, Event, Target};
use super::server::Server;
use super::table::{Goal, Row, Table};
use super::{Bench, say};
use crate::process::Process;

/// Agents that check in one after another.
const AGENTS: u32 = 256;

/// What one run gave.
struct Run {
    /// Check-ins to a second of the server's processor time.
    per_core: f64,
    /// Check-ins to a second.
    rate: f64,
    /// Bytes to the disk to a check-in.
    written: f64,
}

/// Rows for check-ins that change something and for those that don't.
pub fn measure(bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let change = ours(bench, "change")?;
    let other_change = theirs(bench, "change")?;
    let heartbeat = ours(bench, "heartbeat")?;
    let other_heartbeat = theirs(bench, "heartbeat")?;
    let row = |figure, goal, ours, other: &Option<Run>| Row {
        figure,
        unit: "/s",
        goal,
        ours,
        other: other.as_ref().map(|run| run.per_core),
    };
    table.add(row(
        "check-ins that change something, durable, per core of server CPU",
        Goal::AtLeast(30_000.0),
        change.per_core,
        &other_change,
    ));
    table.add(row(
        "heartbeats that change nothing, per core of server CPU",
        Goal::AtLeast(60_000.0),
        heartbeat.per_core,
        &other_heartbeat,
    ));
    table.add(Row {
        figure: "written to disk per heartbeat",
        unit: "bytes",
        goal: Goal::AtMost(0.0),
        ours: heartbeat.written,
        other: None,
    });
    let wall = |figure, run: &Run, other: &Option<Run>| Row {
        figure,
        unit: "/s",
        goal: Goal::None,
        ours: run.rate,
        other: other.as_ref().map(|run| run.rate),
    };
    table.add(wall("check-ins that change something, drones on the same cores", &change, &other_change));
    table.add(wall("heartbeats, drones on the same cores", &heartbeat, &other_heartbeat));
    Ok(())
}

fn ours(bench: &Bench, mode: &str) -> anyhow::Result<Run> {
    say(&format!("check-ins, {mode}"));
    let settings = ["timeouts.checkin_long_poll=0s", "timeouts.checkin_jitter=0s"];
    let server = Server::start(bench, &format!("check-in-{mode}"), &settings)?;
    let admin = server.admin();
    let policy = admin.make_policy("bench", &json!({"inputs": []}))?;
    let token = admin.make_token(&policy)?;
    let target = Target { url: &server.url, ca: &server.ca(), token: Some(&token) };
    measure_one(bench, mode, &target, &server.process)
}

fn theirs(bench: &Bench, mode: &str) -> anyhow::Result<Option<Run>> {
    let Some(peer) = &bench.peer else { return Ok(None) };
    let other = peer.start("0s")?;
    let target = Target { url: &other.url, ca: &other.ca, token: None };
    measure_one(bench, mode, &target, &other.process).map(Some)
}

fn measure_one(bench: &Bench, mode: &str, target: &Target<'_>, server: &Process) -> anyhow::Result<Run> {
    let seconds = bench.seconds.to_string();
    let arguments = ["--mode", mode, "--seconds", &seconds, "--back-off", "1"];
    let drones = Drones::start(bench, target, AGENTS, &arguments)?;
    drones.wait_for(Duration::from_secs(60), |event| matches!(event, Event::Began {}).then_some(()))?;
    let (cpu, written) = (server.cpu()?, server.written()?);
    let summary = drones.summary(Duration::from_secs(u64::from(bench.seconds) + 30))?;
    let (cpu, written) = (server.cpu()? - cpu, server.written()? - written);
    let check_ins = summary.counts.check_ins as f64;
    anyhow::ensure!(check_ins > 0.0 && summary.counts.errors.is_empty(), "failures: {:?}", summary.counts.errors);
    Ok(Run { per_core: check_ins / cpu, rate: check_ins / summary.seconds, written: written as f64 / check_ins })
}
