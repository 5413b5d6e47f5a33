//! Memory of a server that nobody talks to.

use std::time::Duration;

use super::server::Server;
use super::table::{Goal, Row, Table};
use super::{Bench, say};

/// What start-up used must have settled by then.
const SETTLED: Duration = Duration::from_secs(5);

/// One row.
pub fn measure(bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    say("at rest");
    let server = Server::start(bench, "rest", &[])?;
    let other = bench.peer.as_ref().map(|peer| peer.start("300s")).transpose()?;
    std::thread::sleep(SETTLED);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    table.add(Row {
        figure: "server at rest, resident",
        unit: "MB",
        goal: Goal::AtMost(20.0),
        ours: megabytes(server.process.resident()?),
        other: other.map(|other| other.process.resident()).transpose()?.map(megabytes),
    });
    Ok(())
}
