//! Filters, sorting and paging of lists.

use std::time::Duration;

use muster_core::action::Action;
use muster_core::agent::{AgentRecord, AuditReason, Family};
use muster_core::fleetd::inventory::Kind;
use muster_core::fleetd::software::{Software, SoftwareId, Source};
use muster_core::host::Host;
use muster_core::id::{AgentId, EnrollmentKeyId, HostCheckId, HostId, PolicyId, RolloutId, SpaceId, UninstallTokenId};
use muster_core::rollout::Place;
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_core::upgrade::OpenUpgrade;
use muster_core::version::Version;

use crate::search::Fact;

/// Which uninstall tokens are listed. Parts are compared without case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSearch {
    /// All.
    All,
    /// Of policies whose id contains this.
    PolicyId(String),
    /// Of policies whose id or name contains this.
    PolicyIdOrName(String),
}

/// Row of a list of uninstall tokens: without the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedToken {
    /// Its id.
    pub id: UninstallTokenId,
    /// The policy.
    pub policy_id: PolicyId,
    /// Name of the policy; `None` if it was deleted.
    pub policy_name: Option<String>,
    /// Creation time.
    pub created_at: Timestamp,
}

/// Numbers of hosts of a host check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckCounts {
    /// Number of hosts that passed when the query last ran.
    pub passing: u64,
    /// Number of hosts that failed when the query last ran.
    pub failing: u64,
    /// Number of hosts on which the query did not run the last time. Those on which it ran before are also counted as passing or failing.
    pub errors: u64,
    /// The newest of their errors; empty without any.
    pub error: String,
}

/// Which hosts of a host check are selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckedHosts {
    /// Those that pass.
    Passing,
    /// Those that fail.
    Failing,
    /// Those on which the query did not run the last time.
    Errors,
}

/// Host of a host check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedHost {
    /// Its osqueryd.
    pub agent: AgentId,
    /// The host.
    pub host: Option<HostId>,
    /// Its name.
    pub hostname: String,
    /// Time since when it has been passing or failing; for [`CheckedHosts::Errors`], time of the error.
    pub since: Timestamp,
    /// Why the query did not run the last time; empty if it did.
    pub error: String,
}

/// Numbers of hosts on which a scheduled query does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureCount {
    /// Name of the query, as osquery logs it.
    pub name: String,
    /// Number of hosts on which it fails.
    pub failing: u64,
    /// Number of hosts on which osqueryd does not run it any more.
    pub denylisted: u64,
}

/// A document of the inventory of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryDocument {
    /// Its osqueryd.
    pub agent: AgentId,
    /// The kind.
    pub kind: Kind,
    /// The document, compressed.
    pub document: Vec<u8>,
}

/// The software of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSoftware {
    /// Packed ids.
    pub list: Vec<u8>,
    /// Time of its last change.
    pub changed_at: Timestamp,
    /// Number of packages that the list does not have because of a limit.
    pub left_out: u64,
}

/// Search for software.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoftwareSearch {
    /// Name, ignoring case; `*` stands for any characters. Empty for all.
    pub name: String,
    /// Source.
    pub source: Option<Source>,
}

/// Software that hosts of a space have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSoftware {
    /// Its id.
    pub id: SoftwareId,
    /// Name, version and source.
    pub software: Software,
    /// Number of hosts.
    pub hosts: u64,
}

/// Host that has software.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoftwareHost {
    /// Its osqueryd.
    pub agent: AgentId,
    /// The host.
    pub host: Option<HostId>,
    /// Its name.
    pub hostname: String,
}

/// Page of the hosts that have software.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoftwareHosts {
    /// The hosts.
    pub hosts: Vec<SoftwareHost>,
    /// Number behind which the next page begins; `None` if this is the last one.
    pub next: Option<u32>,
}

/// Filter for agents, which must meet all conditions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentFilter {
    /// The space; `None` for all spaces, which is only for the server itself, never for a user.
    pub space: Option<SpaceId>,
    /// Conditions, all of which must hold.
    pub conditions: Vec<AgentCondition>,
    /// The query from which the caller had it compiled, for the audit log.
    pub written: Option<Box<str>>,
}

impl AgentFilter {
    /// Creates a filter for agents that meet all of these conditions.
    pub fn all(conditions: impl Into<Vec<AgentCondition>>) -> Self {
        Self { conditions: conditions.into(), ..Self::default() }
    }
}

/// Agents of a family that run the same version and are in the same state of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionCount {
    /// Their family.
    pub family: Family,
    /// The version.
    pub version: String,
    /// Their upgrade, if one is in progress.
    pub open: Option<OpenUpgrade>,
    /// What they reported last of an upgrade, as it is stored.
    pub details: Option<String>,
    /// Their number.
    pub agents: u64,
}

/// Identifier of the hardware of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identifier {
    /// Hardware UUID, or the machine id of the operating system.
    Uuid,
    /// Serial number.
    Serial,
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
    /// An id from the first one up to, and without, the second one.
    IdsBetween(AgentId, AgentId),
    /// On a host with one of these names, ignoring case.
    Hostnames(Vec<String>),
    /// On a host whose name contains this, ignoring case. Nothing in it is a wildcard.
    HostnamePart(String),
    /// On a host with one of these identifiers of its hardware, ignoring case.
    Hardware(Identifier, Vec<String>),
    /// On a host whose identifier is known.
    HasHardware(Identifier),
    /// On one of these policies.
    Policies(Vec<PolicyId>),
    /// On any policy.
    HasPolicy,
    /// With this revision of its policy as target: pinned to it, or following the newest one.
    TakesRevision(i64),
    /// At a lower place than this one in rollouts.
    PlaceBelow(Place),
    /// On a host whose name matches a pattern, in which `*` stands for anything; ignoring case.
    HostnameLike(String),
    /// With this fact about the operating system; with `true`, one that starts with the value. Ignoring case.
    Os(Fact, String, bool),
    /// With one of these systems, each as [`AgentRecord::os`](muster_core::agent::AgentRecord::os) has it. The store makes it of [`Os`](Self::Os).
    Systems(Vec<String>),
    /// Whose host name, version, id, operating system or tags contain this text, in which `*` stands for anything; ignoring case.
    Text(String),
    /// Of a version within these bounds of [`sort_key`](muster_core::version::Version::sort_key): at least the first, and less than the second.
    VersionIn(i64, i64),
    /// With an upgrade in this state.
    UpgradeState(String),
    /// With details of an upgrade.
    HasUpgradeDetails,
    /// Selected by this rollout of an upgrade.
    InRollout(RolloutId),
    /// Runs one of these versions.
    Versions(Vec<String>),
    /// Runs the assigned policy in this revision or a newer one.
    RunsRevision(i64),
    /// Reported that it could not apply this revision.
    FailedRevision(i64),
    /// In one of these statuses.
    Statuses(Vec<Status>),
    /// Last reported as gone, for one of these reasons.
    Left(Vec<AuditReason>),
    /// Last reported as gone.
    HasLeft,
    /// Last reported as gone after this time.
    LeftAfter(Timestamp),
    /// Enrolled, and does not run the target revision of its policy, which exists since before this time.
    PolicyPendingSince(Timestamp),
    /// With at least one of these tags.
    Tags(Vec<String>),
    /// With any tag.
    HasTags,
    /// On a host with at least one of these labels, which are stored, by name ignoring case.
    Labels(Vec<String>),
    /// On a host with any label that is stored.
    HasLabels,
    /// Enrolled with one of these keys.
    EnrollmentKeys(Vec<EnrollmentKeyId>),
    /// Enrolled with a known key.
    HasEnrollmentKey,
    /// With duplicate hosts.
    HasDuplicateHosts,
    /// Of one of these families.
    Families(Vec<Family>),
    /// On one of these hosts.
    Hosts(Vec<HostId>),
    /// On a known host.
    HasHost,
    /// On a host that fails one of these host checks.
    FailsChecks(Vec<HostCheckId>),
    /// On a host on which one of these scheduled queries fails or is denylisted at this time.
    FailsQueries(Vec<String>, Timestamp),
    /// Last seen before this time according to the store. For agents that never checked in, the enrollment counts.
    UnseenSince(Timestamp),
    /// Last seen after this time. For agents that never checked in, the enrollment counts.
    SeenAfter(Timestamp),
    /// Enrolled at or before this time.
    EnrolledBy(Timestamp),
    /// Has checked in.
    HasCheckedIn,
    /// Reported errors of its outputs.
    HasFailingOutput,
    /// With this inactivity timeout, or with none.
    InactivityTimeout(Option<Duration>),
}

impl std::ops::Not for AgentCondition {
    type Output = Self;

    /// Returns the negated condition.
    fn not(self) -> Self {
        Self::Not(Box::new(self))
    }
}

/// Sort field of a list of agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentSort {
    /// Time of enrollment.
    #[default]
    EnrolledAt,
    /// Minute of the last check-in in the store.
    LastCheckin,
    /// Host name.
    Hostname,
    /// Status.
    Status,
    /// Policy.
    Policy,
    /// Version, compared number by number.
    Version,
}

/// Position in a list of agents: after the row with this value, and among equal values after this id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCursor {
    /// Sort value of the last row that was read.
    pub value: SortValue,
    /// Id of that row.
    pub id: AgentId,
}

/// A sort value of agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortValue {
    /// A number: a time in microseconds or minutes, or the sort key of a version.
    Number(i64),
    /// A string.
    Text(String),
}

impl AgentSort {
    /// Returns the cursor after an agent.
    pub fn cursor(self, agent: &AgentRecord) -> AgentCursor {
        let value = match self {
            Self::EnrolledAt => SortValue::Number(agent.enrolled_at.as_micros()),
            Self::LastCheckin => SortValue::Number(agent.last_checkin.map_or(0, Timestamp::as_minutes)),
            // Like the function `lower` of both engines, which converts ASCII only.
            Self::Hostname => SortValue::Text(agent.hostname.to_ascii_lowercase()),
            Self::Status => SortValue::Text(agent.status.as_str().to_owned()),
            Self::Policy => SortValue::Text(agent.policy_id.as_ref().map(ToString::to_string).unwrap_or_default()),
            Self::Version => SortValue::Number(Version::parse(&agent.agent_version).map_or(0, Version::sort_key)),
        };
        AgentCursor { value, id: agent.id.clone() }
    }

    /// Returns whether the list is sorted by a number.
    pub fn is_by_number(self) -> bool {
        matches!(self, Self::EnrolledAt | Self::LastCheckin | Self::Version)
    }
}

/// Position in a list of hosts: after the row with this name, and among equal names after this id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCursor {
    /// Name of the last row that was read, in lower case.
    pub name: String,
    /// Id of that row.
    pub id: HostId,
}

impl HostCursor {
    /// Returns the cursor after a host.
    pub fn behind(host: &Host) -> Self {
        // Like the function `lower` of both engines, which converts ASCII only.
        Self { name: host.hostname.to_ascii_lowercase(), id: host.id.clone() }
    }
}

/// The rows of a list of hosts that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRows {
    /// A page.
    Page(Page),
    /// At most so many rows after a cursor.
    After(HostCursor, u32),
    /// The last rows, at most so many, before a cursor.
    Before(HostCursor, u32),
}

impl HostRows {
    /// Returns the maximum number of rows.
    pub fn limit(&self) -> u32 {
        match self {
            Self::Page(page) => page.limit,
            Self::After(_, limit) | Self::Before(_, limit) => *limit,
        }
    }
}

/// A page: rows `offset..offset + limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Number of rows to skip.
    pub offset: u32,
    /// Maximum number of rows.
    pub limit: u32,
}

/// Rows of a page, and the total number of matches.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Total number of matches.
    pub total: u64,
    /// Number of rows of the page that are omitted because they cannot be read.
    pub unreadable: u64,
}

impl<T> Listed<T> {
    /// Converts the rows.
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Listed<U> {
        let Self { items, total, unreadable } = self;
        Listed { items: items.into_iter().map(convert).collect(), total, unreadable }
    }
}

/// Readable rows of a list, and the number of unreadable ones among them.
#[derive(Clone, Debug)]
pub struct Readable<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Number of omitted rows.
    pub unreadable: u64,
}

impl<T> Readable<T> {
    /// Converts to a page with this total.
    pub fn of(self, total: u64) -> Listed<T> {
        let Self { items, unreadable } = self;
        Listed { items, total, unreadable }
    }
}

/// Filter for actions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActionFilter {
    /// The space; `None` for all spaces, which is only for the server itself, never for a user.
    pub space: Option<SpaceId>,
    /// Created before this time.
    pub before: Option<Timestamp>,
    /// Created at or after this time.
    pub since: Option<Timestamp>,
    /// With this agent as a target.
    pub agent_id: Option<AgentId>,
    /// Without CANCEL actions.
    pub without_cancels: bool,
    /// Includes the revisions of policies after the first, each as a POLICY_CHANGE with the id `<policy>:<revision>`.
    /// Has no effect with `agent_id`.
    pub with_policy_changes: bool,
    /// After this one. The total includes all matches.
    pub after: Option<ActionCursor>,
    /// With at least one target within this scope, in its current enrollment. Totals and counts are of these targets.
    pub within: Option<ActionScope>,
}

/// The part of a space whose actions and policy revisions are listed.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionScope {
    /// What targets meet.
    pub agents: AgentCondition,
    /// The policies whose revisions are listed.
    pub policies: Vec<PolicyId>,
}

/// Position in a list of actions, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionCursor {
    /// Creation time of the last action that was read.
    pub at: Timestamp,
    /// Its sequence number; 0 for the revision of a policy.
    pub seq: i64,
    /// The policy and the revision.
    pub revision: (String, i64),
}

impl ActionCursor {
    /// Returns the cursor after an action, or after a revision `<policy>:<revision>` that is listed as one.
    pub fn behind(action: &Action) -> Self {
        let parts = action.id.as_str().rsplit_once(':').filter(|_| action.seq == 0);
        let revision = parts.map(|(policy, number)| (policy.to_owned(), number.parse().unwrap_or(0)));
        Self { at: action.created_at, seq: action.seq, revision: revision.unwrap_or_default() }
    }
}
