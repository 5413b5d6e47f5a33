//! A daemon that runs a fleet server, and whose own agent is not enrolled.

use tokio::sync::mpsc;

use crate::components::{ComponentState, Components};
use crate::coordinator::report::{AgentState, FleetStatus, Snapshot};
use crate::coordinator::{Command, Ending};
use crate::version;

/// What is missing.
const NOT_ENROLLED: &str = "Not enrolled; running the fleet server only";

/// Keeps the server running until the agent is enrolled or the daemon must end.
pub(super) async fn run(components: &dyn Components, commands: &mut mpsc::Receiver<Command>) -> Ending {
    loop {
        let ending = match commands.recv().await.unwrap_or(Command::Stop) {
            Command::Status(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(snapshot(NOT_ENROLLED, components.states()));
                continue;
            }
            Command::Unenroll(reply) | Command::Upgrade(_, reply) => {
                let _ = reply.send(Some("the agent is not enrolled".into()));
                continue;
            }
            // Without a response: there is nothing to diagnose but the server's log.
            Command::UpgradeKept | Command::Diagnostics(_) => continue,
            Command::Reload => return Ending::Reload,
            Command::Restart => Ending::Restart,
            Command::Stop => Ending::Stopped,
        };
        components.halt().await;
        return ending;
    }
}

/// Returns the status of a daemon without an enrollment.
pub(super) fn snapshot(message: &str, components: Vec<ComponentState>) -> Snapshot {
    Snapshot {
        agent_id: String::new(),
        version: version::agent_version().into(),
        pid: std::process::id(),
        started_at: String::new(),
        state: AgentState::Starting,
        message: message.into(),
        fleet: FleetStatus {
            state: AgentState::Starting,
            message: message.into(),
            last_check_in: None,
            failures: 0,
            servers: Vec::new(),
            poll_limit_seconds: None,
        },
        policy: None,
        components,
        blocked: Vec::new(),
        queued_actions: 0,
        pending_acks: 0,
        log_level: "info".into(),
        signing_key_pinned: false,
        upgrade: None,
    }
}
