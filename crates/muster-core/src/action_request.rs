//! Validation, expiration and status of actions (MG §5.4, §5.7).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::action::{Action, ActionCounts, ActionType};
use crate::action_data;
use crate::canonical;
use crate::error::Error;
use crate::id::{ActionId, SpaceId};
use crate::time::Timestamp;

const HOUR: Duration = Duration::from_secs(3600);
/// Default time until an action expires.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Time until a diagnostics request expires.
const DIAGNOSTICS_LIFETIME: Duration = Duration::from_secs(3 * 3600);
/// Minimum rollout window.
const MIN_ROLLOUT: Duration = Duration::from_secs(600);
/// Maximum rollout window.
const MAX_ROLLOUT: Duration = Duration::from_secs(30 * 86_400);
/// Maximum time from the creation of an action to its start.
const MAX_DELAY: Duration = Duration::from_secs(365 * 86_400);
/// Maximum `timeout` in seconds: one day.
const MAX_TIMEOUT: i64 = 86_400;

/// A requested action, before validation.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionRequest {
    /// The type.
    pub kind: ActionType,
    /// Type-specific fields, or `Null`.
    pub data: Value,
    /// Component type of an `INPUT_ACTION`.
    pub input_type: String,
    /// Timeout of the agent in seconds.
    pub timeout: Option<i64>,
    /// Expiration; `None` means the default of the type.
    pub expiration: Option<Timestamp>,
    /// Start time.
    pub start_time: Option<Timestamp>,
    /// Rollout window.
    pub rollout: Option<Duration>,
}

impl ActionRequest {
    /// Creates a request of a type with these fields, to start now, with the default expiration.
    pub fn new(kind: ActionType, data: Value) -> Self {
        Self { kind, data, input_type: String::new(), timeout: None, expiration: None, start_time: None, rollout: None }
    }

    /// Validates the request and creates the action. Every action has an expiration, so that none is undeliverable or
    /// delivered for ever (D4). It is signed afterwards, when every field is final.
    pub fn into_action(
        self,
        id: ActionId,
        space: SpaceId,
        total: i64,
        created_by: &str,
        now: Timestamp,
    ) -> Result<Action, Error> {
        // Also for requests that the caller already converted: the conversion is idempotent, and the check needs its
        // result.
        let new = self.canonical()?;
        new.check(now)?;
        new.checked_action(id, space, total, created_by, now)
    }

    /// Converts all strings that agents interpret to their canonical form. Must be called before secrets are sealed;
    /// references to sealed secrets are skipped.
    pub fn canonical(mut self) -> Result<Self, Error> {
        let input_type = canonical::input_type(&self.input_type);
        self.input_type = input_type.map_err(|reason| Error::invalid("input_type", reason))?;
        for (pointer, form) in canonical_fields(self.kind) {
            let Some(Value::String(text)) = self.data.pointer_mut(pointer) else { continue };
            if !text.starts_with(SECRET_REFERENCE) {
                let field = pointer.trim_start_matches('/').replace('/', ".");
                *text = form(text).map_err(|reason| Error::invalid(field, reason))?;
            }
        }
        Ok(self)
    }

    fn checked_action(
        self,
        id: ActionId,
        space: SpaceId,
        total: i64,
        created_by: &str,
        now: Timestamp,
    ) -> Result<Action, Error> {
        // A window needs a start time, from which the start of each agent is computed (EA83).
        let start_time = self.start_time.or(self.rollout.map(|_| now));
        let expiration = self.expiration.unwrap_or_else(|| ends_at(self.kind, start_time, self.rollout, now));
        // Validated now, and not only on delivery, so that the caller gets the error.
        let data = checked_data(self.kind, self.data)?;
        Ok(Action {
            seq: 0,
            id,
            space,
            kind: self.kind,
            created_at: now,
            expiration: Some(expiration),
            start_time,
            rollout_seconds: self.rollout.map(|window| i64::try_from(window.as_secs()).unwrap_or(i64::MAX)),
            timeout: self.timeout,
            input_type: self.input_type,
            data: (!data.is_null()).then(|| data.to_string().into()),
            signed: None,
            total,
            created_by: created_by.to_owned(),
            cancelled_at: None,
        })
    }

    fn check(&self, now: Timestamp) -> Result<(), Error> {
        if self.rollout.is_some_and(|window| window < MIN_ROLLOUT) {
            return Err(Error::invalid("rollout_duration_seconds", "at least 600"));
        }
        if self.rollout.is_some_and(|window| window > MAX_ROLLOUT) {
            return Err(Error::invalid("rollout_duration_seconds", format!("at most {}", MAX_ROLLOUT.as_secs())));
        }
        if self.start_time.is_some_and(|start| start > now.plus(MAX_DELAY)) {
            return Err(Error::invalid("start_time", "must be within a year from now"));
        }
        // No agent would get the action, and the targets of an upgrade would be shown as updating.
        if let (Some(start), Some(window)) = (self.start_time, self.rollout)
            && start.plus(window) < now
        {
            return Err(Error::invalid("start_time", "the rollout window that starts at this time has already passed")
                .remedy("choose a later start, or leave it out to start now"));
        }
        let is_default_end = self.start_time.is_some() && self.expiration.is_none();
        // With an explicit expiration, the check below compares the two.
        if is_default_end && ends_at(self.kind, self.start_time, self.rollout, now) <= now {
            return Err(Error::invalid("start_time", "an action that starts at this time would already be expired")
                .remedy("choose a later start, or leave it out to start now"));
        }
        if self.timeout.is_some_and(|timeout| !(1..=MAX_TIMEOUT).contains(&timeout)) {
            return Err(Error::invalid("timeout", format!("1 to {MAX_TIMEOUT} seconds")));
        }
        // An expiration before the start would create an action that is never delivered.
        if self.expiration.is_some_and(|end| end <= self.start_time.unwrap_or(now).max(now)) {
            return Err(Error::invalid("expiration", "must be after the start"));
        }
        if (self.kind == ActionType::InputAction) == self.input_type.is_empty() {
            return Err(Error::invalid("input_type", "is required for INPUT_ACTION, and not allowed for other types"));
        }
        Ok(())
    }
}

const SECRET_REFERENCE: &str = "$co.elastic.secret{";
/// URL schemes that agents support for packages.
const SOURCE_SCHEMES: [&str; 3] = ["https", "http", "file"];

/// Function that returns the canonical form of a string, or the reason why there is none.
type Form = fn(&str) -> Result<String, String>;

/// Returns JSON pointers to the strings in the data of a type that agents parse, with the functions for their canonical
/// forms.
fn canonical_fields(kind: ActionType) -> &'static [(&'static str, Form)] {
    match kind {
        ActionType::Upgrade => {
            &[("/version", canonical::version), ("/source_uri", |text| canonical::url(text, &SOURCE_SCHEMES))]
        }
        ActionType::Migrate => &[
            ("/target_uri", |text| canonical::url(text, &["https", "http"])),
            ("/enrollment_token", canonical::token),
            ("/settings/proxy_url", |text| canonical::url(text, &["https", "http", "socks5"])),
        ],
        // Other types contain no string that agents parse as a URL, a version or a token.
        _ => &[],
    }
}

/// Returns the known fields of the type. What agents cannot parse is rejected here rather than dropped at delivery.
fn checked_data(kind: ActionType, data: Value) -> Result<Value, Error> {
    // Server-side records are created by the server itself, and no agent parses their data.
    if !kind.is_delivered() {
        return Ok(data);
    }
    let revision = if kind == ActionType::PolicyReassign { data.get("policy_revision").cloned() } else { None };
    let invalid = || Error::invalid("data", format!("is not valid for {}", kind.as_str()));
    let mut shaped = action_data::checked(kind, data).ok_or_else(invalid)?;
    // Not for agents, and removed by the adapters: it is needed to finish the reassignment after a crash.
    if let Some(revision) = revision.filter(Value::is_i64) {
        shaped["policy_revision"] = revision;
    }
    Ok(shaped)
}

/// Returns the expiration of a type (MG §5.4): twice a window of up to two hours, a longer window itself.
fn ends_at(kind: ActionType, start: Option<Timestamp>, rollout: Option<Duration>, now: Timestamp) -> Timestamp {
    let start = start.unwrap_or(now);
    match rollout {
        Some(window) if window <= 2 * HOUR => start.plus(2 * window),
        Some(window) => start.plus(window),
        // Diagnostics of an agent that comes back days later are of no use to anyone.
        None if kind == ActionType::RequestDiagnostics => start.plus(DIAGNOSTICS_LIFETIME),
        None => start.plus(DEFAULT_LIFETIME),
    }
}

/// Returns whether a type can be cancelled (MG §5.5).
pub const fn is_cancellable(kind: ActionType) -> bool {
    matches!(kind, ActionType::Upgrade | ActionType::Unenroll)
}

/// Creates the CANCEL action for `target`, which expires with it.
pub fn cancel_of(target: &Action, id: ActionId, created_by: &str, now: Timestamp) -> Result<Action, Error> {
    if !is_cancellable(target.kind) {
        let reason = format!("{} cannot be cancelled; only UPGRADE and UNENROLL can", target.kind.as_str());
        return Err(Error::invalid("action_id", reason));
    }
    let data = serde_json::json!({"target_id": target.id});
    let request = ActionRequest {
        // If the target has expired, the default applies: an agent may be working on it already.
        expiration: target.expiration.filter(|end| *end > now),
        ..ActionRequest::new(ActionType::Cancel, data)
    };
    request.into_action(id, target.space.clone(), target.total, created_by, now)
}

/// Status of an action (MG §5.7, first match wins).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ActionStatus {
    /// Cancelled.
    Cancelled,
    /// All agents acknowledged it, some with an error.
    Failed,
    /// All agents acknowledged it without an error.
    Complete,
    /// Expired. Does not apply to upgrades.
    Expired,
    /// An upgrade whose window has passed.
    RolloutPassed,
    /// In progress.
    InProgress,
}

/// Status of an action with its counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionProgress {
    /// Status.
    pub status: ActionStatus,
    /// Number of target agents, ineligible ones included.
    pub actioned: i64,
    /// Number of agents that acknowledged it without an error.
    pub acked: i64,
    /// Number of agents that failed or are not eligible.
    pub failed: i64,
    /// Time of the last result, if all are there.
    pub completed_at: Option<Timestamp>,
}

/// Returns the status of `action` at `now`.
pub fn progress(action: &Action, counts: &ActionCounts, now: Timestamp) -> ActionProgress {
    let actioned = if action.total > 0 { action.total } else { counts.created };
    let results = counts.acked + counts.failed;
    // Agents never ack a CANCEL (EA §10.2), so nothing is left to wait for.
    let complete = results >= actioned || action.kind == ActionType::Cancel;
    let status = if action.cancelled_at.is_some() {
        ActionStatus::Cancelled
    } else if complete && counts.failed > 0 {
        ActionStatus::Failed
    } else if complete {
        ActionStatus::Complete
    } else {
        unfinished(action, now)
    };
    let completed_at = match action.kind {
        ActionType::Cancel => Some(action.created_at),
        _ => counts.latest_result_at.filter(|_| complete),
    };
    ActionProgress {
        status,
        actioned,
        // Clamped, so that inconsistent counts never show more acks than targets.
        acked: (results.min(actioned) - counts.failed).max(0),
        failed: counts.failed,
        completed_at,
    }
}

fn unfinished(action: &Action, now: Timestamp) -> ActionStatus {
    let is_upgrade = action.kind == ActionType::Upgrade;
    // An agent that started an upgrade in time may still finish it (MG §5.7).
    if !is_upgrade && action.expiration.is_some_and(|end| end <= now) {
        return ActionStatus::Expired;
    }
    let window = action.rollout_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let start = action.start_time.unwrap_or(action.created_at);
    match window {
        Some(window) if is_upgrade && start.plus(window) < now => ActionStatus::RolloutPassed,
        _ => ActionStatus::InProgress,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::at;

    fn upgrade() -> ActionRequest {
        ActionRequest::new(ActionType::Upgrade, json!({"version": "9.6.1", "x": 1}))
    }

    fn make(request: ActionRequest) -> Result<Action, Error> {
        request.into_action(ActionId::trusted("a"), SpaceId::default(), 10, "local:root", at(0))
    }

    fn field(request: ActionRequest) -> Option<String> {
        make(request).unwrap_err().field
    }

    fn hours(hours: u64) -> Duration {
        hours as u32 * HOUR
    }

    #[test]
    fn mg123_a_rollout_window_has_at_least_ten_minutes() {
        let request = ActionRequest { rollout: Some(Duration::from_secs(599)), ..upgrade() };
        assert_eq!(field(request).as_deref(), Some("rollout_duration_seconds"));
        assert!(make(ActionRequest { rollout: Some(Duration::from_secs(600)), ..upgrade() }).is_ok());
    }

    #[test]
    fn a_start_whose_window_has_passed_is_rejected_and_both_are_bounded() {
        let now = at(100 * 86_400);
        let tried = |start: Option<u64>, window: Option<u64>| {
            let (start_time, rollout) = (start.map(at), window.map(Duration::from_secs));
            let request = ActionRequest { start_time, rollout, ..upgrade() };
            let made = request.into_action(ActionId::trusted("a"), SpaceId::default(), 10, "local:root", now);
            made.err().and_then(|error| error.field)
        };
        let (start, window) = (Some("start_time".to_owned()), Some("rollout_duration_seconds".to_owned()));
        let day = 86_400;
        assert_eq!(tried(Some(100 * day - 3601), Some(3600)), start, "it has passed");
        assert_eq!(tried(Some(100 * day - 3599), Some(3600)), None, "a second of it is left");
        assert_eq!(tried(Some(0), None), start, "it has expired");
        assert_eq!(tried(Some(99 * day), None), None, "it starts at once");
        assert_eq!((tried(Some(465 * day), None), tried(Some(466 * day), None)), (None, start));
        assert_eq!((tried(None, Some(30 * day)), tried(None, Some(30 * day + 1))), (None, window.clone()));
        assert_eq!(tried(None, Some(9_000_000_000_000_000_000)), window);
    }

    #[test]
    fn mg125_mg131_d4_every_action_expires() {
        let end = |request| make(request).unwrap().expiration.unwrap();
        let window = |h| ActionRequest { rollout: Some(hours(h)), start_time: Some(at(3600)), ..upgrade() };
        assert_eq!(end(window(1)), at(3600).plus(hours(2)));
        assert_eq!(end(window(2)), at(3600).plus(hours(4)));
        assert_eq!(end(window(24)), at(3600).plus(hours(24)));
        assert_eq!(end(ActionRequest { start_time: Some(at(7200)), ..upgrade() }), at(7200).plus(hours(30 * 24)));
        assert_eq!(end(upgrade()), at(0).plus(hours(30 * 24)));
        assert_eq!(end(ActionRequest::new(ActionType::RequestDiagnostics, Value::Null)), at(0).plus(hours(3)));
        assert_eq!(end(ActionRequest { expiration: Some(at(9)), ..upgrade() }), at(9));
        assert_eq!(field(ActionRequest { expiration: Some(at(0)), ..upgrade() }).as_deref(), Some("expiration"));
    }

    #[test]
    fn ea83_a_rollout_without_a_start_time_starts_now() {
        let action = make(ActionRequest { rollout: Some(hours(1)), ..upgrade() }).unwrap();
        assert_eq!((action.start_time, action.rollout_seconds), (Some(at(0)), Some(3600)));
        assert_eq!(make(upgrade()).unwrap().start_time, None);
    }

    #[test]
    fn ea81_data_is_reduced_and_validated_on_creation() {
        assert_eq!(make(upgrade()).unwrap().data.as_deref(), Some(r#"{"version":"9.6.1"}"#));
        for (kind, bad) in [
            (ActionType::Upgrade, json!({})),
            (ActionType::Settings, json!({"log_level": "loud"})),
            (ActionType::PolicyReassign, json!({"policy_id": 5})),
            (ActionType::RequestDiagnostics, json!({"additional_metrics": ["GPU"]})),
        ] {
            assert_eq!(field(ActionRequest::new(kind, bad)).as_deref(), Some("data"), "{kind:?}");
        }
        let tags = ActionRequest::new(ActionType::UpdateTags, json!({"tags": ["a"]}));
        assert_eq!(make(tags).unwrap().data.as_deref(), Some(r#"{"tags":["a"]}"#));
    }

    #[test]
    fn only_input_actions_have_an_input_type() {
        let input = ActionRequest::new(ActionType::InputAction, json!({}));
        assert_eq!(field(input.clone()).as_deref(), Some("input_type"));
        assert!(make(ActionRequest { input_type: "osquery".into(), ..input }).is_ok());
        assert_eq!(field(ActionRequest { input_type: "osquery".into(), ..upgrade() }).as_deref(), Some("input_type"));
        assert_eq!(field(ActionRequest { timeout: Some(0), ..upgrade() }).as_deref(), Some("timeout"));
    }

    #[test]
    fn mg128_mg129_only_upgrades_and_unenrollments_can_be_cancelled() {
        let target = make(upgrade()).unwrap();
        let cancel = cancel_of(&target, ActionId::trusted("c"), "local:root", at(5)).unwrap();
        assert_eq!((cancel.kind, cancel.data.as_deref()), (ActionType::Cancel, Some(r#"{"target_id":"a"}"#)));
        assert_eq!((cancel.expiration, cancel.total), (target.expiration, 10));
        let settings = make(ActionRequest::new(ActionType::Settings, Value::Null)).unwrap();
        assert!(cancel_of(&settings, ActionId::trusted("c"), "local:root", at(5)).is_err());
    }

    fn counts(acked: i64, failed: i64) -> ActionCounts {
        ActionCounts { created: 10, acked, failed, latest_result_at: Some(at(50)) }
    }

    fn status(action: &Action, acked: i64, failed: i64, now: u64) -> ActionStatus {
        progress(action, &counts(acked, failed), at(now)).status
    }

    #[test]
    fn mg141_partly_failed_is_failed() {
        let done = progress(&make(upgrade()).unwrap(), &counts(9, 1), at(60));
        let expected = ActionProgress {
            status: ActionStatus::Failed,
            actioned: 10,
            acked: 9,
            failed: 1,
            completed_at: Some(at(50)),
        };
        assert_eq!(done, expected);
        assert_eq!(status(&make(upgrade()).unwrap(), 10, 0, 60), ActionStatus::Complete);
        assert_eq!(status(&make(upgrade()).unwrap(), 9, 0, 60), ActionStatus::InProgress);
    }

    #[test]
    fn mg142_upgrades_do_not_expire_but_pass_their_window() {
        let settings =
            make(ActionRequest { expiration: Some(at(60)), ..ActionRequest::new(ActionType::Settings, Value::Null) });
        assert_eq!(status(&settings.unwrap(), 9, 0, 60), ActionStatus::Expired);
        let rollout = make(ActionRequest { rollout: Some(hours(1)), ..upgrade() }).unwrap();
        assert_eq!(status(&rollout, 9, 0, 3600), ActionStatus::InProgress);
        assert_eq!(status(&rollout, 9, 0, 3601), ActionStatus::RolloutPassed);
        assert_eq!(status(&make(upgrade()).unwrap(), 9, 0, 30_000_000), ActionStatus::InProgress);
    }

    #[test]
    fn mg143_cancelled_outranks_failure() {
        let action = Action { cancelled_at: Some(at(1)), ..make(upgrade()).unwrap() };
        assert_eq!(status(&action, 9, 1, 60), ActionStatus::Cancelled);
        assert_eq!(serde_json::to_value(ActionStatus::RolloutPassed).unwrap(), "ROLLOUT_PASSED");
    }

    proptest! {
        #[test]
        fn counts_never_exceed_the_targets(total in 0_i64..50, acked in 0_i64..60, failed in 0_i64..60) {
            let action = Action { total, ..make(upgrade()).unwrap() };
            let progress = progress(&action, &counts(acked, failed), at(60));
            prop_assert!(progress.acked >= 0 && progress.acked <= progress.actioned);
        }

        #[test]
        fn d4_an_action_expires_after_its_start(start in proptest::option::of(0_u64..1_000_000), window in proptest::option::of(600_u64..1_000_000)) {
            let request = ActionRequest { start_time: start.map(at), rollout: window.map(Duration::from_secs), ..upgrade() };
            let action = make(request).unwrap();
            prop_assert!(action.expiration > action.start_time && action.expiration > Some(at(0)));
        }
    }
}
