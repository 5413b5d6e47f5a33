//! Inputs of a policy: their ids, and the programs that they name.

use std::collections::{BTreeMap, HashSet};

use muster_core::resource_limits::ResourceLimits;
use serde::Deserialize;
use serde_json::Value;

use super::process::{ProcessSpec, Restart};
use crate::duration;

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
    /// An input refers to an output that does not exist.
    #[error("inputs.{place}.use_output: there is no output {name:?}")]
    UnknownOutput {
        /// Index of the input.
        place: usize,
        /// Name of the output.
        name: String,
    },
    /// An output cannot be rendered (AG74).
    #[error("outputs.{name}: {reason}")]
    Output {
        /// Name of the output.
        name: String,
        /// The reason.
        reason: String,
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
    #[serde(default)]
    limits: Value,
}

/// Checks that input ids are unique. Disabled inputs count, too: enabling one must not make the policy invalid.
pub(super) fn check_ids(inputs: &[Value]) -> Result<(), Invalid> {
    let mut taken = HashSet::new();
    for (place, input) in inputs.iter().enumerate() {
        let name = name(place, input);
        if !taken.insert(name.clone()) {
            return Err(Invalid::Duplicate { place, id: name });
        }
    }
    Ok(())
}

/// Returns the id of an input; its index if it has none.
pub(super) fn name(place: usize, input: &Value) -> String {
    input["id"].as_str().map_or_else(|| place.to_string(), str::to_owned)
}

/// Reads the program of an input of type `process`.
pub(super) fn process(input: &Value) -> Result<ProcessSpec, String> {
    let read = ProcessInput::deserialize(input).map_err(|error| format!("Failed: malformed input: {error}"))?;
    // As in policies of a server. To ignore it would run what is not meant to run here.
    if !input["condition"].is_null() {
        return Err("Failed: a process cannot have a condition".into());
    }
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
    Ok(ProcessSpec {
        command: read.command,
        args: read.args,
        env: read.env,
        restart: read.restart,
        stop_timeout,
        limits: limits(&read.limits).map_err(|reason| format!("Failed: {reason}"))?,
    })
}

/// Reads the limits of a program or a component. The error names each fault.
pub(super) fn limits(value: &Value) -> Result<ResourceLimits, String> {
    ResourceLimits::parse(value).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        faults.join("; ")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_process_input_is_a_program() {
        let input = json!({"id": "web", "type": "process", "use_output": "default", "command": "/bin/sleep",
            "args": ["1"], "env": {"A": "b"}, "restart": "on-failure", "stop_timeout": "3s",
            "limits": {"memory": 1 << 30}});
        let spec = process(&input).unwrap();
        assert_eq!((spec.command.as_str(), spec.restart, spec.args.len()), ("/bin/sleep", Restart::OnFailure, 1));
        assert_eq!((spec.stop_timeout, spec.limits.memory), (Some(std::time::Duration::from_secs(3)), Some(1 << 30)));
    }

    #[test]
    fn a_program_that_cannot_run_has_a_reason() {
        for (input, word) in [
            (json!({}), "command"),
            (json!({"command": ""}), "command"),
            (json!({"command": "x", "restart": "sometimes"}), "sometimes"),
            (json!({"command": "x", "env": {"A=": ""}}), "NUL"),
            (json!({"command": "x", "stop_timeout": "soon"}), "stop_timeout"),
            (json!({"command": "x", "limits": {"memory": "1G"}}), "limits.memory"),
            (json!({"command": "x", "limits": {"memroy": 1}}), "memroy"),
            (json!({"command": "x", "condition": "${host.name} == 'other'"}), "condition"),
        ] {
            let reason = process(&input).unwrap_err();
            assert!(reason.contains(word), "{reason} / {word}");
        }
    }

    #[test]
    fn ag73_two_inputs_with_one_id_make_the_policy_invalid() {
        let input = |id: &str, enabled| json!({"id": id, "type": "process", "command": "x", "enabled": enabled});
        let error = check_ids(&[input("a", true), input("b", true), input("a", false)]).unwrap_err();
        assert_eq!(error.to_string(), "inputs.2.id: another input has the id \"a\"");
    }
}
