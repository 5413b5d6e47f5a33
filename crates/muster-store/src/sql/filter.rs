//! Queries with variable conditions, assembled from fixed fragments.

use std::time::Duration;

use muster_core::id::{AgentId, EnrollmentKeyId, HostId, PolicyId};
use serde_json::json;

use super::{actions, dialect};
use crate::query::{
    ActionCursor, ActionFilter, ActionScope, AgentCondition, AgentCursor, AgentFilter, AgentSort, Page, SortValue,
};
use crate::search;

/// Whether an agent is in the rollout `$?`.
const IN_ROLLOUT: &str = "EXISTS (SELECT 1 FROM rollout_agents r WHERE r.agent_id = agents.id AND r.rollout_id = $?)";
/// Whether an agent has a tag of the list that follows.
const TAGGED: &str = "EXISTS (SELECT 1 FROM agent_tags t WHERE t.agent_id = agents.id AND t.tag ";
/// Whether an agent was last seen before `$?`.
const SEEN_BEFORE: &str = "(coalesce(agents.last_checkin, agents.enrolled_at) < $?)";
/// Whether an agent was seen after `$?`.
const SEEN_AFTER: &str = "(coalesce(agents.last_checkin, agents.enrolled_at) > $?)";

/// Bound value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Integer or time.
    Integer(i64),
    /// String, id or JSON.
    Text(String),
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
        self.text.push_str(&fragment.replace("$?", &format!("${}", self.values.len())));
    }

    fn text(&mut self, fragment: &'static str, value: &str) {
        self.bind(fragment, Bound::Text(value.to_owned()));
    }

    /// Appends ` AND column IN (…)`. The list is bound as one value, so that its length does not change the statement.
    fn list<T: AsRef<str>>(&mut self, column: &'static str, words: impl IntoIterator<Item = T>) {
        let words: Vec<String> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self.push(column);
        self.bind(dialect::IN_LIST, Bound::Text(json!(words).to_string()));
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

    /// Appends one condition. It is never NULL, so that its negation matches exactly the rest; and where a column has an
    /// index, it stands alone on its side of the comparison, so that the index is used.
    fn condition(&mut self, condition: &AgentCondition) {
        match condition {
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
                self.set("(agents.policy_id IS NOT NULL AND agents.policy_id ", ids.iter().map(PolicyId::as_str));
            }
            AgentCondition::HasPolicy => self.push("(agents.policy_id IS NOT NULL)"),
            AgentCondition::TakesRevision(revision) => {
                self.integer("(agents.target_revision IS NULL OR agents.target_revision = $?)", *revision);
            }
            AgentCondition::PlaceBelow(place) => self.integer("(agents.place < $?)", place.as_i64()),
            AgentCondition::HostnameLike(pattern) => {
                self.text(r"(lower(agents.hostname) LIKE $? ESCAPE '\')", &search::wildcard(pattern));
            }
            AgentCondition::Os(fact, value, is_prefix) => {
                self.text(r"(agents.search LIKE $? ESCAPE '\')", &fact.pattern(value, *is_prefix));
            }
            AgentCondition::Text(words) => {
                self.text(r"(agents.search LIKE $? ESCAPE '\')", &search::containing(words));
            }
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

    fn version_in(&mut self, from: i64, to: i64) {
        self.integer("(agents.version_key >= $?", from);
        self.integer(" AND agents.version_key < $?)", to);
    }

    fn inactivity_timeout(&mut self, timeout: Option<Duration>) {
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
    fn set<T: AsRef<str>>(&mut self, head: &'static str, words: impl IntoIterator<Item = T>) {
        self.list(head, words);
        self.push(")");
    }
}

/// Composes the query for the ids of a page of agents.
pub(crate) fn agent_page(filter: &AgentFilter, sort: AgentSort, descending: bool, page: Page) -> Composed {
    let mut statement = Composed::start("SELECT agents.id FROM agents WHERE ");
    statement.agents(filter);
    statement.push(agent_order(sort, descending));
    statement.page(page);
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
        AgentSort::EnrolledAt => " AND (agents.enrolled_at, agents.id)",
        AgentSort::LastCheckin => " AND (coalesce(agents.last_checkin, 0), agents.id)",
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
    statement.text("$?)", after.id.as_str());
    statement.push(agent_order(sort, descending));
    statement.page(page);
    statement
}

fn agent_order(sort: AgentSort, descending: bool) -> &'static str {
    match (sort, descending) {
        (AgentSort::EnrolledAt, false) => " ORDER BY agents.enrolled_at, agents.id",
        (AgentSort::EnrolledAt, true) => " ORDER BY agents.enrolled_at DESC, agents.id DESC",
        (AgentSort::LastCheckin, false) => " ORDER BY coalesce(agents.last_checkin, 0), agents.id",
        (AgentSort::LastCheckin, true) => " ORDER BY coalesce(agents.last_checkin, 0) DESC, agents.id DESC",
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

/// Composes the count of matching agents.
pub(crate) fn agent_total(filter: &AgentFilter) -> Composed {
    let mut statement = Composed::start("SELECT count(*) FROM agents WHERE ");
    statement.agents(filter);
    statement
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
    let mut statement = Composed::start("SELECT agents.status, count(*) FROM agents WHERE ");
    statement.agents(filter);
    statement.push(" GROUP BY agents.status");
    statement
}

/// Condition for the tags of a space's agents.
const IN_SPACE: &str =
    "EXISTS (SELECT 1 FROM agents WHERE agents.id = agent_tags.agent_id AND agents.space = $? LIMIT 1)";

/// Composes the query for all tags.
pub(crate) fn agent_tags(filter: &AgentFilter) -> Composed {
    if *filter == AgentFilter::default() {
        return Composed::start("SELECT DISTINCT tag FROM agent_tags WHERE ");
    }
    if let Some(space) = filter.space.as_ref().filter(|_| filter.conditions.is_empty()) {
        // Uses the index of tags. A join would collect the tags of all agents before removing duplicates.
        let mut statement = Composed { text: "SELECT DISTINCT tag FROM agent_tags WHERE ".into(), values: Vec::new() };
        statement.text(IN_SPACE, space.as_str());
        return statement;
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

    use muster_core::id::SpaceId;

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
        let statements = [
            agent_page(&full(), AgentSort::Status, true, page),
            agent_total(&full()),
            agent_ids(&full(), Some("a"), 5),
            agent_versions(&[AgentId::trusted("a")]),
            agent_counts(&full()),
            agent_tags(&full()),
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
    fn values_never_become_text_of_the_statement() {
        let statement = agent_total(&full());
        assert!(!statement.text.contains("b\"'"), "{}", statement.text);
        assert_eq!(statement.values[1], Bound::Text(r#"["a","b\"'"]"#.into()));
    }
}
