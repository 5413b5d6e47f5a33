//! `muster-agent status`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use muster_core::time::Clock as _;
use tokio::time::Instant;

use crate::clock::SystemClock;
use crate::control::client;
use crate::coordinator::report::{AgentState, Snapshot};
use crate::exit::{self, Failure};
use crate::paths::Layout;
use crate::standalone::is_standalone;
use crate::state::disk::DiskStore;
use crate::state::{Phase, Store};

/// Time for a daemon that ends to start again, as after an upgrade.
const RESTART: Duration = Duration::from_secs(30);
/// Interval between looks for it.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output format
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,
    /// Print the status again whenever it changes, until the command is interrupted; with `--output json`, one status per line
    #[arg(long, short)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people: components, and units with a problem
    Human,
    /// As `human`, with every unit and its type
    Full,
    /// JSON
    Json,
    /// YAML, with the same fields
    Yaml,
}

/// Prints the status of the daemon. The exit code is 0 only if the agent is healthy.
pub async fn run(layout: &Layout, args: &Args) -> Result<u8, Failure> {
    if args.watch {
        return watch(layout, args.output).await;
    }
    let asked = client::call(&layout.socket(), http::Method::GET, "/v1/status", Duration::from_secs(30)).await?;
    let Some(snapshot): Option<Snapshot> = asked else { return Err(no_daemon(layout)) };
    match args.output {
        Output::Human | Output::Full => print!("{}", human(&snapshot, args.output == Output::Full)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&snapshot).unwrap_or_default()),
        Output::Yaml => print!("{}", serde_saphyr::to_string(&snapshot).unwrap_or_default()),
    }
    Ok(code(snapshot.state))
}

/// Prints the status whenever it changes. Continues when the daemon restarts, and fails when it has ended.
async fn watch(layout: &Layout, output: Output) -> Result<u8, Failure> {
    let mut deadline = Instant::now();
    loop {
        let Some(mut states) = client::watch(&layout.socket()).await? else {
            if Instant::now() >= deadline {
                return Err(no_daemon(layout));
            }
            tokio::time::sleep(LOOK).await;
            continue;
        };
        while let Some(snapshot) = states.next().await? {
            let text = match output {
                Output::Human | Output::Full => {
                    format!(
                        "{}\n{}\n",
                        SystemClock.now().to_rfc3339_seconds(),
                        human(&snapshot, output == Output::Full)
                    )
                }
                Output::Yaml => format!("---\n{}", serde_saphyr::to_string(&snapshot).unwrap_or_default()),
                Output::Json => format!("{}\n", serde_json::to_string(&snapshot).unwrap_or_default()),
            };
            let mut out = std::io::stdout().lock();
            // Whoever reads the output has seen enough.
            if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                return Ok(exit::DONE);
            }
        }
        deadline = Instant::now() + RESTART;
        // A daemon that is ending closes the stream before the socket.
        tokio::time::sleep(LOOK).await;
    }
}

fn code(state: AgentState) -> u8 {
    match state {
        AgentState::Healthy => exit::DONE,
        AgentState::Starting => exit::STARTING,
        AgentState::Degraded => exit::DEGRADED,
        AgentState::Failed => exit::AGENT_FAILED,
        AgentState::Stopping | AgentState::Upgrading | AgentState::Stopped => exit::FAILED,
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
        Ok(None) if is_standalone(layout, &store) => {
            Failure::new(exit::NO_DAEMON, "the daemon of the standalone agent is not running")
                .hint(start_by_hand(layout))
        }
        Ok(None) => Failure::new(exit::NOT_ENROLLED, format!("no agent is enrolled under {}", layout.base())),
        Ok(Some(enrollment)) => {
            Failure::new(exit::NO_DAEMON, format!("the daemon of agent {} is not running", enrollment.agent_id))
                .hint(start_by_hand(layout))
        }
    }
}

fn start_by_hand(layout: &Layout) -> String {
    format!("to start it: muster-agent run --base-path {}", layout.base())
}

fn human(snapshot: &Snapshot, is_full: bool) -> String {
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
    for reason in &snapshot.blocked {
        let _ = writeln!(text, "├─ not running: {reason}");
    }
    let policy = snapshot.policy.as_ref().map_or("none".into(), |p| format!("{} revision {}", p.id, p.revision));
    let last = if snapshot.components.is_empty() { "└─" } else { "├─" };
    let _ = writeln!(text, "{last} policy: {policy}");
    for (place, part) in snapshot.components.iter().enumerate() {
        let corner = if place + 1 == snapshot.components.len() { "└─" } else { "├─" };
        let kind = if is_full { format!(" [{}]", part.kind) } else { String::new() };
        let _ = writeln!(text, "{corner} {}{kind}: ({}) {}", part.id, part.state.as_str(), part.message);
        // Units that only repeat the fault of their component would hide the others.
        let differ = part.units.iter().filter(|unit| is_full || unit.state.is_bad() && unit.message != part.message);
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
        let text = human(&snapshot, false);
        assert!(
            text.contains("├─ log-default: (HEALTHY) Healthy\n│  input log-default-b: (FAILED) no such file\n└─ x"),
            "{text}"
        );
        assert!(!text.contains("log-default-a") && !text.contains("upgrade"), "{text}");
        assert!(text.contains("muster-agent 1 (a)"), "{text}");
        snapshot.blocked = vec!["input c: no value for ${env.X}".into()];
        let full = human(&snapshot, true);
        for line in [
            "├─ not running: input c: no value for ${env.X}\n",
            "├─ log-default [log]: (HEALTHY) Healthy\n│  input log-default-a: (HEALTHY) fine\n│  input log-default-b: (FAILED)",
        ] {
            assert!(full.contains(line), "{full}");
        }
        let details =
            serde_json::json!({"target_version": "2", "state": "UPG_DOWNLOADING", "action_id": "", "metadata": {}});
        snapshot.upgrade = Some(serde_json::from_value(details).unwrap());
        assert!(human(&snapshot, false).contains("├─ upgrade: "), "{}", human(&snapshot, false));
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
        let text = human(&snapshot, false);
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
