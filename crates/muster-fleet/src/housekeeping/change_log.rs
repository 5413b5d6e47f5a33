//! The change log is for those who follow it: rows that nobody can be waiting for are removed.
//!
//! Its rows carry no time. So once an hour the number of the newest row is written down with the time; a row is older
//! than a day when a mark that is older than a day has its number or a higher one.

use std::time::Duration;

use muster_core::Error;
use muster_core::time::Timestamp;
use muster_store::{SettingWrite, Write};

use super::{DAY, Housekeeping};
use crate::authority::System;

/// The setting that holds the marks.
const MARKS: &str = "housekeeping.change_marks";
/// From mark to mark; there are never more than a day has hours, and two.
const MARK_EVERY: Duration = Duration::from_secs(3600);
/// Rows removed at once.
const AT_ONCE: u32 = 5000;

/// Microseconds, and the newest row then.
type Mark = (i64, i64);

impl Housekeeping {
    /// Removes rows older than a day, beyond the newest `keep`, that this node has handled.
    pub(super) async fn prune_changes(&self, keep: i64) -> Result<u64, Error> {
        let newest = *self.store.everywhere(&System).changes().borrow();
        let aged = self.aged_changes(newest).await?;
        let handled = self.feed.handled();
        let through = aged.min(newest - keep).min(handled);
        if through <= 0 {
            return Ok(0);
        }
        self.in_batches(AT_ONCE, || self.store.everywhere(&System).changes_prune(through, AT_ONCE)).await
    }

    /// The highest number that is surely older than a day; 0 when there is none.
    async fn aged_changes(&self, newest: i64) -> Result<i64, Error> {
        let now = self.clock.now();
        let age = |mark: &Mark| now.since(Timestamp::from_micros(mark.0));
        let stored = self.store.everywhere(&System).setting(MARKS).await?;
        // What can't be read is begun anew, and costs a day.
        let mut marks: Vec<Mark> = stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        // A clock that was put back must not stop the marking.
        marks.retain(|mark| mark.0 <= now.as_micros());
        if marks.last().is_none_or(|last| age(last) >= MARK_EVERY) {
            marks.push((now.as_micros(), newest));
            let aged = marks.iter().rposition(|mark| age(mark) > DAY).unwrap_or(0);
            marks.drain(..aged);
            let value = serde_json::to_string(&marks).map_err(|error| Error::internal(error.to_string()))?;
            self.store.commit(&System, vec![Write::Setting(SettingWrite::Put { name: MARKS.into(), value })]).await?;
        }
        Ok(marks.iter().rfind(|mark| age(mark) > DAY).map_or(0, |mark| mark.1))
    }
}
