//! How an action stands, in one word (management reference §5.7).

use std::time::Duration;

use crate::action::{Action, ActionCounts, ActionType};
use crate::time::Timestamp;

/// The word; the first that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Somebody withdrew it.
    Cancelled,
    /// All answered, some with an error.
    Failed,
    /// All answered.
    Complete,
    /// It ended before all answered.
    Expired,
    /// The window of an upgrade is over, and not all answered.
    RolloutPassed,
    /// It goes on.
    InProgress,
}

impl Progress {
    /// The word, in the API's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::Failed => "FAILED",
            Self::Complete => "COMPLETE",
            Self::Expired => "EXPIRED",
            Self::RolloutPassed => "ROLLOUT_PASSED",
            Self::InProgress => "IN_PROGRESS",
        }
    }
}

/// Whether everybody who was meant has answered.
pub fn is_complete(action: &Action, counts: &ActionCounts) -> bool {
    counts.acked + counts.failed >= action.total
}

/// How the action stands at `now`.
pub fn progress(action: &Action, counts: &ActionCounts, now: Timestamp) -> Progress {
    if action.cancelled_at.is_some() {
        return Progress::Cancelled;
    }
    if is_complete(action, counts) {
        return if counts.failed > 0 { Progress::Failed } else { Progress::Complete };
    }
    if action.kind == ActionType::Upgrade {
        return if window_end(action).is_some_and(|end| end < now) {
            Progress::RolloutPassed
        } else {
            Progress::InProgress
        };
    }
    if action.expiration.is_some_and(|end| end < now) { Progress::Expired } else { Progress::InProgress }
}

fn window_end(action: &Action) -> Option<Timestamp> {
    let window = u64::try_from(action.rollout_seconds?).ok()?;
    Some(action.start_time?.plus(Duration::from_secs(window)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ActionId;
    use crate::testing::at;

    fn action(kind: ActionType) -> Action {
        Action {
            seq: 1,
            id: ActionId::trusted("a"),
            kind,
            created_at: at(0),
            expiration: Some(at(100)),
            start_time: None,
            rollout_seconds: None,
            timeout: None,
            input_type: String::new(),
            data: None,
            signed: None,
            total: 10,
            created_by: "system".into(),
            cancelled_at: None,
        }
    }

    fn counts(acked: i64, failed: i64) -> ActionCounts {
        ActionCounts { created: 10, acked, failed, latest_result_at: None }
    }

    #[test]
    fn m141_all_answered_and_one_failed_is_failed() {
        let order = action(ActionType::Settings);
        assert_eq!(progress(&order, &counts(9, 1), at(200)), Progress::Failed);
        assert_eq!(progress(&order, &counts(10, 0), at(200)), Progress::Complete);
        assert_eq!(progress(&order, &counts(8, 1), at(50)), Progress::InProgress);
    }

    #[test]
    fn m142_upgrades_never_expire_but_their_window_passes() {
        assert_eq!(progress(&action(ActionType::Settings), &counts(9, 0), at(101)), Progress::Expired);
        let upgrade = Action { start_time: Some(at(0)), rollout_seconds: Some(600), ..action(ActionType::Upgrade) };
        assert_eq!(progress(&upgrade, &counts(9, 0), at(601)), Progress::RolloutPassed);
        assert_eq!(progress(&upgrade, &counts(9, 0), at(599)), Progress::InProgress);
        assert_eq!(progress(&action(ActionType::Upgrade), &counts(9, 0), at(9999)), Progress::InProgress);
    }

    #[test]
    fn m143_a_cancel_outranks_failure() {
        let cancelled = Action { cancelled_at: Some(at(5)), ..action(ActionType::Upgrade) };
        assert_eq!(progress(&cancelled, &counts(9, 1), at(200)), Progress::Cancelled);
    }
}
