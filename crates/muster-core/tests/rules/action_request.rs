//! Creation and status of actions (MG §5.4, §5.7).

use std::time::Duration;

use muster_core::action::{Action, ActionCounts, ActionType};
use muster_core::action_request::{ActionRequest, ActionStatus, cancel_of, is_cancellable, progress};
use muster_core::id::{ActionId, SpaceId};
use muster_core::testing::{self, at};
use muster_core::time::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

fn good_data(kind: ActionType) -> Value {
    match kind {
        ActionType::Upgrade => json!({"version": "9.6.0"}),
        ActionType::Settings => json!({"log_level": "debug"}),
        ActionType::PolicyReassign => json!({"policy_id": "p"}),
        _ => Value::Null,
    }
}

fn kind() -> impl Strategy<Value = ActionType> {
    prop::sample::select(vec![
        ActionType::Upgrade,
        ActionType::Settings,
        ActionType::Unenroll,
        ActionType::PolicyReassign,
        ActionType::RequestDiagnostics,
        ActionType::UpdateTags,
    ])
}

prop_compose! {
    fn request()(
        kind in kind(),
        timeout in prop::option::of(-1_i64..100_000),
        expiration in prop::option::of(0_u64..100_000),
        start in prop::option::of(0_u64..100_000),
        rollout in prop::option::of(0_u64..100_000),
    ) -> ActionRequest {
        ActionRequest {
            timeout,
            expiration: expiration.map(at),
            start_time: start.map(at),
            rollout: rollout.map(Duration::from_secs),
            ..ActionRequest::new(kind, good_data(kind))
        }
    }
}

fn create(request: ActionRequest, now: Timestamp) -> Option<Action> {
    request.into_action(ActionId::trusted("a"), SpaceId::default(), 3, "local:root", now).ok()
}

proptest! {
    #[test]
    fn d4_every_action_expires_after_its_start(request in request(), now in 0_u64..50_000) {
        if let Some(action) = create(request, at(now)) {
            let end = action.expiration.unwrap();
            prop_assert!(end > at(now) || action.start_time.is_some_and(|start| start < at(now)));
            prop_assert!(action.start_time.is_none_or(|start| start < end));
        }
    }

    #[test]
    fn valid_requests_are_accepted_and_others_rejected(request in request(), now in 0_u64..50_000) {
        let start = request.start_time.unwrap_or(at(now)).max(at(now));
        // A start whose window has passed, or whose action has expired. Without a window, only diagnostics end so soon.
        let has_passed = request.start_time.is_some_and(|start| match (request.rollout, request.expiration) {
            (Some(window), None) if window > Duration::from_secs(7_200) => start.plus(window) <= at(now),
            (Some(window), _) => start.plus(window) < at(now),
            (None, None) => {
                request.kind == ActionType::RequestDiagnostics && start.plus(Duration::from_secs(10_800)) <= at(now)
            }
            (None, Some(_)) => false,
        });
        let fits = !has_passed
            && request.rollout.is_none_or(|window| window.as_secs() >= 600)
            && request.timeout.is_none_or(|seconds| (1..=86_400).contains(&seconds))
            && request.expiration.is_none_or(|end| end > start);
        prop_assert_eq!(create(request, at(now)).is_some(), fits);
    }

    #[test]
    fn mg141_counts_never_exceed_the_targets(
        total in 0_i64..20, created in 0_i64..20, acked in 0_i64..20, failed in 0_i64..20, now in 0_u64..5000,
    ) {
        let action = Action { total, ..testing::action("a", ActionType::Settings, at(0)) };
        let counts = ActionCounts { created, acked, failed, latest_result_at: (acked + failed > 0).then(|| at(1)) };
        let progress_now = progress(&action, &counts, at(now));
        prop_assert!(progress_now.acked >= 0 && progress_now.acked + progress_now.failed <= progress_now.actioned.max(progress_now.failed));
        let all = acked + failed >= progress_now.actioned;
        prop_assert_eq!(matches!(progress_now.status, ActionStatus::Complete | ActionStatus::Failed), all);
        prop_assert_eq!(progress_now.completed_at.is_some(), all && counts.latest_result_at.is_some());
    }

    #[test]
    fn mg142_all_actions_but_upgrades_expire(kind in kind(), end in 1_u64..100, now in 0_u64..200) {
        let action = Action { expiration: Some(at(end)), ..testing::action("a", kind, at(0)) };
        let progress_now = progress(&action, &ActionCounts::default(), at(now));
        prop_assert_eq!(progress_now.status == ActionStatus::Expired, now >= end && kind != ActionType::Upgrade);
    }

    #[test]
    fn a_cancel_expires_with_its_target(kind in kind(), end in 1_u64..100_000, now in 0_u64..100_000) {
        let target = Action { expiration: Some(at(end)), total: 7, ..testing::action("a", kind, at(0)) };
        let cancel = cancel_of(&target, ActionId::trusted("c"), "local:root", at(now));
        prop_assert_eq!(cancel.is_ok(), is_cancellable(kind));
        if let Ok(cancel) = cancel {
            prop_assert_eq!((cancel.kind, cancel.total), (ActionType::Cancel, 7));
            prop_assert!(cancel.expiration.unwrap() > at(now));
            prop_assert!(end <= now || cancel.expiration == target.expiration);
        }
    }
}
