//! Expansion of dotted keys: `data_stream.namespace: shop` means `data_stream: {namespace: shop}`.
//!
//! The configuration library of the agents expands such keys at every level, merges the results, and fails if a value
//! is set twice. Policies are compiled from the expanded form, so that an agent never gets a dotted key next to a
//! nested default. Sections of the OpenTelemetry collector are not read by that library, and stay as written.

use serde_json::{Map, Value};

use super::check::{MAX_DEPTH, PROCESS};
use super::problem::Problems;
use crate::secret_refs::{OTEL_COMPONENTS, join};

/// Largest number that agents interpret as a list index in a key.
const MAX_INDEX: u32 = 1024;

/// Expands the dotted keys of a configuration or of overrides. Problems have the path in the expanded form, which as a
/// string equals the path that people wrote.
pub fn expand(config: &Map<String, Value>, path: &str, problems: &mut Problems) -> Map<String, Value> {
    let is_otel = |key: &str| OTEL_COMPONENTS.contains(&key) || key == "service";
    let (collector, agent): (Map<_, _>, Map<_, _>) = config.clone().into_iter().partition(|(key, _)| is_otel(key));
    // `receivers.otlp` is ambiguous: the agent would expand it, but the collector allows dots in names.
    for key in agent.keys().filter(|key| key.split_once('.').is_some_and(|(first, _)| is_otel(first))) {
        let section = key.split('.').next().unwrap_or_default();
        let remedy = format!("write `{section}:` and nest the rest below it");
        problems.advise(
            join(path, key),
            "dotted keys are not supported in sections of the OpenTelemetry collector",
            remedy,
        );
    }
    let mut expanded = object(agent, path, Keys::Fields, problems);
    expanded.extend(collector);
    expanded
}

/// Expands the dotted keys of an object of settings.
pub fn expand_object(fields: Map<String, Value>, path: &str, problems: &mut Problems) -> Map<String, Value> {
    object(fields, path, Keys::Fields, problems)
}

/// Meaning of the keys of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Names of fields. A number would turn the object into a list.
    Fields,
    /// Paths of secrets (EA §4.8), in which numbers are list indices.
    Secrets,
}

fn object(fields: Map<String, Value>, path: &str, keys: Keys, problems: &mut Problems) -> Map<String, Value> {
    let is_process = fields.get("type").and_then(Value::as_str) == Some(PROCESS);
    let mut expanded = Map::new();
    // Dotted keys come last, so that a conflict is reported at the dotted key.
    let (dotted, plain): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(key, _)| key.contains('.'));
    for (key, field) in plain.into_iter().chain(dotted) {
        let path = join(path, &key);
        // Names of environment variables may contain dots and are not expanded.
        let field = if is_process && key == "env" {
            field
        } else {
            let keys = if key == "secrets" { Keys::Secrets } else { keys };
            value(field, &path, keys, problems)
        };
        let steps: Vec<&str> = key.split('.').collect();
        if is_usable(&steps, &path, keys, problems) {
            put(&mut expanded, &steps, field, &path, problems);
        }
    }
    expanded
}

fn value(value: Value, path: &str, keys: Keys, problems: &mut Problems) -> Value {
    match value {
        Value::Object(fields) => Value::Object(object(fields, path, keys, problems)),
        Value::Array(items) => {
            let item =
                |(index, item): (usize, Value)| self::value(item, &join(path, &index.to_string()), keys, problems);
            Value::Array(items.into_iter().enumerate().map(item).collect())
        }
        scalar => scalar,
    }
}

/// Checks whether every part of a dotted key is a valid field name.
fn is_usable(steps: &[&str], path: &str, keys: Keys, problems: &mut Problems) -> bool {
    // The expanded object is walked recursively: a key of ten thousand dots must not overflow the stack.
    if steps.len() > MAX_DEPTH {
        problems.add(path, format!("has more than {MAX_DEPTH} parts"));
        return false;
    }
    if steps.iter().any(|step| step.trim().is_empty()) {
        problems.advise(path, "the key has an empty part", "remove the extra dots");
        return false;
    }
    let is_index = |step: &&&str| step.parse::<u32>().is_ok_and(|index| index <= MAX_INDEX);
    if let Some(index) = steps.iter().find(is_index).filter(|_| keys == Keys::Fields) {
        let reason = format!("agents interpret `{index}` in a key as a list index");
        problems.advise(path, reason, "write a list with hyphens, or choose another key");
        return false;
    }
    true
}

/// Sets the field at `steps`, merging objects.
fn put(target: &mut Map<String, Value>, steps: &[&str], field: Value, path: &str, problems: &mut Problems) {
    let [first, rest @ ..] = steps else { return };
    if rest.is_empty() {
        return set(target, first, field, path, problems);
    }
    let slot = target.entry(*first).or_insert(Value::Null);
    // Agents accept `x:` without a value next to `x.y: 1`.
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(inner) => put(inner, rest, field, path, problems),
        _ => report_conflict(path, problems),
    }
}

fn set(target: &mut Map<String, Value>, name: &str, field: Value, path: &str, problems: &mut Problems) {
    match (target.get_mut(name), field) {
        (None | Some(Value::Null), field) => drop(target.insert(name.to_owned(), field)),
        // `null` does not overwrite a value.
        (Some(_), Value::Null) => {}
        (Some(Value::Object(old)), Value::Object(new)) => {
            for (name, field) in new {
                set(old, &name, field, &join(path, &name), problems);
            }
        }
        (Some(_), _) => report_conflict(path, problems),
    }
}

fn report_conflict(path: &str, problems: &mut Problems) {
    problems.advise(path, "is set by both a dotted and a nested key", "keep one of them");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn expanded(config: Value) -> Result<Value, Vec<String>> {
        let mut problems = Problems::default();
        let Value::Object(config) = config else { panic!("{config}") };
        let expanded = expand(&config, "config", &mut problems);
        match problems.0.is_empty() {
            true => Ok(Value::Object(expanded)),
            false => Err(problems.0.iter().map(|problem| format!("{}: {}", problem.path, problem.reason)).collect()),
        }
    }

    #[test]
    fn dotted_keys_are_expanded_and_merged_at_every_level() {
        let config = json!({
            "agent.logging.level": "debug", "agent": {"monitoring.enabled": true, "monitoring": {"logs": true}},
            "outputs.default": {"type": "elasticsearch", "ssl.verification_mode": "none", "ssl": {"enabled": true}},
            "inputs": [{"data_stream.namespace": "shop", "streams": [{"data_stream.dataset": "a.b", "x": null, "x.y": 1}]}]
        });
        let expected = json!({
            "agent": {"logging": {"level": "debug"}, "monitoring": {"enabled": true, "logs": true}},
            "outputs": {"default": {"type": "elasticsearch", "ssl": {"verification_mode": "none", "enabled": true}}},
            "inputs": [{"data_stream": {"namespace": "shop"}, "streams": [{"data_stream": {"dataset": "a.b"}, "x": {"y": 1}}]}]
        });
        assert_eq!(expanded(config), Ok(expected));
    }

    #[test]
    fn collector_sections_are_not_expanded() {
        let config = json!({"receivers": {"otlp/1.2": {"a.b": 1, "7": 2}}, "service": {"telemetry": {"resource": {"service.name": "x"}}}});
        assert_eq!(expanded(config.clone()), Ok(config));
        let refused = expanded(json!({"service.pipelines": {}, "receivers.otlp": {}})).unwrap_err();
        assert_eq!(refused.len(), 2, "{refused:?}");
    }

    #[test]
    fn a_value_that_is_set_twice_is_rejected() {
        let report_conflict = "is set by both a dotted and a nested key";
        for (input, path) in [
            (json!({"a": {"b": 1}, "a.b": 2}), "a.b"),
            (json!({"a": {"b": 1}, "a.b": 1}), "a.b"),
            (json!({"a": 1, "a.b": 2}), "a.b"),
            (json!({"a.b": {"c": 1}, "a.b.c": 2}), "a.b.c"),
            (json!({"a": {"b": [1]}, "a.b": [2]}), "a.b"),
            (json!({"a.b": 1, "a": {"b": {"c": 1}}}), "a.b"),
            (json!({"a": [], "a.b": 1}), "a.b"),
            (json!({"a": {"b.c": 1}, "a.b": {"c": 2}}), "a.b.c"),
        ] {
            let found = expanded(json!({"inputs": [input.clone()]})).unwrap_err();
            assert_eq!(found, [format!("config.inputs.0.{path}: {report_conflict}")], "{input}");
        }
        assert_eq!(expanded(json!({"agent": {"a": {"b": 1}, "a.b": null}})), Ok(json!({"agent": {"a": {"b": 1}}})));
    }

    #[test]
    fn keys_that_agents_interpret_differently_are_rejected() {
        for key in ["0", "80", "processors.0", "a..b", ".a", "a.", "a. .b", "1024"] {
            assert_eq!(expanded(json!({"agent": {key: 1}})).unwrap_err().len(), 1, "{key}");
        }
        for key in ["1025", "0x", "a0", "-1"] {
            assert!(expanded(json!({"agent": {key: 1}})).is_ok(), "{key}");
        }
        let long = vec!["a"; MAX_DEPTH + 1].join(".");
        assert!(expanded(json!({"agent": {long: 1}})).is_err());
    }

    #[test]
    fn secret_paths_can_have_numbers_and_environment_names_can_have_dots() {
        let config = json!({"inputs": [
            {"type": "process", "env": {"java.home": "x", "0": "y"}, "secrets": {"env": {"A": {"id": "n"}}}},
            {"type": "x", "secrets.hosts": {"0": {"id": "n"}}}
        ]});
        let mut expected = config.clone();
        expected["inputs"][1] = json!({"type": "x", "secrets": {"hosts": {"0": {"id": "n"}}}});
        let found = expanded(config);
        assert!(found.is_err() || found == Ok(expected));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        any::<u8>().prop_map(Value::from).prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[ab](\\.[ab]){0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn has_dotted_key(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(has_dotted_key),
            Value::Object(map) => map.iter().any(|(key, value)| key.contains('.') || has_dotted_key(value)),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn expansion_is_complete_and_idempotent(agent in any_value()) {
            let mut problems = Problems::default();
            let once = expand(&[("agent".to_owned(), agent)].into_iter().collect(), "config", &mut problems);
            prop_assert!(!has_dotted_key(&Value::Object(once.clone())));
            let before = problems.0.len();
            prop_assert_eq!(&expand(&once, "config", &mut problems), &once);
            prop_assert_eq!(problems.0.len(), before);
        }
    }
}
