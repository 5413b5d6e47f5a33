//! Pruning of the change log.
//!
//! Changes carry no time. Instead, the number of the newest change is stored once an hour with the time (a mark). A
//! change is older than a day if a mark that is older than a day has its number or a higher one.

use std::time::Duration;

use muster_core::Error;
use muster_core::time::Timestamp;
use muster_store::{SettingWrite, Write};

use super::{DAY, Housekeeping};
use crate::authority::System;

/// The setting that holds the marks.
const MARKS: &str = "housekeeping.change_marks";
/// Interval between marks; at most 26 are kept.
const MARK_EVERY: Duration = Duration::from_secs(3600);
/// Changes deleted by one commit.
const BATCH: u32 = 5000;

/// Time in microseconds, and the number of the newest change at that time.
type Mark = (i64, i64);

impl Housekeeping {
    /// Deletes changes that are older than a day, not among the newest `keep`, and handled by this node.
    pub(super) async fn prune_changes(&self, keep: i64) -> Result<u64, Error> {
        let newest = *self.store.everywhere(&System).changes().borrow();
        let aged = self.aged_changes(newest).await?;
        let handled = self.feed.handled();
        // All three conditions: a node that is disconnected for less than a day finds everything that it missed, a busy
        // day does not shorten that, and this node never deletes what it has yet to read.
        let through = aged.min(newest - keep).min(handled);
        if through <= 0 {
            return Ok(0);
        }
        self.in_batches(BATCH, || self.store.everywhere(&System).changes_prune(through, BATCH)).await
    }

    /// Returns the highest number that is certainly older than a day; 0 if there is none.
    async fn aged_changes(&self, newest: i64) -> Result<i64, Error> {
        let now = self.clock.now();
        let age = |mark: &Mark| now.since(Timestamp::from_micros(mark.0));
        let stored = self.store.everywhere(&System).setting(MARKS).await?;
        // Malformed marks are discarded. That only delays the pruning by a day.
        let mut marks: Vec<Mark> = stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        // Marks from the future, made before the clock was set back, would prevent new ones.
        marks.retain(|mark| mark.0 <= now.as_micros());
        if marks.last().is_none_or(|last| age(last) >= MARK_EVERY) {
            marks.push((now.as_micros(), newest));
            let aged = marks.iter().rposition(|mark| age(mark) > DAY).unwrap_or(0);
            // Of the marks older than a day only the newest is needed.
            marks.drain(..aged);
            let value = serde_json::to_string(&marks).map_err(Error::internal)?;
            self.store.commit(&System, vec![Write::Setting(SettingWrite::Put { name: MARKS.into(), value })]).await?;
        }
        Ok(marks.iter().rfind(|mark| age(mark) > DAY).map_or(0, |mark| mark.1))
    }
}
