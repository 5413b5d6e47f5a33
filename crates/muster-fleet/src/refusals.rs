//! Rejected agent requests: a table of the latest ones for administrators, and rate-limited log lines.
//!
//! A rejected agent retries, so equal rejections of one peer are one row with a count. The table and the rate of log
//! lines are bounded, whatever the network sends.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_core::authorization::{Grant, RefusalsRead};
use muster_core::time::Timestamp;

/// Maximum number of rows.
const ROWS: usize = 128;
/// Minimum time between two log lines for equal rejections of one peer.
const EVERY: Duration = Duration::from_secs(60);
/// Maximum log lines in that time, for all peers and reasons together.
const LINES: u32 = 60;
/// Maximum length of a column in characters, since the values come from the network.
const TEXT: usize = 200;

/// A rejected request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// The peer's IP address.
    pub address: String,
    /// The agent id in the request, if any. Not authenticated.
    pub agent: Option<String>,
    /// The id of the key in the request, if any. Not authenticated.
    pub key: Option<String>,
    /// The `User-Agent` header, which has the agent's version.
    pub version: String,
    /// The operation: `checkin`, `enroll`, …
    pub operation: &'static str,
    /// The status of the response; 0 if there was none.
    pub status: u16,
    /// Error code.
    pub reason: &'static str,
    /// Error message.
    pub message: String,
    /// Remedy.
    pub remedy: &'static str,
}

/// Equal rejections of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// The latest one.
    pub refused: Refused,
    /// Their number.
    pub count: u64,
    /// Time of the first.
    pub first: Timestamp,
    /// Time of the latest.
    pub last: Timestamp,
    /// Time of the last log line.
    logged: Option<Timestamp>,
}

/// The rejected requests of this node. Not stored: after a restart, agents that are still rejected appear again.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Sorted by the time of the latest rejection, oldest first.
    rows: VecDeque<RefusedRow>,
    /// Start of the current rate window, the lines logged in it, and the lines suppressed since the last one logged.
    since: Option<Timestamp>,
    lines: u32,
    unlogged: u64,
}

impl Refused {
    /// Returns true if both are of the same peer, for the same operation and reason.
    fn is_like(&self, other: &Self) -> bool {
        // Without the version and the message, which the peer can vary in each request.
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
        // A panic can't leave a row half written, so a poisoned table is still valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a rejected request, and logs it unless an equal one was logged within the last minute.
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
            "request rejected"
        );
        if unlogged > 0 {
            tracing::warn!(unlogged, "too many rejected requests to log each; `muster status` lists the latest");
        }
    }

    /// Returns the latest rejections, newest first.
    pub fn list(&self, _grant: &Grant<RefusalsRead>) -> Vec<RefusedRow> {
        self.rows()
    }

    /// [`Self::list`] for tests, which have no grant.
    #[cfg(any(test, feature = "testing"))]
    pub fn latest(&self) -> Vec<RefusedRow> {
        self.rows()
    }

    fn rows(&self) -> Vec<RefusedRow> {
        self.table().rows.iter().rev().cloned().collect()
    }
}

impl Table {
    /// Adds a rejection. If it is to be logged, returns its row and the number of suppressed lines.
    fn add(&mut self, refused: Refused, now: Timestamp) -> Option<(RefusedRow, u64)> {
        let place = self.rows.iter().rposition(|row| row.refused.is_like(&refused));
        let mut row = match place.and_then(|place| self.rows.remove(place)) {
            // Removed and appended again, which keeps the rows sorted by their last rejection.
            Some(row) => RefusedRow { refused, count: row.count + 1, last: now, ..row },
            None => RefusedRow { refused, count: 1, first: now, last: now, logged: None },
        };
        let is_due = row.logged.is_none_or(|logged| now.since(logged) >= EVERY);
        let logs = is_due && self.takes_line(now);
        if logs {
            row.logged = Some(now);
        }
        if self.rows.len() >= ROWS {
            // The row that was updated longest ago. Linear scans of 128 rows are cheaper than an index.
            self.rows.pop_front();
        }
        self.rows.push_back(row.clone());
        logs.then(|| (row, std::mem::take(&mut self.unlogged)))
    }

    /// Returns true if another line may be logged now, and counts it.
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
    fn equal_rejections_share_a_row_and_are_logged_once_a_minute() {
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
    fn many_peers_exceed_neither_the_table_nor_the_log_limit() {
        let mut table = Table::default();
        let lines = (0..10_000).filter(|peer| table.add(refused(&peer.to_string()), at(5)).is_some()).count();
        assert_eq!((lines, table.rows.len()), (60, ROWS));
        let (row, unlogged) = table.add(refused("late"), at(65)).unwrap();
        assert_eq!((row.count, unlogged), (1, 9_940));
        assert_eq!(table.rows.back().unwrap().refused.agent.as_deref(), Some("late"));
    }

    #[test]
    fn long_values_are_truncated() {
        let refusals = Refusals::default();
        refusals.note(Refused { message: "ü".repeat(5000), version: "v".repeat(5000), ..refused("a") }, at(0));
        let row = refusals.latest().remove(0);
        assert_eq!((row.refused.message.chars().count(), row.refused.version.len()), (TEXT, TEXT));
    }
}
