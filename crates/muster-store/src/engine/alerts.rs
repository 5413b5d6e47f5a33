//! Events, and the receivers of alerts. A row holds the whole record as a document, and the columns that are searched.

use muster_core::alert::{Progress, Receiver};
use muster_core::event::Event;
use muster_core::id::{AlertReceiverId, SpaceId};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::row::{Columns, Result, all, any, count, first, run, send, to_json};
use super::session::{Connection, Row, Rule, params};
use crate::port::{AlertWrite, MOST_RECEIVERS, Precondition};
use crate::sql::alerts as sql;

/// The events of a transaction. Like changes, they are appended at its end, because on an engine with several nodes the others
/// wait from there until the commit.
#[derive(Debug, Default)]
pub(crate) struct Events(Vec<(i64, String, String, String)>);

impl Events {
    /// Adds an event.
    pub(crate) fn push(&mut self, event: &Event) -> Result<()> {
        let space = event.space.as_ref().map_or("", SpaceId::as_str).to_owned();
        let subject = subject_of(&event.subject.kind, &event.subject.id);
        self.0.push((event.at.as_micros(), space, subject, to_json(event)?));
        Ok(())
    }

    /// Returns a mark to roll back to if the next job fails.
    pub(crate) fn mark(&self) -> usize {
        self.0.len()
    }

    /// Rolls back to a mark.
    pub(crate) fn back_to(&mut self, mark: usize) {
        self.0.truncate(mark);
    }

    /// Appends the events.
    pub(crate) fn append(&self, connection: &Connection) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { send(connection, sql::INSERT_EVENTS, params![to_json(&self.0)?]) }
    }
}

/// Returns the value of the column for what an event happened to.
fn subject_of(kind: &str, id: &str) -> String {
    format!("{kind}:{id}")
}

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &AlertWrite) -> std::result::Result<(), Failure> {
    match write {
        AlertWrite::Insert { receiver, after } => insert(connection, receiver, *after),
        AlertWrite::Update(receiver) => update(connection, receiver),
        AlertWrite::Delete { id } => match run(connection, sql::DELETE, [id.as_str()])? {
            0 => Err(missing(id).into()),
            _ => Ok(()),
        },
        AlertWrite::Progress { id, progress } => put_progress(connection, id, progress),
    }
}

fn missing(id: &AlertReceiverId) -> Precondition {
    Precondition::Missing(format!("receiver {id}"))
}

fn insert(connection: &Connection, receiver: &Receiver, after: i64) -> std::result::Result<(), Failure> {
    // The limit and the name span rows.
    connection.lock(Rule::References)?;
    refuse_taken_name(connection, receiver)?;
    if count(connection, sql::COUNT, [receiver.space.as_str()])? >= MOST_RECEIVERS {
        return Err(Precondition::TooManyReceivers(MOST_RECEIVERS).into());
    }
    let (id, space) = (receiver.id.as_str(), receiver.space.as_str());
    let values = params![id, space, receiver.name, receiver.version, to_json(receiver)?];
    match run(connection, sql::INSERT, values)? {
        0 => Err(Precondition::Exists(format!("receiver {id}")).into()),
        // Begins after the newest event, so that a new receiver gets no messages about the past.
        _ => put_progress(connection, &receiver.id, &Progress::from(after)),
    }
}

fn update(connection: &Connection, receiver: &Receiver) -> std::result::Result<(), Failure> {
    connection.lock(Rule::References)?;
    refuse_taken_name(connection, receiver)?;
    let values = params![receiver.name, receiver.version, to_json(receiver)?, receiver.id.as_str()];
    match run(connection, sql::UPDATE, values)? {
        0 => Err(Precondition::Changed(format!("receiver {}", receiver.id)).into()),
        _ => Ok(()),
    }
}

fn refuse_taken_name(connection: &Connection, receiver: &Receiver) -> std::result::Result<(), Failure> {
    let (space, id) = (receiver.space.as_str(), receiver.id.as_str());
    if any(connection, sql::NAME_TAKEN, [space, &receiver.name, id])? {
        return Err(Precondition::NameTaken(receiver.name.clone()).into());
    }
    Ok(())
}

fn put_progress(
    connection: &Connection,
    id: &AlertReceiverId,
    progress: &Progress,
) -> std::result::Result<(), Failure> {
    match run(connection, sql::PUT_PROGRESS, params![to_json(progress)?, id.as_str()])? {
        0 => Err(missing(id).into()),
        _ => Ok(()),
    }
}

/// Returns the number of the newest event.
pub(super) fn newest_event(connection: &Connection) -> Result<i64> {
    Ok(first(connection, sql::NEWEST_EVENT, (), |row| row.get(0))?.unwrap_or(0))
}

/// Selects events after one. A newer node may have written kinds that this one does not know.
pub(super) fn events_after(connection: &Connection, seq: i64, limit: u32) -> Result<Vec<(i64, Event)>> {
    Ok(known(all(connection, sql::EVENTS, params![seq, limit], numbered)?))
}

/// Selects the events of a subject before one, newest first.
pub(super) fn events_of(
    connection: &Connection,
    kind: &str,
    id: &str,
    before: i64,
    limit: u32,
) -> Result<Vec<(i64, Event)>> {
    Ok(known(all(connection, sql::EVENTS_OF, params![subject_of(kind, id), before, limit], numbered)?))
}

/// Selects the newest events that concern a space, newest first.
pub(super) fn events_in(connection: &Connection, space: &SpaceId, limit: u32) -> Result<Vec<(i64, Event)>> {
    Ok(known(all(connection, sql::EVENTS_IN, params![space.as_str(), limit], numbered)?))
}

fn numbered(row: &Row<'_>) -> Result<(i64, String)> {
    Ok((row.get::<i64>(0)?, row.get::<String>(1)?))
}

fn known(rows: Vec<(i64, String)>) -> Vec<(i64, Event)> {
    // An unknown kind is skipped, not an error: during a rolling upgrade, newer servers write events of new kinds.
    rows.into_iter().filter_map(|(seq, text)| Some((seq, serde_json::from_str(&text).ok()?))).collect()
}

/// Deletes the oldest events, and returns their number.
pub(super) fn prune(connection: &Connection, before: Timestamp, keep: i64, limit: u32) -> Result<u64> {
    run(connection, sql::PRUNE, params![before.as_micros(), keep, limit]).map(|rows| rows as u64)
}

fn receiver(row: &Row<'_>) -> Result<Receiver> {
    Columns::of(row).json()
}

/// Selects a receiver of a space.
pub(super) fn one(connection: &Connection, space: &SpaceId, id: &AlertReceiverId) -> Result<Option<Receiver>> {
    first(connection, sql::ONE, [id.as_str(), space.as_str()], receiver)
}

/// Selects the receivers of a space.
pub(super) fn of_space(connection: &Connection, space: &SpaceId) -> Result<Vec<Receiver>> {
    all(connection, sql::OF_SPACE, [space.as_str()], receiver)
}

/// Selects all receivers with their progress.
pub(super) fn work(connection: &Connection) -> Result<Vec<(Receiver, Progress)>> {
    all(connection, sql::ALL_WITH_PROGRESS, (), |row| {
        let mut columns = Columns::of(row);
        Ok((columns.json()?, columns.json()?))
    })
}

/// Selects the progress of a receiver.
pub(super) fn progress(connection: &Connection, id: &AlertReceiverId) -> Result<Option<Progress>> {
    first(connection, sql::PROGRESS, [id.as_str()], |row| Columns::of(row).json())
}
