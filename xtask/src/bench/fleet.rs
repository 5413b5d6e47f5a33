//! Agents that live and are parked: what they cost, how fast a policy and an action reach them, and how they come back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::drones::{Drones, Event, Target};
use super::memory::kernel_sockets;
use super::server::Server;
use super::table::{Goal, Row, Table};
use super::{Bench, say};
use crate::admin::Admin;
use crate::process::Process;

/// Back-offs short enough for a server that is away for a moment only.
const LIVE: [&str; 6] = ["--mode", "live", "--back-off", "0.5", "--back-off-max", "1"];
const STILL: Duration = Duration::from_secs(4);
const WITHIN: Duration = Duration::from_secs(180);
/// Actions sent, one after another, each to another agent.
const ACTIONS: usize = 300;

/// All rows.
pub fn measure(bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let other = theirs(bench)?;
    say("a fleet comes");
    let before = kernel_sockets();
    let server = Server::start(bench, "fleet", &[])?;
    let admin = server.admin();
    let policy = admin.make_policy("bench", &config("first", 400))?;
    let token = admin.make_token(&policy)?;
    std::thread::sleep(Duration::from_secs(1));
    let rest = server.process.resident()?;
    let target = Target { url: &server.url, ca: &server.ca(), token: Some(&token) };
    let drones = Drones::start(bench, &target, bench.agents, &LIVE)?;
    drones.wait_parked(bench.agents, STILL, WITHIN)?;
    table.add(Row {
        figure: "memory per parked agent, kernel included",
        unit: "KiB",
        goal: Goal::AtMost(30.0),
        ours: per_agent(bench, &server.process, rest, before)?,
        other,
    });
    let (served, driven) = (server.process.cpu()?, drones.cpu()?);
    roll_out(&admin, &drones, &policy, table)?;
    let (served, driven) = (server.process.cpu()? - served, drones.cpu()? - driven);
    say(&format!("of processor time, the server took {served:.2} s for it, the drones {driven:.2} s"));
    drones.wait_parked(bench.agents, STILL, WITHIN)?;
    dispatch(bench, &admin, &drones, table)?;
    storm(bench, server, &drones, table)
}

/// Memory per parked agent of the other server.
fn theirs(bench: &Bench) -> anyhow::Result<Option<f64>> {
    let Some(peer) = &bench.peer else { return Ok(None) };
    say("parked at bare Go");
    let before = kernel_sockets();
    let other = peer.start("300s")?;
    let rest = other.process.resident()?;
    let target = Target { url: &other.url, ca: &other.ca, token: None };
    let drones = Drones::start(bench, &target, bench.agents, &LIVE)?;
    drones.wait_parked(bench.agents, STILL, WITHIN)?;
    let each = per_agent(bench, &other.process, rest, before)?;
    drop(drones);
    // The kernel lets go of closed connections a little later.
    std::thread::sleep(Duration::from_secs(3));
    Ok(Some(each))
}

/// KiB: what the process grew by, and half of what the kernel's sockets grew by, since the drones hold the other ends.
fn per_agent(bench: &Bench, server: &Process, rest: u64, kernel_before: u64) -> anyhow::Result<f64> {
    let own = server.resident()?.saturating_sub(rest) as f64;
    let kernel = kernel_sockets().saturating_sub(kernel_before) as f64 / 2.0;
    let each = |bytes: f64| bytes / f64::from(bench.agents) / 1024.0;
    say(&format!("process {:.1} KiB, kernel {:.1} KiB each", each(own), each(kernel)));
    Ok(each(own + kernel))
}

fn roll_out(admin: &Admin, drones: &Drones, policy: &str, table: &mut Table) -> anyhow::Result<()> {
    say("a policy goes to all");
    let config = config("second", 32 << 10);
    let began = now_us();
    let body = json!({"name": "bench", "namespace": "default", "config": config});
    let made = admin.put(&format!("/api/fleet/agent_policies/{policy}"), &body)?;
    let wanted = format!("policy:{policy}:{}", made["item"]["revision"]);
    let mut acked = drones.wait_for(WITHIN, |event| match event {
        Event::Revision { action_id, acked_us } if action_id == wanted => Some(acked_us),
        _ => None,
    })?;
    acked.sort_unstable();
    let seconds = |at: u64| (at.saturating_sub(began)) as f64 / 1e6;
    let all = seconds(acked[acked.len() - 1]);
    let most = seconds(acked[acked.len() * 99 / 100]);
    let row = |figure, unit, goal, ours| Row { figure, unit, goal, ours, other: None };
    table.add(row("32 KiB policy to 10,000 parked agents, all acked", "s", Goal::AtMost(2.0), all));
    table.add(row("share of it for the last 1 %", "%", Goal::AtMost(15.0), 100.0 * (all - most) / all));
    Ok(())
}

fn dispatch(bench: &Bench, admin: &Admin, drones: &Drones, table: &mut Table) -> anyhow::Result<()> {
    say("actions go to one each");
    let agents = agents(admin)?;
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
        std::thread::sleep(Duration::from_millis(10));
    }
    took.sort_by(f64::total_cmp);
    let row = |figure, goal, ours| Row { figure, unit: "ms", goal, ours, other: None };
    table.add(row("action to one of 10,000 parked agents, p50", Goal::None, took[took.len() / 2]));
    table.add(row("action to one of 10,000 parked agents, p99", Goal::AtMost(20.0), took[took.len() * 99 / 100]));
    drones.wait_parked(bench.agents, STILL, WITHIN).map(drop)
}

/// The server dies and comes back; every agent connects again at once.
fn storm(bench: &Bench, server: Server, drones: &Drones, table: &mut Table) -> anyhow::Result<()> {
    say("the server dies and all come back");
    let before = server.process.resident()?;
    let server = server.restart()?;
    let ready = Instant::now();
    let parked = drones.wait_parked(bench.agents, STILL, WITHIN)?;
    let row = |figure, unit, ours| Row { figure, unit, goal: Goal::None, ours, other: None };
    table.add(row("10,000 agents reconnect after kill -9, all parked again", "s", (parked - ready).as_secs_f64()));
    let peak = server.process.peak()? as f64 / before as f64;
    table.add(row("highest memory of that, to that before", "times", peak));
    Ok(())
}

fn agents(admin: &Admin) -> anyhow::Result<Vec<String>> {
    let page = admin.get(&format!("/api/fleet/agents?perPage={ACTIONS}"))?;
    let ids = page["items"].as_array().into_iter().flatten().filter_map(|item| item["id"].as_str());
    let ids: Vec<_> = ids.map(str::to_owned).collect();
    anyhow::ensure!(ids.len() >= ACTIONS.min(200), "{} agents are listed", ids.len());
    Ok(ids)
}

/// A configuration of about that many bytes, which compress no better than real ones do.
fn config(name: &str, bytes: usize) -> Value {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let stream = |number: usize, word: &mut dyn FnMut() -> u64| {
        let id = format!("{:016x}-{:016x}", word(), word());
        json!({
            "id": format!("logfile-{name}-{id}"),
            "data_stream": {"dataset": format!("app{number}.log"), "type": "logs"},
            "paths": [format!("/var/log/app-{:08x}/*.log", word() >> 32)],
            "processors": [{"add_fields": {"target": "", "fields": {"team": format!("{:06x}", word() >> 40)}}}]
        })
    };
    let one = stream(0, &mut word).to_string().len() + 1;
    let streams: Vec<_> = (0..bytes.div_ceil(one)).map(|number| stream(number, &mut word)).collect();
    json!({
        "outputs": {"default": {"type": "elasticsearch", "hosts": ["https://127.0.0.1:9200"], "api_key": "id:key"}},
        "inputs": [{"id": format!("filestream-{name}"), "type": "filestream", "use_output": "default", "streams": streams}]
    })
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time, and drones tell theirs since 1970")]
fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_have_their_size() {
        for bytes in [400, 32 << 10] {
            let length = config("x", bytes).to_string().len();
            assert!((bytes..bytes + 900).contains(&length), "{length}");
        }
    }
}
