//! Commands of installed components.

use muster_core::error_chain::chain;
use muster_core::resource_limits::ResourceLimits;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::catalog::{Installed, check_owner};
use super::inputs::limits;
use super::specification::{InputSpecification, Timeouts, Variable};
use crate::variables::template::Template;
use crate::variables::{Scope, condition, evaluate};

/// How to run an installed component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// The program.
    pub binary: Utf8PathBuf,
    /// Arguments; the working directory is added to them.
    pub args: Vec<String>,
    /// Additional environment variables.
    pub env: Vec<(String, String)>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Number of exits within a period that are not reported as a failure.
    pub quiet_restarts: u32,
    /// This period.
    pub restart_period: Duration,
    /// What the component may use.
    pub limits: ResourceLimits,
    /// Types of actions that the component receives although they are for the agent.
    pub proxied_actions: Vec<String>,
}

/// Returns the command of a component on this host, or the reason why it cannot run.
pub fn resolve(installed: &Installed, scope: Scope<'_>) -> Result<CommandSpec, String> {
    let input = &installed.input;
    check_preventions(input, scope)?;
    let command = input.command.as_ref().ok_or_else(|| format!("the component {} has no command", input.name))?;
    check_binary(&installed.binary)?;
    Ok(CommandSpec {
        binary: installed.binary.clone(),
        args: expand_all(&command.args, scope)?,
        env: variables(&command.env, scope)?,
        timeouts: command.timeouts,
        quiet_restarts: command.maximum_restarts_per_period,
        restart_period: command.restart_monitoring_period,
        limits: limits(&command.limits).map_err(|reason| format!("the specification of {}: {reason}", input.name))?,
        proxied_actions: input.proxied_actions.clone(),
    })
}

/// Checks that a program can be executed, and that nobody else could have replaced it (AG65).
pub fn check_binary(binary: &Utf8Path) -> Result<(), String> {
    let metadata = std::fs::metadata(binary).map_err(|error| format!("{binary}: {error}"))?;
    check_owner(metadata.uid(), metadata.mode()).map_err(|reason| format!("{binary}: {reason}"))?;
    if metadata.is_file() && metadata.mode() & 0o100 != 0 {
        return Ok(());
    }
    Err(format!("{binary}: not executable"))
}

/// Checks the conditions under which a component does not run.
pub(super) fn check_preventions(input: &InputSpecification, scope: Scope<'_>) -> Result<(), String> {
    for prevention in &input.runtime.preventions {
        let parsed = condition::parse(&prevention.condition)?;
        if evaluate::is_true(&parsed, scope)? {
            return Err(prevention.message.clone());
        }
    }
    Ok(())
}

/// Renders arguments.
pub(super) fn expand_all(texts: &[String], scope: Scope<'_>) -> Result<Vec<String>, String> {
    texts.iter().map(|text| expand(text, scope)).collect()
}

/// Renders environment variables.
pub(super) fn variables(of: &[Variable], scope: Scope<'_>) -> Result<Vec<(String, String)>, String> {
    of.iter().map(|variable| Ok((variable.name.clone(), expand(&variable.value, scope)?))).collect()
}

fn expand(text: &str, scope: Scope<'_>) -> Result<String, String> {
    match Template::parse(text)?.render(scope).map_err(|error| chain(&error).to_string())? {
        Value::String(text) => Ok(text),
        other => Ok(other.to_string()),
    }
}
