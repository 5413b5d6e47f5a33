//! Measures hosts with orbit and osqueryd: enrollments, the load of their requests, and a live query on all of them.

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit};
use serde_json::json;

use super::drones::{Drones, Event, Target};
use super::server::Server;
use super::table::{Goal, Goals, Row, Table};
use super::{Bench, say};

const FAMILY: [&str; 2] = ["--family", "fleetd"];
/// Maximum time until all hosts have enrolled and reported their details.
const SETTLED: Duration = Duration::from_secs(600);
/// Time for which the load is measured, in measurements of the other figures: most intervals are longer than those.
const ROUNDS: u32 = 8;

/// Adds all rows.
pub fn measure(bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let hosts = bench.sizes.agents;
    say("hosts of fleetd enroll");
    let logs = bench.directory.join(format!("fleetd-logs-{}", bench.engine.name()));
    std::fs::create_dir_all(&logs)?;
    let logs = format!("osquery.log_directory={}", logs.display());
    let server = Server::start(bench, "fleetd", &["osquery.push=true", &logs])?;
    let key = server.admin().post("/api/fleet/enrollment_api_keys", &json!({"name": "hosts", "family": "fleetd"}))?;
    let secret = key["item"]["api_key"].as_str().context("no enroll secret")?.to_owned();
    let target = Target { url: &server.url, ca: &server.ca(), token: Some(&secret) };
    let add = |table: &mut Table, figure: String, unit, goal, ours| {
        table.add(bench.engine, Row { figure, unit, goals: Goals::sqlite(goal), ours, other: None });
    };
    let arguments = [&FAMILY[..], &["--mode", "enroll", "--in-flight", "64"]].concat();
    let enrolled = Drones::start(bench, &target, hosts, &arguments)?.summary(SETTLED)?;
    let all = enrolled.counts.enrolled == u64::from(hosts);
    anyhow::ensure!(all, "{} of {hosts} enrolled: {:?}", enrolled.counts.enrolled, enrolled.counts.errors);
    let rate = f64::from(hosts) / enrolled.seconds;
    add(
        table,
        "hosts that enroll over persistent connections, orbit and osquery each".into(),
        "/s",
        Goal::AtLeast(1_500.0),
        rate,
    );

    say("load of hosts of fleetd");
    let seconds = (bench.sizes.seconds * ROUNDS).to_string();
    let connections = connections(hosts, 0)?;
    let arguments = ["--mode", "heartbeat", "--seconds", &seconds, "--connections", &connections];
    let drones = Drones::start(bench, &target, hosts, &[&FAMILY[..], &arguments].concat())?;
    drones.wait_for(SETTLED, |event| matches!(event, Event::Began {}).then_some(()))?;
    let usage = server.process.usage();
    let (cpu, written, began) = (usage.cpu()?, usage.written()?, Instant::now());
    let length = Duration::from_secs(u64::from(bench.sizes.seconds * ROUNDS));
    let asked = ask_for_details(&server, hosts, length)?;
    let run = drones.summary(length + Duration::from_secs(60))?;
    let (cpu, elapsed) = (usage.cpu()? - cpu, began.elapsed().as_secs_f64());
    let load = format!("load of {hosts} hosts: ");
    add(table, format!("{load}server CPU, of one core"), "%", Goal::AtMost(60.0), 100.0 * cpu / elapsed);
    let requests = run.counts.check_ins as f64;
    let failed: u64 = run.counts.errors.values().sum();
    add(table, format!("{load}requests per second"), "/s", Goal::None, requests / run.seconds);
    add(table, format!("{load}failed requests"), "", Goal::AtMost(0.0), failed as f64);
    add(table, format!("{load}hosts that reported their details"), "", Goal::None, f64::from(asked));
    // Only requests of enrolled hosts.
    let p99 =
        run.p99_us.iter().filter(|(operation, _)| !matches!(operation.as_str(), "connect" | "enroll" | "device_token"));
    let p99 = p99.map(|(_, micros)| *micros).max().unwrap_or_default();
    add(table, format!("{load}p99 of the slowest kind of request"), "ms", Goal::AtMost(50.0), p99 as f64 / 1000.0);
    let written = (usage.written()? - written) as f64 / requests;
    add(table, format!("{load}written to disk per request"), "bytes", Goal::None, written);
    live_query(bench, &server, &target, &add, table, false)?;
    live_query(bench, &server, &target, &add, table, true)
}

/// Asks as many hosts for their details, spread over this time, as would be due in it by the hour. Returns their number.
fn ask_for_details(server: &Server, hosts: u32, length: Duration) -> anyhow::Result<u32> {
    let number = u32::try_from(u64::from(hosts) * length.as_secs() / 3_600)?.max(1);
    let found = server.admin().get(&format!("/api/fleet/hosts?perPage={}", number.min(1_000)))?;
    let ids = found["items"].as_array().into_iter().flatten().filter_map(|host| host["id"].as_str());
    let began = Instant::now();
    let mut asked = 0;
    for id in ids {
        server.admin().post(&format!("/api/fleet/hosts/{id}/refetch"), &json!({}))?;
        asked += 1;
        // Not beyond the end, since the last ones have to answer.
        std::thread::sleep((length * 9 / 10 * asked / number).saturating_sub(began.elapsed()));
    }
    Ok(asked)
}

/// Returns the number of connections that the hosts share; 0 if each of them can have two, besides `sockets` WebSockets. A
/// part of the limit on open files is left for files and for connections that are being replaced.
fn connections(hosts: u32, sockets: u32) -> anyhow::Result<String> {
    let limit = u32::try_from(getrlimit(Resource::RLIMIT_NOFILE)?.1.min(1 << 20))? / 10 * 9;
    let shared = limit.checked_sub(sockets).filter(|shared| *shared > 0).context("too many hosts for one server")?;
    Ok(if 2 * hosts <= shared { 0 } else { shared }.to_string())
}

/// Runs a live query on all hosts.
fn live_query(
    bench: &Bench,
    server: &Server,
    target: &Target<'_>,
    add: &impl Fn(&mut Table, String, &'static str, Goal, f64),
    table: &mut Table,
    push: bool,
) -> anyhow::Result<()> {
    let hosts = bench.sizes.agents;
    let manner = if push { "get hints over WebSocket" } else { "ask every 10 s" };
    say(&format!("live query on hosts of fleetd that {manner}"));
    let connections = connections(hosts, if push { hosts } else { 0 })?;
    let arguments = ["--mode", "live", "--connections", &connections];
    let flags: &[&str] = if push { &["--push"] } else { &[] };
    let drones = Drones::start(bench, target, hosts, &[&FAMILY[..], &arguments, flags].concat())?;
    drones.wait_for(SETTLED, |event| match event {
        Event::Progress(counts) if counts.enrolled == u64::from(hosts) => Some(()),
        _ => None,
    })?;
    // Until each host has been asked for its details, and is online. With push, all of them are asked at once.
    std::thread::sleep(Duration::from_secs(if push { 45 } else { 15 }));
    let before = server.process.usage().resident()?;
    let began = Instant::now();
    let mut command = Command::new(&bench.muster);
    command.args(["query", "run", "SELECT hostname FROM system_info", "--all", "--output", "json"]);
    command.env("MUSTER_DATA_DIR", &server.data).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start muster query run")?;
    let output = std::io::BufReader::new(child.stdout.take().context("no standard output")?);
    let (mut rows, mut peak) = (0_u32, before);
    for line in output.lines() {
        drop(line?);
        rows += 1;
        // Reading the memory after each row would slow the query down.
        if rows.is_multiple_of(100) {
            peak = peak.max(server.process.usage().resident()?);
        }
    }
    let took = began.elapsed().as_secs_f64();
    let ended = child.wait()?;
    anyhow::ensure!(ended.success() && rows == hosts, "{rows} of {hosts} hosts answered; {ended}");
    let figure = format!("live query on {hosts} hosts that {manner}: until all rows are printed");
    add(table, figure, "s", Goal::AtMost(if push { 1.0 } else { 12.0 }), took);
    let memory = (peak - before) as f64 / f64::from(1 << 20);
    add(
        table,
        format!("live query on hosts that {manner}: additional memory of the server"),
        "MiB",
        Goal::AtMost(100.0),
        memory,
    );
    Ok(())
}
