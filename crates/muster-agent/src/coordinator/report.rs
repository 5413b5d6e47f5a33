//! How the agent is, in the words of the wire and of `muster-agent status`: pure.

use serde::{Deserialize, Serialize};

use crate::components::{ComponentState, Health};

/// State of the agent as a whole (AG §3.3, §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AgentState {
    /// No policy yet.
    Starting,
    /// Runs, nothing wrong.
    Healthy,
    /// Something below is wrong.
    Degraded,
    /// The agent itself can't do its job.
    Failed,
    /// On its way down.
    Stopping,
}

impl AgentState {
    /// `status` of a check-in; the mixed case is the protocol's.
    pub fn wire(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy | Self::Stopping => "online",
            Self::Degraded => "DEGRADED",
            Self::Failed => "error",
        }
    }

    /// As `status` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Failed => "FAILED",
            Self::Stopping => "STOPPING",
        }
    }
}

/// What the whole depends on.
#[derive(Clone, Debug, Default)]
pub struct Parts<'a> {
    /// Shut out.
    pub revoked: bool,
    /// Leaving.
    pub leaving: bool,
    /// A policy runs.
    pub has_policy: bool,
    /// Why the last policy was turned down.
    pub rejection: Option<&'a str>,
    /// Why the state can't be kept.
    pub storage_fault: Option<&'a str>,
    /// What runs.
    pub components: &'a [ComponentState],
}

/// The whole, and a message that names the causes.
pub fn overall(parts: &Parts<'_>) -> (AgentState, String) {
    if parts.revoked {
        let message = "Revoked: the server refuses this agent's access key; nothing runs. Enrol again, or restore it";
        return (AgentState::Failed, message.into());
    }
    if parts.leaving {
        return (AgentState::Stopping, "Unenrolling".into());
    }
    let causes = causes(parts);
    if !causes.is_empty() {
        return (AgentState::Degraded, causes);
    }
    if parts.has_policy {
        (AgentState::Healthy, "Running".into())
    } else {
        (AgentState::Starting, "Waiting for the first policy".into())
    }
}

/// The first three causes, and how many more there are.
fn causes(parts: &Parts<'_>) -> String {
    let policy = parts.rejection.map(|why| format!("policy turned down, the last good one goes on: {why}"));
    let storage = parts.storage_fault.map(|why| format!("state can't be kept: {why}"));
    let bad = parts.components.iter().filter(|part| matches!(part.state, Health::Failed | Health::Degraded));
    let components = bad.map(|part| format!("{} is {}: {}", part.id, part.state.as_str(), part.message));
    let all: Vec<String> = policy.into_iter().chain(storage).chain(components).collect();
    let mut text = all.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("; ");
    if all.len() > 3 {
        text.push_str(&format!("; and {} more", all.len() - 3));
    }
    text
}

/// How the connection to the server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// `STARTING`, `HEALTHY`, `DEGRADED` or `FAILED`.
    pub state: AgentState,
    /// The message beside it.
    pub message: String,
    /// RFC 3339 of the last reply.
    pub last_check_in: Option<String>,
    /// Failures since then.
    pub failures: u32,
    /// Where the server is.
    pub servers: Vec<String>,
    /// Longest poll, when something on the way cuts longer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_limit_seconds: Option<u64>,
}

/// The policy that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its id.
    pub id: String,
    /// Its revision.
    pub revision: i64,
}

/// What `muster-agent status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Our id.
    pub agent_id: String,
    /// Our version.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// The whole.
    pub state: AgentState,
    /// The message beside it.
    pub message: String,
    /// The connection.
    pub fleet: FleetStatus,
    /// What runs.
    pub policy: Option<PolicyStatus>,
    /// How it runs.
    pub components: Vec<ComponentState>,
    /// Actions that wait.
    pub queued_actions: usize,
    /// Acks that wait.
    pub pending_acks: usize,
    /// The level in force.
    pub log_level: String,
    /// Whether policies are held against a pinned key.
    pub signing_key_pinned: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str, state: Health) -> ComponentState {
        ComponentState { id: id.into(), kind: "process".into(), state, message: "m".into() }
    }

    #[test]
    fn the_worst_wins_and_is_named() {
        let parts = Parts { has_policy: true, ..Parts::default() };
        assert_eq!(overall(&parts), (AgentState::Healthy, "Running".into()));
        assert_eq!(overall(&Parts::default()).0.wire(), "starting");
        let list: Vec<_> = ["a", "b", "c", "d"].map(|id| part(id, Health::Failed)).into();
        let (state, message) = overall(&Parts { components: &list, ..parts.clone() });
        assert_eq!(state.wire(), "DEGRADED");
        assert!(message.contains("a is FAILED: m") && message.ends_with("and 1 more"), "{message}");
        assert_eq!(overall(&Parts { revoked: true, components: &list, ..parts.clone() }).0.wire(), "error");
        assert!(overall(&Parts { rejection: Some("why"), ..parts }).1.contains("why"));
    }
}
