//! Queries with variable conditions, assembled from fixed fragments: here the conditions on agents, in the submodules the
//! statements that have them.

mod actions;
mod counted;
mod looked_up;
mod pages;
mod systems;

use std::time::Duration;

use muster_core::fleetd::labels::name_key;
use muster_core::id::{AgentId, EnrollmentKeyId, HostCheckId, HostId, PolicyId, SpaceId};

use super::dialect;
use crate::query::{AgentCondition, AgentFilter, Identifier, Page};
use crate::search;

pub(crate) use self::actions::{action_page, action_total, counts_within, key_page, key_total};
use self::looked_up::{identifiers, looked_up, selects_few};
pub(crate) use self::pages::{
    agent_counts, agent_ids, agent_page, agent_page_by_checkin, agent_place, agent_probe, agent_tags, agent_total,
    agent_versions, agents_after, agents_by_os, agents_by_program, agents_by_version, host_page, host_total,
};
pub(crate) use self::systems::{has_systems, on_systems, systems};

/// Whether an agent is in the rollout `$?`.
const IN_ROLLOUT: &str = "EXISTS (SELECT 1 FROM rollout_agents r WHERE r.agent_id = agents.id AND r.rollout_id = $?)";
/// Whether an agent has a tag of the list that follows.
const TAGGED: &str = "EXISTS (SELECT 1 FROM agent_tags t WHERE t.agent_id = agents.id AND t.tag ";
/// Beginning of the condition that an agent came in with an enrollment key of the list that follows.
const ENROLLED_WITH: &str = "(agents.enrollment_key_id IS NOT NULL AND agents.enrollment_key_id ";
/// Beginning of the condition that an agent's host has a label whose name is in the list that follows. Labels of other spaces with the same
/// names have no hosts of the agent's space.
const LABELLED: &str = "(agents.host_id IS NOT NULL AND agents.host_id IN (SELECT m.host_id FROM labels l \
    JOIN label_hosts m ON m.label_id = l.id WHERE l.name_key ";
/// Whether an agent's host has any label.
const HAS_LABELS: &str =
    "(agents.host_id IS NOT NULL AND EXISTS (SELECT 1 FROM label_hosts m WHERE m.host_id = agents.host_id))";
/// Whether the host of an agent fails a check of the list that follows.
const FAILS_CHECK: &str = "EXISTS (SELECT 1 FROM host_check_results r WHERE r.agent_id = agents.id AND r.passes = 0 \
    AND r.check_id ";
/// Beginning of the condition that a scheduled query whose name is in the list that follows does not work on the host of an agent at `$?`. From
/// the names to the agents: there are few of them.
const FAILS_QUERY: &str =
    "(agents.id IN (SELECT f.agent_id FROM query_failures f WHERE (f.until IS NULL OR f.until > $?)";
/// Whether the text of an agent matches a pattern.
const HAS_TEXT: &str = "EXISTS (SELECT 1 FROM agent_texts x WHERE x.space = agents.space AND x.id = agents.id \
    AND x.search LIKE $? ESCAPE '\\')";
/// Whether the name of the host of an agent matches a pattern.
const NAME_HAS: &str = "(lower(agents.hostname) LIKE $? ESCAPE '\\')";
/// Beginning of a query of agents by their texts alone, with the columns that conditions name.
const TEXTS: &str = " FROM agent_texts AS agents WHERE 1 = 1";
/// Whether an agent was last seen before `$?`.
const SEEN_BEFORE: &str = "(coalesce(agents.last_checkin, agents.enrolled_at) < $?)";
/// Whether an agent was seen after `$?`.
const SEEN_AFTER: &str = "(coalesce(agents.last_checkin, agents.enrolled_at) > $?)";

/// Whether an agent was last reported as gone after `$?`.
const LEFT_AFTER: &str = "(agents.audit_at IS NOT NULL AND agents.audit_at > $?)";
/// Whether an agent that enrolled before `$?` does not run its target revision … First whether it runs the newest one, since most do: SQLite
/// reads all of these once.
const IS_PENDING: &str = "(agents.active = 1 AND agents.policy_id IS NOT NULL AND agents.enrolled_at < $? \
    AND (agents.target_revision IS NOT NULL \
        OR (agents.policy_id, agents.policy_revision) NOT IN (SELECT p.id, p.revision FROM policies p))";
/// … which was created before `$?`.
const SINCE_BEFORE: &str = " AND EXISTS (SELECT 1 FROM policies p JOIN policy_revisions r ON r.policy_id = p.id \
    WHERE p.id = agents.policy_id AND r.revision = coalesce(agents.target_revision, p.revision) \
    AND r.revision <> agents.policy_revision AND r.created_at < $?))";

/// Bound value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Integer or time.
    Integer(i64),
    /// String, id or JSON.
    Text(String),
    /// List of strings or ids.
    List(Vec<String>),
}

/// A statement under construction: its text and its bound values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Composed {
    /// Text of the statement.
    pub(crate) text: String,
    /// Values of `$1`, `$2` …
    pub(crate) values: Vec<Bound>,
    /// The space whose agents are selected.
    space: Option<SpaceId>,
}

impl Composed {
    fn start(head: &'static str) -> Self {
        Self { text: format!("{head}1 = 1"), ..Self::default() }
    }

    fn push(&mut self, fragment: &'static str) {
        self.text.push_str(fragment);
    }

    /// Appends a fragment. Its `$?` becomes the next placeholder.
    fn bind(&mut self, fragment: &'static str, value: Bound) {
        self.values.push(value);
        // Fragments are constants, and values are only ever bound: nothing that a caller sends becomes part of the
        // text.
        self.text.push_str(&fragment.replace("$?", &format!("${}", self.values.len())));
    }

    fn text(&mut self, fragment: &'static str, value: &str) {
        self.bind(fragment, Bound::Text(value.to_owned()));
    }

    /// Appends ` AND column IN (…)`. The list is bound as one value, so that its length does not change the statement.
    fn list<T: AsRef<str>>(&mut self, column: &'static str, words: impl IntoIterator<Item = T>) {
        let words = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self.push(column);
        self.bind(dialect::IN_LIST, Bound::List(words));
    }

    fn integer(&mut self, fragment: &'static str, value: i64) {
        self.bind(fragment, Bound::Integer(value));
    }

    fn page(&mut self, page: Page) {
        self.integer(" LIMIT $?", page.limit.into());
        self.integer(" OFFSET $?", page.offset.into());
    }

    fn agents(&mut self, filter: &AgentFilter) {
        self.space.clone_from(&filter.space);
        if let Some(space) = &filter.space {
            self.text(" AND agents.space = $?", space.as_str());
        }
        for condition in &filter.conditions {
            self.push(" AND ");
            self.condition(condition);
        }
    }

    /// Appends the condition on a host that it has a matching agent.
    fn hosts_of(&mut self, filter: &AgentFilter) {
        let are_few = filter.conditions.iter().any(selects_few);
        if let Some(space) = &filter.space {
            // Few hosts are looked up by their ids. With the plain column, SQLite would read all hosts of the space by name.
            let column = if are_few { " AND coalesce(hosts.space, '') = $?" } else { " AND hosts.space = $?" };
            self.text(column, space.as_str());
        }
        self.push(if are_few {
            " AND hosts.id IN (SELECT agents.host_id FROM agents WHERE agents.host_id IS NOT NULL"
        } else {
            " AND EXISTS (SELECT 1 FROM agents WHERE agents.host_id = hosts.id"
        });
        self.agents(filter);
        self.push(")");
    }

    /// Appends the conditions on an agent for a query in the order of hosts.
    fn by_host(&mut self, filter: &AgentFilter) {
        self.space.clone_from(&filter.space);
        if let Some(space) = &filter.space {
            // In an expression, so that SQLite reads the index of hosts, and sorts nothing.
            self.text(" AND coalesce(agents.space, '') = $?", space.as_str());
        }
        for condition in &filter.conditions {
            self.push(" AND ");
            self.condition(condition);
        }
    }

    /// Appends one condition. It is never NULL, so that its negation matches exactly the rest; and where a column has an
    /// index, it stands alone on its side of the comparison, so that the index is used.
    fn condition(&mut self, condition: &AgentCondition) {
        match condition {
            // Neutral beginnings: an empty list of alternatives matches nothing, and an empty list of conditions
            // everything.
            AgentCondition::All(parts) => self.group("(1 = 1", " AND ", parts),
            AgentCondition::Any(parts) if are_ranges(parts) => self.ids_between(parts.iter().filter_map(ids_of)),
            AgentCondition::Any(parts) => match looked_up(parts) {
                Some(leaves) => self.looked_up(&leaves),
                None => self.group("(1 = 0", " OR ", parts),
            },
            AgentCondition::Not(inner) => {
                self.push("NOT ");
                self.condition(inner);
            }
            AgentCondition::Ids(ids) => self.set("(agents.id ", ids.iter().map(AgentId::as_str)),
            AgentCondition::IdsBetween(from, to) => self.ids_between([(from, to)]),
            AgentCondition::Hostnames(names) => {
                self.set("(lower(agents.hostname) ", names.iter().map(|name| name.to_ascii_lowercase()));
            }
            AgentCondition::Hardware(identifier, values) => self.hardware(*identifier, values),
            AgentCondition::HasHardware(Identifier::Uuid) => self.push("(agents.hardware_uuid <> '')"),
            AgentCondition::HasHardware(Identifier::Serial) => self.push("(agents.serial <> '')"),
            AgentCondition::Policies(ids) => {
                // NULL is excluded explicitly, here and below: `NOT (NULL IN (…))` would be NULL, and match no agent.
                self.set("(agents.policy_id IS NOT NULL AND agents.policy_id ", ids.iter().map(PolicyId::as_str));
            }
            AgentCondition::HasPolicy => self.push("(agents.policy_id IS NOT NULL)"),
            AgentCondition::TakesRevision(revision) => {
                self.integer("(agents.target_revision IS NULL OR agents.target_revision = $?)", *revision);
            }
            AgentCondition::PlaceBelow(place) => self.integer("(agents.place < $?)", place.as_i64()),
            AgentCondition::HostnameLike(pattern) => self.hostname_like(condition, pattern),
            AgentCondition::HostnamePart(part) => self.text(NAME_HAS, &search::literally(part)),
            AgentCondition::Os(fact, value, is_prefix) => self.text(HAS_TEXT, &fact.pattern(value, *is_prefix)),
            // In an expression, so that a list reads an index in its order. All of a common system would have to be sorted.
            AgentCondition::Systems(systems) => self.set("(coalesce(agents.os, '') ", systems),
            AgentCondition::Text(words) => self.text(HAS_TEXT, &search::containing(words)),
            AgentCondition::VersionIn(from, to) => self.version_in(*from, *to),
            AgentCondition::UpgradeState(state) => self.upgrade_state(state),
            AgentCondition::HasUpgradeDetails => self.push("(agents.upgrade_details IS NOT NULL)"),
            AgentCondition::InRollout(id) => self.text(IN_ROLLOUT, id.as_str()),
            AgentCondition::Versions(versions) => self.set("(agents.agent_version ", versions),
            AgentCondition::RunsRevision(revision) => self.runs_revision(*revision),
            AgentCondition::FailedRevision(revision) => self.failed_revision(*revision),
            AgentCondition::Statuses(statuses) => self.set("(agents.status ", statuses.iter().map(|it| it.as_str())),
            AgentCondition::Left(reasons) => self.set(
                "(agents.audit_reason IS NOT NULL AND agents.audit_reason ",
                reasons.iter().map(|reason| reason.as_str()),
            ),
            AgentCondition::HasLeft => self.push("(agents.audit_reason IS NOT NULL)"),
            AgentCondition::LeftAfter(time) => self.integer(LEFT_AFTER, time.as_micros()),
            AgentCondition::PolicyPendingSince(time) => {
                self.integer(IS_PENDING, time.as_micros());
                self.integer(SINCE_BEFORE, time.as_micros());
            }
            AgentCondition::Tags(tags) => self.set(TAGGED, tags),
            AgentCondition::Labels(names) => {
                self.set(LABELLED, names.iter().map(|name| name_key(name)));
                self.push(")");
            }
            AgentCondition::HasLabels => self.push(HAS_LABELS),
            AgentCondition::HasTags => self.push("(agents.tags <> '[]')"),
            AgentCondition::EnrollmentKeys(ids) => self.set(ENROLLED_WITH, ids.iter().map(EnrollmentKeyId::as_str)),
            AgentCondition::HasEnrollmentKey => self.push("(agents.enrollment_key_id IS NOT NULL)"),
            AgentCondition::HasDuplicateHosts => self.push("(agents.duplicate_hosts IS NOT NULL)"),
            AgentCondition::Families(families) => self.set("(agents.family ", families.iter().map(|it| it.as_str())),
            AgentCondition::Hosts(ids) => {
                self.set("(agents.host_id IS NOT NULL AND agents.host_id ", ids.iter().map(HostId::as_str));
            }
            AgentCondition::HasHost => self.push("(agents.host_id IS NOT NULL)"),
            AgentCondition::FailsChecks(ids) => self.set(FAILS_CHECK, ids.iter().map(HostCheckId::as_str)),
            AgentCondition::FailsQueries(names, now) => self.fails_queries(names, now.as_micros()),
            AgentCondition::UnseenSince(time) => self.integer(SEEN_BEFORE, time.as_micros()),
            AgentCondition::SeenAfter(time) => self.integer(SEEN_AFTER, time.as_micros()),
            AgentCondition::HasCheckedIn => self.push("(agents.last_checkin IS NOT NULL)"),
            // A list of words as JSON.
            AgentCondition::HasFailingOutput => self.push("(agents.unhealthy_reason LIKE '%\"output\"%')"),
            AgentCondition::EnrolledBy(time) => self.integer("(agents.enrolled_at <= $?)", time.as_micros()),
            AgentCondition::InactivityTimeout(timeout) => self.inactivity_timeout(*timeout),
        }
    }

    fn hardware(&mut self, identifier: Identifier, values: &[String]) {
        // The indexes have only what is known.
        let head = match identifier {
            Identifier::Uuid => "(agents.hardware_uuid <> '' AND agents.hardware_uuid ",
            Identifier::Serial => "(agents.serial <> '' AND agents.serial ",
        };
        self.set(head, identifiers(values));
    }

    fn fails_queries(&mut self, names: &[String], now: i64) {
        self.integer(FAILS_QUERY, now);
        self.set(" AND f.name ", names);
        self.push(")");
    }

    fn ids_between<'a>(&mut self, ranges: impl IntoIterator<Item = (&'a AgentId, &'a AgentId)>) {
        // In a query of its own, so that SQLite reads the ranges, and not all agents of the space.
        let mut head = "(agents.id IN (SELECT i.id FROM agents i WHERE i.id >= $?";
        for (from, to) in ranges {
            self.text(head, from.as_str());
            self.text(" AND i.id < $?", to.as_str());
            head = " UNION ALL SELECT i.id FROM agents i WHERE i.id >= $?";
        }
        self.push("))");
    }

    fn hostname_like(&mut self, condition: &AgentCondition, pattern: &str) {
        self.push("(");
        // The range uses the index of host names; LIKE then checks what is left.
        if let Some((from, to)) = range_of(condition) {
            self.text("lower(agents.hostname) >= $?", &from);
            self.text(" AND lower(agents.hostname) < $? AND ", &to);
        }
        self.text(r"lower(agents.hostname) LIKE $? ESCAPE '\')", &search::wildcard(pattern));
    }

    /// Appends the selection of the agents of a space that meet a condition alone: one on their texts reads only these.
    fn alone(&mut self, space: Option<&SpaceId>, condition: &AgentCondition) {
        let pattern = match condition {
            AgentCondition::Os(fact, value, is_prefix) => Some(fact.pattern(value, *is_prefix)),
            AgentCondition::Text(words) => Some(search::containing(words)),
            _ => None,
        };
        self.push(if pattern.is_some() { TEXTS } else { " FROM agents WHERE 1 = 1" });
        if let Some(space) = space {
            self.text(" AND agents.space = $?", space.as_str());
        }
        self.push(" AND ");
        match (pattern, condition) {
            (Some(pattern), _) => self.text(r"agents.search LIKE $? ESCAPE '\'", &pattern),
            (None, AgentCondition::Systems(systems)) => self.set("(agents.os ", systems),
            (None, _) => self.condition(condition),
        }
    }

    fn version_in(&mut self, from: i64, to: i64) {
        self.integer("(agents.version_key >= $?", from);
        self.integer(" AND agents.version_key < $?)", to);
    }

    fn inactivity_timeout(&mut self, timeout: Option<Duration>) {
        // -1 stands for "none", because `=` is never true for NULL.
        let micros = timeout.map_or(-1, |timeout| i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX));
        self.integer("(coalesce(agents.inactivity_timeout, -1) = $?)", micros);
    }

    fn upgrade_state(&mut self, state: &str) {
        let member = format!("%\"state\":\"{state}\"%");
        // With the id, SQLite prefers the index of those with details to the others of the space.
        self.push("(agents.upgrade_details IS NOT NULL AND agents.id > ''");
        self.text(" AND agents.upgrade_details LIKE $?)", &member);
    }

    fn runs_revision(&mut self, revision: i64) {
        self.push("(agents.policy_id IS NOT NULL AND agents.running_policy_id IS NOT NULL");
        self.push(" AND agents.running_policy_id = agents.policy_id");
        self.integer(" AND agents.policy_revision >= $?)", revision);
    }

    // Compared as text: both engines would need functions of their own to look into JSON.
    fn failed_revision(&mut self, revision: i64) {
        // The first field of the stored document.
        let start = format!("{{\"revision\":{revision},%");
        self.text("(agents.policy_failure IS NOT NULL AND agents.policy_failure LIKE $?)", &start);
    }

    fn group(&mut self, none: &'static str, between: &'static str, parts: &[AgentCondition]) {
        self.push(none);
        for part in parts {
            self.push(between);
            self.condition(part);
        }
        self.push(")");
    }

    /// Appends a list within the parentheses that `head` opens.
    // The closing parenthesis belongs to `head`.
    fn set<T: AsRef<str>>(&mut self, head: &'static str, words: impl IntoIterator<Item = T>) {
        self.list(head, words);
        self.push(")");
    }
}

fn ids_of(condition: &AgentCondition) -> Option<(&AgentId, &AgentId)> {
    match condition {
        AgentCondition::IdsBetween(from, to) => Some((from, to)),
        _ => None,
    }
}

fn are_ranges(parts: &[AgentCondition]) -> bool {
    !parts.is_empty() && parts.iter().all(|part| ids_of(part).is_some())
}

/// Returns the range of the host names that begin like a pattern.
fn range_of(condition: &AgentCondition) -> Option<(String, String)> {
    let AgentCondition::HostnameLike(pattern) = condition else { return None };
    let from = pattern.split('*').next()?.to_ascii_lowercase();
    let mut to = from.clone();
    // The next text after all with the beginning: both engines compare bytes, in whose order characters are.
    while let Some(last) = to.pop() {
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            to.push(next);
            return Some((from, to));
        }
    }
    None
}

#[cfg(test)]
mod tests;
