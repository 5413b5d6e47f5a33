//! History of host checks: the numbers of hosts on the page of a check, and the former answer on the page of a host.

use std::time::Duration;

use muster_core::fleetd::check_history::{CheckDay, former};
use muster_fleet::host_checks::AnsweredCheck;

use crate::chart;
use crate::text::length;

/// The numbers of hosts by day, as lines of a chart of 1,000 by 1,000.
pub struct Days {
    pub passing: String,
    pub failing: String,
    pub most: u64,
    /// Date, passing and failing hosts, the newest first.
    pub rows: Vec<(String, u64, u64)>,
}

impl Days {
    /// Draws the numbers, oldest first; `None` if there is no day before today.
    pub fn of(days: &[CheckDay]) -> Option<Self> {
        let [first, .., last] = days else { return None };
        let (width, most) = (last.day - first.day, days.iter().map(|one| one.passing.max(one.failing)).max()?.max(1));
        let line = |number: fn(&CheckDay) -> u64| {
            let points = days.iter().map(|one| ((one.day - first.day).unsigned_abs(), number(one)));
            chart::line(points, width.unsigned_abs(), most)
        };
        Some(Self {
            passing: line(|one| one.passing),
            failing: line(|one| one.failing),
            most,
            rows: days.iter().rev().map(|one| (one.date(), one.passing, one.failing)).collect(),
        })
    }
}

/// Returns what the host answered before, such as `passed for 12 days before`; empty if that is not known.
pub fn former_answer(check: &AnsweredCheck) -> String {
    let words = |(passed, lasted): (bool, Duration)| {
        let word = if passed { "passed" } else { "failed" };
        format!("{word} for {} before", length(lasted.as_secs()))
    };
    former(&check.history).map(words).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_needs_a_day_before_today() {
        let of = |day, passing, failing| CheckDay { day, passing, failing };
        assert!(Days::of(&[]).is_none() && Days::of(&[of(20_000, 1, 0)]).is_none());
        let drawn = Days::of(&[of(20_000, 4, 0), of(20_001, 3, 1), of(20_004, 0, 4)]).unwrap();
        assert_eq!((drawn.most, drawn.passing.as_str()), (4, "M0 0L250 250L1000 1000"));
        assert_eq!(drawn.failing, "M0 1000L250 750L1000 0");
        assert_eq!(drawn.rows[0], ("2024-10-08".to_owned(), 0, 4));
    }
}
