//! Orders and how they stand (MG §5.4, §5.7).

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
    fn order()(
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

fn made(order: ActionRequest, now: Timestamp) -> Option<Action> {
    order.into_action(ActionId::trusted("a"), SpaceId::default(), 3, "local:root", now).ok()
}

proptest! {
    #[test]
    fn d4_every_order_ends_and_not_before_it_starts(order in order(), now in 0_u64..50_000) {
        if let Some(action) = made(order, at(now)) {
            let end = action.expiration.unwrap();
            prop_assert!(end > at(now) || action.start_time.is_some_and(|start| start < at(now)));
            prop_assert!(action.start_time.is_none_or(|start| start < end));
        }
    }

    #[test]
    fn an_order_is_refused_for_a_reason_only(order in order(), now in 0_u64..50_000) {
        let start = order.start_time.unwrap_or(at(now)).max(at(now));
        let fits = order.rollout.is_none_or(|window| window.as_secs() >= 600)
            && order.timeout.is_none_or(|seconds| (1..=86_400).contains(&seconds))
            && order.expiration.is_none_or(|end| end > start);
        prop_assert_eq!(made(order, at(now)).is_some(), fits);
    }

    #[test]
    fn mg141_counts_never_exceed_the_agents_meant(
        total in 0_i64..20, created in 0_i64..20, acked in 0_i64..20, failed in 0_i64..20, now in 0_u64..5000,
    ) {
        let action = Action { total, ..testing::action("a", ActionType::Settings, at(0)) };
        let counts = ActionCounts { created, acked, failed, latest_result_at: (acked + failed > 0).then(|| at(1)) };
        let stands = progress(&action, &counts, at(now));
        prop_assert!(stands.acked >= 0 && stands.acked + stands.failed <= stands.actioned.max(stands.failed));
        let all = acked + failed >= stands.actioned;
        prop_assert_eq!(matches!(stands.status, ActionStatus::Complete | ActionStatus::Failed), all);
        prop_assert_eq!(stands.completed_at.is_some(), all && counts.latest_result_at.is_some());
    }

    #[test]
    fn mg142_only_what_is_no_upgrade_expires(kind in kind(), end in 1_u64..100, now in 0_u64..200) {
        let action = Action { expiration: Some(at(end)), ..testing::action("a", kind, at(0)) };
        let stands = progress(&action, &ActionCounts::default(), at(now));
        prop_assert_eq!(stands.status == ActionStatus::Expired, now >= end && kind != ActionType::Upgrade);
    }

    #[test]
    fn a_cancel_ends_no_later_than_what_it_withdraws(kind in kind(), end in 1_u64..100_000, now in 0_u64..100_000) {
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
