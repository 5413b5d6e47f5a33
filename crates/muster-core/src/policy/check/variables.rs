//! Variables (`${provider.key}`) and conditions in the sections that agents render (AG §4.2). Agents reject the whole
//! policy if they can't parse one of them.

use serde_json::{Map, Value};

use super::{PROCESS, condition, kind_of};
use crate::policy::problem::{Problems, shortened};
use crate::secret_refs::{OPEN, join};

/// Name of the field with a condition, in any object of an input or output.
const CONDITION: &str = "condition";

/// Checks sections that are rendered with variables and conditions: inputs and outputs.
pub(super) fn check_rendered(value: &Value, path: &str, problems: &mut Problems) {
    match value {
        Value::String(text) => check_text(text, path, problems, variables),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_rendered(item, &join(path, &index.to_string()), problems);
            }
        }
        // muster-agent starts programs as written: `${X}` belongs to the shell there.
        Value::Object(fields) if is_process(fields) => {
            refuse_condition(fields, path, problems);
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = join(path, name);
                if name == CONDITION {
                    check_condition(field, &path, problems);
                } else {
                    check_rendered(field, &path, problems);
                }
            }
        }
        _ => {}
    }
}

/// Checks the agent's own settings, in which variables refer to environment variables, so that only the closing brace
/// is required.
pub(super) fn check_settings(value: &Value, path: &str, problems: &mut Problems) {
    match value {
        Value::String(text) => check_text(text, path, problems, closed),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_settings(item, &join(path, &index.to_string()), problems);
            }
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| check_settings(field, &join(path, name), problems));
        }
        _ => {}
    }
}

fn is_process(fields: &Map<String, Value>) -> bool {
    fields.get("type").and_then(Value::as_str) == Some(PROCESS) && fields.contains_key("command")
}

fn refuse_condition(process: &Map<String, Value>, path: &str, problems: &mut Problems) {
    if process.contains_key(CONDITION) {
        let reason = "a process cannot have a condition: it runs on every agent of the policy";
        problems.advise(join(path, CONDITION), reason, "remove it");
    }
}

fn check_condition(value: &Value, path: &str, problems: &mut Problems) {
    match value {
        Value::Bool(_) => {}
        Value::String(text) => {
            if let Err(reason) = condition::check(text) {
                let remedy = "such as: ${host.platform} == 'linux'";
                problems.advise(path, format!("invalid condition: {reason}"), remedy);
            }
        }
        other => problems.add(path, format!("must be a string with a condition, not {}", kind_of(other))),
    }
}

fn check_text(text: &str, path: &str, problems: &mut Problems, check: fn(&str) -> Result<(), String>) {
    // Agents see the text with secrets inserted, so replace references by a harmless character.
    let seen = without_references(text);
    if let Err(reason) = check(&seen) {
        problems.advise(path, reason, "write `${provider.key}`, or `$${` for a literal `${`");
    }
}

fn without_references(text: &str) -> String {
    let mut parts = text.split(OPEN);
    let mut seen = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        seen.push('x');
        seen.push_str(part.split_once('}').map_or(part, |(_, rest)| rest));
    }
    seen
}

/// Checks that every `${` is closed.
fn closed(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some((_, opened)) = rest.split_once("${") {
        let Some((_, after)) = opened.split_once('}') else { return Err(unclosed(opened)) };
        rest = after;
    }
    Ok(())
}

/// Checks that agents can parse every `${…}`.
fn variables(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some((before, opened)) = rest.split_once("${") {
        // Agents find a variable with a pattern of allowed characters: it ends at the first other one, not at the next
        // brace.
        let end = opened.find(|c| !is_allowed_in_variable(c)).unwrap_or(opened.len());
        let Some(after) = opened[end..].strip_prefix('}') else {
            return Err(match opened[end..].chars().next() {
                Some(other) if opened.contains('}') => format!(
                    "invalid variable `${{{}`: unexpected character `{other}`",
                    shortened(opened.split_once('}').map_or(opened, |(inside, _)| inside))
                ),
                _ => unclosed(opened),
            });
        };
        // `$${…}` is an escape for the literal text `${…}`.
        if !before.ends_with('$') {
            alternatives(&opened[..end])
                .map_err(|reason| format!("invalid variable `${{{}}}`: {reason}", shortened(&opened[..end])))?;
        }
        rest = after;
    }
    Ok(())
}

fn unclosed(opened: &str) -> String {
    format!("the variable `${{{}` is not closed with `}}`", shortened(opened.trim_end()))
}

fn is_allowed_in_variable(c: char) -> bool {
    c.is_alphabetic() || c.is_numeric() || c.is_whitespace() || "\\-_|.'\":/?".contains(c)
}

/// Checks the alternatives of a variable: names and constants separated by `|`, with a default after `:`.
fn alternatives(inside: &str) -> Result<(), String> {
    let (mut quote, mut escaped, mut name) = (None, false, String::new());
    for c in inside.chars() {
        match (c, quote) {
            ('|' | ':', _) if escaped => return Err(format!("`{c}` cannot be escaped")),
            ('|' | ':', None) => {
                check_name(&name)?;
                name.clear();
            }
            ('"' | '\'', None) if !escaped => quote = Some(c),
            ('"' | '\'', Some(opened)) if !escaped && opened == c => quote = None,
            (c, None) if !c.is_whitespace() => name.push(c),
            _ => {}
        }
        // An escaped backslash does not escape the next character.
        escaped = !escaped && c == '\\';
    }
    match quote {
        Some(quote) => Err(format!("the string that begins with {quote} is not closed")),
        None => check_name(&name),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.ends_with('.') { Err("a name must not end with a dot".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn valid_variables_are_accepted() {
        for text in [
            "",
            "plain $x {y} $",
            "${env.HOME}",
            "${ES_HOSTS:http://es.example:9200}",
            "${host.name|env.NAME|'fallback'}",
            "${a.b|\"it's\"}",
            "a ${x} b ${y} c",
            "$${not.a.variable}",
            "$${X.}",
            "${kubernetes.pod.ip}:${kubernetes.container.port}",
            "${docker.container.labels.co.elastic/x|?}",
            "$co.elastic.secret{NAME}",
            "${env.X:$co.elastic.secret{NAME}}",
            "^\\d{4}-\\d{2}$",
            "${größe}",
        ] {
            let mut problems = Problems::default();
            check_rendered(&json!([text]), "config.inputs", &mut problems);
            assert_eq!(problems.to_string(), "", "{text}");
        }
    }

    #[test]
    fn invalid_variables_are_rejected() {
        for (text, expected) in [
            ("${kubernetes.pod.ip:1234", "the variable `${kubernetes.pod.ip:1234` is not closed"),
            ("${host.name", "is not closed"),
            ("a ${x} ${y", "`${y` is not closed"),
            ("${", "is not closed"),
            ("$${open", "is not closed"),
            ("${a,b}", "unexpected character `,`"),
            ("${a:-b@c}", "unexpected character `@`"),
            ("${a ${b}}", "unexpected character `$`"),
            ("${a=b}", "unexpected character `=`"),
            ("${a|'open}", "is not closed"),
            ("${a.}", "must not end with a dot"),
            ("${a.|b}", "must not end with a dot"),
            ("${a\\|b}", "cannot be escaped"),
        ] {
            let mut problems = Problems::default();
            check_rendered(&json!({"outputs": [{"x": text}]}), "config", &mut problems);
            assert_eq!(problems.0.len(), 1, "{text}");
            assert_eq!(problems.0[0].path, "config.outputs.0.x");
            assert!(problems.0[0].reason.contains(expected), "{text}: {}", problems.0[0].reason);
        }
    }

    #[test]
    fn agent_settings_can_use_environment_variables() {
        let mut problems = Problems::default();
        let agent = json!({"a": "${LEVEL:info}", "b": ["${A=,}"], "c": {"d": "${open"}});
        check_settings(&agent, "config.agent", &mut problems);
        assert_eq!(problems.0.len(), 1, "{problems}");
        assert_eq!(problems.0[0].path, "config.agent.c.d");
    }

    #[test]
    fn conditions_are_checked_anywhere_in_an_input() {
        let input = json!([
            {"type": "x", "condition": "a = b", "streams": [{"condition": "${host.platform == 'linux'"}, {"condition": true}]},
            {"type": "x", "condition": null},
            {"type": "x", "a": {"condition": 5}},
            {"type": "process", "command": "/bin/sh", "args": ["-c", "echo ${X%%y}"]},
            {"type": "process", "command": "/bin/sh", "condition": "true"}
        ]);
        let mut problems = Problems::default();
        check_rendered(&input, "config.inputs", &mut problems);
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        let expected = ["0.condition", "0.streams.0.condition", "1.condition", "2.a.condition", "4.condition"];
        assert_eq!(paths, expected.map(|path| format!("config.inputs.{path}")));
    }

    proptest! {
        #[test]
        fn any_text_is_checked_without_a_panic(text in "[$ {}a.|:'\"\\\\é=]{0,24}") {
            let _ = variables(&text);
            let _ = closed(&text);
        }
    }
}
