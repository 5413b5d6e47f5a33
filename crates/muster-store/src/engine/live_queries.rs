//! Live queries, their targets and their results.

use muster_core::id::{AgentId, HostId, LiveQueryId, SpaceId};
use muster_core::live_query::{
    EndReason, Ended, HostAnswer, LiveQuery, LiveResult, MAX_BYTES, MAX_ENDED, MAX_RUNNING, MAX_RUNNING_OF_USER,
};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::row::{Columns, Result, affects, all, count, first, run, send};
use super::session::{Connection, Row, Rule, params};
use crate::port::{LiveQueryWrite, Precondition};
use crate::sql::live_queries as sql;

/// Applies a change of live queries.
pub(super) fn apply(connection: &Connection, write: &LiveQueryWrite) -> std::result::Result<(), Failure> {
    match write {
        LiveQueryWrite::Insert { query, targets } => insert(connection, query, targets),
        LiveQueryWrite::Answer { query, result } => answer(connection, query, result),
        LiveQueryWrite::Prolong { id, until } => {
            Ok(send(connection, sql::PROLONG, params![until.as_micros(), id.as_str()])?)
        }
        LiveQueryWrite::End { id, reason: EndReason::TimedOut, now } => {
            Ok(send(connection, sql::TIME_OUT, params![now.as_micros(), id.as_str()])?)
        }
        LiveQueryWrite::End { id, reason, now } => {
            Ok(send(connection, sql::END, params![now.as_micros(), reason.as_str(), id.as_str()])?)
        }
    }
}

fn insert(connection: &Connection, query: &LiveQuery, targets: &[AgentId]) -> std::result::Result<(), Failure> {
    // The limits span rows.
    connection.lock(Rule::References)?;
    let space = query.space.as_str();
    if count(connection, sql::RUNNING_IN, [space])? >= MAX_RUNNING {
        return Err(Precondition::TooMany(format!("running live queries: a space has at most {MAX_RUNNING}")).into());
    }
    // With a space after it, so that no other user's name begins with it.
    let user = format!("{} ", query.creator());
    if count(connection, sql::RUNNING_OF, params![space, user])? >= MAX_RUNNING_OF_USER {
        let reason = format!("running live queries: a user has at most {MAX_RUNNING_OF_USER} in a space");
        return Err(Precondition::TooMany(reason).into());
    }
    // Old ones are removed with each new one, so the space needs no separate clean-up for its maximum.
    send(connection, sql::KEEP_ENDED, params![space, number(MAX_ENDED)])?;
    let values = params![
        query.id.as_str(),
        space,
        query.sql,
        query.created_by,
        query.created_at.as_micros(),
        query.expires_at.as_micros(),
        number(query.targets),
    ];
    if run(connection, sql::INSERT, values)? == 0 {
        return Err(Precondition::Exists(format!("live query {}", query.id)).into());
    }
    let targets: Vec<&str> = targets.iter().map(AgentId::as_str).collect();
    let inserted = run(connection, sql::INSERT_TARGETS, params![query.id.as_str(), targets, space])? as u64;
    // An agent may have left the space since the targets were selected. The live query must not wait for it.
    match query.targets.saturating_sub(inserted) {
        0 => Ok(()),
        gone => Ok(count_gone(connection, &query.id, gone, query.created_at)?),
    }
}

/// Ends what an agent that leaves the space has yet to answer.
pub(super) fn forget_agent(connection: &Connection, agent: &AgentId, now: Timestamp) -> Result<()> {
    let values = params![now.as_micros(), agent.as_str()];
    let mut left: Vec<LiveQueryId> = all(connection, sql::LEAVE, values, |row| Columns::of(row).id())?;
    // After the targets, as answers lock them, and in one order: otherwise servers could wait for each other.
    left.sort_unstable();
    left.iter().try_for_each(|query| count_gone(connection, query, 1, now))
}

fn count_gone(connection: &Connection, query: &LiveQueryId, gone: u64, now: Timestamp) -> Result<()> {
    send(connection, sql::COUNT_GONE, params![number(gone), now.as_micros(), query.as_str()])
}

fn answer(connection: &Connection, query: &LiveQueryId, result: &LiveResult) -> std::result::Result<(), Failure> {
    let (id, agent, at) = (query.as_str(), result.agent.as_str(), result.at.as_micros());
    // First: of two servers that store an answer of the same agent, one fails here, and counts nothing. With a single writer, nothing
    // after it can fail, so that an answer needs no savepoint (`apply::is_one_statement`).
    if !affects(connection, sql::TAKE_ANSWER, params![at, id, agent])? {
        return Err(Precondition::Missing(format!("agent {agent} among those that have yet to answer {id}")).into());
    }
    let given = &result.answer;
    let (failed, rows) = (i64::from(given.error.is_some()), number(given.row_count));
    let bytes = number((given.rows.len() + given.error.as_ref().map_or(0, String::len)) as u64);
    // The row also enforces the maximum of bytes, and that the live query has not ended meanwhile.
    if !affects(connection, sql::COUNT_ANSWER, params![failed, rows, bytes, number(MAX_BYTES), at, id])? {
        return Err(Precondition::Missing(format!("running live query {id}")).into());
    }
    let values = params![
        id,
        agent,
        result.host.as_ref().map(HostId::as_str),
        result.hostname,
        at,
        given.error,
        given.rows,
        rows,
        given.is_truncated,
        number(given.missing_rows),
    ];
    Ok(send(connection, sql::INSERT_RESULT, values)?)
}

/// Returns a count as it is stored. All of them are limited far below the maximum.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn read(row: &Row<'_>) -> Result<LiveQuery> {
    let mut c = Columns::of(row);
    Ok(LiveQuery {
        id: c.id()?,
        space: c.id()?,
        sql: c.take()?,
        created_by: c.take()?,
        created_at: c.time()?,
        expires_at: c.time()?,
        targets: c.count()?,
        answered: c.count()?,
        failed: c.count()?,
        gone: c.count()?,
        rows: c.count()?,
        bytes: c.count()?,
        ended: {
            let (at, reason) = (c.time_option()?, c.word_option::<EndReason>()?);
            at.zip(reason).map(|(at, reason)| Ended { at, reason })
        },
    })
}

/// Selects a live query of a space.
pub(super) fn one(connection: &Connection, space: &SpaceId, id: &LiveQueryId) -> Result<Option<LiveQuery>> {
    first(connection, sql::ONE, [id.as_str(), space.as_str()], read)
}

/// Selects the live queries of a space, newest first.
pub(super) fn of_space(connection: &Connection, space: &SpaceId) -> Result<Vec<LiveQuery>> {
    all(connection, sql::OF_SPACE, [space.as_str()], read)
}

/// Selects the live queries of all spaces that run.
pub(super) fn running(connection: &Connection) -> Result<Vec<LiveQuery>> {
    all(connection, sql::RUNNING, (), read)
}

/// Selects targets that have not answered.
pub(super) fn pending(
    connection: &Connection,
    id: &LiveQueryId,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Vec<AgentId>> {
    let after = after.map_or("", AgentId::as_str);
    all(connection, sql::PENDING, params![id.as_str(), after, limit], |row| Columns::of(row).id())
}

/// Counts the targets that have not answered and are not connected.
pub(super) fn absent(connection: &Connection, id: &LiveQueryId) -> Result<u64> {
    count(connection, sql::ABSENT, [id.as_str()])
}

/// Selects answers after a number.
pub(super) fn results(
    connection: &Connection,
    id: &LiveQueryId,
    after: u64,
    bytes: u64,
    limit: u32,
) -> Result<Vec<LiveResult>> {
    all(connection, sql::RESULTS, params![id.as_str(), number(after), number(bytes), limit], |row| {
        let mut c = Columns::of(row);
        Ok(LiveResult {
            seq: c.count()?,
            agent: c.id()?,
            host: c.id_option()?,
            hostname: c.take()?,
            at: c.time()?,
            answer: HostAnswer {
                error: c.take()?,
                rows: c.take()?,
                row_count: c.count()?,
                is_truncated: c.flag()?,
                missing_rows: c.count()?,
            },
        })
    })
}

/// Deletes live queries that ended before a time, and returns their number.
pub(super) fn prune(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    run(connection, sql::PRUNE, params![before.as_micros(), limit]).map(|rows| rows as u64)
}
