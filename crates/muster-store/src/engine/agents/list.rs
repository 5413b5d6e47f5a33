//! Lists, counts and tags of the agents that match a filter.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::engine::session::{Connection, params};
use muster_core::agent::{AgentDetails, AgentDocuments, Family};
use muster_core::host::Host;
use muster_core::id::AgentId;
use muster_core::status::Status;

use super::record;
use crate::engine::row::{Columns, Result, all_composed, count_composed, filled, readable, unless_unreadable};
use crate::engine::words::Word as _;
use crate::query::{
    AgentCondition, AgentCursor, AgentFilter, AgentSort, HostRows, Listed, Page, Readable, VersionCount,
};
use crate::sql::{agents as sql, filter};

/// Returns a page: first the ids in order, then their records, so that sorting the whole fleet moves only ids.
pub(in crate::engine) fn page(
    connection: &Connection,
    wanted: &AgentFilter,
    sort: AgentSort,
    descending: bool,
    page: Page,
) -> Result<Listed<AgentDetails>> {
    let wanted = &narrowed(connection, wanted)?;
    let total = count_composed(connection, &filter::agent_total(wanted))?;
    // Reading in the order of check-ins pays only if matches are frequent. The few of a rare filter are found by an
    // index and sorted.
    let in_order = sort == AgentSort::LastCheckin && is_frequent(connection, wanted, total)?;
    let items = all_details(connection, page, |page| {
        let indexed = in_order.then(|| filter::agent_page_by_checkin(wanted, descending, page)).flatten();
        indexed.unwrap_or_else(|| filter::agent_page(wanted, sort, descending, page))
    })?;
    Ok(items.of(total))
}

/// Returns whether so many agents match that a page of them is found soon by reading all agents in the order of the list.
fn is_frequent(connection: &Connection, wanted: &AgentFilter, total: u64) -> Result<bool> {
    // Compared with the whole space, because the list by check-in is read from its end until the page is full.
    let all = AgentFilter { space: wanted.space.clone(), conditions: Vec::new(), ..AgentFilter::default() };
    Ok(total * RARE >= count_composed(connection, &filter::agent_total(&all))?)
}

/// One in so many agents is rare.
const RARE: u64 = 20;

/// Maximum number of agents that are looked up one by one, instead of reading all agents in the order of a list.
const FEW: usize = 1000;

/// One more than are looked up one by one, which tells "few" from "at least as many as we can take".
const MORE_THAN_FEW: u32 = 1001;

/// Replaces conditions on operating systems by the systems that meet them, and a condition on a part of a text by the ids that meet it,
/// if they are few: the page and the total would each compare every agent. If they are many, the first ones are found soon, and so
/// is a page.
fn narrowed<'f>(connection: &Connection, wanted: &'f AgentFilter) -> Result<Cow<'f, AgentFilter>> {
    let wanted = on_systems(connection, wanted)?;
    let Some((at, probe)) = filter::agent_probe(&wanted, MORE_THAN_FEW) else { return Ok(wanted) };
    let ids: Vec<AgentId> = all_composed(connection, &probe, |row| Columns::of(row).id())?;
    if ids.len() > FEW {
        return Ok(wanted);
    }
    let mut narrowed = wanted.into_owned();
    narrowed.conditions[at] = AgentCondition::Ids(ids);
    Ok(Cow::Owned(narrowed))
}

fn on_systems<'f>(connection: &Connection, wanted: &'f AgentFilter) -> Result<Cow<'f, AgentFilter>> {
    let statement = Some(wanted).filter(|wanted| filter::has_systems(&wanted.conditions));
    let Some(statement) = statement.and_then(|wanted| filter::systems(wanted, MORE_THAN_FEW)) else {
        return Ok(Cow::Borrowed(wanted));
    };
    let systems: Vec<String> = all_composed(connection, &statement, |row| row.get(0))?;
    if systems.len() > FEW {
        return Ok(Cow::Borrowed(wanted));
    }
    let conditions = wanted.conditions.iter().map(|condition| filter::on_systems(condition, &systems)).collect();
    Ok(Cow::Owned(AgentFilter { conditions, ..wanted.clone() }))
}

fn all_details(
    connection: &Connection,
    page: Page,
    statement: impl Fn(Page) -> filter::Composed,
) -> Result<Readable<AgentDetails>> {
    let rows = |page| {
        let ids: Vec<AgentId> = all_composed(connection, &statement(page), |row| Columns::of(row).id())?;
        details(connection, &ids)
    };
    filled(page, rows, Ok)
}

/// Selects these agents, in this order.
pub(in super::super) fn named(connection: &Connection, ids: &[AgentId]) -> Result<Vec<AgentDetails>> {
    Ok(details(connection, ids)?.into_iter().flatten().collect())
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
    let (page, wanted) = (Page { offset: 0, limit }, &narrowed(connection, wanted)?);
    all_details(connection, page, |page| filter::agents_after(wanted, sort, descending, cursor, page))
}

/// Maximum number of records that are read with one statement, which bounds the memory for their rows.
const AT_ONCE: usize = 1000;

/// Returns these agents, in this order; `None` for one that cannot be read. A statement for each would cost a page of 100 agents
/// 200 round trips to PostgreSQL.
fn details(connection: &Connection, ids: &[AgentId]) -> Result<Vec<Option<AgentDetails>>> {
    let mut found = Vec::with_capacity(ids.len());
    // In chunks, because a page of an export is far longer than one of a user interface.
    for ids in ids.chunks(AT_ONCE) {
        let names: Vec<&str> = ids.iter().map(AgentId::as_str).collect();
        let rows = readable(connection, "agents", sql::NAMED, params![names], |row| {
            let mut columns = Columns::of(row);
            let id: AgentId = columns.id()?;
            let record = record::read_next(&mut columns)?;
            let documents = AgentDocuments { local_metadata: columns.take()?, components: None };
            Ok((id, AgentDetails { record, documents }))
        })?;
        let mut rows: HashMap<AgentId, AgentDetails> = rows.into_iter().collect();
        found.extend(ids.iter().map(|id| rows.remove(id)));
    }
    Ok(found)
}

/// Returns hosts of matching agents.
pub(in crate::engine) fn hosts(connection: &Connection, wanted: &AgentFilter, rows: &HostRows) -> Result<Listed<Host>> {
    let wanted = &narrowed(connection, wanted)?;
    let total = count_composed(connection, &filter::host_total(wanted))?;
    // To find none, a page would look at every host.
    let mut items = if total == 0 {
        Vec::new()
    } else {
        all_composed(connection, &filter::host_page(wanted, rows), super::read_host)?
    };
    if matches!(rows, HostRows::Before(..)) {
        items.reverse();
    }
    Ok(Listed { items, total, unreadable: 0 })
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
    let wanted = &narrowed(connection, wanted)?;
    // A status that this version does not know must not hide the counts of the others.
    let counts = all_composed(connection, &filter::agent_counts(wanted), |row| {
        let mut columns = Columns::of(row);
        let count = columns.word().and_then(|status| Ok((status, columns.count()?)));
        unless_unreadable("counts of agents", || row.get(0).unwrap_or_default(), count)
    })?;
    // The rows come from a maintained table, see `agent_counts`.
    // A maintained number stays at 0 when the last agent has left.
    Ok(counts.into_iter().flatten().filter(|(_, count)| *count > 0).collect())
}

/// Counts agents by version and upgrade.
pub(in crate::engine) fn by_version(connection: &Connection, wanted: &AgentFilter) -> Result<Vec<VersionCount>> {
    let counts = all_composed(connection, &filter::agents_by_version(wanted), |row| {
        let mut c = Columns::of(row);
        let mut read = || {
            Ok(VersionCount {
                family: c.word()?,
                version: c.take()?,
                open: c.json_option()?,
                details: c.take()?,
                agents: c.count()?,
            })
        };
        unless_unreadable("versions of agents", || row.get(0).unwrap_or_default(), read())
    })?;
    Ok(counts.into_iter().flatten().collect())
}

/// Counts agents by family and version, the most frequent first. Families that this version does not know are omitted.
pub(in crate::engine) fn by_program(
    connection: &Connection,
    wanted: &AgentFilter,
) -> Result<Vec<(Family, String, u64)>> {
    let counts = all_composed(connection, &filter::agents_by_program(wanted), |row| {
        let mut c = Columns::of(row);
        Ok((c.take::<String>()?, c.count()?))
    })?;
    let known = |(program, agents): (String, u64)| {
        let (family, version) = program.split_once('\n')?;
        Some((Family::from_word(family)?, version.to_owned(), agents))
    };
    Ok(counts.into_iter().filter_map(known).collect())
}

/// Counts agents by what they report of their operating system, at most `limit` groups.
pub(in crate::engine) fn by_os(
    connection: &Connection,
    wanted: &AgentFilter,
    limit: u32,
) -> Result<Vec<(String, u64)>> {
    all_composed(connection, &filter::agents_by_os(wanted, limit), |row| {
        let mut c = Columns::of(row);
        Ok((c.take()?, c.count()?))
    })
}

/// Selects all tags in use, sorted ignoring case.
pub(in crate::engine) fn tags(connection: &Connection, wanted: &AgentFilter) -> Result<Vec<String>> {
    let mut tags: Vec<String> = all_composed(connection, &filter::agent_tags(wanted), |row| row.get(0))?;
    tags.sort_by_cached_key(|tag| (tag.to_lowercase(), tag.clone()));
    Ok(tags)
}
