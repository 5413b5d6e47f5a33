//! The record of an enrolled agent, without the documents that it reports.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::credential::{CredentialKind, LiveCredentials};
pub use crate::duplicate_hosts::DuplicateHosts;
use crate::id::{ActionId, AgentId, EnrollmentKeyId, HostId, NodeId, PolicyId, SpaceId};
use crate::status::Status;
use crate::time::Timestamp;
pub use crate::upgrade::UpgradeState;

/// The program that an agent is, which determines its protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Elastic Agent.
    #[default]
    Elastic,
    /// Our own agent.
    Muster,
    /// fleetd's supervisor.
    Orbit,
    /// osqueryd.
    Osquery,
    /// An OpenTelemetry Collector, or any other agent that speaks OpAMP.
    Opamp,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 5] = [Self::Elastic, Self::Muster, Self::Orbit, Self::Osquery, Self::Opamp];

    // Without a wildcard below, so that whoever adds a family has to decide.
    /// Returns whether the report of an uninstallation is final, so that the credentials are revoked. muster-agent
    /// deletes them before it reports. An Elastic Agent stays active, and may come back with its key (EA140).
    pub const fn ends_when_uninstalled(self) -> bool {
        match self {
            Self::Muster => true,
            Self::Elastic | Self::Orbit | Self::Osquery | Self::Opamp => false,
        }
    }

    /// Returns whether its agents run policies. fleetd's programs get a configuration of their own.
    pub const fn runs_policies(self) -> bool {
        match self {
            Self::Elastic | Self::Muster | Self::Opamp => true,
            Self::Orbit | Self::Osquery => false,
        }
    }

    /// Returns whether its agents fetch actions. The protocol of fleetd's programs has none: an action would wait for ever.
    pub const fn takes_actions(self) -> bool {
        match self {
            Self::Elastic | Self::Muster | Self::Opamp => true,
            Self::Orbit | Self::Osquery => false,
        }
    }

    /// Returns whether a machine has one agent of the family, which keeps its record when it enrolls again (FL §2.4).
    pub const fn is_one_per_machine(self) -> bool {
        match self {
            Self::Orbit | Self::Osquery => true,
            Self::Elastic | Self::Muster | Self::Opamp => false,
        }
    }

    /// Returns the kind of the credential that an agent gets when it enrolls.
    pub const fn credential(self) -> CredentialKind {
        match self {
            Self::Orbit | Self::Osquery => CredentialKind::NodeKey,
            Self::Elastic | Self::Muster | Self::Opamp => CredentialKind::AccessKey,
        }
    }

    /// Returns its name in the API and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Elastic => "elastic",
            Self::Muster => "muster",
            Self::Orbit => "orbit",
            Self::Osquery => "osquery",
            Self::Opamp => "opamp",
        }
    }

    /// Returns the name of its program, as people know it.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Elastic => "Elastic Agent",
            Self::Muster => "muster-agent",
            Self::Orbit => "orbit",
            Self::Osquery => "osquery",
            Self::Opamp => "OpAMP agent",
        }
    }
}

/// Enrollment type, which determines how long a record is kept (EA §3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AgentType {
    /// Kept until deleted.
    #[default]
    Permanent,
    /// Exists as long as its workload.
    Ephemeral,
    /// Resumes like a permanent one.
    Temporary,
}

/// Reason in an agent's report that it left (EA §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditReason {
    /// The agent was uninstalled.
    Uninstall,
    /// A component detected that the agent is gone. The only reason that is final (EA138).
    Orphaned,
    /// The agent's key was revoked.
    KeyRevoked,
    /// The agent moved to another server.
    Migrated,
}

impl AuditReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Uninstall, Self::Orphaned, Self::KeyRevoked, Self::Migrated];

    /// The word of the protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uninstall => "uninstall",
            Self::Orphaned => "orphaned",
            Self::KeyRevoked => "key_revoked",
            Self::Migrated => "migrated",
        }
    }

    /// Parses a word of the protocol.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// Report of an agent that it left, cleared by its next check-in (EA61).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Reason.
    pub reason: AuditReason,
    /// Time by the agent's clock.
    pub at: Timestamp,
}

/// Who removed an agent from its host, with which program, and why: what muster-agent adds to its report that it left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Name of the user on the host.
    pub user: String,
    /// Id of the user.
    pub uid: u32,
    /// The command and its callers, without arguments.
    pub process: String,
    /// Reason that the user gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// URL of the server at which the agent is enrolled now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_url: Option<String>,
}

impl Departure {
    /// Removes control characters, and limits each part to `max` characters.
    #[must_use]
    pub fn limited(self, max: usize) -> Self {
        let limit = |text: String| text.chars().filter(|c| !c.is_control()).take(max).collect::<String>();
        Self {
            user: limit(self.user),
            uid: self.uid,
            process: limit(self.process),
            why: self.why.map(limit),
            new_url: self.new_url.map(limit),
        }
    }
}

/// A revision of the assigned policy that an agent stored but could not apply. Its check-ins claim this revision, with
/// status `error`, but the agent never acks it (AG160).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFailure {
    /// Revision that failed.
    pub revision: i64,
    /// Reason reported by the agent.
    pub reason: String,
}

/// Health that the agent reported in its last check-in, verbatim (D13).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportedHealth {
    /// `online`, `error`, `starting`, `DEGRADED`, or anything else.
    pub status: String,
    /// Human-readable message.
    pub message: String,
    /// Where the unhealthy components are: `input`, `output`, `other`; empty if healthy (D5).
    pub unhealthy_reason: Vec<String>,
}

/// Record of an enrolled agent. The store increments `version` with every update and rejects an update that
/// is not based on the newest version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecord {
    // The record is in memory for every active agent, so what is large or rarely needed is boxed (`policy_failure`,
    // `duplicate_hosts`) or kept in `AgentDocuments`.
    /// The agent's id.
    pub id: AgentId,
    /// Version for optimistic locking, from 1.
    pub version: i64,
    /// Its family.
    pub family: Family,
    /// Host that it runs on; `None` if unknown.
    // Both of the next fields come from the agent and prove nothing: they must never decide about access.
    pub host_id: Option<HostId>,
    /// Previous id reported by its host, at this or another server (AG157). Not authenticated: it groups records, and
    /// grants nothing.
    pub former_id: Option<AgentId>,
    /// Permanent, ephemeral or temporary.
    pub kind: AgentType,
    /// Whether it is enrolled. An unenrolled agent has no live credential.
    pub active: bool,
    /// Live credentials.
    // Revoked ones are only in the store. The store compares this list before and after an update, and writes the
    // difference.
    pub credentials: LiveCredentials,
    /// Enrollment key that it enrolled with (M7).
    pub enrollment_key_id: Option<EnrollmentKeyId>,
    /// The client's idempotency handle (EA §3.3).
    pub enrollment_id: Option<String>,
    /// `$pbkdf2-sha512$…` of the replace token (EA43).
    pub replace_token: Option<String>,
    /// Time of enrollment; kept by a replacement.
    pub enrolled_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
    /// The assigned policy (0 or 1).
    // Three different things: the target (`policy_id`, `target_revision`), the report (`running_policy_id`), and the
    // revision of the target policy that the agent is known to have (`policy_revision`).
    pub policy_id: Option<PolicyId>,
    /// Target revision of the assigned policy; `None` follows the newest one, so that a new revision writes no agent
    /// record.
    pub target_revision: Option<i64>,
    /// Policy that the agent reports as running.
    pub running_policy_id: Option<PolicyId>,
    /// Running revision of the assigned policy, from check-ins or acks; 0 if a policy is due.
    pub policy_revision: i64,
    /// Time since which it runs that revision.
    pub policy_revision_at: Option<Timestamp>,
    /// Delivered revision that it could not apply.
    pub policy_failure: Option<Box<PolicyFailure>>,
    /// Greatest sequence number confirmed by an ack token; −1 if none (EA44).
    // Everything up to this number was delivered. It is not per action, so acks can arrive in any order without moving
    // it.
    pub action_position: i64,
    /// Ack token that `action_position` is from.
    pub action_token: Option<ActionId>,
    /// Server to which it last checked in; `None` before its first check-in.
    // Only this server may take an unchanged report for no news: another one may have recorded something else since.
    pub node: Option<NodeId>,
    /// Hosts that share its key.
    pub duplicate_hosts: Option<Box<DuplicateHosts>>,
    /// Tags, without duplicates, in the order in which they were added.
    pub tags: Vec<String>,
    /// Space of the enrollment key.
    pub space: SpaceId,
    /// Normalized version from the User-Agent (EA33).
    pub agent_version: String,
    /// Whether the version is newer than the highest tested one (EA32).
    pub newer_than_tested: bool,
    /// Host name from the metadata, for lists and filters.
    pub hostname: String,
    /// Platform, family, name, version and architecture of the operating system, one in each line.
    pub os: String,
    /// Hardware UUID and serial number, one in each line; empty if the agent reports neither ([`AgentRecord::hardware_uuid`]).
    pub hardware: Box<str>,
    /// Last check-in in the store; presence in memory may be later.
    // Not updated by heartbeats that change nothing: those are presence, which is written in batches.
    pub last_checkin: Option<Timestamp>,
    /// Reported health.
    pub health: ReportedHealth,
    /// Status after the last transition.
    pub status: Status,
    /// Time of the last transition.
    pub status_since: Timestamp,
    /// Time at which the status must be evaluated again; `None` if time alone does not change it.
    // Indexed in the store: the timer reads only the agents that are due.
    pub status_deadline: Option<Timestamp>,
    /// Report of its departure.
    pub audit: Option<AuditReport>,
    /// Who caused the departure, if the report says so.
    pub departure: Option<Box<Departure>>,
    /// Creation time of a pending UNENROLL action.
    pub unenrollment_started_at: Option<Timestamp>,
    /// Time of unenrollment.
    pub unenrolled_at: Option<Timestamp>,
    /// `manual`, `forced`, `timeout`, `migrated`…
    pub unenrolled_reason: Option<String>,
    /// State of its upgrade.
    pub upgrade: UpgradeState,
    /// User-provided metadata: a JSON object.
    pub user_metadata: Option<Arc<str>>,
    /// Address of its enrollment.
    pub first_address: String,
    /// Address of its last stored check-in.
    pub last_address: String,
    /// Inactivity timeout of the policy; `None` means never inactive. A copy, so that the status is evaluated without
    /// reading the policy; changes of the policy update it.
    pub inactivity_timeout: Option<Duration>,
    /// Seconds between two requests, by the configuration that the agent was sent last; 0 unless that delays its status "offline"
    /// ([`stored_interval`](crate::status::stored_interval)).
    pub contact_interval: u32,
}

impl AgentRecord {
    /// Returns the hardware UUID of its host, or the machine id of the operating system, in lower case; empty if it is unknown. Reported by
    /// the host: it proves nothing.
    pub fn hardware_uuid(&self) -> &str {
        self.hardware.split_once('\n').map_or("", |(uuid, _)| uuid)
    }

    /// Returns the serial number of its host, in lower case; empty if it is unknown. Reported by the host: it proves nothing.
    pub fn serial(&self) -> &str {
        self.hardware.split_once('\n').map_or("", |(_, serial)| serial)
    }
}

/// Documents that an agent reports, stored apart from the record because they are large and change rarely.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentDocuments {
    /// `local_metadata`: a JSON object, or `null`.
    pub local_metadata: Option<Arc<str>>,
    /// `components`: a JSON array with payloads (EA59).
    pub components: Option<Arc<str>>,
}

/// A record with its documents, for the management API.
#[derive(Clone, Debug)]
pub struct AgentDetails {
    /// The record.
    pub record: AgentRecord,
    /// The documents.
    pub documents: AgentDocuments,
}
