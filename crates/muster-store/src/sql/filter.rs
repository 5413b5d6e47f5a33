//! Queries with variable conditions, assembled from fixed fragments.

use std::time::Duration;

use muster_core::id::{AgentId, EnrollmentKeyId, HostId, PolicyId, SpaceId};

use super::{actions, dialect};
use crate::engine::agent_counts::tag_key;
use crate::query::{
    ActionCursor, ActionFilter, ActionScope, AgentCondition, AgentCursor, AgentFilter, AgentSort, Page, SortValue,
};
use crate::search;

/// Whether an agent is in the rollout `$?`.
const IN_ROLLOUT: &str = "EXISTS (SELECT 1 FROM rollout_agents r WHERE r.agent_id = agents.id AND r.rollout_id = $?)";
/// Whether an agent has a tag of the list that follows.
const TAGGED: &str = "EXISTS (SELECT 1 FROM agent_tags t WHERE t.agent_id = agents.id AND t.tag ";
/// Whether the text of an agent matches a pattern.
const HAS_TEXT: &str = "EXISTS (SELECT 1 FROM agent_texts x WHERE x.space = agents.space AND x.id = agents.id \
    AND x.search LIKE $? ESCAPE '\\')";
/// Beginning of a query of agents by their texts alone, with the columns that conditions name.
const TEXTS: &str = " FROM agent_texts AS agents WHERE 1 = 1";
/// Whether an agent was last seen before `$?`.
const SEEN_BEFORE: &str = "(coalesce(agents.last_checkin, agents.enrolled_at) < $?)";
/// Whether an agent was seen after `$?`.
const SEEN_AFTER: &str = "(coalesce(agents.last_checkin, agents.enrolled_at) > $?)";

/// Whether an agent was last reported as gone after `$?`.
const LEFT_AFTER: &str = "(agents.audit_at IS NOT NULL AND agents.audit_at > $?)";
/// Whether an agent that enrolled before `$?` does not run its target revision …
const IS_PENDING: &str = "(agents.active = 1 AND agents.policy_id IS NOT NULL AND agents.enrolled_at < $?";
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
#[derive(Clone, Debug)]
pub(crate) struct Composed {
    /// Text of the statement.
    pub(crate) text: String,
    /// Values of `$1`, `$2` …
    pub(crate) values: Vec<Bound>,
}

impl Composed {
    fn start(head: &'static str) -> Self {
        Self { text: format!("{head}1 = 1"), values: Vec::new() }
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
        if let Some(space) = &filter.space {
            self.text(" AND hosts.space = $?", space.as_str());
        }
        self.push(" AND EXISTS (SELECT 1 FROM agents WHERE agents.host_id = hosts.id");
        self.agents(filter);
        self.push(")");
    }

    /// Appends one condition. It is never NULL, so that its negation matches exactly the rest; and where a column has an
    /// index, it stands alone on its side of the comparison, so that the index is used.
    fn condition(&mut self, condition: &AgentCondition) {
        match condition {
            // Neutral beginnings: an empty list of alternatives matches nothing, and an empty list of conditions
            // everything.
            AgentCondition::All(parts) => self.group("(1 = 1", " AND ", parts),
            AgentCondition::Any(parts) => self.group("(1 = 0", " OR ", parts),
            AgentCondition::Not(inner) => {
                self.push("NOT ");
                self.condition(inner);
            }
            AgentCondition::Ids(ids) => self.set("(agents.id ", ids.iter().map(AgentId::as_str)),
            AgentCondition::Hostnames(names) => {
                self.set("(lower(agents.hostname) ", names.iter().map(|name| name.to_ascii_lowercase()));
            }
            AgentCondition::Policies(ids) => {
                // NULL is excluded explicitly, here and below: `NOT (NULL IN (…))` would be NULL, and match no agent.
                self.set("(agents.policy_id IS NOT NULL AND agents.policy_id ", ids.iter().map(PolicyId::as_str));
            }
            AgentCondition::HasPolicy => self.push("(agents.policy_id IS NOT NULL)"),
            AgentCondition::TakesRevision(revision) => {
                self.integer("(agents.target_revision IS NULL OR agents.target_revision = $?)", *revision);
            }
            AgentCondition::PlaceBelow(place) => self.integer("(agents.place < $?)", place.as_i64()),
            AgentCondition::HostnameLike(pattern) => {
                self.push("(");
                // The range uses the index of host names; LIKE then checks what is left.
                if let Some((from, to)) = range_of(condition) {
                    self.text("lower(agents.hostname) >= $?", &from);
                    self.text(" AND lower(agents.hostname) < $? AND ", &to);
                }
                self.text(r"lower(agents.hostname) LIKE $? ESCAPE '\')", &search::wildcard(pattern));
            }
            AgentCondition::Os(fact, value, is_prefix) => self.text(HAS_TEXT, &fact.pattern(value, *is_prefix)),
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
            AgentCondition::HasTags => self.push("(agents.tags <> '[]')"),
            AgentCondition::EnrollmentKeys(ids) => {
                self.set(
                    "(agents.enrollment_key_id IS NOT NULL AND agents.enrollment_key_id ",
                    ids.iter().map(EnrollmentKeyId::as_str),
                );
            }
            AgentCondition::HasEnrollmentKey => self.push("(agents.enrollment_key_id IS NOT NULL)"),
            AgentCondition::HasDuplicateHosts => self.push("(agents.duplicate_hosts IS NOT NULL)"),
            AgentCondition::Families(families) => self.set("(agents.family ", families.iter().map(|it| it.as_str())),
            AgentCondition::Hosts(ids) => {
                self.set("(agents.host_id IS NOT NULL AND agents.host_id ", ids.iter().map(HostId::as_str));
            }
            AgentCondition::HasHost => self.push("(agents.host_id IS NOT NULL)"),
            AgentCondition::UnseenSince(time) => self.integer(SEEN_BEFORE, time.as_micros()),
            AgentCondition::SeenAfter(time) => self.integer(SEEN_AFTER, time.as_micros()),
            AgentCondition::HasCheckedIn => self.push("(agents.last_checkin IS NOT NULL)"),
            // A list of words as JSON.
            AgentCondition::HasFailingOutput => self.push("(agents.unhealthy_reason LIKE '%\"output\"%')"),
            AgentCondition::EnrolledBy(time) => self.integer("(agents.enrolled_at <= $?)", time.as_micros()),
            AgentCondition::InactivityTimeout(timeout) => self.inactivity_timeout(*timeout),
        }
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
        match pattern {
            Some(pattern) => self.text(r"agents.search LIKE $? ESCAPE '\'", &pattern),
            None => self.condition(condition),
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
        self.text("(agents.upgrade_details IS NOT NULL AND agents.upgrade_details LIKE $?)", &member);
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

/// Composes the query for the ids of a page of agents.
pub(crate) fn agent_page(filter: &AgentFilter, sort: AgentSort, descending: bool, page: Page) -> Composed {
    let mut statement = Composed::start("SELECT agents.id FROM agents WHERE ");
    statement.agents(filter);
    statement.push(agent_order(filter, sort, descending));
    statement.page(page);
    statement
}

/// Composes the query for the ids of a page in the order of check-ins, which reads an index in this order. `None` if the
/// filter is about more than what the index contains.
pub(crate) fn agent_page_by_checkin(filter: &AgentFilter, descending: bool, page: Page) -> Option<Composed> {
    // The index begins with the space, so a list of all spaces does not use it.
    if filter.space.is_none() || Counted::of(filter).is_none() {
        return None;
    }
    // It has the columns that these conditions name.
    let mut statement = Composed::start("SELECT agents.id FROM agent_checkins AS agents WHERE ");
    statement.agents(filter);
    statement.push(match descending {
        false => " ORDER BY agents.seen_minute, agents.id",
        true => " ORDER BY agents.seen_minute DESC, agents.id DESC",
    });
    statement.page(page);
    Some(statement)
}

/// Composes the query for a page of the hosts of matching agents, by name.
pub(crate) fn host_page(filter: &AgentFilter, page: Page) -> Composed {
    let mut statement = Composed::start(
        "SELECT hosts.id, hosts.space, hosts.machine_id, hosts.hostname, hosts.created_at FROM hosts WHERE ",
    );
    statement.hosts_of(filter);
    statement.push(" ORDER BY lower(hosts.hostname), hosts.id");
    statement.page(page);
    statement
}

/// Composes the query for the number of hosts of matching agents.
pub(crate) fn host_total(filter: &AgentFilter) -> Composed {
    let mut statement = Composed::start("SELECT count(*) FROM hosts WHERE ");
    statement.hosts_of(filter);
    statement
}

/// Composes the query for the ids of the agents after a cursor.
pub(crate) fn agents_after(
    filter: &AgentFilter,
    sort: AgentSort,
    descending: bool,
    after: &AgentCursor,
    page: Page,
) -> Composed {
    let mut statement = Composed::start("SELECT agents.id FROM agents WHERE ");
    statement.agents(filter);
    statement.push(match sort {
        // Row values, so that the condition is the same order as that of the list, including ties.
        AgentSort::EnrolledAt => " AND (agents.enrolled_at, agents.id)",
        AgentSort::LastCheckin => " AND (coalesce(agents.last_checkin, 0) / 60000000, agents.id)",
        AgentSort::Hostname => " AND (lower(agents.hostname), agents.id)",
        AgentSort::Status => " AND (agents.status, agents.id)",
        AgentSort::Policy => " AND (coalesce(agents.policy_id, ''), agents.id)",
        AgentSort::Version => " AND (agents.version_key, agents.id)",
    });
    statement.push(if descending { " < (" } else { " > (" });
    match &after.value {
        SortValue::Number(number) => statement.integer("$?, ", *number),
        SortValue::Text(text) => statement.text("$?, ", text),
    }
    // The id makes the order total: agents with equal values neither repeat nor get lost between two pages.
    statement.text("$?)", after.id.as_str());
    statement.push(agent_order(filter, sort, descending));
    statement.page(page);
    statement
}

/// Agents that are selected by their ids are looked up and sorted. Sorted by a column of an index, SQLite would read the whole index
/// to find them.
fn agent_order(filter: &AgentFilter, sort: AgentSort, descending: bool) -> &'static str {
    if filter.conditions.iter().any(|condition| matches!(condition, AgentCondition::Ids(_))) {
        return order_of_few(sort, descending);
    }
    match (sort, descending) {
        (AgentSort::EnrolledAt, false) => " ORDER BY agents.enrolled_at, agents.id",
        (AgentSort::EnrolledAt, true) => " ORDER BY agents.enrolled_at DESC, agents.id DESC",
        (AgentSort::LastCheckin, false) => " ORDER BY coalesce(agents.last_checkin, 0) / 60000000, agents.id",
        (AgentSort::LastCheckin, true) => " ORDER BY coalesce(agents.last_checkin, 0) / 60000000 DESC, agents.id DESC",
        (AgentSort::Hostname, false) => " ORDER BY lower(agents.hostname), agents.id",
        (AgentSort::Hostname, true) => " ORDER BY lower(agents.hostname) DESC, agents.id DESC",
        (AgentSort::Status, false) => " ORDER BY agents.status, agents.id",
        (AgentSort::Status, true) => " ORDER BY agents.status DESC, agents.id DESC",
        (AgentSort::Policy, false) => " ORDER BY coalesce(agents.policy_id, ''), agents.id",
        (AgentSort::Policy, true) => " ORDER BY coalesce(agents.policy_id, '') DESC, agents.id DESC",
        (AgentSort::Version, false) => " ORDER BY agents.version_key, agents.id",
        (AgentSort::Version, true) => " ORDER BY agents.version_key DESC, agents.id DESC",
    }
}

/// The same order. No index has these expressions.
fn order_of_few(sort: AgentSort, descending: bool) -> &'static str {
    match (sort, descending) {
        (AgentSort::EnrolledAt, false) => " ORDER BY coalesce(agents.enrolled_at, 0), agents.id",
        (AgentSort::EnrolledAt, true) => " ORDER BY coalesce(agents.enrolled_at, 0) DESC, agents.id DESC",
        (AgentSort::LastCheckin, false) => " ORDER BY coalesce(agents.last_checkin, 0) / 60000000, agents.id",
        (AgentSort::LastCheckin, true) => " ORDER BY coalesce(agents.last_checkin, 0) / 60000000 DESC, agents.id DESC",
        (AgentSort::Hostname, false) => " ORDER BY coalesce(lower(agents.hostname), ''), agents.id",
        (AgentSort::Hostname, true) => " ORDER BY coalesce(lower(agents.hostname), '') DESC, agents.id DESC",
        (AgentSort::Status, false) => " ORDER BY coalesce(agents.status, ''), agents.id",
        (AgentSort::Status, true) => " ORDER BY coalesce(agents.status, '') DESC, agents.id DESC",
        (AgentSort::Policy, false) => " ORDER BY coalesce(agents.policy_id, ''), agents.id",
        (AgentSort::Policy, true) => " ORDER BY coalesce(agents.policy_id, '') DESC, agents.id DESC",
        (AgentSort::Version, false) => " ORDER BY coalesce(agents.version_key, 0), agents.id",
        (AgentSort::Version, true) => " ORDER BY coalesce(agents.version_key, 0) DESC, agents.id DESC",
    }
}

/// Composes the count of matching agents.
pub(crate) fn agent_total(filter: &AgentFilter) -> Composed {
    // Most filters ask for nothing but maintained numbers, and cost a few rows whatever the size of the fleet.
    if let Some(counted) = Counted::of(filter) {
        return counted.sums("SELECT ", "");
    }
    if let Some((text, hidden)) = text_but_hidden(filter) {
        let mut statement = Composed { text: "SELECT (SELECT count(*)".to_owned(), values: Vec::new() };
        statement.alone(filter.space.as_ref(), text);
        statement.push(")");
        // The status is not in the table that has the texts: those that are hidden, usually few, are counted by theirs.
        if let Some(hidden) = hidden {
            statement.push(" - (SELECT count(*) FROM agents WHERE 1 = 1");
            let conditions = vec![hidden.clone(), text.clone()];
            statement.agents(&AgentFilter { space: filter.space.clone(), conditions });
            statement.push(")");
        }
        return statement;
    }
    let mut statement = Composed::start("SELECT count(*) FROM agents WHERE ");
    statement.agents(filter);
    statement
}

/// Returns the parts of a filter that is about a text, and perhaps about statuses that are not shown.
fn text_but_hidden(filter: &AgentFilter) -> Option<(&AgentCondition, Option<&AgentCondition>)> {
    let is_text = |condition: &AgentCondition| {
        matches!(condition, AgentCondition::Text(_) | AgentCondition::Os(..) | AgentCondition::HostnameLike(_))
    };
    match filter.conditions.as_slice() {
        [AgentCondition::Not(hidden), text] | [text, AgentCondition::Not(hidden)]
            if is_text(text) && matches!(**hidden, AgentCondition::Statuses(_)) =>
        {
            Some((text, Some(hidden)))
        }
        [text] if is_text(text) => Some((text, None)),
        _ => None,
    }
}

/// Returns the place of a condition that selects agents by a part of a text, which can be met by few agents or by all of them, and
/// composes the query for the first ids that meet it alone. It reads an index from its beginning to its end, or a part of one.
pub(crate) fn agent_probe(filter: &AgentFilter, limit: u32) -> Option<(usize, Composed)> {
    let place = |is_one: fn(&AgentCondition) -> bool| filter.conditions.iter().position(is_one);
    // A beginning of a host name is preferred: its range reads a part of the index only.
    let at = place(|condition| range_of(condition).is_some()).or_else(|| {
        let is_text =
            |condition: &AgentCondition| matches!(condition, AgentCondition::Text(_) | AgentCondition::Os(..));
        place(is_text)
    })?;
    let mut statement = Composed { text: "SELECT agents.id".to_owned(), values: Vec::new() };
    statement.alone(filter.space.as_ref(), &filter.conditions[at]);
    statement.integer(" LIMIT $?", limit.into());
    Some((at, statement))
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

/// Composes the count of agents by version and upgrade.
pub(crate) fn agents_by_version(filter: &AgentFilter) -> Composed {
    let mut statement = Composed::start(
        "SELECT agents.agent_version, agents.upgrade_open, agents.upgrade_details, count(*) FROM agents WHERE ",
    );
    statement.agents(filter);
    statement.push(" GROUP BY agents.agent_version, agents.upgrade_open, agents.upgrade_details");
    statement
}

/// Composes the count of agents by what they report of their operating system, the most frequent first.
pub(crate) fn agents_by_os(filter: &AgentFilter, limit: u32) -> Composed {
    let mut statement = Composed::start("SELECT agents.os, count(*) FROM agents WHERE ");
    statement.agents(filter);
    statement.push(" GROUP BY agents.os ORDER BY 2 DESC, 1");
    statement.integer(" LIMIT $?", limit.into());
    statement
}

/// A filter over maintained numbers: about nothing but the space, the policy, the status and at most one tag.
struct Counted<'f> {
    filter: &'f AgentFilter,
    tag: Option<&'f str>,
}

/// The maintained numbers, with the columns that conditions name.
const COUNTS: &str = " FROM (SELECT space, tag, nullif(policy_id, '') AS policy_id, status, number FROM agent_counts) AS agents \
    WHERE 1 = 1";

impl<'f> Counted<'f> {
    /// Returns `None` if agents must be counted.
    fn of(filter: &'f AgentFilter) -> Option<Self> {
        let mut tag = None;
        // All or nothing: with one condition beyond the maintained columns, the numbers cannot be split.
        filter.conditions.iter().all(|condition| Self::is_counted(condition, &mut tag)).then_some(Self { filter, tag })
    }

    fn is_counted(condition: &'f AgentCondition, tag: &mut Option<&'f str>) -> bool {
        match condition {
            AgentCondition::All(parts) | AgentCondition::Any(parts) => {
                parts.iter().all(|part| Self::is_counted(part, tag))
            }
            AgentCondition::Not(inner) => Self::is_counted(inner, tag),
            AgentCondition::Policies(_) | AgentCondition::HasPolicy | AgentCondition::Statuses(_) => true,
            AgentCondition::Tags(tags) => match tags.as_slice() {
                // The same tag may occur several times in a filter, but numbers for combinations of tags are not
                // kept.
                [only] => *tag.get_or_insert(only) == only,
                // An agent can have several of them.
                _ => false,
            },
            _ => false,
        }
    }

    /// Composes the sum of the numbers.
    fn sums(&self, head: &'static str, tail: &'static str) -> Composed {
        let mut statement = Composed { text: head.to_owned(), values: Vec::new() };
        statement.push("CAST(coalesce(sum(");
        match self.tag {
            // Without a tag, the row with the empty key counts each agent once.
            None => statement.push("agents.number), 0) AS BIGINT)"),
            // Those without the tag are all, less those with it.
            Some(_) => {
                statement.push("agents.number * (CASE WHEN agents.tag <> '' AND (");
                self.conditions(&mut statement, true);
                statement.push(") THEN 1 ELSE 0 END + CASE WHEN NOT (");
                self.conditions(&mut statement, false);
                statement.push(") THEN 0 WHEN agents.tag = '' THEN 1 ELSE -1 END)), 0) AS BIGINT)");
            }
        }
        statement.push(COUNTS);
        if let Some(space) = &self.filter.space {
            statement.text(" AND agents.space = $?", space.as_str());
        }
        match self.tag {
            // The row of the tag and that of all agents: the difference of both is the agents without the tag.
            None => {
                statement.push(" AND agents.tag = '' AND (");
                self.conditions(&mut statement, false);
                statement.push(")");
            }
            Some(tag) => statement.text(" AND (agents.tag = '' OR agents.tag = $?)", &tag_key(tag)),
        }
        statement.push(tail);
        statement
    }

    /// Composes the query for the tags.
    fn tags(&self) -> Composed {
        let mut statement = Composed { text: "SELECT substr(agents.tag, 2)".to_owned(), values: Vec::new() };
        statement.push(COUNTS);
        if let Some(space) = &self.filter.space {
            statement.text(" AND agents.space = $?", space.as_str());
        }
        statement.push(" AND agents.tag > '' AND (");
        self.conditions(&mut statement, false);
        statement.push(") GROUP BY agents.tag HAVING sum(agents.number) <> 0");
        statement
    }

    /// Appends the conditions for agents with the tag, or without it.
    fn conditions(&self, statement: &mut Composed, has_tag: bool) {
        statement.push("1 = 1");
        for condition in &self.filter.conditions {
            statement.push(" AND ");
            statement.condition(&decided(condition, has_tag));
        }
    }
}

/// Replaces the condition on a tag by its value.
fn decided(condition: &AgentCondition, has_tag: bool) -> AgentCondition {
    let all = |parts: &[AgentCondition]| parts.iter().map(|part| decided(part, has_tag)).collect();
    match condition {
        AgentCondition::All(parts) => AgentCondition::All(all(parts)),
        AgentCondition::Any(parts) => AgentCondition::Any(all(parts)),
        AgentCondition::Not(inner) => !decided(inner, has_tag),
        AgentCondition::Tags(_) if has_tag => AgentCondition::All(Vec::new()),
        AgentCondition::Tags(_) => AgentCondition::Any(Vec::new()),
        other => other.clone(),
    }
}

/// Composes the query for ids after one, in order.
pub(crate) fn agent_ids(filter: &AgentFilter, after: Option<&str>, limit: u32) -> Composed {
    let mut statement = Composed::start("SELECT agents.id FROM agents WHERE ");
    statement.agents(filter);
    if let Some(after) = after {
        statement.text(" AND agents.id > $?", after);
    }
    statement.integer(" ORDER BY agents.id LIMIT $?", limit.into());
    statement
}

/// Composes the query for the versions of these agents' records.
pub(crate) fn agent_versions(ids: &[AgentId]) -> Composed {
    let mut statement = Composed::start("SELECT agents.id, agents.version FROM agents WHERE ");
    statement.list(" AND agents.id ", ids.iter().map(AgentId::as_str));
    statement
}

/// Composes the query for the place of one agent in the order of places.
pub(crate) fn agent_place(filter: &AgentFilter, before: u32) -> Composed {
    let mut statement = Composed::start("SELECT agents.place FROM agents WHERE ");
    statement.agents(filter);
    statement.push(" ORDER BY agents.place");
    statement.page(Page { offset: before, limit: 1 });
    statement
}

/// Composes the count of agents by status.
pub(crate) fn agent_counts(filter: &AgentFilter) -> Composed {
    if let Some(counted) = Counted::of(filter) {
        return counted.sums("SELECT agents.status, ", " GROUP BY agents.status");
    }
    let mut statement = Composed::start("SELECT agents.status, count(*) FROM agents WHERE ");
    statement.agents(filter);
    statement.push(" GROUP BY agents.status");
    statement
}

/// Composes the query for all tags.
pub(crate) fn agent_tags(filter: &AgentFilter) -> Composed {
    if let Some(counted) = Counted::of(filter).filter(|counted| counted.tag.is_none()) {
        return counted.tags();
    }
    let mut statement =
        Composed::start("SELECT DISTINCT g.tag FROM agent_tags g JOIN agents ON agents.id = g.agent_id WHERE ");
    statement.agents(filter);
    statement
}

/// Composes the query for a page of actions, newest first.
pub(crate) fn action_page(filter: &ActionFilter, page: Page) -> Composed {
    let mut statement = Composed::start(actions::LIST);
    statement.actions(filter);
    if let Some(after) = &filter.after {
        statement.integer(" AND a.seq < $?", after.seq);
    }
    statement.push(" ORDER BY a.seq DESC");
    statement.page(page);
    statement
}

/// Composes the query for the keys of a page of actions and policy revisions, ordered by time.
pub(crate) fn key_page(filter: &ActionFilter, page: Page) -> Composed {
    let mut statement = Composed { text: actions::KEYS.to_owned(), values: Vec::new() };
    statement.keys(filter);
    statement.push(actions::KEYS_ORDER);
    statement.page(page);
    statement
}

/// Composes the count of matching actions and revisions.
pub(crate) fn key_total(filter: &ActionFilter) -> Composed {
    let filter = &ActionFilter { after: None, ..filter.clone() };
    let mut statement = Composed { text: actions::COUNT_KEYS.to_owned(), values: Vec::new() };
    statement.keys(filter);
    statement.push(") AS k");
    statement
}

/// Composes the count of matching actions.
pub(crate) fn action_total(filter: &ActionFilter) -> Composed {
    let mut statement = Composed::start(actions::COUNT);
    statement.actions(filter);
    statement
}

/// Composes the counts of an action's targets within a scope.
pub(crate) fn counts_within(seq: i64, scope: &ActionScope) -> Composed {
    let mut statement = Composed::start(actions::COUNTS_WITHIN);
    statement.integer(" AND t.action_seq = $? AND ", seq);
    statement.condition(&scope.agents);
    statement.push(" GROUP BY t.state");
    statement
}

impl Composed {
    fn keys(&mut self, filter: &ActionFilter) {
        self.push(actions::ACTION_KEYS);
        self.actions(filter);
        if let Some(after) = &filter.after {
            self.integer(" AND (a.created_at, a.seq) < ($?", after.at.as_micros());
            self.integer(", $?)", after.seq);
        }
        self.push(actions::REVISION_KEYS);
        if let Some(ActionCursor { at, seq, revision: (policy, revision) }) = &filter.after {
            self.integer(" AND (r.created_at < $?", at.as_micros());
            // At the same time, actions come first, then revisions by policy, newest first.
            self.integer(" OR (r.created_at = $?", at.as_micros());
            self.integer(" AND (0 < $?", *seq);
            self.text(" OR r.policy_id > $?", policy);
            self.text(" OR (r.policy_id = $?", policy);
            self.integer(" AND r.revision < $?))))", *revision);
        }
        if let Some(space) = &filter.space {
            self.text(" AND p.space = $?", space.as_str());
        }
        if let Some(scope) = &filter.within {
            self.list(" AND r.policy_id ", scope.policies.iter().map(PolicyId::as_str));
        }
        if let Some(before) = filter.before {
            self.integer(" AND r.created_at < $?", before.as_micros());
        }
        if let Some(since) = filter.since {
            self.integer(" AND r.created_at >= $?", since.as_micros());
        }
    }

    fn actions(&mut self, filter: &ActionFilter) {
        if let Some(space) = &filter.space {
            self.text(" AND a.space = $?", space.as_str());
        }
        if let Some(before) = filter.before {
            self.integer(" AND a.created_at < $?", before.as_micros());
        }
        if let Some(since) = filter.since {
            self.integer(" AND a.created_at >= $?", since.as_micros());
        }
        if let Some(agent) = &filter.agent_id {
            self.text(
                " AND a.seq IN (SELECT t.action_seq FROM action_targets t WHERE t.agent_id = $?)",
                agent.as_str(),
            );
        }
        if filter.without_cancels {
            self.push(" AND a.kind <> 'CANCEL'");
        }
        if let Some(scope) = &filter.within {
            self.push(actions::HAS_TARGET);
            self.condition(&scope.agents);
            self.push(")");
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_core::status::Status;
    use muster_core::time::Timestamp;

    use super::*;
    use crate::sql::placeholders;

    fn full() -> AgentFilter {
        AgentFilter {
            space: Some(SpaceId::trusted("s")),
            conditions: vec![
                AgentCondition::Ids(vec![AgentId::trusted("a"), AgentId::trusted("b\"'")]),
                AgentCondition::Any(vec![
                    AgentCondition::Ids(vec![AgentId::trusted("c")]),
                    AgentCondition::Not(Box::new(AgentCondition::All(vec![
                        AgentCondition::Policies(vec![PolicyId::trusted("q")]),
                        AgentCondition::Hostnames(vec!["Host".into()]),
                        AgentCondition::HasPolicy,
                        AgentCondition::TakesRevision(8),
                        AgentCondition::Statuses(vec![Status::Error]),
                        AgentCondition::Tags(vec!["u".into()]),
                        AgentCondition::HasTags,
                        AgentCondition::EnrollmentKeys(vec![EnrollmentKeyId::trusted("l")]),
                        AgentCondition::HasEnrollmentKey,
                        AgentCondition::HasDuplicateHosts,
                        AgentCondition::LeftAfter(Timestamp::from_micros(7)),
                        AgentCondition::PolicyPendingSince(Timestamp::from_micros(8)),
                        AgentCondition::Families(vec![muster_core::agent::Family::Orbit]),
                        AgentCondition::Hosts(vec![HostId::trusted("h")]),
                        AgentCondition::HasHost,
                        AgentCondition::UnseenSince(Timestamp::from_micros(5)),
                        AgentCondition::SeenAfter(Timestamp::from_micros(4)),
                        AgentCondition::EnrolledBy(Timestamp::from_micros(3)),
                        AgentCondition::HasCheckedIn,
                        AgentCondition::HasFailingOutput,
                        AgentCondition::InactivityTimeout(Some(Duration::from_secs(6))),
                    ]))),
                ]),
            ],
        }
    }

    #[test]
    fn composed_statements_bind_in_ascending_order() {
        let page = Page { offset: 3, limit: 7 };
        let scope = ActionScope {
            agents: AgentCondition::Any(vec![AgentCondition::Tags(vec!["t".into()])]),
            policies: vec![PolicyId::trusted("p")],
        };
        let actions = ActionFilter {
            space: Some(SpaceId::trusted("s")),
            before: Some(Timestamp::from_micros(9)),
            since: Some(Timestamp::from_micros(1)),
            agent_id: Some(AgentId::trusted("a")),
            without_cancels: true,
            with_policy_changes: true,
            after: Some(ActionCursor { at: Timestamp::from_micros(7), seq: 6, revision: ("p".into(), 5) }),
            within: Some(scope.clone()),
        };
        let counted = AgentFilter {
            space: Some(SpaceId::trusted("s")),
            conditions: vec![
                AgentCondition::Policies(vec![PolicyId::trusted("p")]),
                AgentCondition::Any(vec![
                    AgentCondition::Tags(vec!["t".into()]),
                    AgentCondition::Statuses(vec![Status::Error]),
                ]),
            ],
        };
        let searched = AgentFilter {
            space: Some(SpaceId::trusted("s")),
            conditions: vec![AgentCondition::HostnameLike("web*".into())],
        };
        let shown = AgentFilter {
            conditions: vec![!AgentCondition::Statuses(vec![Status::Error]), AgentCondition::Text("web".into())],
            ..searched.clone()
        };
        let statements = [
            agent_page(&full(), AgentSort::Status, true, page),
            agent_page_by_checkin(&counted, true, page).unwrap(),
            agent_total(&full()),
            agent_total(&counted),
            agent_total(&shown),
            agent_counts(&counted),
            agent_tags(&AgentFilter { space: Some(SpaceId::trusted("s")), conditions: Vec::new() }),
            agent_probe(&searched, 5).unwrap().1,
            agent_ids(&full(), Some("a"), 5),
            agent_versions(&[AgentId::trusted("a")]),
            agent_counts(&full()),
            agent_tags(&full()),
            agents_by_version(&full()),
            agents_by_os(&full(), 5),
            action_page(&actions, page),
            action_total(&actions),
            key_page(&actions, page),
            key_total(&actions),
            counts_within(3, &scope),
        ];
        for statement in statements {
            let expected: Vec<usize> = (1..=statement.values.len()).collect();
            assert_eq!(placeholders(&statement.text), expected, "{}", statement.text);
            assert!(!statement.text.contains("$?"), "{}", statement.text);
        }
    }

    #[test]
    fn host_names_that_begin_alike_are_a_range() {
        let range = |pattern: &str| range_of(&AgentCondition::HostnameLike(pattern.into()));
        let of = |from: &str, to: &str| Some((from.to_owned(), to.to_owned()));
        assert_eq!(range("Web-1*"), of("web-1", "web-2"));
        assert_eq!(range("web*x*"), of("web", "wec"));
        assert_eq!(range("a\u{d7ff}*"), of("a\u{d7ff}", "a\u{e000}"), "there is no character between");
        assert_eq!(range("a\u{10ffff}*"), of("a\u{10ffff}", "b"));
        assert_eq!(range("*web"), None);
        assert_eq!(range("\u{10ffff}*"), None);
    }

    #[test]
    fn values_never_become_text_of_the_statement() {
        let statement = agent_total(&full());
        assert!(!statement.text.contains("b\"'"), "{}", statement.text);
        assert_eq!(statement.values[1], Bound::List(vec!["a".into(), "b\"'".into()]));
    }
}
