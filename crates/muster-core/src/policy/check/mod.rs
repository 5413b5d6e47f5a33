//! Validation of policies: the configuration, in the format of a standalone Elastic Agent, and the other fields. There
//! is one module per section, and all problems are reported at once.
//!
//! Agents reject a policy as a whole if any part of it is invalid, so a mistake here would stop updates on every host.
//! Whatever agents check is checked before a revision is created.

mod agent;
mod condition;
mod fields;
mod inputs;
mod lists;
mod otel;
mod outputs;
mod secrets;
mod values;
mod variables;

use serde_json::{Map, Value};

use super::problem::Problems;
use crate::secret_refs::{OTEL_COMPONENTS, join};

pub use fields::check_fields;
pub use inputs::PROCESS;
pub use outputs::{OUTPUT_FIELDS, OUTPUT_TYPES, check_record, is_elasticsearch};

/// Maximum nesting of a configuration.
pub const MAX_DEPTH: usize = 64;

// Delivery drops unknown sections (EA96), so a misspelled one must be rejected here.
/// Top-level keys of a configuration.
pub const CONFIG_KEYS: [&str; 11] = [
    "outputs",
    "output_permissions",
    "inputs",
    "agent",
    "fleet",
    "receivers",
    "processors",
    "exporters",
    "extensions",
    "connectors",
    "service",
];

/// Top-level keys that only the server sets. People copy them from compiled policies.
const OURS: [&str; 7] = ["id", "revision", "signed", "secret_paths", "secret_references", "namespaces", "namespace"];

/// Reason for rejecting `providers`: the protocol delivers a fixed set of sections (EA96), which does not contain it.
const NO_PROVIDERS: &str = "agents read providers only from their own configuration files";

/// Path of the configuration within a policy.
pub const ROOT: &str = "config";

/// Checks a configuration whose dotted keys are expanded. `is_secret` returns whether the policy has a secret of that
/// name.
pub fn check(config: &Value, is_secret: &dyn Fn(&str) -> bool) -> Problems {
    let mut problems = Problems::default();
    match config {
        Value::Null => {}
        // First, because all other checks recurse.
        Value::Object(_) if depth(config) > MAX_DEPTH => {
            problems.add(ROOT, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        Value::Object(config) => check_sections(config, is_secret, &mut problems),
        Value::String(_) => problems.advise(
            ROOT,
            "must be an object, not a string",
            "remove `|` or the quotes: the configuration is YAML like the rest of the file",
        ),
        other => problems.add(ROOT, format!("must be an object, not {}", kind_of(other))),
    }
    problems
}

fn check_sections(config: &Map<String, Value>, is_secret: &dyn Fn(&str) -> bool, problems: &mut Problems) {
    for (key, section) in config {
        let path = join(ROOT, key);
        match key.as_str() {
            // Agents render only these two sections. A `${` in a section of the collector is left to the collector.
            "inputs" | "outputs" => variables::check_rendered(section, &path, problems),
            "agent" | "fleet" => variables::check_settings(section, &path, problems),
            _ => {}
        }
        match key.as_str() {
            "outputs" => outputs::check_all(section, &path, problems),
            "output_permissions" => outputs::check_permissions(section, &path, problems),
            "inputs" => inputs::check(section, &path, problems),
            "agent" => agent::check_agent(section, &path, problems),
            "fleet" => agent::check_fleet(section, &path, problems),
            // Delivery would silently drop this section (EA96).
            "providers" => problems.advise(
                path,
                NO_PROVIDERS,
                "move them to agent.yml (muster-agent) or elastic-agent.yml on the hosts",
            ),
            "service" => drop(object(section, &path, problems)),
            component if OTEL_COMPONENTS.contains(&component) => otel::check_components(section, &path, problems),
            ours if OURS.contains(&ours) => {
                problems.advise(path, "the server sets this itself", "remove it");
            }
            unknown => problems.unknown(path.clone(), "key", unknown, &CONFIG_KEYS),
        }
    }
    // These two need the whole configuration, since they check references between sections.
    otel::check_pipelines(config, problems);
    secrets::check(config, is_secret, problems);
}

/// Remedy for settings that are written as a list.
const NO_HYPHEN: &str = "remove the hyphens, and write `name:` before each entry";
/// Remedy for a value where settings are expected.
const INDENT: &str = "write its settings on the following lines, indented";

/// Returns `value` as an object. `null` is treated as empty; any other type is a problem.
fn object<'a>(value: &'a Value, path: &str, problems: &mut Problems) -> Option<&'a Map<String, Value>> {
    match value {
        Value::Object(fields) => return Some(fields),
        Value::Null => {}
        Value::Array(_) => problems.advise(path, "must be an object, not a list", NO_HYPHEN),
        other => problems.advise(path, format!("must be an object, not {}", kind_of(other)), INDENT),
    }
    None
}

/// Returns `value` as a list. `null` is treated as empty; any other type is a problem.
fn list<'a>(value: &'a Value, path: &str, problems: &mut Problems) -> &'a [Value] {
    match value {
        Value::Array(items) => return items,
        Value::Null => {}
        other => problems.advise(path, format!("must be a list, not {}", kind_of(other)), lists::HYPHEN),
    }
    &[]
}

/// Returns the string in an optional field. An empty string or any other type is a problem.
fn text<'a>(fields: &'a Map<String, Value>, name: &str, path: &str, problems: &mut Problems) -> Option<&'a str> {
    match fields.get(name)? {
        Value::String(text) if !text.trim().is_empty() => return Some(text),
        Value::String(_) => problems.add(join(path, name), "must not be empty"),
        other => problems.add(join(path, name), format!("must be a string, not {}", kind_of(other))),
    }
    None
}

/// Returns the type of a value, for messages.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Returns the nesting of lists and objects. It may recurse, because parsers limit the nesting too.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(config: &Value) -> Vec<String> {
        check(config, &|name| name == "known").0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_complete_standalone_configuration_is_accepted() {
        let config = json!({
            "outputs": {"default": {"type": "elasticsearch", "hosts": ["https://es:9200"], "api_key": "${API_KEY}"},
                        "k": {"type": "kafka", "hosts": "${KAFKA}", "password": "$co.elastic.secret{known}"}},
            "inputs": [{"type": "filestream", "id": "logs", "use_output": "k", "streams": [{"id": "s", "paths": ["/x"]}]},
                       {"type": "process", "command": "/bin/sleep", "args": ["9"], "env": {"A": "b"}, "restart": "always"}],
            "agent": {"monitoring": {"enabled": true, "logs": true}, "logging": {"level": "debug"}},
            "fleet": {"hosts": ["https://fleet:8220"]},
            "receivers": {"otlp": null}, "exporters": {"debug": {}},
            "service": {"pipelines": {"logs": {"receivers": ["otlp"], "exporters": ["debug"]}}}
        });
        assert_eq!(problems(&config), Vec::<String>::new());
        assert_eq!(problems(&Value::Null), Vec::<String>::new());
    }

    #[test]
    fn unknown_and_reserved_keys_are_rejected_with_a_suggestion() {
        let found = problems(&json!({"input": [], "revision": 3, "zzz": 1}));
        assert_eq!(found[0], "config.input: unknown key `input`; did you mean `inputs`?");
        assert_eq!(found[1], "config.revision: the server sets this itself; remove it");
        assert!(found[2].starts_with("config.zzz: unknown key `zzz`; known: outputs, "));
    }

    #[test]
    fn ea96_providers_are_rejected_because_they_are_not_delivered() {
        let found = problems(&json!({"providers": {"env": {"enabled": false}}}));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("config.providers: agents read providers only from their own"), "{found:?}");
    }

    #[test]
    fn values_other_than_objects_are_rejected() {
        assert_eq!(problems(&json!([])), ["config: must be an object, not a list"]);
        assert!(problems(&json!("inputs: []"))[0].starts_with("config: must be an object, not a string; remove `|`"));
        assert_eq!(
            problems(&json!({"service": 1})),
            ["config.service: must be an object, not a number; write its settings on the following lines, indented"]
        );
        let mut deep = json!(1);
        for _ in 0..80 {
            deep = json!([deep]);
        }
        assert_eq!(problems(&json!({"inputs": deep})), ["config: nested deeper than 64 levels"]);
    }
}
