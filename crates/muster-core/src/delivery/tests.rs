//! Tests of the preparation of actions.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::action::{ActionType, Signed};
use crate::testing::{self, at};

fn action(kind: ActionType, data: Option<Value>) -> Action {
    Action {
        seq: 7,
        expiration: Some(at(60)),
        data: data.map(|data| data.to_string().into()),
        ..testing::action("a-7", kind, at(0))
    }
}

fn due(action: Action, position: i64) -> DueAction {
    DueAction { action: Arc::new(action), position }
}

fn deliver_all(due: &[DueAction]) -> Delivery {
    deliver(due, -1, &|id| (id.as_str() == "s1").then(|| "se\"cret".to_owned()))
}

/// The data as delivered; `None` if the action was skipped.
fn delivered(kind: ActionType, data: Option<Value>) -> Option<Value> {
    let delivery = deliver_all(&[due(action(kind, data), 0)]);
    assert_eq!((delivery.position, delivery.ack_token.unwrap().as_str()), (7, "a-7"));
    let action = delivery.actions.into_iter().next()?;
    Some(action.data.map_or(Value::Null, |data| serde_json::from_str(&data).unwrap()))
}

#[test]
fn ea77_some_types_are_never_delivered_but_advance_the_position() {
    for kind in [ActionType::UpdateTags, ActionType::ForceUnenroll] {
        assert_eq!(delivered(kind, Some(json!({"tags": []}))), None);
    }
}

#[test]
fn ea73_the_token_confirms_everything_that_was_due() {
    let second = Action { seq: 9, id: ActionId::trusted("a-9"), ..action(ActionType::UpdateTags, None) };
    let delivery = deliver_all(&[due(action(ActionType::Unenroll, None), 0), due(second, 0)]);
    assert_eq!((delivery.actions.len(), delivery.position), (1, 9));
    assert_eq!(delivery.ack_token.unwrap().as_str(), "a-9");
    let nothing = deliver_all(&[]);
    assert_eq!((nothing.ack_token, nothing.position), (None, -1));
}

#[test]
fn ea80_ea84_d3_secrets_are_inserted_into_data_but_not_into_the_signed_copy() {
    let signed = Signed { data: "eyJ4IjoxfQ==".into(), signature: "MEUC".into() };
    let data = json!({"target_uri": "u", "enrollment_token": "x-$co.elastic.secret{s1}-$co.elastic.secret{none}"});
    let action = Action { signed: Some(signed.clone()), ..action(ActionType::Migrate, Some(data)) };
    let due = [due(action, 0)];
    assert_eq!(secrets_of(&due), [SecretId::trusted("none"), SecretId::trusted("s1")]);
    let delivery = deliver_all(&due);
    let data: Value = serde_json::from_str(delivery.actions[0].data.as_ref().unwrap()).unwrap();
    assert_eq!(data["enrollment_token"], "x-se\"cret-$co.elastic.secret{none}");
    let sent = delivery.actions[0].action.signed.as_ref().unwrap();
    assert_eq!((&sent.data, &sent.signature), (&signed.data, &signed.signature));
}

#[test]
fn ea83_start_times_are_spread_over_the_window() {
    let rollout = Action {
        start_time: Some(at(0)),
        rollout_seconds: Some(3600),
        total: 60,
        ..action(ActionType::Upgrade, Some(json!({"version": "9.6.1"})))
    };
    for position in [0, 1, 59] {
        let delivery = deliver_all(&[due(rollout.clone(), position)]);
        assert_eq!(delivery.actions[0].start_time, Some(at(60 * u64::try_from(position).unwrap())));
    }
    let plain = Action { rollout_seconds: None, ..rollout };
    assert_eq!(deliver_all(&[due(plain, 59)]).actions[0].start_time, Some(at(0)));
}

proptest! {
    #[test]
    fn ea83_every_start_is_within_the_window(position in 0_i64..1000, total in 1_i64..1000, window in 0_i64..100_000) {
        let action = Action {
            start_time: Some(at(0)), rollout_seconds: Some(window), total, ..action(ActionType::Upgrade, None)
        };
        let start = start_time(&action, position).unwrap();
        prop_assert!(start >= at(0) && start <= at(0).plus(Duration::from_secs(window as u64)));
    }

    #[test]
    fn substituted_secrets_leave_no_reference(before in "[a-z{}$]{0,8}", after in "[a-z{}$]{0,8}") {
        let text = format!("{before}$co.elastic.secret{{s1}}{after}");
        let mut out = Value::from(text.as_str());
        substitute(&mut out, &|_| Some("$co.elastic.secret{s1}".to_owned()));
        prop_assert_eq!(out, text);
    }
}
