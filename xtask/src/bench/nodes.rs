//! Measures how fast a change on one server is in force on another one, over one database.

use std::time::Duration;

use serde_json::json;

use super::drones::{Drones, Event, Target, now_us};
use super::server::Server;
use super::table::{Engine, Goal, Goals, Row, Table};
use super::{Bench, policy, say};

/// Number of parked agents, each of which is revoked.
const AGENTS: u32 = 300;
/// As in [`super::fleet`].
const STILL: Duration = Duration::from_secs(4);
const WITHIN: Duration = Duration::from_secs(60);

/// Adds the rows, on PostgreSQL only: an embedded database has one server.
pub fn measure(bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    if bench.engine == Engine::Sqlite {
        return Ok(());
    }
    say("revocations on another server");
    let first = Server::start(bench, "nodes-1", &[])?;
    let second = first.join("nodes-2")?;
    let admin = first.admin();
    let policy = admin.make_policy("bench", &policy::real_sized("nodes"))?;
    let token = admin.make_token(&policy)?;
    let target = Target { url: &second.url, ca: &second.ca(), token: Some(&token) };
    // A rejected agent must not check in again while others are measured.
    let drones = Drones::start(bench, &target, AGENTS, &["--mode", "live", "--back-off", "600"])?;
    drones.wait_parked(AGENTS, STILL, WITHIN)?;
    let mut took = Vec::new();
    for agent in admin.agents(AGENTS as usize)? {
        let began = now_us();
        admin.post(&format!("/api/fleet/agents/{agent}/unenroll"), &json!({"revoke": true, "force": true}))?;
        // The response to the held check-in: its key is rejected now.
        let at = drones.wait_for(Duration::from_secs(10), |event| match event {
            Event::Rejected { at_us, agent_id } if agent_id == agent => Some(at_us),
            _ => None,
        })?;
        took.push(at.saturating_sub(began) as f64 / 1000.0);
    }
    took.sort_by(f64::total_cmp);
    let row = |quantile: &str, limit, ours| Row {
        figure: format!("revocation until it is in force on another server, {quantile}"),
        unit: "ms",
        goals: Goals::new(Goal::None, Goal::AtMost(limit)),
        ours,
        other: None,
    };
    table.add(bench.engine, row("p50", 50.0, took[took.len() / 2]));
    table.add(bench.engine, row("maximum of 300", 1000.0, took[took.len() - 1]));
    Ok(())
}
