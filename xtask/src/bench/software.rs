//! Measures searches for software over a large fleet, and the storage of its index.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::connection::Connection;
use super::drones::{Drones, Target};
use super::lists::Latencies;
use super::server::Server;
use super::table::{Engine, Goal, Goals, Row, Table};
use super::{Bench, say};

/// Maximum time until all hosts have reported, and the index has followed.
const SETTLED: Duration = Duration::from_secs(1_800);
/// Rounds, in each of which every request is sent once.
const ROUNDS: usize = 60;
/// Requests: a name, a part of a name, a name with a condition, all names.
const SEARCHES: [&str; 4] =
    ["name=package-250", "name=*age-25*", "name=package-2*&version=%3C1.0.10", "perPage=100&page=5"];

/// Adds all rows.
pub fn measure(bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let hosts = bench.sizes.stored;
    say("hosts with software");
    let server = Server::start(bench, "software", &[])?;
    let key = server.admin().post("/api/fleet/enrollment_api_keys", &json!({"name": "hosts", "family": "fleetd"}))?;
    let secret = key["item"]["api_key"].as_str().context("no enroll secret")?.to_owned();
    let run = |server: &Server, mode: &str| {
        let target = Target { url: &server.url, ca: &server.ca(), token: Some(&secret) };
        let arguments = ["--family", "fleetd", "--mode", mode, "--in-flight", "64"];
        Drones::start(bench, &target, hosts, &arguments)?.summary(SETTLED)
    };
    run(&server, "enroll")?;
    let server = server.restart_with(&[])?;
    let reported = run(&server, "details")?;
    let failed: u64 = reported.counts.errors.values().sum();
    anyhow::ensure!(failed == 0, "{:?}", reported.counts.errors);
    let mut connection = Connection::open(&server.data.join("admin.sock"))?;
    let began = Instant::now();
    while indexed(&mut connection)? < u64::from(hosts) {
        anyhow::ensure!(began.elapsed() < SETTLED, "the index does not follow");
        std::thread::sleep(Duration::from_secs(1));
    }
    let behind = began.elapsed().as_secs_f64();
    let server = server.restart_with(&[])?;
    let stored = stored(&server)?;
    let mut connection = Connection::open(&server.data.join("admin.sock"))?;
    let mut searches = Latencies::default();
    let id = common(&mut connection)?;
    for _ in 0..ROUNDS {
        for search in SEARCHES {
            let page = searches.ask(search, &mut connection, &format!("/api/fleet/software?{search}"))?;
            anyhow::ensure!(page["items"].as_array().is_some_and(|found| !found.is_empty()), "{search}: {page}");
        }
        let path = format!("/api/fleet/software/{id}/hosts?perPage=100&page={}", (hosts / 200 + 1).min(100));
        searches.ask("hosts", &mut connection, &path)?;
    }
    let mut add = |figure: String, unit, goal, ours| {
        table.add(bench.engine, Row { figure, unit, goals: Goals::new(goal, goal), ours, other: None });
    };
    let fleet = format!("{hosts} hosts with 500 packages: ");
    add(format!("{fleet}search, p99"), "ms", Goal::AtMost(100.0), searches.p99()?.as_secs_f64() * 1e3);
    add(format!("{fleet}until the index has followed the last report"), "s", Goal::None, behind);
    if let Some(bytes) = stored.filter(|_| bench.engine == Engine::Sqlite) {
        let each = bytes as f64 / f64::from(hosts);
        add(format!("{fleet}storage of the software of a host, with its index"), "bytes", Goal::AtMost(8_192.0), each);
    }
    Ok(())
}

/// Returns the bytes of the tables and indexes for software; `None` if the program sqlite3 is not installed.
fn stored(server: &Server) -> anyhow::Result<Option<u64>> {
    let sql = "SELECT sum(pgsize) FROM dbstat WHERE name LIKE '%software%'";
    let mut command = Command::new("sqlite3");
    let output = match command.arg("-readonly").arg(server.data.join("muster.db")).arg(sql).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            say("sqlite3 is not installed: storage skipped");
            return Ok(None);
        }
        output => output?,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    // Empty on an engine without this file.
    Ok(text.trim().parse().ok())
}

fn versions(connection: &mut Connection) -> anyhow::Result<Value> {
    let (status, body) = connection.get("/api/fleet/software?name=package-1", None)?;
    anyhow::ensure!(status == 200, "{status}");
    Ok(serde_json::from_slice(&body)?)
}

/// Returns the number of hosts in the index.
fn indexed(connection: &mut Connection) -> anyhow::Result<u64> {
    let page = versions(connection)?;
    let items = page["items"].as_array().context("no list")?;
    Ok(items.iter().filter_map(|found| found["hosts"].as_u64()).sum())
}

/// Returns the id of software that most hosts have.
fn common(connection: &mut Connection) -> anyhow::Result<String> {
    let page = versions(connection)?;
    let items = page["items"].as_array().context("no list")?;
    let most = items.iter().max_by_key(|found| found["hosts"].as_u64()).context("no software")?;
    Ok(most["id"].as_str().context("no id")?.to_owned())
}
