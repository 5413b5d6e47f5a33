//! Fields of a policy other than its configuration (MG §2.2).

use serde_json::{Map, Value};

use super::{kind_of, list, values};
use crate::canonical;
use crate::id::SpaceId;
use crate::policy::Policy;
use crate::policy::compile::ADVANCED;
use crate::policy::expand::expand_object;
use crate::policy::problem::Problems;
use crate::reenroll::OnDuplicateHosts;
use crate::secret_refs::join;

/// Maximum length of name, description and namespace, bytes.
const MAX_NAME: usize = 255;
const MAX_DESCRIPTION: usize = 4096;
const MAX_NAMESPACE: usize = 100;
/// Characters that a namespace must not contain, because it is part of the names of data streams. The hyphen separates
/// these parts.
const NOT_IN_NAMESPACES: &str = "\\/*?\"<>|,#:- ";
/// Signals that an agent can monitor of itself.
const SIGNALS: [&str; 3] = ["logs", "metrics", "traces"];

/// Checks all fields of a policy except its configuration.
pub fn check_fields(policy: &Policy) -> Problems {
    let mut problems = Problems::default();
    check_name(&policy.name, &mut problems);
    check_namespace(&policy.namespace, &mut problems);
    if policy.description.len() > MAX_DESCRIPTION {
        problems.add("description", format!("longer than {MAX_DESCRIPTION} bytes"));
    }
    if policy.inactivity_timeout < 0 {
        problems.add("inactivity_timeout", "must not be negative; 0 means never");
    }
    if policy.unenroll_timeout.is_some_and(|timeout| timeout < 0) {
        problems.add("unenroll_timeout", "must not be negative");
    }
    match &policy.fields {
        // Unknown fields are not rejected: Kibana's clients send many that have no meaning here.
        Value::Object(fields) => {
            check_others(fields, &mut problems);
            check_spaces(fields.get("space_ids"), &policy.space, &mut problems);
        }
        other => problems.add("fields", format!("must be an object, not {}", kind_of(other))),
    }
    problems
}

/// Accepts the policy's own space, which clients send back. A policy that seemed to be shared would not be.
fn check_spaces(ids: Option<&Value>, own: &SpaceId, problems: &mut Problems) {
    let is_own = |id: &Value| id.as_str() == Some(own.as_str());
    let is_fine = ids.is_none_or(|ids| ids.is_null() || ids.as_array().is_some_and(|ids| ids.iter().all(is_own)));
    if !is_fine {
        problems.add("space_ids", format!("must be [\"{own}\"]: a policy belongs to one space and cannot be shared"));
    }
}

// Names are printed in terminals and logs, hence no control characters.
fn check_name(name: &str, problems: &mut Problems) {
    if name.trim().is_empty() {
        problems.add("name", "must not be blank");
    } else if name.len() > MAX_NAME || name.chars().any(crate::reported::is_deceptive) {
        problems.add("name", format!("must have at most {MAX_NAME} bytes and no control characters"));
    }
}

fn check_namespace(namespace: &str, problems: &mut Problems) {
    if namespace.is_empty() || namespace.len() > MAX_NAMESPACE {
        problems.add("namespace", format!("must have 1 to {MAX_NAMESPACE} bytes"));
    } else if namespace.chars().any(|c| c.is_uppercase() || c.is_control() || NOT_IN_NAMESPACES.contains(c)) {
        let reason = format!("must be lower case without spaces and without {}", NOT_IN_NAMESPACES.trim_end());
        problems.add("namespace", reason);
    }
}

fn check_others(fields: &Map<String, Value>, problems: &mut Problems) {
    // `null` means absent, as in the clients that send every field back.
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "monitoring_enabled" => check_signals(value, problems),
            "agent_features" => check_named(value, name, "enabled", Value::is_boolean, "a boolean", problems),
            "global_data_tags" => {
                let is_value = |value: &Value| value.is_string() || value.is_number();
                check_named(value, name, "value", is_value, "a string or a number", problems);
                check_field_names(value, name, problems);
            }
            "advanced_settings" => check_advanced(value, name, problems),
            "overrides" | "monitoring_http" | "monitoring_diagnostics" => {
                expect(value.is_object(), value, name, "an object", problems);
            }
            "is_protected" | "keep_monitoring_alive" | "monitoring_pprof_enabled" => {
                expect(value.is_boolean(), value, name, "a boolean", problems);
            }
            "data_output_id" | "monitoring_output_id" | "fleet_server_host_id" | "download_source_id" => {
                expect(value.is_string(), value, name, "a string", problems);
            }
            // Read by the server alone, so its words are checked exactly.
            "duplicate_hosts" => match value.as_str() {
                Some(word) if OnDuplicateHosts::WORDS.contains(&word) => {}
                Some(word) => problems.unknown(name, "value", word, &OnDuplicateHosts::WORDS),
                None => expect(false, value, name, "a string", problems),
            },
            "required_versions" => check_versions(value, problems),
            _ => {}
        }
    }
}

fn expect(holds: bool, value: &Value, path: &str, wanted: &str, problems: &mut Problems) {
    if !holds {
        problems.add(path, format!("must be {wanted}, not {}", kind_of(value)));
    }
}

/// Checks the settings of the agent that have fields of their own in the management API.
fn check_advanced(settings: &Value, path: &str, problems: &mut Problems) {
    expect(settings.is_object(), settings, path, "an object", problems);
    for (name, setting) in ADVANCED {
        if let Some(value) = settings.get(name) {
            values::check_one(setting, value, &join(path, name), problems);
        }
    }
}

fn check_signals(value: &Value, problems: &mut Problems) {
    for (index, signal) in list(value, "monitoring_enabled", problems).iter().enumerate() {
        let path = join("monitoring_enabled", &index.to_string());
        match signal.as_str() {
            Some(signal) if SIGNALS.contains(&signal) => {}
            Some(signal) => problems.unknown(path, "signal", signal, &SIGNALS),
            None => expect(false, signal, &path, "a string", problems),
        }
    }
}

/// Checks a list of objects with a unique `name` and a second field.
fn check_named(
    value: &Value,
    path: &str,
    field: &str,
    holds: impl Fn(&Value) -> bool,
    wanted: &str,
    problems: &mut Problems,
) {
    let mut names = std::collections::HashSet::new();
    for (index, item) in list(value, path, problems).iter().enumerate() {
        let path = join(path, &index.to_string());
        match item["name"].as_str() {
            // The name becomes a key in the compiled policy.
            Some(name) if name.is_empty() || name.contains(char::is_whitespace) => {
                problems.add(join(&path, "name"), "must not be empty or contain spaces");
            }
            Some(name) if !names.insert(name) => problems.add(join(&path, "name"), format!("duplicate `{name}`")),
            Some(_) => {}
            None => problems.add(join(&path, "name"), "must be a string"),
        }
        expect(holds(&item[field]), &item[field], &join(&path, field), wanted, problems);
    }
}

/// Checks that the names can be fields of events, in which agents expand dots.
fn check_field_names(tags: &Value, path: &str, problems: &mut Problems) {
    let names = tags.as_array().into_iter().flatten().filter_map(|tag| tag["name"].as_str());
    expand_object(names.map(|name| (name.to_owned(), Value::Bool(true))).collect(), path, problems);
}

fn check_versions(value: &Value, problems: &mut Problems) {
    let path = "required_versions";
    // Floats are exact for whole percentages, the only ones that people write.
    let mut sum = 0.0;
    let mut versions = std::collections::HashSet::new();
    for (index, item) in list(value, path, problems).iter().enumerate() {
        let path = join(path, &index.to_string());
        match item["version"].as_str() {
            Some(version) if !versions.insert(version) => {
                problems.add(join(&path, "version"), format!("duplicate `{version}`"));
            }
            Some(version) if canonical::version(version).is_ok() => {}
            _ => problems.add(join(&path, "version"), "must be a version such as 9.5.2"),
        }
        match item["percentage"].as_f64().filter(|percentage| (0.0..=100.0).contains(percentage)) {
            Some(percentage) => sum += percentage,
            None => problems.add(join(&path, "percentage"), "must be a number from 0 to 100"),
        }
    }
    // A total below 100 is valid: the remaining agents are not upgraded.
    if sum > 100.0 {
        problems.add(path, "the percentages exceed 100 in total");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{self, at};

    fn problems(name: &str, namespace: &str, fields: Value) -> Vec<String> {
        let policy = Policy {
            name: name.into(),
            namespace: namespace.into(),
            inactivity_timeout: -1,
            unenroll_timeout: Some(0),
            fields,
            ..testing::policy("p", at(0))
        };
        let found = check_fields(&policy).0;
        found.iter().filter(|problem| problem.path != "inactivity_timeout").map(ToString::to_string).collect()
    }

    #[test]
    fn mg73_a_policy_belongs_to_its_own_space_only() {
        for fine in [json!({}), json!({"space_ids": null}), json!({"space_ids": []}), json!({"space_ids": ["default"]})]
        {
            assert!(problems("n", "default", fine).is_empty());
        }
        for shared in [json!(["default", "blue"]), json!(["*"]), json!("default")] {
            let found = problems("n", "default", json!({"space_ids": shared}));
            let told = r#"space_ids: must be ["default"]: a policy belongs to one space and cannot be shared"#;
            assert_eq!(found, [told]);
        }
    }

    #[test]
    fn names_and_namespaces_are_validated() {
        assert!(problems("n", "default", json!({})).is_empty());
        for namespace in ["", "Prod", "a-b", "a b", "a*", &"x".repeat(101)] {
            assert_eq!(problems("n", namespace, json!({})).len(), 1, "{namespace}");
        }
        for name in [" ", "a\nb", &"x".repeat(256)] {
            assert_eq!(problems(name, "default", json!({})).len(), 1, "{name}");
        }
    }

    #[test]
    fn types_of_fields_are_checked() {
        let fields = json!({
            "monitoring_enabled": ["logs", "metric"], "agent_features": [{"name": "f"}],
            "global_data_tags": [{"name": "a b", "value": 1}, {"name": "c", "value": []}, {"name": "c", "value": 1}],
            "is_protected": "yes", "duplicate_hosts": "reenrll", "data_output_id": null, "overrides": [],
            "advanced_settings": {"agent_logging_to_files": "true", "agent_download_timeout": "2h"},
            "required_versions": [{"version": "9.5.2", "percentage": 60}, {"version": "9.6.0", "percentage": 50}]
        });
        let expected = [
            "advanced_settings.agent_logging_to_files: must be a boolean, not the string `true`; write `true`, without quotes",
            "agent_features.0.enabled: must be a boolean, not null",
            "duplicate_hosts: unknown value `reenrll`; did you mean `reenroll`?",
            "global_data_tags.0.name: must not be empty or contain spaces",
            "global_data_tags.1.value: must be a string or a number, not a list",
            "global_data_tags.2.name: duplicate `c`",
            "is_protected: must be a boolean, not a string",
            "monitoring_enabled.1: unknown signal `metric`; did you mean `metrics`?",
            "overrides: must be an object, not a list",
            "required_versions: the percentages exceed 100 in total",
        ];
        assert_eq!(problems("n", "default", fields), expected);
    }
}
