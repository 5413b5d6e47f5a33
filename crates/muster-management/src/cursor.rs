//! Cursors of lists (MG §1.2.1): `searchAfter`, and points in time.
//!
//! A cursor consists of the sort value and the id of the last row, so a list of any length can be read page by page. A
//! point in time excludes agents that enrolled after it was opened. It is only a timestamp; the server stores nothing.

use muster_core::Error;
use muster_core::action::Action;
use muster_core::fleetd::software::{Software, Source};
use muster_core::host::Host;
use muster_core::id::{AgentId, HostId};
use muster_core::time::Timestamp;
use muster_protocol::management::agent::ListAgents;
use muster_store::query::{ActionCursor, AgentCursor, AgentSort, HostCursor, SortValue};
use serde_json::{Value, json};

/// Prefix of the id of a point in time.
const PIT: &str = "enrolled-by-";

/// Number of rows per read when a whole list is evaluated.
pub const BATCH: u32 = 1000;

/// Parses the cursor of a list that is sorted by name.
pub fn name(text: Option<&str>, page: Option<u32>) -> Result<Option<String>, Error> {
    read_as(text, page, |text| serde_json::from_str::<[String; 1]>(text).ok().map(|[name]| name))
}

/// Parses the cursor of a list that is sorted by time: the time and the id of the last row.
pub fn time_and_id(text: Option<&str>, page: Option<u32>) -> Result<Option<(Timestamp, String)>, Error> {
    let parse = |text: &str| serde_json::from_str::<(i64, String)>(text).ok();
    Ok(read_as(text, page, parse)?.map(|(micros, id)| (Timestamp::from_micros(micros), id)))
}

/// Parses the cursor of the list of actions.
pub fn action(text: Option<&str>, page: Option<u32>) -> Result<Option<ActionCursor>, Error> {
    let parse = |text: &str| serde_json::from_str::<(i64, i64, String, i64)>(text).ok();
    // The list mixes actions and policy revisions, so both positions are needed to continue between them.
    let cursor = |(at, seq, policy, revision)| ActionCursor {
        at: Timestamp::from_micros(at),
        seq,
        revision: (policy, revision),
    };
    Ok(read_as(text, page, parse)?.map(cursor))
}

/// Formats the cursor behind an action for `nextSearchAfter`.
pub fn behind_action(action: &Action) -> String {
    of_action(&ActionCursor::behind(action))
}

/// Formats a cursor of the list of actions.
pub fn of_action(cursor: &ActionCursor) -> String {
    let ActionCursor { at, seq, revision: (policy, revision) } = cursor;
    json!([at.as_micros(), seq, policy, revision]).to_string()
}

/// Parses the cursor of the list of hosts.
pub fn host(text: Option<&str>, page: Option<u32>) -> Result<Option<HostCursor>, Error> {
    read_as(text, page, |text| {
        let (name, id) = serde_json::from_str::<(String, String)>(text).ok()?;
        Some(HostCursor { name, id: HostId::parse(&id).ok()? })
    })
}

/// Formats the cursor behind a host for `nextSearchAfter`.
pub fn behind_host(host: &Host) -> String {
    let HostCursor { name, id } = HostCursor::behind(host);
    json!([name, id]).to_string()
}

/// Parses the cursor of the list of software.
pub fn software(text: Option<&str>, page: Option<u32>) -> Result<Option<Software>, Error> {
    read_as(text, page, |text| {
        let (name, version, source) = serde_json::from_str::<(String, String, String)>(text).ok()?;
        Some(Software { name, version, source: Source::parse(&source)? })
    })
}

/// Formats the cursor behind software for `nextSearchAfter`.
pub fn behind_software(last: &Software) -> String {
    json!([last.name, last.version, last.source.as_str()]).to_string()
}

/// Parses the cursor of the list of hosts that have software.
pub fn number(text: Option<&str>, page: Option<u32>) -> Result<Option<u32>, Error> {
    read_as(text, page, |text| serde_json::from_str::<[u32; 1]>(text).ok().map(|[number]| number))
}

/// Formats the cursor behind a number for `nextSearchAfter`.
pub fn behind_number(number: u32) -> String {
    json!([number]).to_string()
}

fn read_as<T>(text: Option<&str>, page: Option<u32>, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
    let Some(text) = text else { return Ok(None) };
    // An offset behind a cursor has no meaning, and clients that send both expect different rows.
    if page.is_some() {
        return Err(Error::invalid("searchAfter", "cannot be combined with page"));
    }
    let found =
        parse(text).ok_or_else(|| Error::invalid("searchAfter", "must be nextSearchAfter from the previous response"));
    found.map(Some)
}

/// Parses the cursor of the list of agents.
pub fn read(query: &ListAgents, sort: AgentSort) -> Result<Option<AgentCursor>, Error> {
    read_as(query.search_after.as_deref(), query.page, |text| parse(text, sort))
}

/// Parses the cursor of a list of agents with this order; `None` if it is none.
pub fn parse(text: &str, sort: AgentSort) -> Option<AgentCursor> {
    let (value, id): (Value, String) = serde_json::from_str(text).ok()?;
    // A cursor of another sort field has another type. With the same type it would be valid, but skip rows.
    let value = match value {
        Value::Number(micros) if sort.is_by_number() => SortValue::Number(micros.as_i64()?),
        Value::String(text) if !sort.is_by_number() => SortValue::Text(text),
        _ => return None,
    };
    // The id distinguishes rows with the same sort value; without it, a page could skip or repeat them.
    Some(AgentCursor { value, id: AgentId::parse(&id).ok()? })
}

/// Formats the cursor for `nextSearchAfter`.
pub fn write(cursor: &AgentCursor) -> String {
    let id = cursor.id.as_str();
    match &cursor.value {
        SortValue::Number(number) => json!([number, id]).to_string(),
        SortValue::Text(text) => json!([text, id]).to_string(),
    }
}

/// Returns the point in time that a request opens or continues with.
pub fn point_in_time(query: &ListAgents, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let opens = query.open_pit == Some(true);
    let pit = match (&query.pit_id, opens) {
        (Some(_), true) => return Err(Error::invalid("pitId", "cannot be combined with openPit")),
        (None, false) => return Ok(None),
        (None, true) => now,
        (Some(id), false) => id
            .strip_prefix(PIT)
            .and_then(|micros| micros.parse().ok())
            .map(Timestamp::from_micros)
            .ok_or_else(|| Error::invalid("pitId", "must be pit from a previous response"))?,
    };
    // Required as in Kibana, though nothing here expires.
    match query.pit_keep_alive.as_deref().map(str::trim) {
        Some(keep) if !keep.is_empty() => Ok(Some(pit)),
        _ => Err(Error::invalid("pitKeepAlive", "is required with openPit and pitId, such as 1m")),
    }
}

/// Formats the id of a point in time.
pub fn pit(at: Timestamp) -> String {
    format!("{PIT}{}", at.as_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> ListAgents {
        ListAgents { search_after: Some(text.into()), ..ListAgents::default() }
    }

    #[test]
    fn a_formatted_cursor_can_be_parsed() {
        for (sort, value) in [
            (AgentSort::EnrolledAt, SortValue::Number(1_767_322_800_000_001)),
            (AgentSort::Hostname, SortValue::Text("we\"b".into())),
            (AgentSort::Policy, SortValue::Text(String::new())),
        ] {
            let cursor = AgentCursor { value, id: AgentId::trusted("a") };
            assert_eq!(read(&query(&write(&cursor)), sort).unwrap(), Some(cursor));
        }
    }

    #[test]
    fn invalid_cursors_are_rejected() {
        for text in
            ["", "x", "[]", "[1]", "[\"a\", \"b\"]", "[1.5, \"b\"]", "[1, \"b/c\"]", "[1, 2]", "[1, \"b\", 3]", "null"]
        {
            assert_eq!(
                read(&query(text), AgentSort::EnrolledAt).unwrap_err().field.as_deref(),
                Some("searchAfter"),
                "{text}"
            );
        }
        assert!(read(&query("[1, \"b\"]"), AgentSort::Status).is_err());
        let paged = ListAgents { page: Some(1), ..query("[1, \"b\"]") };
        assert!(read(&paged, AgentSort::EnrolledAt).is_err());
    }
}
