//! Outputs and the permissions on them.

use serde_json::{Map, Value};

use super::{kind_of, object, text};
use crate::policy::problem::Problems;
use crate::secret_refs::join;

/// Types of outputs that agents can be given (§6.1).
pub const OUTPUT_TYPES: [&str; 4] = ["elasticsearch", "remote_elasticsearch", "logstash", "kafka"];

/// Whether an output of that type speaks to Elasticsearch, and so has permissions.
pub fn is_elasticsearch(kind: &str) -> bool {
    matches!(kind, "elasticsearch" | "remote_elasticsearch")
}

pub(super) fn check_all(outputs: &Value, path: &str, problems: &mut Problems) {
    for (name, output) in object(outputs, path, problems).into_iter().flatten() {
        let path = join(path, name);
        if name.trim().is_empty() {
            problems.add(path.as_str(), "an output needs a name");
        }
        match output {
            Value::Object(output) => check_one(output, &path, problems),
            other => problems.add(path, format!("must be an object, not {}", kind_of(other))),
        }
    }
}

fn check_one(output: &Map<String, Value>, path: &str, problems: &mut Problems) {
    if !output.contains_key("type") {
        problems.advise(join(path, "type"), "is missing", format!("one of {}", OUTPUT_TYPES.join(", ")));
    }
    if let Some(kind) = text(output, "type", path, problems).filter(|kind| !OUTPUT_TYPES.contains(kind)) {
        problems.unknown(join(path, "type"), "type of output", kind, &OUTPUT_TYPES);
    }
    match output.get("hosts") {
        // Variables are resolved by the agent: `${ES_HOSTS:https://es:9200}`.
        Some(Value::String(host)) if !host.trim().is_empty() => {}
        Some(Value::Array(hosts)) if !hosts.is_empty() => check_hosts(hosts, &join(path, "hosts"), problems),
        Some(_) => problems.add(join(path, "hosts"), "must be a list of one or more addresses"),
        None => problems.advise(join(path, "hosts"), "is missing", "give a list of one or more addresses"),
    }
}

/// Checks that every host is a text that is not empty.
pub(super) fn check_hosts(hosts: &[Value], path: &str, problems: &mut Problems) {
    for (index, host) in hosts.iter().enumerate() {
        if host.as_str().is_none_or(|host| host.trim().is_empty()) {
            problems.add(join(path, &index.to_string()), "must be an address");
        }
    }
}

pub(super) fn check_permissions(permissions: &Value, path: &str, problems: &mut Problems) {
    for (output, roles) in object(permissions, path, problems).into_iter().flatten() {
        let path = join(path, output);
        for (role, descriptor) in object(roles, &path, problems).into_iter().flatten() {
            object(descriptor, &join(&path, role), problems);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(outputs: &Value) -> Vec<String> {
        let mut problems = Problems::default();
        check_all(outputs, "config.outputs", &mut problems);
        problems.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ea105_other_types_than_the_known_are_refused() {
        let hosts = json!(["h:1"]);
        for kind in OUTPUT_TYPES {
            assert!(problems(&json!({"o": {"type": kind, "hosts": hosts}})).is_empty(), "{kind}");
        }
        let found =
            problems(&json!({"o": {"type": "elasticsaerch", "hosts": hosts}, "p": {"type": "redis", "hosts": hosts}}));
        let near = "config.outputs.o.type: unknown type of output `elasticsaerch`; did you mean `elasticsearch`?";
        assert_eq!(found[0], near);
        assert!(found[1].contains("known: elasticsearch, remote_elasticsearch, logstash, kafka"));
    }

    #[test]
    fn types_and_hosts_are_needed() {
        let found =
            problems(&json!({"o": {"hosts": []}, "p": 1, "q": {"type": "kafka", "hosts": [1]}, "r": {"type": ""}}));
        let expected = [
            "config.outputs.o.type: is missing; one of elasticsearch, remote_elasticsearch, logstash, kafka",
            "config.outputs.o.hosts: must be a list of one or more addresses",
            "config.outputs.p: must be an object, not a number",
            "config.outputs.q.hosts.0: must be an address",
            "config.outputs.r.type: must not be empty",
            "config.outputs.r.hosts: is missing; give a list of one or more addresses",
        ];
        assert_eq!(found, expected);
    }
}
