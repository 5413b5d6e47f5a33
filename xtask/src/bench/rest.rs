//! Measures the memory of a server without agents.

use std::time::Duration;

use super::server::Server;
use super::table::{Goal, Goals, Row, Table};
use super::{Bench, policy, say};
use crate::process::Usage;

/// Time between the start of the server and the measurement. After ten seconds, it gives back what only the start has used.
const SETTLED: Duration = Duration::from_secs(15);

/// Adds one row.
pub fn measure(bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    say("at rest");
    let server = Server::start(bench, "rest", &[])?;
    server.admin().make_policy("bench", &policy::real_sized("rest"))?;
    let other = bench.other().map(|other| other.start("300s")).transpose()?;
    std::thread::sleep(SETTLED);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    // Borrowed, because dropping it would end the server before it is measured.
    let other = other.as_ref().and_then(|other| other.usage).map(Usage::resident).transpose()?;
    table.add(
        bench.engine,
        Row {
            figure: "resident memory of an idle server".into(),
            unit: "MB",
            goals: Goals::sqlite(Goal::AtMost(17.0)),
            ours: megabytes(server.process.usage().resident()?),
            other: other.map(megabytes),
        },
    );
    Ok(())
}
