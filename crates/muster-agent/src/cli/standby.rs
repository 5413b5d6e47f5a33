//! A daemon that runs a fleet server, and whose own agent is not enrolled.

use tokio::sync::mpsc;

use crate::components::{ComponentState, Components};
use crate::coordinator::report::{AgentState, FleetStatus, Snapshot};
use crate::coordinator::watch::Watchers;
use crate::coordinator::{Command, Ending};
use crate::version;

/// What is missing.
const NOT_ENROLLED: &str = "Not enrolled; running the fleet server only";

/// Keeps the server running until the agent is enrolled or the daemon must end.
pub(super) async fn run(components: &dyn Components, commands: &mut mpsc::Receiver<Command>) -> Ending {
    let mut watchers = Watchers::default();
    loop {
        let now = || snapshot(NOT_ENROLLED, components.states());
        watchers.tell(now);
        let command = tokio::select! {
            biased;
            command = commands.recv() => command.unwrap_or(Command::Stop),
            () = components.changed() => continue,
        };
        let ending = match command {
            Command::Status(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(now());
                continue;
            }
            Command::Watch(states) => {
                watchers.add(states);
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use serde_json::Value;
    use tokio::sync::Notify;

    use super::*;
    use crate::components::{Health, InputAction};
    use crate::model::Model;

    /// The component of the server.
    struct Server {
        state: Mutex<Health>,
        bell: Notify,
        is_halted: Mutex<bool>,
    }

    #[async_trait]
    impl Components for Server {
        fn want(&self, _: Model) {}

        async fn updated(&self) {}

        fn states(&self) -> Vec<ComponentState> {
            let state = *self.state.lock().unwrap();
            let (id, kind) = ("fleet-server-local".into(), "fleet-server".into());
            vec![ComponentState { id, kind, state, message: String::new(), units: Vec::new() }]
        }

        async fn changed(&self) {
            self.bell.notified().await;
        }

        async fn settled(&self) {}

        async fn perform(&self, _: InputAction) -> Result<Value, String> {
            Err("none".into())
        }

        async fn halt(&self) {
            *self.is_halted.lock().unwrap() = true;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ag51_ag99_the_server_starts_and_is_healthy_while_the_agent_waits_for_its_enrollment() {
        let server = Server { state: Mutex::new(Health::Starting), bell: Notify::new(), is_halted: Mutex::new(false) };
        let (commands, mut received) = mpsc::channel(4);
        let script = async {
            let (sender, mut states) = mpsc::channel(4);
            commands.send(Command::Watch(sender)).await.unwrap();
            let first = states.recv().await.unwrap();
            assert_eq!((first.state, first.agent_id.as_str()), (AgentState::Starting, ""));
            assert_eq!((first.message.as_str(), first.components[0].state), (NOT_ENROLLED, Health::Starting));
            *server.state.lock().unwrap() = Health::Healthy;
            server.bell.notify_one();
            let next = states.recv().await.unwrap();
            assert_eq!((next.state, next.components[0].state), (AgentState::Starting, Health::Healthy));
            // The agent has enrolled: its coordinator goes on with the same components.
            commands.send(Command::Reload).await.unwrap();
        };
        let (ending, ()) = tokio::join!(run(&server, &mut received), script);
        assert_eq!((ending, *server.is_halted.lock().unwrap()), (Ending::Reload, false));
    }
}
