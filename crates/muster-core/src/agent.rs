//! The record of an enrolled agent, apart from the documents that it reports.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::credential::LiveCredentials;
pub use crate::duplicate_hosts::DuplicateHosts;
use crate::id::{ActionId, AgentId, EnrollmentKeyId, HostId, PolicyId, SpaceId};
use crate::status::Status;
use crate::time::Timestamp;
pub use crate::upgrade::UpgradeState;

/// Which program an agent is, and so which protocol it speaks.
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
    /// Every family.
    pub const ALL: [Self; 5] = [Self::Elastic, Self::Muster, Self::Orbit, Self::Osquery, Self::Opamp];

    /// Whether an agent that reports its uninstallation is gone for good, so that its credentials end with it. Ours
    /// deletes them before it says so. An Elastic Agent stays active, and may come back with its key (EA140).
    pub const fn ends_when_uninstalled(self) -> bool {
        match self {
            Self::Muster => true,
            Self::Elastic | Self::Orbit | Self::Osquery | Self::Opamp => false,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Elastic => "elastic",
            Self::Muster => "muster",
            Self::Orbit => "orbit",
            Self::Osquery => "osquery",
            Self::Opamp => "opamp",
        }
    }
}

/// Enrolment type: whether a record outlives the agent's absence (EA §3.1).
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
    /// A component noticed that the agent is gone. The only reason that sticks (EA138).
    Orphaned,
    /// The agent's key was revoked.
    KeyRevoked,
    /// The agent moved to another server.
    Migrated,
}

/// Report of an agent that it left, cleared by its next check-in (EA61).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Reason.
    pub reason: AuditReason,
    /// Time by the agent's clock.
    pub at: Timestamp,
}

/// A revision of the assigned policy that an agent stored and could not apply: its check-ins claim the revision all the
/// same, with status `error`, and it is never acked (AG160).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFailure {
    /// The revision.
    pub revision: i64,
    /// What the agent says of it.
    pub reason: String,
}

/// Health that the agent reported in its last check-in, verbatim (D13).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportedHealth {
    /// `online`, `error`, `starting`, `DEGRADED`, or anything else.
    pub status: String,
    /// Human-readable message.
    pub message: String,
    /// `input`, `output`, `other`: where the unhealthy components are; empty when healthy (D5).
    pub unhealthy_reason: Vec<String>,
}

/// Record of an enrolled agent. The store increments `version` with every update and rejects an update that
/// is not based on the newest version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecord {
    /// The agent's id.
    pub id: AgentId,
    /// Version for optimistic locking, from 1.
    pub version: i64,
    /// Which program it is.
    pub family: Family,
    /// The machine that it runs on; `None`: it is not known.
    pub host_id: Option<HostId>,
    /// The id that its host says it had before, here or at another server (AG157). It is the host's own word: it groups
    /// records, and gives no right to anything.
    pub former_id: Option<AgentId>,
    /// Permanent, ephemeral or temporary.
    pub kind: AgentType,
    /// False if unenrolled, in which case there is no live credential.
    pub active: bool,
    /// What it authenticates with after enrolment; none once it is revoked.
    pub credentials: LiveCredentials,
    /// Enrollment key that it enrolled with (M7).
    pub enrollment_key_id: Option<EnrollmentKeyId>,
    /// The client's idempotency handle (EA §3.3).
    pub enrollment_id: Option<String>,
    /// `$pbkdf2-sha512$…` of the replace token (EA43).
    pub replace_token: Option<String>,
    /// Time of enrolment; kept by a replacement.
    pub enrolled_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
    /// The assigned policy (0 or 1).
    pub policy_id: Option<PolicyId>,
    /// The revision of the assigned policy that it should run; `None`: the policy's newest, whichever that is.
    pub target_revision: Option<i64>,
    /// Policy that the agent reports as running.
    pub running_policy_id: Option<PolicyId>,
    /// Revision that it runs, by check-in or ack; 0 if it needs a policy.
    pub policy_revision: i64,
    /// A revision that it was given and could not apply.
    pub policy_failure: Option<Box<PolicyFailure>>,
    /// Greatest sequence number confirmed by an ack token; −1 if none (EA44).
    pub action_position: i64,
    /// Ack token that `action_position` is from.
    pub action_token: Option<ActionId>,
    /// Hosts that share its key.
    pub duplicate_hosts: Option<Box<DuplicateHosts>>,
    /// Tags without duplicates, in the order of first appearance.
    pub tags: Vec<String>,
    /// The space that it belongs to: its enrollment key's.
    pub space: SpaceId,
    /// Version from the User-Agent, normalised (EA33).
    pub agent_version: String,
    /// Whether the version is newer than the highest tested one (EA32).
    pub newer_than_tested: bool,
    /// Host name from the metadata, for lists and filters.
    pub hostname: String,
    /// Last check-in in the store; presence in memory may be later.
    pub last_checkin: Option<Timestamp>,
    /// Reported health.
    pub health: ReportedHealth,
    /// Status: the result of the last transition.
    pub status: Status,
    /// Time since when it holds.
    pub status_since: Timestamp,
    /// Time at which the status must be evaluated again; `None` if time alone changes nothing.
    pub status_deadline: Option<Timestamp>,
    /// Report that it left.
    pub audit: Option<AuditReport>,
    /// Creation time of a pending UNENROLL action.
    pub unenrollment_started_at: Option<Timestamp>,
    /// Time of unenrolment.
    pub unenrolled_at: Option<Timestamp>,
    /// `manual`, `forced`, `timeout`, `migrated`…
    pub unenrolled_reason: Option<String>,
    /// Its upgrade.
    pub upgrade: UpgradeState,
    /// User-provided metadata: a JSON object.
    pub user_metadata: Option<Arc<str>>,
    /// Address of its enrolment.
    pub first_address: String,
    /// Address of its last stored check-in.
    pub last_address: String,
    /// Inactivity timeout of the policy at the last transition; `None` means never inactive.
    pub inactivity_timeout: Option<Duration>,
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
