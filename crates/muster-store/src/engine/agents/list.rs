//! Lists, counts and tags of the agents that match a filter.

use crate::engine::session::Connection;
use muster_core::agent::{AgentDetails, AgentDocuments};
use muster_core::id::AgentId;
use muster_core::status::Status;

use super::by_id;
use crate::engine::row::{Columns, Result, all_composed, count_composed, filled, first, unless_unreadable};
use crate::query::{AgentCursor, AgentFilter, AgentSort, Listed, Page, Readable};
use crate::sql::{agents as sql, filter};

/// Returns a page: first the ids in order, then their records, so that sorting the whole fleet moves only ids.
pub(in crate::engine) fn page(
    connection: &Connection,
    wanted: &AgentFilter,
    sort: AgentSort,
    descending: bool,
    page: Page,
) -> Result<Listed<AgentDetails>> {
    let items = all_details(connection, page, |page| filter::agent_page(wanted, sort, descending, page))?;
    let total = count_composed(connection, &filter::agent_total(wanted))?;
    Ok(items.of(total))
}

fn all_details(
    connection: &Connection,
    page: Page,
    statement: impl Fn(Page) -> filter::Composed,
) -> Result<Readable<AgentDetails>> {
    let ids = |page| all_composed(connection, &statement(page), |row| Columns::of(row).id::<AgentId>());
    filled(page, ids, |id| Ok(unless_unreadable("agents", || id.to_string(), details(connection, &id))?.flatten()))
}

/// Selects these agents, in this order.
pub(in super::super) fn named(connection: &Connection, ids: &[AgentId]) -> Result<Vec<AgentDetails>> {
    let mut items = Vec::with_capacity(ids.len());
    for id in ids {
        let found = unless_unreadable("agents", || id.to_string(), details(connection, id))?;
        items.extend(found.flatten());
    }
    Ok(items)
}

/// Selects the agents after a cursor.
pub(in crate::engine) fn after(
    connection: &Connection,
    wanted: &AgentFilter,
    sort: AgentSort,
    descending: bool,
    cursor: &AgentCursor,
    limit: u32,
) -> Result<Readable<AgentDetails>> {
    let page = Page { offset: 0, limit };
    all_details(connection, page, |page| filter::agents_after(wanted, sort, descending, cursor, page))
}

fn details(connection: &Connection, id: &AgentId) -> Result<Option<AgentDetails>> {
    let Some(record) = by_id(connection, id)? else { return Ok(None) };
    let local_metadata = first(connection, sql::LOCAL_METADATA, [id.as_str()], |row| row.get(0))?.flatten();
    Ok(Some(AgentDetails { record, documents: AgentDocuments { local_metadata, components: None } }))
}

/// Selects ids after one.
pub(in crate::engine) fn ids(
    connection: &Connection,
    wanted: &AgentFilter,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Vec<AgentId>> {
    let statement = filter::agent_ids(wanted, after.map(AgentId::as_str), limit);
    all_composed(connection, &statement, |row| Columns::of(row).id())
}

/// Selects the versions of these agents' records.
pub(in super::super) fn versions(connection: &Connection, ids: &[AgentId]) -> Result<Vec<(AgentId, i64)>> {
    all_composed(connection, &filter::agent_versions(ids), |row| {
        let mut columns = Columns::of(row);
        Ok((columns.id()?, columns.take()?))
    })
}

/// Counts agents by status.
pub(in crate::engine) fn counts(connection: &Connection, wanted: &AgentFilter) -> Result<Vec<(Status, u64)>> {
    // A status that this version does not know must not hide the counts of the others.
    let counts = all_composed(connection, &filter::agent_counts(wanted), |row| {
        let mut columns = Columns::of(row);
        let count = columns.word().and_then(|status| Ok((status, columns.count()?)));
        unless_unreadable("counts of agents", || row.get(0).unwrap_or_default(), count)
    })?;
    Ok(counts.into_iter().flatten().collect())
}

/// Selects all tags in use, sorted ignoring case.
pub(in crate::engine) fn tags(connection: &Connection, wanted: &AgentFilter) -> Result<Vec<String>> {
    let mut tags: Vec<String> = all_composed(connection, &filter::agent_tags(wanted), |row| row.get(0))?;
    tags.sort_by_cached_key(|tag| (tag.to_lowercase(), tag.clone()));
    Ok(tags)
}
