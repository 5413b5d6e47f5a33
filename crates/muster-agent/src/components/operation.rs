//! Runs one operation of the program of a service: `check`, `install` or `uninstall`.

use std::collections::BTreeSet;

use camino::Utf8PathBuf;
use muster_core::resource_limits::ResourceLimits;

use super::child::{Place, Recipe, Running};
use super::process::how_ended;
use crate::model::command::check_binary;
use crate::model::service::Operation;

/// The program of a service, and where it runs.
pub(super) struct Installer {
    pub binary: Utf8PathBuf,
    pub place: Place,
    /// Variables that it gets from the agent.
    pub variables: Vec<(&'static str, String)>,
}

impl Installer {
    /// Runs an operation until its end, or until `cancelled`. The error is for people.
    pub(super) async fn run(&self, operation: &Operation, cancelled: impl Future<Output = ()>) -> Result<(), String> {
        // Checked each time: the program could have been replaced since (AG65).
        check_binary(&self.binary)?;
        let recipe = Recipe {
            command: self.binary.as_str(),
            args: operation.args.clone(),
            env: operation.env.clone(),
            own: self.variables.clone(),
            input: None,
            limits: Some(ResourceLimits::default()),
            logs_output: true,
        };
        let mut process = Running::spawn(recipe, &self.place).map_err(|error| error.to_string())?;
        let ended = tokio::select! {
            ended = process.ended() => Ok(ended),
            () = tokio::time::sleep(operation.timeout) => Err(format!("not finished within {} s", operation.timeout.as_secs())),
            () = cancelled => Err("cancelled".to_owned()),
        };
        if ended.is_err() {
            process.kill(&BTreeSet::new()).await;
        }
        process.release().await;
        let ended = ended?;
        let status = ended.map_err(|error| error.to_string())?;
        let is_fatal = status.code().is_none_or(|code| code != 0 && !operation.non_fatal_exit_codes.contains(&code));
        if is_fatal { Err(how_ended(status)) } else { Ok(()) }
    }
}

/// Returns the variables that an installed component gets from the agent.
pub(super) fn variables(id: &str, kind: &str) -> Vec<(&'static str, String)> {
    vec![("AGENT_COMPONENT_ID", id.to_owned()), ("AGENT_COMPONENT_TYPE", kind.to_owned())]
}
