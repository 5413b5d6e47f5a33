//! Events: transitions of agents, keys, policies, rollouts and servers that people want to be told of.
//!
//! An event is written in the same commit as the transition, so that neither exists without the other. Which transition is
//! which event is decided here, from the records before and after. Most commits are no event: a heartbeat never is.

mod agent;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::agent::{left_space, of_change, of_enrollment, of_purge};
use crate::enrollment_key::EnrollmentKey;
use crate::id::{NodeId, PolicyId, SpaceId};
use crate::policy::Policy;
use crate::policy::bootstrap::Fallback;
use crate::rollout::{Rollout, State, Subject as RolloutSubject};
use crate::time::Timestamp;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $severity:ident;)+) => {
        /// Kind of an event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum EventKind {
            $($(#[$doc])* #[serde(rename = $word)] $name,)+
        }

        impl EventKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns its name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// Returns how urgent it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity),+ }
            }
        }
    };
}

/// Urgency of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something failed or is missing.
    Error,
    /// Something needs attention.
    Warning,
    /// Normal, but significant.
    Notice,
    /// Informational.
    Info,
}

kinds! {
    /// An agent enrolled.
    AgentEnrolled = "agent.enrolled", Notice;
    /// An agent enrolled again under its id.
    AgentReenrolled = "agent.reenrolled", Notice;
    /// An offline or inactive agent is back.
    AgentOnline = "agent.online", Notice;
    /// An agent was not seen for five minutes.
    AgentOffline = "agent.offline", Warning;
    /// An agent was not seen for the inactivity timeout of its policy.
    AgentInactive = "agent.inactive", Warning;
    /// An agent reports that it is degraded.
    AgentDegraded = "agent.degraded", Warning;
    /// An agent reports a failure.
    AgentError = "agent.error", Error;
    /// A degraded or failed agent is healthy, or one that was reported as uninstalled or orphaned is back.
    AgentRecovered = "agent.recovered", Notice;
    /// An agent reports its uninstallation.
    AgentUninstalled = "agent.uninstalled", Error;
    /// A component reports that its agent is gone.
    AgentOrphaned = "agent.orphaned", Error;
    /// An agent reports that it moved to another server.
    AgentMigrated = "agent.migrated", Warning;
    /// An agent enrolled in another space, with a key of that space.
    AgentLeftSpace = "agent.left_space", Warning;
    /// A credential of an enrolled agent was revoked.
    AgentKeyRevoked = "agent.key_revoked", Warning;
    /// An agent was unenrolled; `forced` in the detail says how.
    AgentUnenrolled = "agent.unenrolled", Warning;
    /// The record of an unenrolled agent was deleted after its retention.
    AgentPurged = "agent.purged", Info;
    /// Two hosts use the key of one agent.
    AgentDuplicated = "agent.duplicated", Error;
    /// An upgrade of an agent was requested.
    UpgradeStarted = "agent.upgrade.started", Info;
    /// An upgrade succeeded.
    UpgradeSucceeded = "agent.upgrade.succeeded", Notice;
    /// An upgrade failed.
    UpgradeFailed = "agent.upgrade.failed", Error;
    /// An agent returned to its previous version.
    UpgradeRolledBack = "agent.upgrade.rolled_back", Warning;
    /// An agent could not apply a revision of its policy.
    AgentPolicyFailed = "agent.policy.failed", Error;
    /// A policy was created.
    PolicyCreated = "policy.created", Info;
    /// A policy has a new revision.
    PolicyUpdated = "policy.updated", Info;
    /// An enrollment key was created.
    TokenCreated = "token.created", Notice;
    /// An enrollment key was revoked.
    TokenRevoked = "token.revoked", Notice;
    /// A rollout halted, because its agents became unhealthy.
    RolloutHalted = "rollout.halted", Error;
    /// A rollout has reached all agents.
    RolloutCompleted = "rollout.completed", Notice;
    /// A rollout was rolled back.
    RolloutRolledBack = "rollout.rolled_back", Warning;
    /// A server has joined the fleet.
    GatewayConnected = "gateway.connected", Notice;
    /// A server was lost, or most agents went offline at once.
    GatewayLost = "gateway.lost", Error;
    /// The server cannot use the settings of an output, and uses its bootstrap settings.
    OutputFallback = "output.fallback", Warning;
    /// The server uses the settings of an output again.
    OutputRecovered = "output.recovered", Notice;
    /// A test of a receiver.
    Test = "test", Info;
}

impl EventKind {
    /// Parses a name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }

    /// Returns whether events of this kind are held for the digest window: the network or a restart can cause many of them at
    /// once. All others are sent immediately.
    pub const fn is_held(self) -> bool {
        matches!(
            self,
            Self::AgentEnrolled
                | Self::AgentOnline
                | Self::AgentOffline
                | Self::AgentInactive
                | Self::AgentDegraded
                | Self::AgentError
        )
    }
}

impl std::fmt::Display for EventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// Its kind.
    pub kind: EventKind,
    /// Its space; `None` concerns every space.
    pub space: Option<SpaceId>,
    /// What it happened to.
    pub subject: Subject,
    /// The state before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The state after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// What else is known, as a JSON object. Without secrets.
    pub detail: Value,
}

/// What an event happened to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// `agent`, `policy`, `enrollment_key`, `rollout`, `output` or `server`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its name, for people: the host name of an agent.
    pub name: String,
    /// Policy of an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<PolicyId>,
    /// Tags of an agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Server to which an agent last checked in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<NodeId>,
}

impl Subject {
    fn new(kind: &str, id: &impl ToString, name: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), id: id.to_string(), name: name.into(), ..Self::default() }
    }
}

/// Returns the event of a new enrollment key.
pub fn of_new_key(key: &EnrollmentKey) -> Event {
    let detail = json!({"policy_id": key.policy_id, "expires_at": key.expires_at.map(|at| at.to_string()), "created_by": key.created_by});
    of_key(EventKind::TokenCreated, key, key.created_at, detail)
}

/// Returns the event of the revocation of an enrollment key.
pub fn of_revoked_key(key: &EnrollmentKey, now: Timestamp) -> Event {
    of_key(EventKind::TokenRevoked, key, now, json!({"policy_id": key.policy_id, "uses": key.uses}))
}

fn of_key(kind: EventKind, key: &EnrollmentKey, at: Timestamp, detail: Value) -> Event {
    let subject = Subject::new("enrollment_key", &key.id, key.name.clone());
    Event { at, kind, space: Some(key.space.clone()), subject, before: None, after: None, detail }
}

/// Returns the event of a new or changed policy.
pub fn of_policy(policy: &Policy, kind: EventKind) -> Event {
    let detail = json!({"revision": policy.revision, "updated_by": policy.updated_by});
    let subject = Subject::new("policy", &policy.id, policy.name.clone());
    Event { at: policy.updated_at, kind, space: Some(policy.space.clone()), subject, before: None, after: None, detail }
}

/// Returns the event of the new state of a rollout, if it is one that people want to be told of.
pub fn of_rollout(rollout: &Rollout) -> Option<Event> {
    let (kind, reason) = match &rollout.state {
        State::Halted { breach, .. } => (EventKind::RolloutHalted, Some(breach.to_string())),
        State::Completed => (EventKind::RolloutCompleted, None),
        State::RolledBack { halted } => (EventKind::RolloutRolledBack, halted.as_ref().map(ToString::to_string)),
        State::Created | State::Running | State::AwaitingApproval | State::AwaitingAgents | State::Paused => {
            return None;
        }
    };
    let detail = match &rollout.subject {
        RolloutSubject::Policy { policy, revision, .. } => {
            json!({"policy_id": policy, "revision": revision, "wave": rollout.started.len(), "reason": reason})
        }
        RolloutSubject::Upgrade { version, .. } => {
            json!({"version": version, "wave": rollout.started.len(), "reason": reason})
        }
    };
    Some(Event {
        at: rollout.updated_at,
        kind,
        space: Some(rollout.space.clone()),
        subject: Subject::new("rollout", &rollout.id, rollout.id.to_string()),
        before: None,
        after: Some(rollout.state.as_str().to_owned()),
        detail,
    })
}

/// Returns the event of a server that has joined or was lost. It concerns every space.
pub fn of_server(kind: EventKind, id: &NodeId, name: &str, now: Timestamp) -> Event {
    let subject = Subject { server: Some(id.clone()), ..Subject::new("server", id, name) };
    Event { at: now, kind, space: None, subject, before: None, after: None, detail: json!({"cause": "lease expired"}) }
}

/// Returns the event of an output whose bootstrap settings come into use, or go out of it. `name` is the output's name, or
/// that of the policy that defines it.
pub fn of_output(
    output: &str,
    space: Option<SpaceId>,
    name: &str,
    fallback: Option<&Fallback>,
    now: Timestamp,
) -> Event {
    let kind = if fallback.is_some() { EventKind::OutputFallback } else { EventKind::OutputRecovered };
    let detail = json!({"reason": fallback.map(|fallback| fallback.reason.as_str())});
    Event { at: now, kind, space, subject: Subject::new("output", &output, name), before: None, after: None, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.as_str()), Some(*kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.as_str()));
        }
        assert_eq!(EventKind::parse("agent.nonsense"), None);
    }

    #[test]
    fn the_loss_of_a_server_concerns_every_space() {
        let lost = of_server(EventKind::GatewayLost, &NodeId::trusted("n"), "one", Timestamp::from_micros(5));
        assert_eq!((lost.space, lost.subject.server), (None, Some(NodeId::trusted("n"))));
    }
}
