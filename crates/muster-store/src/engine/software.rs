//! Software of hosts: lists, names and searches. The index is maintained by [`index`].

mod index;

use muster_core::fleetd::software::postings::{CHUNK, Places};
use muster_core::fleetd::software::{Software, SoftwareId, Source};
use muster_core::id::{AgentId, SpaceId};
use muster_core::time::Timestamp;

pub(super) use self::index::{has_pending, index};
use super::error::Failure;
use super::row::{Columns, Result, all, count, first, run, send};
use super::session::{Connection, Row, Rule, params};
use crate::port::SoftwareWrite;
use crate::query::{FoundSoftware, HostSoftware, Page, SoftwareHost, SoftwareHosts, SoftwareSearch};
use crate::sql::software as sql;

/// Ids of a statement with a list.
const BATCH: usize = 1_000;
/// Last character in the order of names.
const LAST: char = char::MAX;

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &SoftwareWrite) -> std::result::Result<(), Failure> {
    let SoftwareWrite::List { agent, list, new, left_out, now } = write;
    let now = now.as_micros();
    if !new.is_empty() {
        // Two nodes that insert the same rows in another order would wait for each other.
        connection.lock(Rule::Software)?;
    }
    for software in new {
        let Software { name, version, source } = software;
        let values = params![software.id().number(), name, version, source.as_str(), software.name_key(), now];
        send(connection, sql::PUT, values)?;
    }
    let left_out = i64::try_from(*left_out).unwrap_or(i64::MAX);
    Ok(send(connection, sql::PUT_LIST, params![agent.as_str(), list, now, left_out])?)
}

/// Marks the list of an agent that was deleted, or is in another space now.
pub(super) fn mark(connection: &Connection, agent: &AgentId) -> Result<()> {
    send(connection, sql::MARK, [agent.as_str()])
}

fn numbers(ids: &[SoftwareId]) -> Vec<i64> {
    ids.iter().map(|id| id.number()).collect()
}

fn id(c: &mut Columns<'_, '_>) -> Result<SoftwareId> {
    c.take::<i64>().map(|number| SoftwareId::from_number(number).unwrap_or_default())
}

fn software(c: &mut Columns<'_, '_>) -> Result<(SoftwareId, Software)> {
    Ok((id(c)?, Software { name: c.take()?, version: c.take()?, source: c.word::<Source>()? }))
}

fn found(row: &Row<'_>) -> Result<FoundSoftware> {
    let mut c = Columns::of(row);
    let (id, software) = software(&mut c)?;
    Ok(FoundSoftware { id, software, hosts: c.count()? })
}

/// Selects the list of a host.
pub(super) fn list(connection: &Connection, agent: &AgentId) -> Result<Option<HostSoftware>> {
    first(connection, sql::LIST, [agent.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok(HostSoftware { list: c.take()?, changed_at: c.time()?, left_out: c.count()? })
    })
}

/// Selects which ids are known and in use.
pub(super) fn known(connection: &Connection, ids: &[SoftwareId]) -> Result<Vec<SoftwareId>> {
    let mut known = Vec::with_capacity(ids.len());
    for ids in ids.chunks(BATCH) {
        known.extend(all(connection, sql::KNOWN, params![numbers(ids)], |row| id(&mut Columns::of(row)))?);
    }
    Ok(known)
}

/// Selects software by id, sorted by name. Unknown ids are left out.
pub(super) fn by_id(connection: &Connection, ids: &[SoftwareId]) -> Result<Vec<(SoftwareId, Software)>> {
    all(connection, sql::BY_ID, params![numbers(ids)], |row| software(&mut Columns::of(row)))
}

/// Selects a page of the software of a space by name.
pub(super) fn of_space(
    connection: &Connection,
    space: &SpaceId,
    search: &SoftwareSearch,
    after: Option<&Software>,
    page: Page,
) -> Result<Vec<FoundSoftware>> {
    let (mut least, most, like) = range(&search.name);
    let source = search.source.map_or("", Source::as_str);
    let (name, id) = after.map_or((String::new(), i64::MIN), |after| (after.name_key(), after.id().number()));
    // The index is read from there, and not from the beginning.
    least = least.max(name.clone());
    let (limit, offset) = (i64::from(page.limit), i64::from(page.offset));
    let values = params![space.as_str(), least, most, like, source, name, id, limit, offset];
    all(connection, sql::OF_SPACE, values, found)
}

/// Counts the software of a space.
pub(super) fn count_of_space(connection: &Connection, space: &SpaceId, search: &SoftwareSearch) -> Result<u64> {
    if *search == SoftwareSearch::default() {
        return count(connection, sql::COUNT_ALL, [space.as_str()]);
    }
    let (least, most, like) = range(&search.name);
    let source = search.source.map_or("", Source::as_str);
    count(connection, sql::COUNT, params![space.as_str(), least, most, like, source])
}

/// Returns the least and the most name that a pattern matches, and the pattern for LIKE.
fn range(name: &str) -> (String, String, String) {
    let name = name.to_lowercase();
    let literal = name.split('*').next().unwrap_or_default();
    let most = if name.is_empty() || name.contains('*') { format!("{literal}{LAST}") } else { name.clone() };
    let mut like = String::new();
    for character in name.chars() {
        match character {
            '*' => like.push('%'),
            '%' | '_' | '\\' => like.extend(['\\', character]),
            other => like.push(other),
        }
    }
    let like = if like.is_empty() { "%".to_owned() } else { like };
    (literal.to_owned(), most, like)
}

/// Selects software of a space.
pub(super) fn one(connection: &Connection, space: &SpaceId, id: SoftwareId) -> Result<Option<FoundSoftware>> {
    first(connection, sql::ONE, params![space.as_str(), id.number()], found)
}

/// Selects a page of the hosts that have software, in the order in which they first reported any. `after`: the number behind which the page
/// begins.
pub(super) fn hosts(
    connection: &Connection,
    space: &SpaceId,
    id: SoftwareId,
    after: Option<u32>,
    page: Page,
) -> Result<SoftwareHosts> {
    let chunks = all(connection, sql::CHUNKS, params![space.as_str(), id.number()], |row| {
        let mut c = Columns::of(row);
        Ok((c.take::<u32>()?, c.take::<Vec<u8>>()?))
    })?;
    let all_numbers = chunks.iter().flat_map(|(chunk, places)| {
        let places: Vec<u16> = Places::decoded(places).iter().collect();
        places.into_iter().map(move |place| chunk * CHUNK + u32::from(place))
    });
    let mut wanted =
        all_numbers.filter(|number| after.is_none_or(|after| *number > after)).skip(page.offset as usize).fuse();
    let numbers: Vec<i64> = wanted.by_ref().take(page.limit as usize).map(i64::from).collect();
    // By the numbers rather than the rows: a host that was deleted stays in the index for seconds.
    let last = numbers.last().and_then(|last| u32::try_from(*last).ok());
    let next = last.filter(|_| wanted.next().is_some());
    let hosts = all(connection, sql::HOSTS, params![numbers, space.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok(SoftwareHost { agent: c.id()?, host: c.id_option()?, hostname: c.take()? })
    });
    Ok(SoftwareHosts { hosts: hosts?, next })
}

/// Deletes software that no host has had since a time, and returns the number of rows.
pub(super) fn prune(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    run(connection, sql::PRUNE, params![before.as_micros(), limit]).map(|rows| rows as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_names_are_ranges_and_escaped() {
        let of = |name: &str| range(name);
        let expected = |least: &str, most: &str, like: &str| (least.to_owned(), most.to_owned(), like.to_owned());
        assert_eq!(of("OpenSSL"), expected("openssl", "openssl", "openssl"));
        assert_eq!(of("open*"), expected("open", "open\u{10ffff}", "open%"));
        assert_eq!(of("*log4j_*"), expected("", "\u{10ffff}", "%log4j\\_%"));
        assert_eq!(of(""), expected("", "\u{10ffff}", "%"));
    }
}
