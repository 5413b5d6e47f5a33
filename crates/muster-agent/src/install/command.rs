//! Runs the commands of the operating system that an installation needs.

use std::time::Duration;

use crate::components::child;

/// Maximum time of a command. Stopping a service waits for the components of the agent.
const LIMIT: Duration = Duration::from_secs(120);
/// Maximum length of the error output in a message, in characters.
const MESSAGE_MAX: usize = 500;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It cannot be executed.
    #[error("cannot run {command}: {source}")]
    Start {
        /// The command line.
        command: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// It exited with another code than 0.
    #[error("{command} failed: {message}")]
    Failed {
        /// The command line.
        command: String,
        /// Its error output, or its exit status.
        message: String,
    },
    /// It did not exit in time.
    #[error("{0} did not finish within {LIMIT:?}")]
    Timeout(String),
}

/// Runs a command to its end. Its output is part of the error only.
pub async fn run(program: &str, args: &[&str]) -> Result<(), CommandError> {
    let command = [&[program], args].concat().join(" ");
    let mut process = tokio::process::Command::new(program);
    process.args(args);
    let output = match tokio::time::timeout(LIMIT, child::output(process)).await {
        Err(_) => return Err(CommandError::Timeout(command)),
        Ok(Err(source)) => return Err(CommandError::Start { command, source }),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().chars().take(MESSAGE_MAX).collect::<String>();
    let message = if text.is_empty() { output.status.to_string() } else { text };
    Err(CommandError::Failed { command, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_command_is_reported_with_its_error_output() {
        run("true", &[]).await.unwrap();
        let error = run("sh", &["-c", "echo no such unit >&2; exit 5"]).await.unwrap_err();
        assert!(error.to_string().ends_with("failed: no such unit"), "{error}");
        assert!(run("false", &[]).await.unwrap_err().to_string().contains("exit status"));
        assert!(matches!(run("/nowhere/at/all", &[]).await, Err(CommandError::Start { .. })));
    }
}
