//! When an order starts and when it ends (management reference §5.1, §5.4).

use std::time::Duration;

use crate::action::ActionType;
use crate::error::Error;
use crate::time::Timestamp;

const MONTH: Duration = Duration::from_secs(30 * 86_400);
const DIAGNOSTICS: Duration = Duration::from_secs(3 * 3600);
/// Longest time that old agents are told to spread their start over.
const LONGEST_MINIMUM: Duration = Duration::from_secs(2 * 3600);
/// Shortest roll-out window.
pub const SHORTEST_WINDOW: i64 = 600;

/// When an order starts and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// `None`: at once.
    pub start: Option<Timestamp>,
    /// `None`: never.
    pub end: Option<Timestamp>,
}

/// The schedule of an order given at `now`, to start at `start`, spread over `window` seconds, ending at `end` if the
/// caller said so.
pub fn schedule(
    kind: ActionType,
    now: Timestamp,
    start: Option<Timestamp>,
    window: Option<i64>,
    end: Option<Timestamp>,
) -> Result<Schedule, Error> {
    if window.is_some_and(|seconds| seconds < SHORTEST_WINDOW) {
        return Err(Error::invalid("rollout_duration_seconds", format!("must be at least {SHORTEST_WINDOW}")));
    }
    let start = start.or(window.map(|_| now));
    let end = end.or_else(|| usual_end(kind, now, start, window));
    if let (Some(start), Some(end)) = (start, end)
        && end <= start
    {
        return Err(Error::invalid("expiration", "the order would end before it starts"));
    }
    Ok(Schedule { start, end })
}

fn usual_end(kind: ActionType, now: Timestamp, start: Option<Timestamp>, window: Option<i64>) -> Option<Timestamp> {
    match kind {
        ActionType::ForceUnenroll => None,
        ActionType::RequestDiagnostics => Some(start.unwrap_or(now).plus(DIAGNOSTICS)),
        _ => {
            let start = start.unwrap_or(now);
            let window = window.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
            Some(start.plus(window.map_or(MONTH, window_and_grace)))
        }
    }
}

/// Short windows leave time for those that start last.
fn window_and_grace(window: Duration) -> Duration {
    if window <= LONGEST_MINIMUM { window * 2 } else { window }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn end(kind: ActionType, start: Option<Timestamp>, window: Option<i64>) -> Option<Timestamp> {
        schedule(kind, at(0), start, window, None).unwrap().end
    }

    #[test]
    fn m125_the_end_follows_start_and_window() {
        assert_eq!(end(ActionType::Upgrade, None, Some(3600)), Some(at(7200)));
        assert_eq!(end(ActionType::Upgrade, None, Some(86_400)), Some(at(86_400)));
        assert_eq!(end(ActionType::Upgrade, Some(at(500)), None), Some(at(500).plus(MONTH)));
        assert_eq!(end(ActionType::Upgrade, None, None), Some(at(0).plus(MONTH)));
        let spread = schedule(ActionType::Upgrade, at(7), None, Some(600), None).unwrap();
        assert_eq!(spread.start, Some(at(7)));
    }

    #[test]
    fn m131_diagnostics_end_after_three_hours() {
        assert_eq!(end(ActionType::RequestDiagnostics, None, None), Some(at(10_800)));
        assert_eq!(end(ActionType::ForceUnenroll, None, None), None);
        assert_eq!(end(ActionType::Settings, None, None), Some(at(0).plus(MONTH)));
    }

    #[test]
    fn m123_short_windows_and_ends_before_starts_are_refused() {
        let refused = |window, start, end| schedule(ActionType::Upgrade, at(0), start, window, end).unwrap_err().field;
        assert_eq!(refused(Some(599), None, None).as_deref(), Some("rollout_duration_seconds"));
        assert_eq!(refused(None, Some(at(20)), Some(at(10))).as_deref(), Some("expiration"));
    }
}
