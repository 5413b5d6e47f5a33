//! What lists can be asked for.

use std::time::Duration;

use muster_core::action::Action;
use muster_core::agent::{AgentRecord, Family};
use muster_core::id::{AgentId, EnrollmentKeyId, HostId, PolicyId, SpaceId};
use muster_core::status::Status;
use muster_core::time::Timestamp;

/// Which agents: those that meet every condition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentFilter {
    /// Of this space. `None`: of any, which is for the server's own work and never for a person.
    pub space: Option<SpaceId>,
    /// Every one of these holds.
    pub conditions: Vec<AgentCondition>,
}

impl AgentFilter {
    /// Agents that meet all of these conditions.
    pub fn all(conditions: impl Into<Vec<AgentCondition>>) -> Self {
        Self { space: None, conditions: conditions.into() }
    }
}

/// A condition on an agent.
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
    /// On a host of one of these names, whatever their case.
    Hostnames(Vec<String>),
    /// On one of these policies.
    Policies(Vec<PolicyId>),
    /// On any policy.
    HasPolicy,
    /// With this revision of its policy as target: pinned to it, or following the newest one.
    TakesRevision(i64),
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
    /// Of one of these families.
    Families(Vec<Family>),
    /// On one of these hosts.
    Hosts(Vec<HostId>),
    /// On any host that is known.
    HasHost,
    /// Last seen before this time, as far as it was written down; of those never seen the enrollment counts.
    UnseenSince(Timestamp),
    /// Last seen after this time; of those never seen the enrollment counts.
    SeenAfter(Timestamp),
    /// Enrolled at or before this time.
    EnrolledBy(Timestamp),
    /// With this inactivity timeout, or with none.
    InactivityTimeout(Option<Duration>),
}

impl std::ops::Not for AgentCondition {
    type Output = Self;

    /// The agents that do not meet the condition.
    fn not(self) -> Self {
        Self::Not(Box::new(self))
    }
}

/// By what a list of agents is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentSort {
    /// Time of enrollment.
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

/// Where a list of agents goes on: behind the row of this value, among equals behind this id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCursor {
    /// What the list is sorted by, of the last row that was read.
    pub value: SortValue,
    /// The id of that row.
    pub id: AgentId,
}

/// A value that agents are sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortValue {
    /// A time in microseconds.
    Time(i64),
    /// A string.
    Text(String),
}

impl AgentSort {
    /// The cursor behind an agent.
    pub fn cursor(self, agent: &AgentRecord) -> AgentCursor {
        let value = match self {
            Self::EnrolledAt => SortValue::Time(agent.enrolled_at.as_micros()),
            Self::LastCheckin => SortValue::Time(agent.last_checkin.map_or(0, Timestamp::as_micros)),
            // As the engines' `lower` does it, which both know of ASCII alone.
            Self::Hostname => SortValue::Text(agent.hostname.to_ascii_lowercase()),
            Self::Status => SortValue::Text(agent.status.as_str().to_owned()),
            Self::Policy => SortValue::Text(agent.policy_id.as_ref().map(ToString::to_string).unwrap_or_default()),
            Self::Version => SortValue::Text(agent.agent_version.clone()),
        };
        AgentCursor { value, id: agent.id.clone() }
    }

    /// Whether the list is sorted by a time.
    pub fn is_by_time(self) -> bool {
        matches!(self, Self::EnrolledAt | Self::LastCheckin)
    }
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
    /// Rows between those of the page that are left out because they cannot be read.
    pub unreadable: u64,
}

/// Rows of a list that could be read, and how many between them could not.
#[derive(Clone, Debug)]
pub struct Readable<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Rows that are left out.
    pub unreadable: u64,
}

impl<T> Readable<T> {
    /// As a page of so many in all.
    pub fn of(self, total: u64) -> Listed<T> {
        let Self { items, unreadable } = self;
        Listed { items, total, unreadable }
    }
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
    /// Behind this one; the total counts all the same.
    pub after: Option<ActionCursor>,
}

/// Where a list of actions, newest first, goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionCursor {
    /// When the last one that was read was made.
    pub at: Timestamp,
    /// Its number; 0: it is the revision of a policy.
    pub seq: i64,
    /// The policy and the revision.
    pub revision: (String, i64),
}

impl ActionCursor {
    /// The cursor behind an action, or behind the revision `<policy>:<revision>` that is listed as one.
    pub fn behind(action: &Action) -> Self {
        let parts = action.id.as_str().rsplit_once(':').filter(|_| action.seq == 0);
        let revision = parts.map(|(policy, number)| (policy.to_owned(), number.parse().unwrap_or(0)));
        Self { at: action.created_at, seq: action.seq, revision: revision.unwrap_or_default() }
    }
}
