//! References to secrets: they must be well-formed, in a supported section, and refer to an existing secret.

use serde_json::{Map, Value};

use super::{PROCESS, ROOT};
use crate::policy::problem::{Problems, SET_SECRET};
use crate::secret_refs::{OPEN, for_each, is_leaf, is_unclosed, join, scopes};

pub(super) fn check(config: &Map<String, Value>, is_secret: &dyn Fn(&str) -> bool, problems: &mut Problems) {
    // A copy, since supported sections are removed below.
    let mut copy = config.clone();
    for_each(&mut copy, &mut |path, name| {
        if is_signed_command(config, path) {
            let reason = "the command and arguments of a process are signed and cannot contain secrets";
            problems.advise(join(ROOT, path), reason, "pass secrets to the program in `env`");
        }
        if !is_secret(name) {
            let reason = format!("the policy has no secret `{}`", super::super::problem::shortened(name));
            problems.advise(join(ROOT, path), reason, SET_SECRET);
        }
    });
    for (path, scope) in scopes(&mut copy) {
        inside(scope, &join(ROOT, &path), problems);
        // Remove the section, so that `outside` finds references in unsupported sections only.
        *scope = Value::Null;
    }
    outside(&Value::Object(copy), ROOT, problems);
}

/// Returns whether the path is the command or an argument of a process. They are signed before secrets are inserted, so
/// the signature would not match.
fn is_signed_command(config: &Map<String, Value>, path: &str) -> bool {
    let mut steps = path.split('.');
    let (Some("inputs"), Some(index), Some("command" | "args")) = (steps.next(), steps.next(), steps.next()) else {
        return false;
    };
    let input = index.parse::<usize>().ok().and_then(|index| config.get("inputs")?.get(index));
    input.is_some_and(|input| input["type"] == PROCESS)
}

fn inside(value: &Value, path: &str, problems: &mut Problems) {
    match value {
        Value::String(text) if is_unclosed(text) => {
            problems.add(path, format!("a reference to a secret must end with `}}`: {OPEN}NAME}}"));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| inside(item, &join(path, &index.to_string()), problems));
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = join(path, name);
                // Within a supported section, `secrets` is always a mirror, at any depth (EA §4.8).
                if name == "secrets" { mirror(field, &path, problems) } else { inside(field, &path, problems) }
            }
        }
        _ => {}
    }
}

fn mirror(value: &Value, path: &str, problems: &mut Problems) {
    let Value::Object(fields) = value else {
        return problems.advise(path, "is reserved for references to secrets", "set `{\"id\": NAME}` for each field");
    };
    for (name, entry) in fields {
        match entry {
            // A field of this name would itself be taken for a mirror.
            _ if name == "secrets" => problems.add(join(path, name), "no field may have this name"),
            Value::Object(leaf) if is_leaf(leaf) => {}
            deeper => mirror(deeper, &join(path, name), problems),
        }
    }
}

fn outside(value: &Value, path: &str, problems: &mut Problems) {
    match value {
        Value::String(text) if text.contains(OPEN) => problems.advise(
            path,
            "secrets are not supported here",
            "secrets are supported in outputs, inputs, agent.download, fleet and OpenTelemetry components",
        ),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| outside(item, &join(path, &index.to_string()), problems));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| outside(field, &join(path, name), problems));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(config: &Value) -> Vec<String> {
        let mut problems = Problems::default();
        check(config.as_object().unwrap(), &|name| name == "known", &mut problems);
        problems.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ea97_an_unknown_secret_is_rejected_with_its_path() {
        let found = problems(&json!({
            "inputs": [{"a": "$co.elastic.secret{known}", "b": ["$co.elastic.secret{other}"]}],
            "outputs": {"o": {"secrets": {"ssl": {"key": {"id": "third"}}}}}
        }));
        let remedy = "set its value with `--secret NAME=…` or in the field `secrets`, or correct the name";
        let expected = [
            format!("config.inputs.0.b.0: the policy has no secret `other`; {remedy}"),
            format!("config.outputs.o.ssl.key: the policy has no secret `third`; {remedy}"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn secrets_of_a_process_are_accepted_in_its_environment_only() {
        let found = problems(&json!({"inputs": [
            {"type": "process", "command": "$co.elastic.secret{known}", "args": ["a", "x$co.elastic.secret{known}"],
             "env": {"A": "$co.elastic.secret{known}"}},
            {"type": "process", "secrets": {"command": {"id": "known"}, "args": {"0": {"id": "known"}}, "env": {"A": {"id": "known"}}}},
            {"type": "other", "command": "$co.elastic.secret{known}"}
        ]}));
        let refusal = "the command and arguments of a process are signed and cannot contain secrets; \
                       pass secrets to the program in `env`";
        let mut expected =
            ["0.args.1", "0.command", "1.args.0", "1.command"].map(|at| format!("config.inputs.{at}: {refusal}"));
        expected.sort();
        let mut found = found;
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn ea98_references_in_unsupported_sections_are_rejected() {
        let found = problems(&json!({
            "agent": {"logging": {"level": "$co.elastic.secret{known}"}, "download": {"x": "$co.elastic.secret{known}"}},
            "inputs": [{"a": "$co.elastic.secret{known", "secrets": {"a": "plain"}, "b": {"secrets": 1}, "c": {"secrets": {"secrets": {"id": "known"}}}}],
            "service": {"telemetry": ["$co.elastic.secret{known}"]}
        }));
        let elsewhere = "secrets are not supported here; secrets are supported in outputs, inputs, agent.download, fleet and OpenTelemetry components";
        let kept = "is reserved for references to secrets; set `{\"id\": NAME}` for each field";
        let expected = [
            "config.inputs.0.a: a reference to a secret must end with `}`: $co.elastic.secret{NAME}".to_owned(),
            format!("config.inputs.0.b.secrets: {kept}"),
            "config.inputs.0.c.secrets.secrets: no field may have this name".to_owned(),
            format!("config.inputs.0.secrets.a: {kept}"),
            format!("config.agent.logging.level: {elsewhere}"),
            format!("config.service.telemetry.0: {elsewhere}"),
        ];
        assert_eq!(found, expected);
    }
}
