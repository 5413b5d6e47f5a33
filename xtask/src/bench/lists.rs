//! Measures pages, searches and counts of the large store, while other agents check in.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use super::connection::Connection;
use super::drones::{Drones, Target};
use super::server::Server;
use super::table::{Goal, Goals, Row, Table};
use super::{Bench, p99, pages, say};

/// Tag of every second stored agent.
pub const TAG: &str = "west";
/// The agents that check in have numbers from here, so that none of them is one of the stored ones.
const FIRST: &str = "1000000";
/// Long polls are short, so that a constant share of the agents checks in.
const LONG_POLL: &str = "timeouts.checkin_long_poll=30s";
/// Time for the server to notice that the agents are gone.
const SETTLED: Duration = Duration::from_secs(10);
/// Rounds, in each of which every request is sent once.
const ROUNDS: usize = 60;
const PAGE: usize = 100;

/// What an administrator looks at: the query of each request, and the number of agents that it finds at least. No agent has been
/// silent for long enough to be offline.
const QUERIES: [(&str, usize); 9] = [
    ("sortField=enrolled_at&sortOrder=desc", PAGE),
    ("sortField=local_metadata.host.hostname&sortOrder=asc", PAGE),
    ("sortField=last_checkin&sortOrder=desc&page=50", PAGE),
    ("kuery=status%3Aonline", PAGE),
    ("kuery=status%3Aoffline&sortField=last_checkin&sortOrder=asc", 0),
    ("kuery=tags%3Awest&sortField=local_metadata.host.hostname&sortOrder=desc", PAGE),
    ("kuery=policy_id%3APOLICY%20and%20tags%3Awest%20and%20not%20status%3Aoffline", PAGE),
    ("kuery=local_metadata.host.hostname%3Adrone-421*", 1),
    ("kuery=drone-4217", 1),
];

/// Adds two rows.
pub fn measure(bench: &Bench, server: Server, policy: &str, token: &str, table: &mut Table) -> anyhow::Result<()> {
    say("lists of the large store");
    let server = server.restart_with(&[LONG_POLL])?;
    let target = Target { url: &server.url, ca: &server.ca(), token: Some(token) };
    let drones = Drones::start(bench, &target, bench.sizes.agents, &["--mode", "live", "--first", FIRST])?;
    // They need not all be held at the same moment: their check-ins are the load.
    drones.wait_for(Duration::from_secs(180), |event| match event {
        super::drones::Event::Progress(counts) if counts.check_ins >= 2 * u64::from(bench.sizes.agents) => Some(()),
        _ => None,
    })?;
    let mut connection = Connection::open(&server.data.join("admin.sock"))?;
    let mut pages = Latencies::default();
    let mut counts = Latencies::default();
    for _ in 0..ROUNDS {
        for (query, least) in QUERIES {
            let path = format!("/api/fleet/agents?perPage={PAGE}&{}", query.replace("POLICY", policy));
            let page = pages.ask(query, &mut connection, &path)?;
            let found = page["items"].as_array().map_or(0, Vec::len);
            anyhow::ensure!(found >= least, "{path}: {found} agents");
        }
        let status = counts.ask("counts", &mut connection, "/api/fleet/agent_status")?;
        let all = status["results"]["all"].as_u64().context("no counts")?;
        anyhow::ensure!(all >= u64::from(bench.sizes.stored), "{status}");
    }
    for (query, took) in pages.worst() {
        say(&format!("p99 {:.1} ms: {query}", took.as_secs_f64() * 1e3));
    }
    let stored = bench.sizes.stored;
    let mut add = |figure: String, limit, took: Duration| {
        let goals = Goals::new(Goal::AtMost(limit), Goal::AtMost(limit));
        table.add(bench.engine, Row { figure, unit: "ms", goals, ours: took.as_secs_f64() * 1e3, other: None });
    };
    add(format!("page of {PAGE} of {stored} agents, filtered and sorted, p99"), 20.0, pages.p99()?);
    add(format!("number of {stored} agents by status, p99"), 5.0, counts.p99()?);
    let mut visitor = pages::Visitor::log_in(&server)?;
    pages::measure(bench, &mut visitor, table)?;
    drop(drones);
    // The agents are gone when their last polls have ended.
    std::thread::sleep(SETTLED);
    pages::idle(bench, &server, visitor, table)
}

/// How long responses took, with what was asked.
#[derive(Default)]
pub(super) struct Latencies(Vec<(&'static str, Duration)>);

impl Latencies {
    pub(super) fn ask(&mut self, what: &'static str, connection: &mut Connection, path: &str) -> anyhow::Result<Value> {
        let sent = Instant::now();
        let (status, body) = connection.get(path, None)?;
        self.0.push((what, sent.elapsed()));
        anyhow::ensure!(status == 200, "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    pub(super) fn p99(&self) -> anyhow::Result<Duration> {
        let all = self.0.iter().map(|(_, took)| *took).collect();
        p99(all).context("no requests")
    }

    /// Returns the percentile of each kind of request.
    fn worst(&self) -> Vec<(&'static str, Duration)> {
        let of = |what: &str| self.0.iter().filter(|(asked, _)| *asked == what).map(|(_, took)| *took).collect();
        QUERIES.iter().filter_map(|(query, _)| Some((*query, p99(of(query))?))).collect()
    }
}
