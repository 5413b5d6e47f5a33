//! Data of actions: the fields of each type. They are checked when an action is created; the adapters convert them to the
//! formats of their protocols when it is delivered.

use serde_json::{Map, Value};

use crate::action::ActionType;

/// Returns the known fields of a type, with their types checked (EA81, EA145); `None` if the data is invalid.
pub(crate) fn checked(kind: ActionType, data: Value) -> Option<Value> {
    match kind {
        // One field of the wrong type makes agents drop the whole batch (EA145), so every field is checked.
        ActionType::Unenroll => Some(Value::Null),
        ActionType::PolicyReassign => Shape::of(data)?.text("policy_id", true)?.done(),
        ActionType::Cancel => Shape::of(data)?.text("target_id", true)?.done(),
        ActionType::Settings => settings(data),
        ActionType::Upgrade => {
            Shape::of(data)?.text("version", true)?.text("source_uri", false)?.flag("rollback", false)?.done()
        }
        ActionType::RequestDiagnostics if data.is_null() => Some(Value::Null),
        ActionType::RequestDiagnostics => diagnostics(data),
        // Components define these fields; the server does not know them.
        ActionType::InputAction => data.is_object().then_some(data),
        ActionType::Migrate => {
            let shape = Shape::of(data)?.text("target_uri", true)?.text("enrollment_token", true)?;
            shape.any("settings").done()
        }
        ActionType::PrivilegeLevelChange => privilege(data),
        ActionType::Reenroll | ActionType::UpdateTags | ActionType::ForceUnenroll | ActionType::PolicyChange => None,
    }
}

const LOG_LEVELS: [&str; 5] = ["trace", "debug", "info", "warning", "error"];

/// Without a level, the data is `{}`, which clears a level that was set before.
fn settings(data: Value) -> Option<Value> {
    if data.is_null() {
        return Some(Value::Object(Map::new()));
    }
    let shaped = Shape::of(data)?.text("log_level", false)?.done()?;
    match shaped.get("log_level").and_then(Value::as_str) {
        Some(level) if !LOG_LEVELS.contains(&level) => None,
        _ => Some(shaped),
    }
}

fn diagnostics(data: Value) -> Option<Value> {
    let shape = Shape::of(data)?.any("additional_metrics").flag("exclude_events_log", false)?;
    let fits = match shape.kept.get("additional_metrics") {
        None => true,
        Some(Value::Array(metrics)) => metrics.iter().all(|metric| matches!(metric.as_str(), Some("CPU" | "CONN"))),
        Some(_) => false,
    };
    if fits { shape.done() } else { None }
}

fn privilege(data: Value) -> Option<Value> {
    let shape = Shape::of(data)?.flag("unprivileged", true)?.any("user_info");
    // `user_info` is an object of its own; it is checked in the same way as the outer one.
    let mut shaped = shape.done()?;
    if let Some(user) = shaped.get_mut("user_info") {
        let keys = Shape::of(user.take())?;
        *user = keys.text("username", false)?.text("password", false)?.text("groupname", false)?.done()?;
    }
    Some(shaped)
}

/// Builder that moves known keys from the given data to the result.
struct Shape {
    given: Map<String, Value>,
    kept: Map<String, Value>,
}

impl Shape {
    fn of(data: Value) -> Option<Self> {
        match data {
            Value::Object(given) => Some(Self { given, kept: Map::new() }),
            _ => None,
        }
    }

    fn text(self, key: &str, required: bool) -> Option<Self> {
        self.keep(key, required, Value::is_string)
    }

    fn flag(self, key: &str, required: bool) -> Option<Self> {
        self.keep(key, required, Value::is_boolean)
    }

    fn any(mut self, key: &str) -> Self {
        if let Some(value) = self.given.remove(key).filter(|value| !value.is_null()) {
            self.kept.insert(key.to_owned(), value);
        }
        self
    }

    fn keep(self, key: &str, required: bool, fits: fn(&Value) -> bool) -> Option<Self> {
        let shape = self.any(key);
        let kept = shape.kept.get(key).map(fits).unwrap_or(!required);
        kept.then_some(shape)
    }

    // Whatever is still in `given` is unknown and dropped here (EA81).
    fn done(self) -> Option<Value> {
        Some(Value::Object(self.kept))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ea81_unknown_fields_are_removed() {
        use ActionType as T;
        let cases = [
            (T::Unenroll, json!({"x": 1}), json!(null)),
            (T::PolicyReassign, json!({"policy_id": "p", "x": 1}), json!({"policy_id": "p"})),
            (T::Settings, json!({"log_level": "debug", "x": 1}), json!({"log_level": "debug"})),
            (T::Settings, json!({"log_level": null}), json!({})),
            (T::Settings, json!(null), json!({})),
            (T::Cancel, json!({"target_id": "a", "x": 1}), json!({"target_id": "a"})),
            (
                T::Upgrade,
                json!({"version": "9.6.1", "rollback": true, "x": 1}),
                json!({"version": "9.6.1", "rollback": true}),
            ),
            (
                T::Upgrade,
                json!({"version": "9.6.1", "source_uri": "u"}),
                json!({"version": "9.6.1", "source_uri": "u"}),
            ),
            (T::RequestDiagnostics, json!({"additional_metrics": ["CPU"]}), json!({"additional_metrics": ["CPU"]})),
            (T::RequestDiagnostics, json!(null), json!(null)),
            (T::InputAction, json!({"any": [1]}), json!({"any": [1]})),
            (
                T::Migrate,
                json!({"target_uri": "u", "enrollment_token": "t", "settings": {"ca": ["x"]}, "x": 1}),
                json!({"target_uri": "u", "enrollment_token": "t", "settings": {"ca": ["x"]}}),
            ),
            (
                T::PrivilegeLevelChange,
                json!({"unprivileged": true, "user_info": {"username": "u", "x": 1}}),
                json!({"unprivileged": true, "user_info": {"username": "u"}}),
            ),
        ];
        for (kind, data, expected) in cases {
            assert_eq!(checked(kind, data), Some(expected), "{kind:?}");
        }
    }

    #[test]
    fn ea145_invalid_data_is_rejected() {
        use ActionType as T;
        let cases = [
            (T::PolicyReassign, json!({})),
            (T::PolicyReassign, json!(null)),
            (T::Settings, json!({"log_level": 5})),
            (T::Settings, json!({"log_level": "loud"})),
            (T::Upgrade, json!({"version": 9})),
            (T::Upgrade, json!({"version": "9", "rollback": "yes"})),
            (T::Cancel, json!([])),
            (T::RequestDiagnostics, json!({"additional_metrics": "CPU"})),
            (T::InputAction, json!("x")),
            (T::Migrate, json!({"target_uri": "u"})),
            (T::PrivilegeLevelChange, json!({})),
            (T::PrivilegeLevelChange, json!({"unprivileged": true, "user_info": 5})),
        ];
        for (kind, data) in cases {
            assert_eq!(checked(kind, data.clone()), None, "{kind:?} {data}");
        }
    }
}
