//! History of host checks: when the answers of a host changed, and how many hosts passed and failed on each day.

use std::time::Duration;

use crate::id::HostCheckId;
use crate::time::Timestamp;

/// Number of changes that are kept of the answer of a host to a check.
pub const MAX_CHANGES: u32 = 20;
/// Number of days for which changes of answers, and numbers of hosts, are kept.
pub const KEPT_DAYS: i64 = 90;
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// A change of the answer of a host to a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckChange {
    /// The check.
    pub check: HostCheckId,
    /// Whether the host passed from then on.
    pub passes: bool,
    /// Time of the change.
    pub since: Timestamp,
}

/// Numbers of hosts at the end of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckDay {
    /// The day, in days since the epoch (UTC).
    pub day: i64,
    /// Number of hosts that passed.
    pub passing: u64,
    /// Number of hosts that failed.
    pub failing: u64,
}

impl CheckDay {
    /// Returns the date, such as `2026-01-02`.
    pub fn date(&self) -> String {
        let mut date = start_of(self.day).to_rfc3339_seconds();
        date.truncate("2026-01-02".len());
        date
    }
}

/// Returns the day of a time, in days since the epoch (UTC).
pub fn day_of(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(DAY)
}

/// Returns the beginning of a day.
pub fn start_of(day: i64) -> Timestamp {
    Timestamp::from_micros(day.saturating_mul(DAY))
}

/// Returns the former answer, and how long it was given; `None` if the present one is the first that is known. `changes` are those
/// of one host and check, the newest first.
pub fn former(changes: &[CheckChange]) -> Option<(bool, Duration)> {
    let [present, former, ..] = changes else { return None };
    Some((former.passes, present.since.since(former.since)))
}

/// Completes the recorded numbers of days with the present ones, which are those of today.
pub fn until_now(mut recorded: Vec<CheckDay>, today: CheckDay) -> Vec<CheckDay> {
    // After the clock was set back, there can be numbers of today and later days.
    recorded.retain(|one| one.day < today.day);
    recorded.push(today);
    recorded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn change(passes: bool, since: u64) -> CheckChange {
        CheckChange { check: HostCheckId::trusted("a"), passes, since: at(since) }
    }

    #[test]
    fn the_former_answer_lasted_until_the_present_one() {
        assert_eq!(former(&[]), None);
        assert_eq!(former(&[change(true, 5)]), None, "the first answer");
        let changes = [change(false, 90), change(true, 30), change(false, 0)];
        assert_eq!(former(&changes), Some((true, Duration::from_secs(60))));
    }

    #[test]
    fn days_begin_at_midnight_utc() {
        let day = |micros: i64| day_of(Timestamp::from_micros(micros));
        assert_eq!((day(-1), day(0), day(DAY - 1), day(DAY)), (-1, 0, 0, 1));
        assert_eq!(start_of(20_000).to_rfc3339_seconds(), "2024-10-04T00:00:00Z");
        assert_eq!(CheckDay { day: 20_000, passing: 0, failing: 0 }.date(), "2024-10-04");
    }

    #[test]
    fn the_last_day_is_today_with_the_present_numbers() {
        let of = |day, passing| CheckDay { day, passing, failing: 1 };
        assert_eq!(until_now(vec![of(3, 1), of(5, 2), of(6, 3)], of(5, 9)), [of(3, 1), of(5, 9)]);
        assert_eq!(until_now(Vec::new(), of(5, 9)), [of(5, 9)]);
    }
}
