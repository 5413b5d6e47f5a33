//! Delivery of actions (EA §4.11).

use std::sync::Arc;
use std::time::Duration;

use muster_core::action::{Action, ActionType, DueAction};
use muster_core::delivery::{deliver, start_time};
use muster_core::testing::{self, at};
use proptest::prelude::*;

/// Due actions as returned by the store: in the order of creation.
fn due() -> impl Strategy<Value = Vec<DueAction>> {
    let kinds = prop::sample::select(vec![
        (ActionType::Unenroll, None),
        (ActionType::Settings, Some(r#"{"log_level":"debug"}"#)),
        (ActionType::Settings, Some(r#"{"log_level":"#)),
        (ActionType::UpdateTags, Some("{}")),
        (ActionType::ForceUnenroll, None),
        (ActionType::InputAction, Some("x")),
    ]);
    prop::collection::vec((kinds, 1_i64..5), 0..8).prop_map(|all| {
        let mut seq = 0;
        let action = |((kind, data), step): ((ActionType, Option<&'static str>), i64)| {
            seq += step;
            let action =
                Action { seq, data: data.map(Into::into), ..testing::action(&format!("a-{seq}"), kind, at(0)) };
            DueAction { action: Arc::new(action), position: 0 }
        };
        all.into_iter().map(action).collect()
    })
}

/// Whether the action can be delivered: its type is delivered, and its data is JSON.
fn is_deliverable(due: &DueAction) -> bool {
    let bad = [Some(r#"{"log_level":"#), Some("x")];
    due.action.kind.is_delivered() && !bad.contains(&due.action.data.as_deref())
}

fn ids(due: &[DueAction], from: i64) -> (Vec<String>, i64) {
    let delivery = deliver(due, from, &|_| None);
    (delivery.actions.into_iter().map(|delivered| delivered.action.id.to_string()).collect(), delivery.position)
}

proptest! {
    #[test]
    fn ea75_ea77_deliverable_actions_are_in_the_order_of_creation(due in due()) {
        let deliverable: Vec<String> =
            due.iter().filter(|one| is_deliverable(one)).map(|one| one.action.id.to_string()).collect();
        prop_assert_eq!(ids(&due, -1).0, deliverable);
    }

    #[test]
    fn ea77_ea145_the_token_covers_skipped_actions(due in due(), position in -1_i64..40) {
        let delivery = deliver(&due, position, &|_| None);
        let last = due.last().map(|one| (one.action.id.clone(), one.action.seq));
        prop_assert_eq!(&delivery.ack_token, &last.as_ref().map(|(id, _)| id.clone()));
        prop_assert_eq!(delivery.position, last.map_or(position, |(_, seq)| position.max(seq)));
        let skipped = due.len() - delivery.actions.len() - delivery.invalid.len();
        prop_assert_eq!(skipped, due.iter().filter(|one| !one.action.kind.is_delivered()).count());
    }

    #[test]
    fn ea75_consecutive_batches_equal_one_batch(due in due(), cut in 0_usize..8) {
        let (first, rest) = due.split_at(cut.min(due.len()));
        let (mut delivered, position) = ids(first, -1);
        let (more, end) = ids(rest, position);
        delivered.extend(more);
        prop_assert_eq!((delivered, end), ids(&due, -1));
    }

    #[test]
    fn ea83_d3_starts_ascend_with_the_position_and_stay_in_the_window(total in 1_i64..500, window in 0_u32..90_000) {
        let action = Action {
            start_time: Some(at(0)), rollout_seconds: Some(window.into()), total,
            ..testing::action("up", ActionType::Upgrade, at(0))
        };
        let starts: Vec<_> = (0..total).map(|place| start_time(&action, place).unwrap()).collect();
        prop_assert!(starts.is_sorted());
        prop_assert_eq!(starts[0], at(0));
        let end = at(0).plus(Duration::from_secs(window.into()));
        prop_assert!(starts.iter().all(|start| *start <= end));
        // The starts are evenly spread: neighbors differ by at most one agent's share of the window.
        let share = Duration::from_secs(window.into()) / u32::try_from(total).unwrap() + Duration::from_micros(1);
        prop_assert!(starts.windows(2).all(|pair| pair[1].since(pair[0]) <= share));
    }
}
