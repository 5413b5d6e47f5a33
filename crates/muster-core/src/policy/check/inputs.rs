//! Inputs: what an agent collects, and which programs it runs.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{kind_of, list, lists, object, text, values};
use crate::policy::problem::Problems;
use crate::resource_limits::ResourceLimits;
use crate::secret_refs::join;

/// Type of inputs that are programs, which only muster-agent runs.
pub const PROCESS: &str = "process";

const PROCESS_RESTARTS: [&str; 3] = ["always", "on-failure", "never"];

pub(super) fn check(inputs: &Value, path: &str, problems: &mut Problems) {
    let mut ids = HashSet::new();
    for (index, input) in list(inputs, path, problems).iter().enumerate() {
        let path = join(path, &index.to_string());
        let Value::Object(input) = input else {
            problems.add(path, format!("must be an object, not {}", kind_of(input)));
            continue;
        };
        check_one(input, &path, problems);
        // Agents reject the whole policy if input ids are not unique (AG73).
        if let Some(id) = text(input, "id", &path, problems).filter(|id| !ids.insert(*id)) {
            problems.add(join(&path, "id"), format!("another input has the id `{id}`"));
        }
    }
}

fn check_one(input: &Map<String, Value>, path: &str, problems: &mut Problems) {
    // Any type is accepted: the programs of the agent define the types, and new ones come with every version.
    let kind = text(input, "type", path, problems);
    if !input.contains_key("type") {
        problems.advise(join(path, "type"), "is missing", "set the input's type, such as `filestream`");
    }
    text(input, "use_output", path, problems);
    values::check_unit(input, path, problems);
    if let Some(data_stream) = input.get("data_stream") {
        object(data_stream, &join(path, "data_stream"), problems);
    }
    lists::check_collecting(input, path, problems);
    check_streams(input, path, problems);
    if kind == Some(PROCESS) {
        check_process(input, path, problems);
    }
}

fn check_streams(input: &Map<String, Value>, path: &str, problems: &mut Problems) {
    let path = join(path, "streams");
    let mut ids = HashSet::new();
    let streams = input.get("streams").and_then(Value::as_array);
    for (index, stream) in streams.into_iter().flatten().enumerate() {
        let path = join(&path, &index.to_string());
        // Reported by `check_collecting` already.
        let Value::Object(stream) = stream else { continue };
        lists::check_collecting(stream, &path, problems);
        if let Some(id) = text(stream, "id", &path, problems).filter(|id| !ids.insert(*id)) {
            problems.add(join(&path, "id"), format!("another stream of this input has the id `{id}`"));
        }
    }
}

/// Checks a program that muster-agent supervises.
fn check_process(input: &Map<String, Value>, path: &str, problems: &mut Problems) {
    if !input.contains_key("command") {
        problems.advise(join(path, "command"), "is missing", "set the program to run");
    }
    text(input, "command", path, problems);
    if let Some(args) = input.get("args") {
        for (index, arg) in
            list(args, &join(path, "args"), problems).iter().enumerate().filter(|(_, arg)| !arg.is_string())
        {
            problems.add(join(path, &format!("args.{index}")), format!("must be a string, not {}", kind_of(arg)));
        }
    }
    let env = input.get("env").and_then(|env| object(env, &join(path, "env"), problems));
    for (name, value) in env.into_iter().flatten().filter(|(_, value)| !value.is_string()) {
        problems.add(join(path, &format!("env.{name}")), format!("must be a string, not {}", kind_of(value)));
    }
    check_limits(input, path, problems);
    if let Some(restart) = text(input, "restart", path, problems).filter(|word| !PROCESS_RESTARTS.contains(word)) {
        problems.unknown(join(path, "restart"), "restart mode", restart, &PROCESS_RESTARTS);
    }
}

fn check_limits(input: &Map<String, Value>, path: &str, problems: &mut Problems) {
    let path = join(path, "limits");
    for fault in input.get("limits").and_then(|limits| ResourceLimits::parse(limits).err()).into_iter().flatten() {
        let path = if fault.key.is_empty() { path.clone() } else { join(&path, &fault.key) };
        problems.add(path, fault.reason);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(inputs: &Value) -> Vec<String> {
        let mut problems = Problems::default();
        check(inputs, "config.inputs", &mut problems);
        problems.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn inputs_need_a_type_and_unique_ids() {
        let found = problems(&json!([{"id": "a"}, {"type": "x", "id": "a", "use_output": 5}, "text", {"type": "x",
            "streams": [{"id": "s"}, {"id": "s"}, 1], "data_stream": []}]));
        let expected = [
            "config.inputs.0.type: is missing; set the input's type, such as `filestream`",
            "config.inputs.1.use_output: must be a string, not a number",
            "config.inputs.1.id: another input has the id `a`",
            "config.inputs.2: must be an object, not a string",
            "config.inputs.3.data_stream: must be an object, not a list; remove the hyphens, and write `name:` before each entry",
            "config.inputs.3.streams.2: must be an object, not a number",
            "config.inputs.3.streams.1.id: another stream of this input has the id `s`",
        ];
        assert_eq!(found, expected);
        assert_eq!(
            problems(&json!({})),
            ["config.inputs: must be a list, not an object; put a hyphen before each item"]
        );
    }

    #[test]
    fn process_inputs_are_checked() {
        let found = problems(&json!([{"type": "process", "args": [1], "env": {"A": 1}, "restart": "allways",
            "limits": {"memory": "1G", "memroy": 1}}, {"type": "process", "command": "x", "limits": {"memory": "64MiB", "cpu": 0.5}}]));
        let expected = [
            "config.inputs.0.command: is missing; set the program to run",
            "config.inputs.0.args.0: must be a string, not a number",
            "config.inputs.0.env.A: must be a string, not a number",
            "config.inputs.0.limits.memory: must be a number of bytes, or a size such as `512MiB`",
            "config.inputs.0.limits.memroy: unknown limit; known: memory, processes, open_files, cpu",
            "config.inputs.0.restart: unknown restart mode `allways`; did you mean `always`?",
        ];
        assert_eq!(found, expected);
    }
}
