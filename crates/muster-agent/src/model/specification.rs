//! Specifications of installed components: `NAME.spec.yml` (AG §4.4).

use std::time::Duration;

use serde::Deserialize;

use crate::{duration, yaml};

/// Version of the format.
const VERSION: u32 = 2;

/// A specification file.
#[derive(Clone, Debug, Deserialize)]
pub struct Specification {
    version: u32,
    /// The input types that the component supports.
    #[serde(default)]
    pub inputs: Vec<InputSpecification>,
}

/// An input type of a component.
#[derive(Clone, Debug, Deserialize)]
pub struct InputSpecification {
    /// The type.
    pub name: String,
    /// Other names of the type.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Platforms on which it runs: `linux/amd64`.
    // Not checked against a list: an unknown platform must not make the others unusable.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Types of outputs that it can write to.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Types of actions that it receives although they are for the agent.
    #[serde(default)]
    pub proxied_actions: Vec<String>,
    /// Conditions under which it does not run.
    #[serde(default)]
    pub runtime: RuntimeSpecification,
    /// How to run it as a process.
    #[serde(default)]
    pub command: Option<CommandSpecification>,
    /// How to keep it as a service of the operating system.
    #[serde(default)]
    pub service: Option<ServiceSpecification>,
    /// Whether every input has a component of its own.
    #[serde(default)]
    pub isolate_units: bool,
}

/// `runtime`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RuntimeSpecification {
    /// Conditions under which it does not run.
    #[serde(default)]
    pub preventions: Vec<Prevention>,
}

/// A condition under which a component does not run.
#[derive(Clone, Debug, Deserialize)]
pub struct Prevention {
    /// The condition.
    pub condition: String,
    /// The reason to report.
    pub message: String,
}

/// `command`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct CommandSpecification {
    /// Arguments.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<Variable>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Period for `maximum_restarts_per_period`.
    #[serde(deserialize_with = "duration::deserialize")]
    pub restart_monitoring_period: Duration,
    /// Number of exits in this period that are not reported as a failure.
    pub maximum_restarts_per_period: u32,
    /// What the component may use. An addition of muster-agent to the format.
    pub limits: serde_json::Value,
}

/// `service`.
#[derive(Clone, Debug, Deserialize)]
pub struct ServiceSpecification {
    /// Name of the socket at which the service gets its start-up message.
    #[serde(default = "socket_name")]
    pub csocket: String,
    /// Commands of the program.
    #[serde(default)]
    pub operations: Operations,
    /// Timeouts.
    #[serde(default)]
    pub timeouts: ServiceTimeouts,
}

fn socket_name() -> String {
    ".eaci.sock".into()
}

/// `service.operations`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Operations {
    /// Succeeds if the service is installed and running.
    pub check: Option<OperationSpecification>,
    /// Installs and starts it.
    pub install: Option<OperationSpecification>,
    /// Stops and removes it.
    pub uninstall: Option<OperationSpecification>,
}

/// A command of the program of a service.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct OperationSpecification {
    /// Arguments.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<Variable>,
    /// Maximum time.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// Exit codes that count as success, apart from 0.
    pub non_fatal_exit_codes: Vec<i32>,
}

impl Default for OperationSpecification {
    fn default() -> Self {
        let (args, env, non_fatal_exit_codes) = (Vec::new(), Vec::new(), Vec::new());
        Self { args, env, timeout: Duration::from_secs(600), non_fatal_exit_codes }
    }
}

/// `service.timeouts`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default)]
pub struct ServiceTimeouts {
    /// Maximum time between two check-ins of the service.
    #[serde(deserialize_with = "duration::deserialize")]
    pub checkin: Duration,
}

impl Default for ServiceTimeouts {
    fn default() -> Self {
        Self { checkin: Duration::from_secs(30) }
    }
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// `command.timeouts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// Maximum time between two check-ins of the component.
    #[serde(deserialize_with = "duration::deserialize")]
    pub checkin: Duration,
    /// First delay before a restart.
    #[serde(deserialize_with = "duration::deserialize")]
    pub restart: Duration,
    /// Time to stop before it is killed.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stop: Duration,
}

impl Default for CommandSpecification {
    fn default() -> Self {
        let (args, env, timeouts) = (Vec::new(), Vec::new(), Timeouts::default());
        let (restart_monitoring_period, maximum_restarts_per_period) = (Duration::ZERO, 0);
        let limits = serde_json::Value::Null;
        Self { args, env, timeouts, restart_monitoring_period, maximum_restarts_per_period, limits }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let (checkin, restart, stop) = (Duration::from_secs(30), Duration::from_secs(10), Duration::from_secs(30));
        Self { checkin, restart, stop }
    }
}

impl Specification {
    /// Parses a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read: Self = yaml::read(text).map_err(|error| error.to_string())?;
        if read.version == VERSION { Ok(read) } else { Err(format!("version {} is not supported", read.version)) }
    }
}

impl InputSpecification {
    /// Returns whether it runs inputs of this type.
    pub fn runs(&self, kind: &str) -> bool {
        self.name == kind || self.aliases.iter().any(|alias| alias == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_has_defaults_and_shared_parts() {
        let text = "version: 2\ninputs:\n- name: fake\n  aliases: [old]\n  description: x\n  platforms: &platforms\n  - linux/amd64\n  \
                    outputs: &outputs [elasticsearch]\n  command: &command\n    name: x\n    restart_monitoring_period: 5s\n    \
                    maximum_restarts_per_period: 1\n    timeouts:\n      restart: 1s\n    args: [\"-E\", \"gc=${GC:100}\"]\n\
                    - name: second\n  description: y\n  platforms: *platforms\n  outputs: *outputs\n  command: *command\n";
        let read = Specification::parse(text).unwrap();
        let second = &read.inputs[1];
        let command = second.command.as_ref().unwrap();
        assert_eq!((second.name.as_str(), second.outputs[0].as_str()), ("second", "elasticsearch"));
        assert_eq!(command.timeouts.restart, Duration::from_secs(1));
        assert_eq!(command.timeouts.checkin, Duration::from_secs(30));
        assert_eq!((command.maximum_restarts_per_period, command.args.len()), (1, 2));
        assert!(read.inputs[0].runs("old") && !second.runs("old"));
        assert!(Specification::parse("version: 1\ninputs: []").unwrap_err().contains("version 1"));
    }
}
