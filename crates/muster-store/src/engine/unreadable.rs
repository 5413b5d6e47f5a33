//! Logging of unreadable rows, at most once a minute for each row.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use muster_core::error_chain::chain;

use super::error::EngineError;

/// Time between two log lines about the same row. An agent's row that is due, for example, is read every two seconds.
const PAUSE: Duration = Duration::from_secs(60);
/// Maximum number of rows that are remembered. If there are more, they need not all be logged.
const MOST: usize = 1000;

static LOGGED: LazyLock<Logged> = LazyLock::new(Logged::default);

/// Logs a row of `what` that can't be read, unless that was done within the last minute.
pub(super) fn log(what: &'static str, row: &str, error: &EngineError) {
    if LOGGED.is_due(format!("{what} {row}"), Instant::now()) {
        tracing::error!(row, error = %chain(error), "unreadable row of {what} omitted from lists");
    }
}

/// Rows and the times of their last log lines.
#[derive(Default)]
struct Logged(Mutex<HashMap<String, Instant>>);

impl Logged {
    fn is_due(&self, row: String, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Instant| now.duration_since(*at) < PAUSE;
        if last.get(&row).is_some_and(is_recent) {
            return false;
        }
        // Cleaned only when it is full, which a healthy store never reaches.
        if last.len() >= MOST {
            last.retain(|_, at| is_recent(at));
        }
        let has_room = last.len() < MOST;
        if has_room {
            last.insert(row, now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_row_is_logged_once_a_minute() {
        let (logged, start) = (Logged::default(), Instant::now());
        let due = |row: &str, seconds| logged.is_due(row.into(), start + Duration::from_secs(seconds));
        assert!(due("a", 0) && due("b", 1));
        assert!(!due("a", 2) && !due("a", 59));
        assert!(due("a", 60) && !due("b", 60) && due("b", 61));
    }

    #[test]
    fn number_of_remembered_rows_is_bounded() {
        let (logged, start) = (Logged::default(), Instant::now());
        let due = |row: usize, seconds| logged.is_due(row.to_string(), start + Duration::from_secs(seconds));
        assert!((0..MOST).all(|row| due(row, 0)));
        assert!(!due(MOST, 1), "the table is full");
        assert!(due(MOST, 60));
        assert_eq!(logged.0.lock().unwrap().len(), 1);
    }
}
