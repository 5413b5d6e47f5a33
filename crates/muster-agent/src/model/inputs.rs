//! Converts the inputs of a policy into components.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::process::{PROCESS, ProcessSpec, Restart};
use super::{Component, Direction, Level, Model, Unit, Work};
use crate::duration;

/// Maximum number of inputs in a policy. Further inputs are reported as failed.
pub const INPUTS_MAX: usize = 256;

/// Why a policy has no model. It is rejected as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Two inputs have the same id (AG73).
    #[error("inputs.{place}.id: another input has the id {id:?}")]
    Duplicate {
        /// Index of the second input.
        place: usize,
        /// The id.
        id: String,
    },
}

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

/// Returns the component of each enabled input.
pub fn model(inputs: &[Value]) -> Result<Model, Invalid> {
    check_ids(inputs)?;
    let enabled = inputs.iter().enumerate().filter(|(_, input)| input["enabled"] != Value::Bool(false));
    let components = enabled.enumerate().map(|(count, (place, input))| {
        let mut component = one(place, input);
        if count >= INPUTS_MAX {
            component.work = Err(format!("Failed: more than {INPUTS_MAX} inputs in the policy"));
        }
        Arc::new(component)
    });
    Ok(components.collect())
}

/// Checks that input ids are unique. Disabled inputs count, too: enabling one must not make the policy invalid.
fn check_ids(inputs: &[Value]) -> Result<(), Invalid> {
    let mut taken = HashSet::new();
    for (place, input) in inputs.iter().enumerate() {
        let name = name(place, input);
        if !taken.insert(name.clone()) {
            return Err(Invalid::Duplicate { place, id: name });
        }
    }
    Ok(())
}

fn name(place: usize, input: &Value) -> String {
    input["id"].as_str().map_or_else(|| place.to_string(), str::to_owned)
}

fn one(place: usize, input: &Value) -> Component {
    let kind = input["type"].as_str().unwrap_or("").to_owned();
    let output = input["use_output"].as_str().unwrap_or("default").to_owned();
    let id = format!("{kind}-{output}-{}", name(place, input));
    let work = match kind.as_str() {
        PROCESS => process(input).map(Work::Process),
        _ => Err(format!("Failed: unsupported input type {kind:?}")),
    };
    let unit =
        |id: String, direction, config: Value| Unit { id, direction, config: Arc::new(config), level: Level::Info };
    let units = vec![
        unit(id.clone(), Direction::Output, json!({})),
        unit(format!("{id}-unit"), Direction::Input, input.clone()),
    ];
    Component { id, kind, units, work }
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

    fn reasons(inputs: &[Value]) -> Vec<String> {
        let model = model(inputs).unwrap();
        model.iter().map(|component| component.work.as_ref().err().cloned().unwrap_or_default()).collect()
    }

    #[test]
    fn a_process_input_is_a_component() {
        let input = json!({"id": "web", "type": "process", "use_output": "default", "command": "/bin/sleep",
            "args": ["1"], "env": {"A": "b"}, "restart": "on-failure", "stop_timeout": "3s"});
        let model = model(&[input]).unwrap();
        assert_eq!(model[0].id, "process-default-web");
        let units: Vec<_> = model[0].units.iter().map(|unit| (unit.id.as_str(), unit.direction)).collect();
        let expected = [("process-default-web", Direction::Output), ("process-default-web-unit", Direction::Input)];
        assert_eq!(units, expected);
        let Ok(Work::Process(spec)) = &model[0].work else { panic!("{model:?}") };
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
            json!({"id": "f", "type": "process", "command": "x", "enabled": false}),
        ];
        let reasons = reasons(&inputs);
        assert_eq!(reasons.len(), 5);
        for (reason, word) in reasons.iter().zip(["logfile", "command", "sometimes", "NUL", ""]) {
            assert!(reason.contains(word), "{reason} / {word}");
        }
    }

    #[test]
    fn ag73_two_inputs_with_one_id_make_the_policy_invalid() {
        let input = |id: &str, enabled| json!({"id": id, "type": "process", "command": "x", "enabled": enabled});
        let error = model(&[input("a", true), input("b", true), input("a", false)]).unwrap_err();
        assert_eq!(error.to_string(), "inputs.2.id: another input has the id \"a\"");
    }
}
