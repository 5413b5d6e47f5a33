//! Measures parked agents: their memory, the delivery of a policy, an action and a bulk reassignment, and reconnects.

use std::time::{Duration, Instant};

use serde_json::json;

use super::drones::{Drones, Event, Target, now_us};
use super::memory::kernel_sockets;
use super::server::Server;
use super::table::{Goal, Goals, Row, Table};
use super::{Bench, policy, say};
use crate::admin::Admin;
use crate::process::Usage;

/// Short back-offs, because the server is down only for a moment.
const LIVE: [&str; 6] = ["--mode", "live", "--back-off", "0.5", "--back-off-max", "1"];
/// Agents count as parked when all of them have been held for this long. Shorter pauses also occur between two
/// check-ins.
const STILL: Duration = Duration::from_secs(4);
const WITHIN: Duration = Duration::from_secs(180);
/// Number of consecutive actions, each for another agent.
const ACTIONS: usize = 300;

/// Adds all rows.
pub fn measure(bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let other = theirs(bench)?;
    say("agents enroll and are parked");
    // Measured before the server starts, so that its listening sockets are included.
    let before = kernel_sockets();
    let server = Server::start(bench, "fleet", &[])?;
    let admin = server.admin();
    let policy = admin.make_policy("bench", &policy::real_sized("first"))?;
    let token = admin.make_token(&policy)?;
    // The server completes its startup in the background, which must not count as memory of agents.
    std::thread::sleep(Duration::from_secs(1));
    let rest = server.process.usage().resident()?;
    let target = Target { url: &server.url, ca: &server.ca(), token: Some(&token) };
    let drones = Drones::start(bench, &target, bench.sizes.agents, &LIVE)?;
    drones.wait_parked(bench.sizes.agents, STILL, WITHIN)?;
    table.add(
        bench.engine,
        Row {
            figure: "memory per parked agent, kernel included".into(),
            unit: "KiB",
            goals: Goals::sqlite(Goal::AtMost(14.0)),
            ours: per_agent(bench, server.process.usage(), rest, before)?,
            other,
        },
    );
    let usage = server.process.usage();
    let (served, driven, database) = (usage.cpu()?, drones.cpu()?, bench.database_cpu()?);
    roll_out(bench, &admin, &drones, &policy, table)?;
    if let Some((after, before)) = bench.database_cpu()?.zip(database) {
        let figure = "CPU time of the database until all have acked the policy".into();
        table.add(bench.engine, Row { figure, unit: "s", goals: Goals::NONE, ours: after - before, other: None });
    }
    let (served, driven) = (usage.cpu()? - served, drones.cpu()? - driven);
    say(&format!("CPU time: server {served:.2} s, drones {driven:.2} s"));
    drones.wait_parked(bench.sizes.agents, STILL, WITHIN)?;
    dispatch(bench, &admin, &drones, table)?;
    reassign(bench, &admin, &drones, &policy, table)?;
    storm(bench, server, &drones, table)
}

/// Measures the memory per parked agent of the other server.
fn theirs(bench: &Bench) -> anyhow::Result<Option<f64>> {
    let Some(other) = bench.other() else { return Ok(None) };
    let before = kernel_sockets();
    let running = other.start("300s")?;
    let Some(usage) = running.usage else { return Ok(None) };
    say("agents parked at the other server");
    let rest = usage.resident()?;
    let drones = Drones::start(bench, &running.target(), bench.sizes.agents, &LIVE)?;
    drones.wait_parked(bench.sizes.agents, STILL, WITHIN)?;
    let each = per_agent(bench, usage, rest, before)?;
    drop(drones);
    // The kernel frees closed connections with a delay.
    std::thread::sleep(Duration::from_secs(3));
    Ok(Some(each))
}

/// Returns the memory per agent in KiB: the growth of the process, and half of the growth of the kernel's sockets,
/// because the other ends belong to the drones.
fn per_agent(bench: &Bench, server: Usage, rest: u64, kernel_before: u64) -> anyhow::Result<f64> {
    let own = server.resident()?.saturating_sub(rest) as f64;
    let kernel = kernel_sockets().saturating_sub(kernel_before) as f64 / 2.0;
    let each = |bytes: f64| bytes / f64::from(bench.sizes.agents) / 1024.0;
    say(&format!("process {:.1} KiB, kernel {:.1} KiB each", each(own), each(kernel)));
    Ok(each(own + kernel))
}

fn roll_out(bench: &Bench, admin: &Admin, drones: &Drones, policy: &str, table: &mut Table) -> anyhow::Result<()> {
    say("a policy for all agents");
    let config = policy::real_sized("second");
    let began = now_us();
    let body = json!({"name": "bench", "namespace": "default", "config": config});
    let made = admin.put(&format!("/api/fleet/agent_policies/{policy}"), &body)?;
    let wanted = format!("policy:{policy}:{}", made["item"]["revision"]);
    // The drones report a revision when the last agent has acknowledged it.
    let mut acked = drones.wait_for(WITHIN, |event| match event {
        Event::Revision { action_id, acked_us, .. } if action_id == wanted => Some(acked_us),
        _ => None,
    })?;
    acked.sort_unstable();
    let seconds = |at: u64| (at.saturating_sub(began)) as f64 / 1e6;
    let all = seconds(acked[acked.len() - 1]);
    // The last percent shows whether single agents are served much later than the others.
    let most = seconds(acked[acked.len() * 99 / 100]);
    let row = |figure, unit, goals, ours| Row { figure, unit, goals, ours, other: None };
    let agents = bench.sizes.agents;
    let goals = Goals::new(Goal::AtMost(1.0), Goal::AtMost(3.0));
    table.add(bench.engine, row(format!("32 KiB policy to {agents} parked agents, all acked"), "s", goals, all));
    let goals = Goals::sqlite(Goal::AtMost(3.0));
    table.add(bench.engine, row("share of that time for the last 1 %".into(), "%", goals, 100.0 * (all - most) / all));
    Ok(())
}

fn dispatch(bench: &Bench, admin: &Admin, drones: &Drones, table: &mut Table) -> anyhow::Result<()> {
    say("actions for one agent each");
    let agents = admin.agents(ACTIONS)?;
    let mut took = Vec::new();
    for agent in agents.iter().take(ACTIONS) {
        let began = now_us();
        let body = json!({"action": {"type": "SETTINGS", "data": {"log_level": "debug"}}});
        let made = admin.post(&format!("/api/fleet/agents/{agent}/actions"), &body)?;
        let id = made["item"]["id"].as_str().unwrap_or_default().to_owned();
        let at = drones.wait_for(Duration::from_secs(10), |event| match event {
            Event::Action { at_us, action_id } if action_id == id => Some(at_us),
            _ => None,
        })?;
        took.push(at.saturating_sub(began) as f64 / 1000.0);
        // Actions must not overlap, because the latency of a single action is measured.
        std::thread::sleep(Duration::from_millis(10));
    }
    took.sort_by(f64::total_cmp);
    let row = |quantile, goals, ours| Row {
        figure: format!("action to one of {} parked agents, {quantile}", bench.sizes.agents),
        unit: "ms",
        goals,
        ours,
        other: None,
    };
    table.add(bench.engine, row("p50", Goals::NONE, took[took.len() / 2]));
    table.add(bench.engine, row("p99", Goals::sqlite(Goal::AtMost(20.0)), took[took.len() * 99 / 100]));
    drones.wait_parked(bench.sizes.agents, STILL, WITHIN).map(drop)
}

/// Assigns all agents to another policy. Measures the time from the request until the change is committed and the last
/// agent has been woken.
///
/// A woken agent reads the reassignment first, and gets the policy with its next check-in, a second later.
fn reassign(bench: &Bench, admin: &Admin, drones: &Drones, policy: &str, table: &mut Table) -> anyhow::Result<()> {
    say("all agents are reassigned");
    let other = admin.make_policy("bench-2", &policy::real_sized("third"))?;
    let began = now_us();
    let body = json!({"agents": format!("policy_id:\"{policy}\""), "policy_id": other});
    let made = admin.post("/api/fleet/agents/bulk_reassign", &body)?;
    // The response is sent after the commit, which is therefore included in the time.
    let mut woken = now_us();
    let prefix = format!("policy:{other}:");
    let mut reached = 0;
    let received = drones.wait_for(WITHIN, |event| match event {
        Event::Action { at_us, action_id } if made["actionId"] == action_id => {
            (woken, reached) = (woken.max(at_us), reached + 1);
            None
        }
        Event::Revision { action_id, received_us, .. } if action_id.starts_with(&prefix) => {
            received_us.into_iter().max()
        }
        _ => None,
    })?;
    // A server may wake agents with the policy itself.
    let woken = if reached == bench.sizes.agents { woken } else { received };
    let row = |figure, goals, until: u64| Row {
        figure: format!("bulk reassign of {} agents, {figure}", bench.sizes.agents),
        unit: "s",
        goals,
        ours: until.saturating_sub(began) as f64 / 1e6,
        other: None,
    };
    table.add(bench.engine, row("committed and all agents woken", Goals::sqlite(Goal::AtMost(1.0)), woken));
    table.add(bench.engine, row("new policy delivered to all", Goals::NONE, received));
    drones.wait_parked(bench.sizes.agents, STILL, WITHIN).map(drop)
}

/// Kills and restarts the server, after which all agents reconnect at the same time.
fn storm(bench: &Bench, server: Server, drones: &Drones, table: &mut Table) -> anyhow::Result<()> {
    say("the server is killed, and all agents reconnect");
    let before = server.process.usage().resident()?;
    let server = server.restart()?;
    // `restart` returns when the server accepts connections.
    let ready = Instant::now();
    let parked = drones.wait_parked(bench.sizes.agents, STILL, WITHIN)?;
    let row = |figure, unit, ours| Row { figure, unit, goals: Goals::NONE, ours, other: None };
    let figure = format!("{} agents reconnect after kill -9, all parked again", bench.sizes.agents);
    table.add(bench.engine, row(figure, "s", (parked - ready).as_secs_f64()));
    let peak = server.process.usage().peak()? as f64 / before as f64;
    table.add(bench.engine, row("peak memory during the reconnect, relative to before".into(), "times", peak));
    Ok(())
}
