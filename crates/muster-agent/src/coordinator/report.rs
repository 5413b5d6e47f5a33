//! The agent's state, as on the wire and in `muster-agent status`.

use serde::{Deserialize, Serialize};

use crate::components::ComponentState;
use crate::model::build::INPUTS_MAX;
use crate::state::Fault;
use crate::upgrade::details::Details;

/// State of the agent as a whole (AG §3.3, §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AgentState {
    /// No policy yet.
    Starting,
    /// Running, without any fault.
    Healthy,
    /// A policy, a component or the storage has a fault.
    Degraded,
    /// The agent itself does not work.
    Failed,
    /// Leaving the fleet.
    Stopping,
    /// Being replaced by another version, until that starts.
    Upgrading,
    /// Not wanted: the fleet of a standalone agent.
    Stopped,
}

impl AgentState {
    /// Returns the `status` of a check-in. The protocol defines the mixed case.
    pub fn wire(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy | Self::Stopping | Self::Upgrading | Self::Stopped => "online",
            Self::Degraded => "DEGRADED",
            Self::Failed => "error",
        }
    }

    /// Returns the name that `muster-agent status` prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Failed => "FAILED",
            Self::Stopping => "STOPPING",
            Self::Upgrading => "UPGRADING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// The facts that the overall state depends on.
#[derive(Clone, Debug, Default)]
pub struct Parts<'a> {
    /// Whether the access key is revoked.
    pub revoked: bool,
    /// Whether the agent is leaving the fleet.
    pub leaving: bool,
    /// The version to which the agent is being upgraded.
    pub upgrading_to: Option<&'a str>,
    /// Whether a policy is in effect.
    pub has_policy: bool,
    /// Why the last policy was rejected.
    pub rejection: Option<(&'a str, Fault)>,
    /// Why the model of the policy cannot be built with the current variables.
    pub model_fault: Option<&'a str>,
    /// Number of inputs of the policy above the maximum.
    pub left_out: usize,
    /// Components and inputs that are left out, with the reason.
    pub blocked: &'a [String],
    /// Whether the stored state was corrupt, and the server has not sent the policy again.
    pub lost_state: bool,
    /// Why the state can't be stored.
    pub storage_fault: Option<&'a str>,
    /// Why the servers or the connection settings of the policy are not used.
    pub servers: Option<&'a str>,
    /// Why variables of the policy are missing or outdated.
    pub variables: &'a [String],
    /// State of the components.
    pub components: &'a [ComponentState],
}

/// Returns the overall state, and a message that names the causes.
pub fn overall(parts: &Parts<'_>) -> (AgentState, String) {
    // The most severe cause comes first: other faults follow from it.
    if parts.revoked {
        let message = "Access key revoked: the server rejects it, and no program is running. Enroll the agent again";
        return (AgentState::Failed, message.into());
    }
    if parts.leaving {
        return (AgentState::Stopping, "Unenrolling".into());
    }
    if let Some(version) = parts.upgrading_to {
        return (AgentState::Upgrading, format!("Upgrading to version {version}"));
    }
    let causes = causes(parts);
    // An invalid policy is a fault of the whole agent, unlike one component that does not run (AG54, AG55).
    if parts.model_fault.is_some() || parts.rejection.is_some_and(|(_, fault)| fault == Fault::Invalid) {
        return (AgentState::Failed, causes);
    }
    if !causes.is_empty() {
        return (AgentState::Degraded, causes);
    }
    if parts.has_policy {
        (AgentState::Healthy, running(parts.blocked))
    } else {
        (AgentState::Starting, "Waiting for the first policy".into())
    }
}

/// Returns the message of a healthy agent. What it leaves out as the policy and the host have it is no fault.
fn running(blocked: &[String]) -> String {
    match blocked {
        [] => "Running".into(),
        [one] => format!("Running without {one}"),
        [first, others @ ..] => format!("Running without {first}; and {} more", others.len()),
    }
}

/// Returns the first three causes, and the number of other causes.
fn causes(parts: &Parts<'_>) -> String {
    let kept = if parts.has_policy { ", keeping the last accepted one" } else { "" };
    let policy = parts.rejection.map(|(why, _)| format!("policy rejected{kept}: {why}"));
    let storage = parts.storage_fault.map(|why| format!("cannot store the state: {why}"));
    let bad = parts.components.iter().filter_map(ComponentState::fault);
    // The message of a failed component begins with the word, too.
    let reason = |message: &'_ str| message.strip_prefix("Failed: ").unwrap_or(message).to_owned();
    let components = bad.map(|(id, state, message)| format!("{id} is {}: {}", state.as_str(), reason(message)));
    let model = parts.model_fault.map(|why| format!("keeping the previous components: {why}"));
    let left_out = (parts.left_out > 0)
        .then(|| format!("inputs above the maximum of {INPUTS_MAX} do not run; left out: {}", parts.left_out));
    let lost =
        parts.lost_state.then(|| "the stored state was corrupt; waiting for the policy from the server".to_owned());
    let all: Vec<String> = policy
        .into_iter()
        .chain(lost)
        .chain(model)
        .chain(left_out)
        .chain(storage)
        .chain(parts.servers.map(str::to_owned))
        .chain(parts.variables.iter().cloned())
        .chain(components)
        .collect();
    // Servers and web pages display the message in one line.
    let mut text = all.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("; ");
    if all.len() > 3 {
        text.push_str(&format!("; and {} more", all.len() - 3));
    }
    text
}

/// State of the connection to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// `STARTING`, `HEALTHY`, `DEGRADED` or `FAILED`; `STOPPED` for a standalone agent.
    pub state: AgentState,
    /// Description of the state.
    pub message: String,
    /// Time of the last check-in that the server responded to or held (RFC 3339).
    pub last_check_in: Option<String>,
    /// Consecutive failures.
    pub failures: u32,
    /// URLs of the servers.
    pub servers: Vec<String>,
    /// Maximum duration of a poll in seconds, if a device on the network path cuts longer polls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_limit_seconds: Option<u64>,
}

impl FleetStatus {
    /// Returns whether a server has responded to a check-in, or holds one.
    pub fn is_connected(&self) -> bool {
        self.state == AgentState::Healthy || self.last_check_in.is_some()
    }
}

/// The policy in effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Id.
    pub id: String,
    /// Revision.
    pub revision: i64,
}

/// The content of `muster-agent status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Agent id.
    pub agent_id: String,
    /// Version of muster-agent.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Start time of the daemon (RFC 3339).
    #[serde(default)]
    pub started_at: String,
    /// Overall state.
    pub state: AgentState,
    /// Description of the state.
    pub message: String,
    /// Connection to the server.
    pub fleet: FleetStatus,
    /// Policy in effect.
    pub policy: Option<PolicyStatus>,
    /// State of the components.
    pub components: Vec<ComponentState>,
    /// Components and inputs that are left out, with the reason: a local rule excludes them, or a variable has no value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<String>,
    /// Number of queued actions.
    pub queued_actions: usize,
    /// Number of pending acks.
    pub pending_acks: usize,
    /// Log level in effect.
    pub log_level: String,
    /// Whether policies are verified with a pinned key.
    pub signing_key_pinned: bool,
    /// The upgrade in progress, or the last one, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Details>,
}

impl Snapshot {
    /// Replaces the control characters of everything that comes from policies, components and servers.
    #[must_use]
    pub fn printable(mut self) -> Self {
        let clean = |text: &mut String| {
            if text.chars().any(char::is_control) {
                *text = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            }
        };
        for text in [&mut self.agent_id, &mut self.version, &mut self.message, &mut self.fleet.message] {
            clean(text);
        }
        self.policy.iter_mut().for_each(|policy| clean(&mut policy.id));
        self.blocked.iter_mut().for_each(clean);
        for component in &mut self.components {
            clean(&mut component.id);
            clean(&mut component.kind);
            clean(&mut component.message);
            for unit in &mut component.units {
                clean(&mut unit.id);
                clean(&mut unit.message);
            }
        }
        if let Some(details) = &mut self.upgrade {
            clean(&mut details.target_version);
            let metadata = &mut details.metadata;
            [&mut metadata.error_msg, &mut metadata.retry_error_msg].into_iter().flatten().for_each(clean);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::components::Health;

    fn part(id: &str, state: Health) -> ComponentState {
        ComponentState { id: id.into(), kind: "process".into(), state, message: "m".into(), units: Vec::new() }
    }

    #[test]
    fn the_most_severe_fault_determines_the_state() {
        let parts = Parts { has_policy: true, ..Parts::default() };
        assert_eq!(overall(&parts), (AgentState::Healthy, "Running".into()));
        let blocked = ["input a: no value for ${env.X}".to_owned(), "b".to_owned()];
        let message = "Running without input a: no value for ${env.X}; and 1 more".to_owned();
        assert_eq!(overall(&Parts { blocked: &blocked, ..parts.clone() }), (AgentState::Healthy, message));
        assert_eq!(overall(&Parts::default()).0.wire(), "starting");
        let list: Vec<_> = ["a", "b", "c", "d"].map(|id| part(id, Health::Failed)).into();
        let (state, message) = overall(&Parts { components: &list, ..parts.clone() });
        assert_eq!(state.wire(), "DEGRADED");
        assert!(message.contains("a is FAILED: m") && message.ends_with("and 1 more"), "{message}");
        let (state, message) = overall(&Parts { left_out: 3, ..parts.clone() });
        assert_eq!(state, AgentState::Degraded);
        assert_eq!(message, "inputs above the maximum of 256 do not run; left out: 3");
        assert_eq!(overall(&Parts { revoked: true, components: &list, ..parts.clone() }).0.wire(), "error");
        assert!(overall(&Parts { rejection: Some(("why", Fault::Untrusted)), ..parts.clone() }).1.contains("why"));
        let upgrading = overall(&Parts { upgrading_to: Some("2"), components: &list, ..parts.clone() });
        assert_eq!((upgrading.0.as_str(), upgrading.0.wire()), ("UPGRADING", "online"));
        let invalid = overall(&Parts { rejection: Some(("why", Fault::Invalid)), ..parts });
        assert_eq!(invalid.0, AgentState::Failed);
    }
}
