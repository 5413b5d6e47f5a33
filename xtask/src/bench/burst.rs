//! Measures the memory that the server uses after a burst of large requests.

use std::time::Duration;

use super::drones::{Drones, Event, Target};
use super::server::Server;
use super::table::{Goal, Goals, Row, Table};
use super::{Bench, policy, say};
use crate::process::Usage;

/// Number of connections of the burst, one per agent.
const CONNECTIONS: u32 = 1_000;
/// Size of each body in bytes, below 1 MiB.
const BODY_BYTES: u32 = 1_000_000;
const WITHIN: Duration = Duration::from_secs(180);

/// Resident memory before the burst, at its peak, and after it.
struct Memory {
    before: u64,
    peak: u64,
    after: u64,
}

impl Memory {
    fn times(&self, bytes: u64) -> f64 {
        bytes as f64 / self.before.max(1) as f64
    }
}

/// Adds the rows of a burst.
pub fn measure(bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    say("a burst of large requests");
    let server = Server::start(bench, "burst", &[])?;
    let admin = server.admin();
    let policy = admin.make_policy("bench", &policy::real_sized("burst"))?;
    let token = admin.make_token(&policy)?;
    let target = Target { url: &server.url, ca: &server.ca(), token: Some(&token) };
    let ours = burst(bench, &target, server.process.usage())?;
    let other = theirs(bench)?;
    let connections = bench.sizes.agents.min(CONNECTIONS);
    table.add(
        bench.engine,
        Row {
            figure: format!(
                "resident memory {} s after a burst of {connections} connections with 1 MB bodies, relative to before",
                bench.sizes.after_burst
            ),
            unit: "times",
            goals: Goals::sqlite(Goal::AtMost(2.0)),
            ours: ours.times(ours.after),
            other: other.as_ref().map(|other| other.times(other.after)),
        },
    );
    table.add(
        bench.engine,
        Row {
            figure: "peak memory during the burst, relative to before".into(),
            unit: "times",
            goals: Goals::NONE,
            ours: ours.times(ours.peak),
            other: other.as_ref().map(|other| other.times(other.peak)),
        },
    );
    Ok(())
}

fn theirs(bench: &Bench) -> anyhow::Result<Option<Memory>> {
    let Some(other) = bench.other() else { return Ok(None) };
    let running = other.start("300s")?;
    let Some(usage) = running.usage else { return Ok(None) };
    say("burst against the other server");
    burst(bench, &running.target(), usage).map(Some)
}

fn burst(bench: &Bench, target: &Target<'_>, server: Usage) -> anyhow::Result<Memory> {
    let body_bytes = BODY_BYTES.to_string();
    let arguments = ["--mode", "burst", "--body-bytes", &body_bytes, "--back-off", "0.5", "--back-off-max", "5"];
    let drones = Drones::start(bench, target, bench.sizes.agents.min(CONNECTIONS), &arguments)?;
    // From here, the drones pause for a second before they send.
    drones.wait_for(WITHIN, |event| matches!(event, Event::Began {}).then_some(()))?;
    let before = server.resident()?;
    let summary = drones.summary(WITHIN)?;
    say(&format!("responses to {} check-ins; failures: {:?}", summary.counts.check_ins, summary.counts.errors));
    std::thread::sleep(Duration::from_secs(u64::from(bench.sizes.after_burst)));
    Ok(Memory { before, peak: server.peak()?, after: server.resident()? })
}
