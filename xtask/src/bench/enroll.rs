//! Durable enrolments, and the start of a server on the store that they leave.

use std::time::Duration;

use serde_json::json;

use super::drones::{Drones, Target};
use super::server::Server;
use super::table::{Goal, Row, Table};
use super::{Bench, say};

/// Starts that are measured; the middle one counts.
const STARTS: usize = 5;

/// Rows for enrolments and, if wanted, for the start.
pub fn measure(bench: &Bench, table: &mut Table, restart: bool) -> anyhow::Result<()> {
    say("enrolments");
    let server = Server::start(bench, "enroll", &[])?;
    let admin = server.admin();
    let policy = admin.make_policy("bench", &json!({"inputs": []}))?;
    let token = admin.make_token(&policy)?;
    let few = bench.agents.min(bench.stored / 2);
    let each = enroll(bench, &server, &token, few, &["--fresh-connections"])?;
    let lasting = enroll(bench, &server, &token, bench.stored - few, &["--first", &few.to_string()])?;
    let row = |figure, goal, ours| Row { figure, unit: "/s", goal, ours, other: None };
    table.add(row("durable enrolments", Goal::AtLeast(2_000.0), lasting));
    table.add(row("durable enrolments, a TLS handshake for each", Goal::None, each));
    if restart { start(server, bench.stored, table) } else { Ok(()) }
}

fn enroll(bench: &Bench, server: &Server, token: &str, count: u32, arguments: &[&str]) -> anyhow::Result<f64> {
    let target = Target { url: &server.url, ca: &server.ca(), token: Some(token) };
    let arguments = [&["--mode", "enroll", "--in-flight", "64"], arguments].concat();
    let summary = Drones::start(bench, &target, count, &arguments)?.summary(Duration::from_secs(900))?;
    let all = summary.counts.enrolled == u64::from(count);
    anyhow::ensure!(all, "{} of {count} enrolled: {:?}", summary.counts.enrolled, summary.counts.errors);
    Ok(f64::from(count) / summary.seconds)
}

/// From the start of the process, after a `kill -9`, until it listens.
fn start(mut server: Server, stored: u32, table: &mut Table) -> anyhow::Result<()> {
    say("starts on the store that this left");
    let mut took = Vec::new();
    for _ in 0..STARTS {
        server = server.restart()?;
        took.push(server.took.as_secs_f64());
    }
    let total = server.admin().get("/api/fleet/agents?perPage=1&showInactive=true")?;
    anyhow::ensure!(total["total"] == stored, "{} of {stored} agents are there after the start", total["total"]);
    took.sort_by(f64::total_cmp);
    table.add(Row {
        figure: "start on a store of 100,000 agents, after kill -9, until ready",
        unit: "s",
        goal: Goal::AtMost(1.0),
        ours: took[STARTS / 2],
        other: None,
    });
    Ok(())
}
