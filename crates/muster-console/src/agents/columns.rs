//! Columns of the list of agents: what each shows, in the page and as CSV.

use std::collections::HashMap;

use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_core::policy::Policy;
use muster_core::reported::{is_visible, shortened_to};
use muster_core::rollout::Rollout;
use muster_core::time::Timestamp;
use muster_fleet::agent_views::AgentView;
use muster_store::query::AgentSort;

use super::agent::name_of;
use super::report::SHORT;
use crate::text::{Badge, Moment, os_name};

/// Maximum length of a message in a row, characters.
const MESSAGE: usize = 120;

/// What the rows of a page need besides the agents.
pub struct Around {
    /// The policies of the rows; those that the viewer may not read are missing.
    pub policies: HashMap<PolicyId, Policy>,
    /// The rollouts of these policies that have not ended.
    pub rollouts: HashMap<PolicyId, Rollout>,
    /// Names of those that are missing.
    pub policy_names: HashMap<PolicyId, String>,
    /// Names of the enrollment keys of the rows.
    pub keys: HashMap<EnrollmentKeyId, String>,
    /// Whether the viewer may read enrollment keys.
    pub has_keys: bool,
    /// The time.
    pub now: Timestamp,
}

/// A cell of the table.
pub enum Cell {
    /// The host, with the operating system.
    Host {
        /// Host name, or the id if there is none.
        name: String,
        /// Operating system.
        os: String,
    },
    /// The status, with the message.
    Status(Badge, String),
    /// The policy.
    Policy {
        /// Id.
        id: String,
        /// Name; empty if it is unknown.
        name: String,
        /// Whether the viewer may read the policy.
        is_readable: bool,
        /// Running revision; empty if none is known.
        revision: String,
        /// Whether the agent should run another one.
        is_behind: bool,
        /// The newest revision, if the agent gets it only with a later wave of a rollout.
        later: Option<i64>,
    },
    /// The enrollment key.
    Key {
        /// Id.
        id: String,
        /// Name; empty if it is unknown.
        name: String,
        /// Whether the viewer may read the key.
        is_readable: bool,
    },
    /// A time.
    Time(Option<Moment>),
    /// Tags.
    Tags(Vec<String>),
    /// Anything else.
    Text(String),
}

/// A column.
#[derive(Clone, Copy)]
pub struct Column {
    /// Name in URLs and in the first line of CSV files.
    pub key: &'static str,
    /// Heading.
    pub name: &'static str,
    /// How the list is sorted by it, if it can be.
    pub sort: Option<AgentSort>,
    /// The cell of an agent.
    pub cell: fn(&AgentView, &Around) -> Cell,
    /// The value in CSV files.
    pub value: fn(&AgentView) -> String,
}

/// Keys of the columns that are shown unless others are chosen.
const USUAL: [&str; 7] = ["hostname", "status", "policy_id", "version", "last_checkin", "enrolled_at", "tags"];
/// Keys of the columns of a CSV file unless others are chosen.
const USUAL_CSV: [&str; 11] = [
    "hostname",
    "status",
    "policy_id",
    "revision",
    "version",
    "os",
    "last_checkin",
    "enrolled_at",
    "tags",
    "message",
    "id",
];

const fn text(
    key: &'static str,
    name: &'static str,
    cell: fn(&AgentView, &Around) -> Cell,
    value: fn(&AgentView) -> String,
) -> Column {
    Column { key, name, sort: None, cell, value }
}

const fn sorted(column: Column, sort: AgentSort) -> Column {
    Column { sort: Some(sort), ..column }
}

fn time(at: Option<Timestamp>) -> String {
    at.map(Timestamp::to_rfc3339_seconds).unwrap_or_default()
}

fn os(view: &AgentView) -> String {
    os_name(view.details.documents.local_metadata.as_deref())
}

fn or_empty<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

macro_rules! plain {
    ($key:literal, $name:literal, $value:expr) => {
        text($key, $name, |view, _| Cell::Text($value(view)), $value)
    };
}

macro_rules! moment {
    ($key:literal, $name:literal, $at:expr) => {
        text($key, $name, |view, around| Cell::Time(Moment::of($at(view), around.now)), |view| time($at(view)))
    };
}

impl Cell {
    /// Whether it can be the link to the agent: it is no link to something else, and has something to click on.
    pub fn can_link(&self) -> bool {
        match self {
            Self::Text(text) => is_visible(text),
            Self::Status(..) | Self::Time(_) => true,
            Self::Host { .. } | Self::Policy { .. } | Self::Key { .. } | Self::Tags(_) => false,
        }
    }
}

impl Column {
    /// All columns, in their usual order.
    pub const ALL: [Self; 21] = [
        sorted(text("hostname", "Host", host, |view| view.details.record.hostname.clone()), AgentSort::Hostname),
        sorted(
            text("status", "Status", status, |view| view.details.record.status.as_str().to_owned()),
            AgentSort::Status,
        ),
        // The store sorts by the id of the policy, which is not what the column shows.
        text("policy_id", "Policy", policy, |view| or_empty(view.details.record.policy_id.as_ref())),
        plain!("revision", "Revision", |view: &AgentView| view.details.record.policy_revision.to_string()),
        sorted(
            plain!("version", "Version", |view: &AgentView| view.details.record.agent_version.clone()),
            AgentSort::Version,
        ),
        plain!("os", "Operating system", os),
        sorted(moment!("last_checkin", "Last check-in", |view: &AgentView| view.last_checkin), AgentSort::LastCheckin),
        sorted(
            moment!("enrolled_at", "Enrolled", |view: &AgentView| Some(view.details.record.enrolled_at)),
            AgentSort::EnrolledAt,
        ),
        text(
            "tags",
            "Tags",
            |view, _| Cell::Tags(view.details.record.tags.clone()),
            |view| view.details.record.tags.join(" "),
        ),
        text(
            "message",
            "Message",
            |view, _| Cell::Text(shortened_to(&view.details.record.health.message, SHORT).into_owned()),
            |view| view.details.record.health.message.clone(),
        ),
        moment!("status_since", "Status since", |view: &AgentView| Some(view.details.record.status_since)),
        moment!("revision_since", "Revision since", |view: &AgentView| view.details.record.policy_revision_at),
        plain!("upgrade", "Upgrade", |view: &AgentView| {
            view.details.record.upgrade.open.as_ref().map(|open| open.version.clone()).unwrap_or_default()
        }),
        plain!("family", "Program", |view: &AgentView| view.details.record.family.program().to_owned()),
        plain!("address", "Address", |view: &AgentView| view.details.record.last_address.clone()),
        plain!("first_address", "Address at enrollment", |view: &AgentView| view.details.record.first_address.clone()),
        text("enrollment_key_id", "Enrollment key", key, |view| {
            or_empty(view.details.record.enrollment_key_id.as_ref())
        }),
        plain!("host_id", "Host id", |view: &AgentView| or_empty(view.details.record.host_id.as_ref())),
        plain!("server", "Server", |view: &AgentView| or_empty(view.details.record.node.as_ref())),
        moment!("unenrolled_at", "Unenrolled", |view: &AgentView| view.details.record.unenrolled_at),
        plain!("id", "Id", |view: &AgentView| view.details.record.id.to_string()),
    ];

    /// Returns the columns of these keys, without duplicates and unknown ones; the usual ones if none is known.
    pub fn named<'k>(keys: impl Iterator<Item = &'k str>) -> Vec<&'static Self> {
        let mut chosen: Vec<&'static Self> = Vec::new();
        for key in keys {
            let found = Self::ALL.iter().find(|column| column.key == key);
            chosen.extend(found.filter(|found| chosen.iter().all(|one| one.key != found.key)));
        }
        if chosen.is_empty() { USUAL.iter().filter_map(|key| Self::of(key)).collect() } else { chosen }
    }

    /// Returns the usual columns of a CSV file.
    pub fn usual_csv() -> Vec<&'static Self> {
        USUAL_CSV.iter().filter_map(|key| Self::of(key)).collect()
    }

    /// Returns the column of a key.
    pub fn of(key: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|column| column.key == key)
    }
}

fn host(view: &AgentView, _: &Around) -> Cell {
    Cell::Host { name: name_of(&view.details.record), os: os(view) }
}

fn status(view: &AgentView, _: &Around) -> Cell {
    let record = &view.details.record;
    Cell::Status(Badge(record.status), record.health.message.chars().take(MESSAGE).collect())
}

fn key(view: &AgentView, around: &Around) -> Cell {
    let id = view.details.record.enrollment_key_id.as_ref();
    let name = id.and_then(|id| around.keys.get(id)).cloned().unwrap_or_default();
    Cell::Key { id: or_empty(id), is_readable: around.has_keys && !name.is_empty(), name }
}

fn policy(view: &AgentView, around: &Around) -> Cell {
    let record = &view.details.record;
    let policy = record.policy_id.as_ref().and_then(|id| around.policies.get(id));
    let name = record.policy_id.as_ref().and_then(|id| around.policy_names.get(id));
    let rollout = policy.and_then(|policy| around.rollouts.get(&policy.id));
    let wanted = policy.map(|policy| Rollout::wanted_revision(rollout, record, policy.revision));
    Cell::Policy {
        id: or_empty(record.policy_id.as_ref()),
        name: policy.map(|policy| &policy.name).or(name).cloned().unwrap_or_default(),
        is_readable: policy.is_some(),
        revision: if record.policy_revision > 0 { record.policy_revision.to_string() } else { String::new() },
        is_behind: wanted.is_some_and(|wanted| record.policy_revision < wanted),
        later: policy.map(|policy| policy.revision).filter(|newest| rollout.is_some() && wanted < Some(*newest)),
    }
}
