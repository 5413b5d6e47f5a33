//! Converts the inputs of a policy into components.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use crate::components::spec::{PROCESS, ProcessSpec, Restart, Wanted};
use crate::duration;

/// Maximum number of inputs in a policy. Further inputs are reported as failed.
pub const INPUTS_MAX: usize = 256;

#[derive(Deserialize)]
struct ProcessInput {
    command: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    restart: Restart,
    #[serde(default)]
    stop_timeout: Option<String>,
}

/// Returns the component of each enabled input, with unique ids.
pub fn wanted(inputs: &[Value]) -> Vec<Wanted> {
    let mut taken = HashSet::new();
    let enabled = inputs.iter().enumerate().filter(|(_, input)| input["enabled"] != Value::Bool(false));
    let mut wanted: Vec<Wanted> = enabled.map(|(place, input)| one(place, input, &mut taken)).collect();
    for extra in wanted.iter_mut().skip(INPUTS_MAX) {
        extra.process = Err(format!("Failed: more than {INPUTS_MAX} inputs in the policy"));
    }
    wanted
}

fn one(place: usize, input: &Value, taken: &mut HashSet<String>) -> Wanted {
    let kind = input["type"].as_str().unwrap_or("").to_owned();
    let output = input["use_output"].as_str().unwrap_or("default").to_owned();
    let name = input["id"].as_str().map_or_else(|| place.to_string(), str::to_owned);
    let id = format!("{kind}-{output}-{name}");
    let unique = taken.insert(id.clone());
    // Two components with the same id would hide each other, so that the second is reported with another id.
    let id = if unique { id } else { format!("{id}-{place}") };
    let process = match kind.as_str() {
        _ if !unique => Err(format!("Failed: two inputs have the id {name:?}")),
        PROCESS => process(input),
        _ => Err(format!("Failed: unsupported input type {kind:?}")),
    };
    Wanted { id, kind, process }
}

fn process(input: &Value) -> Result<ProcessSpec, String> {
    let read = ProcessInput::deserialize(input).map_err(|error| format!("Failed: malformed input: {error}"))?;
    if read.command.is_empty() {
        return Err("Failed: command is missing".into());
    }
    // The kernel cannot represent these values, and spawning would fail with an error that does not name them.
    let bad = |name: &String| name.is_empty() || name.contains(['=', '\0']);
    let nul = |text: &String| text.contains('\0');
    if read.env.keys().any(bad) || read.env.values().any(nul) || read.args.iter().any(nul) || nul(&read.command) {
        return Err("Failed: NUL in command, args or env, or '=' in the name of a variable".into());
    }
    let stop_timeout = read.stop_timeout.as_deref().map(duration::parse).transpose();
    let stop_timeout = stop_timeout.map_err(|error| format!("Failed: stop_timeout: {error}"))?;
    Ok(ProcessSpec { command: read.command, args: read.args, env: read.env, restart: read.restart, stop_timeout })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_process_input_is_a_component() {
        let input = json!({"id": "web", "type": "process", "use_output": "default", "command": "/bin/sleep",
            "args": ["1"], "env": {"A": "b"}, "restart": "on-failure", "stop_timeout": "3s"});
        let wanted = wanted(&[input]);
        assert_eq!(wanted[0].id, "process-default-web");
        let spec = wanted[0].process.as_ref().unwrap();
        assert_eq!((spec.command.as_str(), spec.restart, spec.args.len()), ("/bin/sleep", Restart::OnFailure, 1));
        assert_eq!(spec.stop_timeout, Some(std::time::Duration::from_secs(3)));
    }

    #[test]
    fn inputs_that_cannot_run_have_a_reason() {
        let inputs = [
            json!({"id": "a", "type": "logfile"}),
            json!({"id": "b", "type": "process"}),
            json!({"id": "c", "type": "process", "command": "x", "restart": "sometimes"}),
            json!({"id": "d", "type": "process", "command": "x", "env": {"A=": ""}}),
            json!({"id": "e", "type": "process", "command": "x"}),
            json!({"id": "e", "type": "process", "command": "y"}),
            json!({"id": "f", "type": "process", "command": "x", "enabled": false}),
        ];
        let wanted = wanted(&inputs);
        assert_eq!(wanted.len(), 6);
        let reasons: Vec<&str> = wanted.iter().map(|w| w.process.as_ref().err().map_or("", String::as_str)).collect();
        for (reason, word) in reasons.iter().zip(["logfile", "command", "sometimes", "NUL", "", "two inputs"]) {
            assert!(reason.contains(word), "{reason} / {word}");
        }
    }
}
