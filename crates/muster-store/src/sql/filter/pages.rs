//! Lists of agents and hosts, and their totals.

use muster_core::id::AgentId;

use super::counted::Counted;
use super::looked_up::selects_few;
use super::{Composed, range_of};
use crate::query::{AgentCondition, AgentCursor, AgentFilter, AgentSort, HostRows, Page, SortValue};

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

/// Composes the query for hosts of matching agents, by name; in descending order if they are those before a cursor.
pub(crate) fn host_page(filter: &AgentFilter, rows: &HostRows) -> Composed {
    let mut statement = Composed::start(
        "SELECT hosts.id, hosts.space, hosts.machine_id, hosts.hostname, hosts.created_at, hosts.system_id FROM hosts WHERE ",
    );
    statement.hosts_of(filter);
    let is_before = matches!(rows, HostRows::Before(..));
    let page = match rows {
        HostRows::Page(page) => *page,
        HostRows::After(cursor, limit) | HostRows::Before(cursor, limit) => {
            statement.push(" AND (lower(hosts.hostname), hosts.id)");
            statement.text(if is_before { " < ($?, " } else { " > ($?, " }, &cursor.name);
            statement.text("$?)", cursor.id.as_str());
            Page { offset: 0, limit: *limit }
        }
    };
    statement.push(match (filter.conditions.iter().any(selects_few), is_before) {
        // Sorted by a column of an index, SQLite would read the whole index to find them.
        (true, false) => " ORDER BY coalesce(lower(hosts.hostname), ''), hosts.id",
        (true, true) => " ORDER BY coalesce(lower(hosts.hostname), '') DESC, hosts.id DESC",
        (false, false) => " ORDER BY lower(hosts.hostname), hosts.id",
        (false, true) => " ORDER BY lower(hosts.hostname) DESC, hosts.id DESC",
    });
    statement.page(page);
    statement
}

/// Composes the query for the number of hosts of matching agents.
pub(crate) fn host_total(filter: &AgentFilter) -> Composed {
    if filter.conditions.iter().any(selects_few) {
        let mut statement = Composed::start("SELECT count(*) FROM hosts WHERE ");
        statement.hosts_of(filter);
        return statement;
    }
    // From the agents, whose index has what people filter by: a look-up for each host takes several times as long.
    let head = "SELECT count(*) FROM (SELECT agents.host_id FROM agents WHERE agents.host_id > ''";
    let mut statement = Composed { text: head.to_owned(), ..Composed::default() };
    statement.by_host(filter);
    statement.push(" GROUP BY agents.host_id) AS h");
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
    if filter.conditions.iter().any(selects_few) {
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
        let mut statement = Composed { text: "SELECT (SELECT count(*)".to_owned(), ..Composed::default() };
        statement.alone(filter.space.as_ref(), text);
        statement.push(")");
        // The status is not in the table that has the texts: those that are hidden, usually few, are counted by theirs.
        if let Some(hidden) = hidden {
            statement.push(" - (SELECT count(*) FROM agents WHERE 1 = 1");
            let conditions = vec![hidden.clone(), text.clone()];
            statement.agents(&AgentFilter { space: filter.space.clone(), conditions, ..AgentFilter::default() });
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
        let is_system = |condition: &AgentCondition| matches!(condition, AgentCondition::Systems(_));
        place(is_system).or_else(|| place(is_text))
    })?;
    let mut statement = Composed { text: "SELECT agents.id".to_owned(), ..Composed::default() };
    statement.alone(filter.space.as_ref(), &filter.conditions[at]);
    statement.integer(" LIMIT $?", limit.into());
    Some((at, statement))
}

/// Composes the count of agents by version and upgrade.
pub(crate) fn agents_by_version(filter: &AgentFilter) -> Composed {
    let mut statement = Composed::start(
        "SELECT agents.family, agents.agent_version, agents.upgrade_open, agents.upgrade_details, count(*) \
         FROM agents WHERE ",
    );
    statement.agents(filter);
    statement.push(" GROUP BY agents.family, agents.agent_version, agents.upgrade_open, agents.upgrade_details");
    statement
}

/// Composes the count of agents by family and version, from an index.
pub(crate) fn agents_by_program(filter: &AgentFilter) -> Composed {
    let mut statement = Composed::start("SELECT agents.program, count(*) FROM agents WHERE ");
    statement.agents(filter);
    statement.push(" GROUP BY agents.program ORDER BY 2 DESC, 1");
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
    // By an expression: with the plain column, SQLite reads all agents in the order of their statuses, even if an index has the few that
    // match.
    let mut statement = Composed::start("SELECT coalesce(agents.status, ''), count(*) FROM agents WHERE ");
    statement.agents(filter);
    statement.push(" GROUP BY coalesce(agents.status, '')");
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
