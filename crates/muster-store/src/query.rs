//! What lists can be asked for.

use std::time::Duration;

use muster_core::id::{AgentId, EnrollmentKeyId, PolicyId, SpaceId};
use muster_core::status::Status;
use muster_core::time::Timestamp;

/// Which agents. Empty fields do not filter; filled ones must all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentFilter {
    /// Of this space. `None`: of any, which is for the server's own work and never for a person.
    pub space: Option<SpaceId>,
    /// One of these ids.
    pub ids: Option<Vec<AgentId>>,
    /// On one of these policies.
    pub policy_ids: Option<Vec<PolicyId>>,
    /// In one of these statuses.
    pub statuses: Option<Vec<Status>>,
    /// In none of these statuses.
    pub without_statuses: Vec<Status>,
    /// Carrying every one of these tags.
    pub tags: Vec<String>,
    /// Carrying at least one tag of each of these sets.
    pub any_tags: Vec<Vec<String>>,
    /// Carrying none of these tags.
    pub without_tags: Vec<String>,
    /// Carrying no tag at all.
    pub untagged: bool,
    /// Came in by this key (M7).
    pub enrollment_key_id: Option<EnrollmentKeyId>,
    /// Last seen before this time, as far as it was written down; of those never seen the enrolment counts.
    pub unseen_since: Option<Timestamp>,
    /// Last seen after this time; of those never seen the enrolment counts.
    pub seen_after: Option<Timestamp>,
    /// With another inactivity timeout than this one.
    pub without_inactivity_timeout: Option<Option<Duration>>,
    /// Every one of these holds.
    pub conditions: Vec<AgentCondition>,
}

/// What the plain fields of a filter can't say: alternatives between different fields, and their opposites.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentCondition {
    /// All of these hold.
    All(Vec<AgentCondition>),
    /// One of these holds.
    Any(Vec<AgentCondition>),
    /// This does not hold.
    Not(Box<AgentCondition>),
    /// One of these ids.
    Ids(Vec<AgentId>),
    /// On one of these policies.
    Policies(Vec<PolicyId>),
    /// On any policy.
    HasPolicy,
    /// In one of these statuses.
    Statuses(Vec<Status>),
    /// Carrying at least one of these tags.
    Tags(Vec<String>),
    /// Carrying any tag.
    HasTags,
    /// Came in by one of these keys.
    EnrollmentKeys(Vec<EnrollmentKeyId>),
    /// Came in by any key that is known.
    HasEnrollmentKey,
    /// Seen on several hosts at once.
    HasDuplicateHosts,
}

/// By what a list of agents is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentSort {
    /// Time of enrolment.
    #[default]
    EnrolledAt,
    /// Last check-in written down.
    LastCheckin,
    /// Host name.
    Hostname,
    /// Status.
    Status,
    /// Policy.
    Policy,
    /// Version, compared as text.
    Version,
}

/// A page: rows `offset..offset + limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Rows to skip.
    pub offset: u32,
    /// Rows at most.
    pub limit: u32,
}

/// A page's rows and the number of all that match.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    /// The rows.
    pub items: Vec<T>,
    /// All that match.
    pub total: u64,
}

/// Which actions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActionFilter {
    /// Of this space. `None`: of any, which is for the server's own work and never for a person.
    pub space: Option<SpaceId>,
    /// Given before this time.
    pub before: Option<Timestamp>,
    /// Given at or after this time.
    pub since: Option<Timestamp>,
    /// Addressed to this agent.
    pub agent_id: Option<AgentId>,
    /// Without CANCEL entries.
    pub without_cancels: bool,
    /// Among them the revisions of policies after the first, each as a POLICY_CHANGE with the id `<policy>:<revision>`.
    /// Not those addressed to one agent.
    pub with_policy_changes: bool,
}
