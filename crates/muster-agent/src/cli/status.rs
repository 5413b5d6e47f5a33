//! `muster-agent status`.

use std::fmt::Write;
use std::time::Duration;

use clap::ValueEnum;

use crate::control::client;
use crate::coordinator::report::{AgentState, Snapshot};
use crate::exit::{self, Failure};
use crate::paths::Layout;
use crate::state::disk::DiskStore;
use crate::state::{Phase, Store};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output format
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Human,
    Json,
}

/// Prints the status of the daemon. The exit code is 0 only if the agent is healthy.
pub async fn run(layout: &Layout, args: &Args) -> Result<u8, Failure> {
    let asked = client::call(&layout.socket(), http::Method::GET, "/v1/status", Duration::from_secs(30)).await?;
    let Some(snapshot): Option<Snapshot> = asked else { return Err(no_daemon(layout)) };
    match args.output {
        Output::Human => print!("{}", human(&snapshot)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&snapshot).unwrap_or_default()),
    }
    Ok(code(snapshot.state))
}

fn code(state: AgentState) -> u8 {
    match state {
        AgentState::Healthy => exit::DONE,
        AgentState::Starting => exit::STARTING,
        AgentState::Degraded => exit::DEGRADED,
        AgentState::Failed => exit::AGENT_FAILED,
        AgentState::Stopping | AgentState::Upgrading => exit::FAILED,
    }
}

/// Returns why no daemon answers: it does not run, or no agent is enrolled.
pub fn no_daemon(layout: &Layout) -> Failure {
    let store = DiskStore::new(layout.clone());
    // Without a daemon, the files show whether a daemon should be running.
    let unenrolled = store.state().is_ok_and(|state| state.phase == Phase::Unenrolled);
    match store.enrollment() {
        Err(error) => error.into(),
        Ok(None) if unenrolled => Failure::new(exit::NOT_ENROLLED, "this agent was unenrolled"),
        Ok(None) => Failure::new(exit::NOT_ENROLLED, format!("no agent is enrolled under {}", layout.base())),
        Ok(Some(enrollment)) => {
            Failure::new(exit::NO_DAEMON, format!("the daemon of agent {} is not running", enrollment.agent_id))
                .hint(format!("to start it: muster-agent run --base-path {}", layout.base()))
        }
    }
}

fn human(snapshot: &Snapshot) -> String {
    // Policies and components choose most of the words, and must not control the terminal.
    let snapshot = &snapshot.clone().printable();
    let mut text = String::new();
    let fleet = &snapshot.fleet;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "fleet");
    let _ = writeln!(text, "└─ status: ({}) {}", fleet.state.as_str(), fleet.message);
    let _ = writeln!(text, "muster-agent {} ({})", snapshot.version, snapshot.agent_id);
    let _ = writeln!(text, "├─ status: ({}) {}", snapshot.state.as_str(), snapshot.message);
    if snapshot.upgrade.is_some() {
        let _ = writeln!(text, "├─ upgrade: {}", super::upgrade::describe(snapshot));
    }
    let policy = snapshot.policy.as_ref().map_or("none".into(), |p| format!("{} revision {}", p.id, p.revision));
    let last = if snapshot.components.is_empty() { "└─" } else { "├─" };
    let _ = writeln!(text, "{last} policy: {policy}");
    for (place, part) in snapshot.components.iter().enumerate() {
        let corner = if place + 1 == snapshot.components.len() { "└─" } else { "├─" };
        let _ = writeln!(text, "{corner} {}: ({}) {}", part.id, part.state.as_str(), part.message);
        // Units that only repeat the fault of their component would hide the others.
        let differ = part.units.iter().filter(|unit| unit.state.is_bad() && unit.message != part.message);
        let bar = if place + 1 == snapshot.components.len() { " " } else { "│" };
        for unit in differ {
            let _ = writeln!(text, "{bar}  {} {}: ({}) {}", unit.direction, unit.id, unit.state.as_str(), unit.message);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ag18_ag19_a_failed_unit_and_an_upgrade_are_shown() {
        let unit = |id: &str, state: &str, message: &str| serde_json::json!({"id": id, "type": "input", "state": state, "message": message});
        let units = [unit("log-default-a", "HEALTHY", "fine"), unit("log-default-b", "FAILED", "no such file")];
        let part = |id: &str, units: &[serde_json::Value]| {
            serde_json::json!({"id": id, "type": "log", "state": "HEALTHY",
            "message": "Healthy", "units": units})
        };
        let mut snapshot: Snapshot =
            serde_json::from_value(serde_json::json!({"agent_id": "a", "version": "1", "pid": 7,
            "state": "DEGRADED", "message": "m", "fleet": {"state": "HEALTHY", "message": "", "last_check_in": null,
            "failures": 0, "servers": []}, "policy": null, "components": [part("log-default", &units), part("x", &[])],
            "queued_actions": 0, "pending_acks": 0, "log_level": "info", "signing_key_pinned": false}))
            .unwrap();
        let text = human(&snapshot);
        assert!(
            text.contains("├─ log-default: (HEALTHY) Healthy\n│  input log-default-b: (FAILED) no such file\n└─ x"),
            "{text}"
        );
        assert!(!text.contains("log-default-a") && !text.contains("upgrade"), "{text}");
        assert!(text.contains("muster-agent 1 (a)"), "{text}");
        let details =
            serde_json::json!({"target_version": "2", "state": "UPG_DOWNLOADING", "action_id": "", "metadata": {}});
        snapshot.upgrade = Some(serde_json::from_value(details).unwrap());
        assert!(human(&snapshot).contains("├─ upgrade: "), "{}", human(&snapshot));
    }

    #[test]
    fn control_characters_of_a_policy_do_not_reach_the_terminal() {
        let evil = "x\ny\u{1b}[31m";
        let unit = serde_json::json!({"id": evil, "type": "input", "state": "FAILED", "message": evil});
        let part = serde_json::json!({"id": evil, "type": evil, "state": "HEALTHY", "message": "m", "units": [unit]});
        let details = serde_json::json!({"target_version": evil, "state": "UPG_FAILED", "action_id": "",
            "metadata": {"error_msg": evil}});
        let snapshot: Snapshot = serde_json::from_value(serde_json::json!({"agent_id": "a", "version": "1", "pid": 7,
            "state": "DEGRADED", "message": evil, "fleet": {"state": "HEALTHY", "message": evil, "last_check_in": null,
            "failures": 0, "servers": []}, "policy": {"id": evil, "revision": 1}, "components": [part],
            "queued_actions": 0, "pending_acks": 0, "log_level": "info", "signing_key_pinned": false,
            "upgrade": details}))
        .unwrap();
        let text = human(&snapshot);
        assert!(text.matches("x\u{fffd}y\u{fffd}[31m").count() >= 6, "{text:?}");
        assert_eq!(text.lines().count(), 8, "{text:?}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn ag15_only_a_healthy_agent_exits_with_0() {
        use AgentState::{Degraded, Failed, Healthy, Starting, Stopping, Upgrading};
        let codes = [Healthy, Starting, Degraded, Failed, Stopping, Upgrading].map(code);
        assert_eq!(codes, [0, exit::STARTING, exit::DEGRADED, exit::AGENT_FAILED, exit::FAILED, exit::FAILED]);
    }
}
