//! The agent's record: what is known of an enrolled agent, apart from the documents it reports.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::credential::SecretHash;
pub use crate::duplicate_hosts::DuplicateHosts;
use crate::id::{ActionId, AgentId, EnrollmentKeyId, HostId, KeyId, PolicyId, SpaceId};
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

/// Whether an agent's record outlives its absence (EA §3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AgentType {
    /// Stays until deleted.
    #[default]
    Permanent,
    /// Lives as long as its workload.
    Ephemeral,
    /// Resumes like a permanent one.
    Temporary,
}

/// The credential an agent authenticates with after enrolment. Gone from the record once revoked; what an agent had
/// before stays in the store as a [`Credential`](crate::credential::Credential).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKey {
    /// The public half.
    pub id: KeyId,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
}

/// Why an agent said that it left (EA §8).
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

/// An agent's own report that it left; cleared by its next check-in (EA61).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Why.
    pub reason: AuditReason,
    /// When, by the agent's clock.
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

/// What an agent last said of itself in a check-in, verbatim (D13).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportedHealth {
    /// `online`, `error`, `starting`, `DEGRADED`, or anything else.
    pub status: String,
    /// The message beside it.
    pub message: String,
    /// `input`, `output`, `other`: where the unhealthy components are; empty when healthy (D5).
    pub unhealthy_reason: Vec<String>,
}

/// An enrolled agent's record. One row; the store adds to `version` with every update and refuses an update that
/// does not start from the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecord {
    /// The agent's id.
    pub id: AgentId,
    /// Optimistic lock: 1 for a new record, one more with each update.
    pub version: i64,
    /// Which program it is.
    pub family: Family,
    /// The machine that it runs on; `None`: it is not known.
    pub host_id: Option<HostId>,
    /// Permanent, ephemeral or temporary.
    pub kind: AgentType,
    /// False once unenrolled; then there is no access key.
    pub active: bool,
    /// The live access key; `None` when revoked.
    pub access_key: Option<AccessKey>,
    /// The enrollment key it came in by (M7).
    pub enrollment_key_id: Option<EnrollmentKeyId>,
    /// The client's idempotency handle (EA §3.3).
    pub enrollment_id: Option<String>,
    /// `$pbkdf2-sha512$…` of the replace token (EA43).
    pub replace_token: Option<String>,
    /// When it enrolled; kept by a replacement.
    pub enrolled_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
    /// The assigned policy (0 or 1).
    pub policy_id: Option<PolicyId>,
    /// The revision of the assigned policy that it should run; `None`: the policy's newest, whichever that is.
    pub target_revision: Option<i64>,
    /// The policy that the agent says it runs.
    pub running_policy_id: Option<PolicyId>,
    /// The revision it runs, by check-in or ack; 0 when it wants a policy.
    pub policy_revision: i64,
    /// A revision that it was given and could not apply.
    pub policy_failure: Option<Box<PolicyFailure>>,
    /// Greatest sequence number of an action delivered and confirmed by an ack token; −1 when none (EA44).
    pub action_position: i64,
    /// The ack token that `action_position` came from.
    pub action_token: Option<ActionId>,
    /// Hosts that share its key.
    pub duplicate_hosts: Option<Box<DuplicateHosts>>,
    /// Tags, no duplicates, order of first appearance.
    pub tags: Vec<String>,
    /// The space that it belongs to: its enrollment key's.
    pub space: SpaceId,
    /// Version from the User-Agent, normalised (EA33).
    pub agent_version: String,
    /// Above the highest minor that this server was tested with (EA32).
    pub newer_than_tested: bool,
    /// Host name from the metadata, for lists and filters.
    pub hostname: String,
    /// The last check-in that was written down; presence in memory may know a later one.
    pub last_checkin: Option<Timestamp>,
    /// What it last said of itself.
    pub health: ReportedHealth,
    /// The status it is in: the result of the last transition.
    pub status: Status,
    /// Since when.
    pub status_since: Timestamp,
    /// When the status must be looked at again, at the latest; `None` when time alone changes nothing.
    pub status_deadline: Option<Timestamp>,
    /// Its own report that it left.
    pub audit: Option<AuditReport>,
    /// When an unenrol order was given, not yet acked.
    pub unenrollment_started_at: Option<Timestamp>,
    /// When it was unenrolled.
    pub unenrolled_at: Option<Timestamp>,
    /// `manual`, `forced`, `timeout`, `migrated`…
    pub unenrolled_reason: Option<String>,
    /// Its upgrade.
    pub upgrade: UpgradeState,
    /// What people noted about it: a JSON object.
    pub user_metadata: Option<Arc<str>>,
    /// Address it enrolled from.
    pub first_address: String,
    /// Address of its last check-in that was written down.
    pub last_address: String,
    /// The policy's inactivity timeout as it was at the last transition; `None`: never inactive.
    pub inactivity_timeout: Option<Duration>,
}

/// The documents that an agent reports; kept apart from the record, since they are large and change rarely.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentDocuments {
    /// `local_metadata`: a JSON object, or `null`.
    pub local_metadata: Option<Arc<str>>,
    /// `components`: a JSON array with payloads (EA59).
    pub components: Option<Arc<str>>,
}

/// A record with its documents, as the management plane reads it.
#[derive(Clone, Debug)]
pub struct AgentDetails {
    /// The record.
    pub record: AgentRecord,
    /// The documents.
    pub documents: AgentDocuments,
}
