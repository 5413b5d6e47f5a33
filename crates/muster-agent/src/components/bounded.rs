//! The states of components as a check-in reports them, within the size that servers accept.
//!
//! A component describes itself as it likes. A check-in that is rejected for what a component says would lock the agent out
//! of its fleet, and with it the policy that removes the component.

use std::borrow::Cow;

use muster_core::reported::Extent;
use serde_json::value::RawValue;

use super::ComponentState;

/// Maximum size of the report as JSON, in bytes. Muster rejects more than 2 MiB.
const BYTES_MAX: usize = 1 << 20;
/// Maximum number of JSON values in it. Muster rejects more than 100,000.
const VALUES_MAX: usize = 50_000;
/// Maximum length of the message of a component whose units are left out, in characters.
const MESSAGE_MAX: usize = 256;

/// What is left out of a component.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Payloads,
    Units,
}

struct Part<'a> {
    state: Cow<'a, ComponentState>,
    left_out: Left,
    json: String,
    values: usize,
}

impl<'a> Part<'a> {
    fn new(state: Cow<'a, ComponentState>, left_out: Left) -> Self {
        // A state consists of strings and JSON values, which can always be serialized.
        let json = serde_json::to_string(&state.to_wire()).unwrap_or_else(|_| "{}".into());
        let values = Extent::of(&json).nodes;
        Self { state, left_out, json, values }
    }

    fn smaller(&self) -> Self {
        let mut state = self.state.without_payloads();
        if self.left_out == Left::Nothing {
            state.message.push_str("; payloads are left out, because the report is too large");
            return Self::new(Cow::Owned(state), Left::Payloads);
        }
        let message: String = state.message.chars().take(MESSAGE_MAX).collect();
        state.message = format!("{message}; {} units are left out, because the report is too large", state.units.len());
        state.units.clear();
        Self::new(Cow::Owned(state), Left::Units)
    }
}

/// Converts the states for a check-in. If they are too large, payloads and then units of the largest components are left
/// out, and the messages of these components say so.
pub fn within_limits(states: &[ComponentState]) -> Box<RawValue> {
    let mut parts: Vec<Part<'_>> = states.iter().map(|state| Part::new(Cow::Borrowed(state), Left::Nothing)).collect();
    loop {
        let bytes: usize = parts.iter().map(|part| part.json.len() + 1).sum();
        let values: usize = parts.iter().map(|part| part.values).sum();
        if bytes <= BYTES_MAX && values <= VALUES_MAX {
            break;
        }
        let reducible = parts.iter_mut().filter(|part| part.left_out != Left::Units);
        let Some(largest) = reducible.max_by_key(|part| part.json.len()) else { break };
        *largest = largest.smaller();
    }
    let all: Vec<&str> = parts.iter().map(|part| part.json.as_str()).collect();
    RawValue::from_string(format!("[{}]", all.join(","))).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::components::{Health, UnitState};

    fn component(id: &str, units: usize, payload: Option<&Value>) -> ComponentState {
        let unit = |number: usize| UnitState {
            id: format!("{id}-{number}"),
            direction: "input".into(),
            state: Health::Healthy,
            message: "\u{1}".repeat(200),
            payload: payload.cloned(),
        };
        let units = (0..units).map(unit).collect();
        ComponentState { id: id.into(), kind: "log".into(), state: Health::Healthy, message: "fine".into(), units }
    }

    fn report(states: &[ComponentState]) -> (usize, Vec<Value>) {
        let raw = within_limits(states);
        (raw.get().len(), serde_json::from_str(raw.get()).unwrap())
    }

    #[test]
    fn a_report_of_ordinary_size_is_complete() {
        let states = [component("a", 3, Some(&json!({"n": 1}))), component("b", 2, None)];
        let wire: Vec<_> = states.iter().map(ComponentState::to_wire).collect();
        assert_eq!(report(&states).1, serde_json::to_value(wire).unwrap().as_array().unwrap().clone());
        assert_eq!(within_limits(&[]).get(), "[]");
    }

    #[test]
    fn the_largest_components_lose_payloads_and_then_units_and_say_so() {
        let large = json!("x".repeat(60_000));
        let states = [component("honest", 3, Some(&json!({"n": 1}))), component("payloads", 30, Some(&large))];
        let (size, found) = report(&states);
        assert!(size <= BYTES_MAX);
        assert_eq!(found[0]["units"][0]["payload"], json!({"n": 1}), "others are complete");
        assert_eq!(found[1]["units"].as_array().unwrap().len(), 30);
        assert!(found[1]["message"].as_str().unwrap().contains("payloads are left out"), "{}", found[1]["message"]);

        let (size, found) = report(&[component("honest", 3, None), component("units", 2000, None)]);
        assert!(size <= BYTES_MAX);
        assert_eq!((found[0]["units"].as_array().unwrap().len(), found[1]["units"].as_array().unwrap().len()), (3, 0));
        assert!(found[1]["message"].as_str().unwrap().contains("2000 units are left out"), "{}", found[1]["message"]);
    }

    #[test]
    fn values_are_counted_also_if_they_are_short() {
        let many = json!(vec![0; 20_000]);
        let (size, found) = report(&[component("a", 4, Some(&many))]);
        assert!(size < 100_000 && found[0]["units"].as_array().unwrap().len() == 4);
    }
}
