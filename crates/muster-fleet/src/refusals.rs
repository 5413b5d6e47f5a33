//! Requests of agents that were refused: the latest ones for people to see, and which of them are logged.
//!
//! An agent that is refused comes again and again, so equal refusals of one peer are one row with a count. Both the
//! table and the log have a bound, whatever the network sends.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_core::authorization::{AgentsRead, Grant};
use muster_core::time::Timestamp;

/// Rows that are kept.
const ROWS: usize = 128;
/// An equal refusal of the same peer is logged once in this time.
const EVERY: Duration = Duration::from_secs(60);
/// Lines that are logged in that time, of all peers and reasons together.
const LINES: u32 = 60;
/// Longest text of a row's column, characters: they come from outside.
const TEXT: usize = 200;

/// A refused request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Where it came from, without the port.
    pub address: String,
    /// The agent that it names, if it does. Not verified.
    pub agent: Option<String>,
    /// The id of the key that it presents, if it does. Not verified.
    pub key: Option<String>,
    /// Its `User-Agent`: the agent's version.
    pub version: String,
    /// What it asked for: `checkin`, `enroll`, …
    pub operation: &'static str,
    /// The status of the response; 0 when there was none.
    pub status: u16,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Equal refusals of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// The latest of them.
    pub refused: Refused,
    /// How many.
    pub count: u64,
    /// When the first came.
    pub first: Timestamp,
    /// When the latest came.
    pub last: Timestamp,
    /// How many had come when it was logged last.
    logged: Option<Timestamp>,
}

/// The refusals of this node.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Oldest first.
    rows: VecDeque<RefusedRow>,
    /// When the lines were counted from, how many were logged since, and how many were not.
    since: Option<Timestamp>,
    lines: u32,
    unlogged: u64,
}

impl Refused {
    /// Whether both are the same peer's, for the same reason.
    fn is_like(&self, other: &Self) -> bool {
        (self.reason, self.operation, &self.address, &self.agent, &self.key)
            == (other.reason, other.operation, &other.address, &other.agent, &other.key)
    }

    fn bounded(self) -> Self {
        let short = |text: String| {
            if text.len() <= TEXT { text } else { text.chars().take(TEXT).collect() }
        };
        Self {
            address: self.address,
            agent: self.agent.map(short),
            key: self.key.map(short),
            version: short(self.version),
            message: short(self.message),
            ..self
        }
    }
}

impl Refusals {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Rows are put in whole, so a poisoned table is one, too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a refused request, and logs it unless an equal one was logged within the last minute.
    pub fn note(&self, refused: Refused, now: Timestamp) {
        let (row, unlogged) = match self.table().add(refused.bounded(), now) {
            Some(logged) => logged,
            None => return,
        };
        let Refused { address, agent, key, version, operation, status, reason, message, remedy } = row.refused;
        tracing::warn!(
            address,
            agent,
            key,
            version,
            operation,
            status,
            reason,
            detail = message,
            count = row.count,
            hint = remedy,
            "request refused"
        );
        if unlogged > 0 {
            tracing::warn!(unlogged, "too many rejected requests to log each; `muster status` lists the latest");
        }
    }

    /// The latest refusals, newest first.
    pub fn list(&self, _grant: &Grant<AgentsRead>) -> Vec<RefusedRow> {
        self.rows()
    }

    /// The same, for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn latest(&self) -> Vec<RefusedRow> {
        self.rows()
    }

    fn rows(&self) -> Vec<RefusedRow> {
        self.table().rows.iter().rev().cloned().collect()
    }
}

impl Table {
    /// Adds it, and answers the row if it is to be logged, with the number of those that were not.
    fn add(&mut self, refused: Refused, now: Timestamp) -> Option<(RefusedRow, u64)> {
        let place = self.rows.iter().rposition(|row| row.refused.is_like(&refused));
        let mut row = match place.and_then(|place| self.rows.remove(place)) {
            Some(row) => RefusedRow { refused, count: row.count + 1, last: now, ..row },
            None => RefusedRow { refused, count: 1, first: now, last: now, logged: None },
        };
        let is_due = row.logged.is_none_or(|logged| now.since(logged) >= EVERY);
        let logs = is_due && self.takes_line(now);
        if logs {
            row.logged = Some(now);
        }
        if self.rows.len() >= ROWS {
            self.rows.pop_front();
        }
        self.rows.push_back(row.clone());
        logs.then(|| (row, std::mem::take(&mut self.unlogged)))
    }

    /// Whether the log takes one more line now.
    fn takes_line(&mut self, now: Timestamp) -> bool {
        if self.since.is_none_or(|since| now.since(since) >= EVERY) {
            (self.since, self.lines) = (Some(now), 0);
        }
        self.lines += 1;
        let takes = self.lines <= LINES;
        self.unlogged += u64::from(!takes);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn refused(agent: &str) -> Refused {
        Refused { agent: Some(agent.into()), reason: "ErrUnauthorized", operation: "checkin", ..Refused::default() }
    }

    #[test]
    fn equal_refusals_are_one_row_and_one_line_a_minute() {
        let mut table = Table::default();
        assert!(table.add(refused("a"), at(0)).is_some());
        assert!(table.add(refused("a"), at(59)).is_none());
        assert!(table.add(refused("b"), at(59)).is_some(), "another agent has a line of its own");
        let (row, _) = table.add(refused("a"), at(60)).unwrap();
        assert_eq!((row.count, row.first, row.last), (3, at(0), at(60)));
        let other = Refused { reason: "UnsupportedVersion", ..refused("a") };
        assert!(table.add(other, at(60)).is_some(), "and so has another reason");
        assert_eq!(table.rows.len(), 3);
    }

    #[test]
    fn a_flood_of_peers_fills_neither_the_table_nor_the_log() {
        let mut table = Table::default();
        let lines = (0..10_000).filter(|peer| table.add(refused(&peer.to_string()), at(5)).is_some()).count();
        assert_eq!((lines, table.rows.len()), (60, ROWS));
        let (row, unlogged) = table.add(refused("late"), at(65)).unwrap();
        assert_eq!((row.count, unlogged), (1, 9_940));
        assert_eq!(table.rows.back().unwrap().refused.agent.as_deref(), Some("late"));
    }

    #[test]
    fn what_comes_from_outside_is_kept_short() {
        let refusals = Refusals::default();
        refusals.note(Refused { message: "ü".repeat(5000), version: "v".repeat(5000), ..refused("a") }, at(0));
        let row = refusals.latest().remove(0);
        assert_eq!((row.refused.message.chars().count(), row.refused.version.len()), (TEXT, TEXT));
    }
}
