//! Fields that agents require to be lists, and the processors in them.

use serde_json::{Map, Value};

use super::{PROCESS, kind_of};
use crate::policy::problem::{Problems, shortened};
use crate::secret_refs::join;

/// Fields of an input or a stream that must be lists of objects.
const OF_OBJECTS: [&str; 3] = ["streams", "processors", "parsers"];
/// Fields of an input or a stream that are lists of strings; agents also accept a single string.
const OF_STRINGS: [&str; 8] =
    ["paths", "hosts", "metricsets", "tags", "exclude_files", "include_files", "exclude_lines", "include_lines"];
/// Fields under `ssl` that are lists of strings.
const OF_SSL: [&str; 4] = ["certificate_authorities", "supported_protocols", "cipher_suites", "curve_types"];

pub(super) const HYPHEN: &str = "put a hyphen before each item";

/// Checks the lists of an input or a stream. A mapping instead of a list is the typical result of a forgotten hyphen.
pub(super) fn check_collecting(fields: &Map<String, Value>, path: &str, problems: &mut Problems) {
    // Fields of a process have other types, such as `args`, and are checked with it.
    if fields.get("type").and_then(Value::as_str) == Some(PROCESS) {
        return;
    }
    for (name, value) in fields {
        let path = join(path, name);
        match value {
            Value::Object(_) if OF_OBJECTS.contains(&name.as_str()) || OF_STRINGS.contains(&name.as_str()) => {
                problems.advise(path, "must be a list, not an object", HYPHEN);
            }
            Value::Array(items) if name == "processors" => check_processors(items, &path, problems),
            Value::Array(items) if OF_OBJECTS.contains(&name.as_str()) => check_objects(items, &path, problems),
            Value::String(_) | Value::Number(_) | Value::Bool(_) if OF_OBJECTS.contains(&name.as_str()) => {
                problems.advise(path, format!("must be a list, not {}", kind_of(value)), HYPHEN);
            }
            _ => {}
        }
    }
    // Apart from the loop, because outputs have the same section but none of the other lists.
    check_ssl(fields, path, problems);
}

/// Checks the lists under `ssl` of an input or an output.
pub(super) fn check_ssl(fields: &Map<String, Value>, path: &str, problems: &mut Problems) {
    let ssl = fields.get("ssl").and_then(Value::as_object);
    for (name, _) in ssl.into_iter().flatten().filter(|(_, value)| value.is_object()) {
        if OF_SSL.contains(&name.as_str()) {
            problems.advise(join(&join(path, "ssl"), name), "must be a list, not an object", HYPHEN);
        }
    }
}

fn check_objects(items: &[Value], path: &str, problems: &mut Problems) {
    for (index, item) in items.iter().enumerate().filter(|(_, item)| !item.is_object()) {
        problems.add(join(path, &index.to_string()), format!("must be an object, not {}", kind_of(item)));
    }
}

/// Checks processors: each must be an object with a single key, or an `if` with its branches.
fn check_processors(items: &[Value], path: &str, problems: &mut Problems) {
    for (index, item) in items.iter().enumerate() {
        let path = join(path, &index.to_string());
        match item {
            Value::Object(one) if one.len() == 1 || one.contains_key("if") => {}
            Value::Object(none) if none.is_empty() => problems.add(path, "must have a processor"),
            // Usually the settings are not indented below the processor's name.
            Value::Object(several) => {
                let names: Vec<String> = several.keys().map(|name| shortened(name)).collect();
                let reason = format!("must have one processor, not {} ({})", names.len(), names.join(", "));
                problems.advise(
                    path,
                    reason,
                    "indent the settings below the processor's name, and put a hyphen before each processor",
                );
            }
            other => {
                let reason = format!("must be an object, not {}", kind_of(other));
                problems.advise(path, reason, "such as `- add_tags: {tags: [web]}`");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mappings_instead_of_lists_are_rejected() {
        let input = json!({
            "type": "filestream", "processors": {"add_tags": {"tags": ["web"]}}, "paths": {"a": 1}, "parsers": "ndjson",
            "hosts": "localhost", "tags": ["x"], "ssl": {"certificate_authorities": {"a": "b"}, "enabled": true}
        });
        let mut problems = Problems::default();
        check_collecting(input.as_object().unwrap(), "i", &mut problems);
        let found: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        let expected = [
            "i.parsers: must be a list, not a string; put a hyphen before each item",
            "i.paths: must be a list, not an object; put a hyphen before each item",
            "i.processors: must be a list, not an object; put a hyphen before each item",
            "i.ssl.certificate_authorities: must be a list, not an object; put a hyphen before each item",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn processors_need_exactly_one_name() {
        let input = json!({"type": "x", "processors": [
            {"add_tags": {"tags": ["a"]}}, {"if": {}, "then": [], "else": []}, {"decode_json_fields": null},
            {"add_tags": null, "tags": ["a"], "target": "t"}, "add_tags", {}, null
        ]});
        let mut problems = Problems::default();
        check_collecting(input.as_object().unwrap(), "i", &mut problems);
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["i.processors.3", "i.processors.4", "i.processors.5", "i.processors.6"]);
        assert!(problems.0[0].reason.contains("not 3 (add_tags, tags, target)"), "{problems}");
    }
}
