//! Errors of commands, and their exit codes.

use muster_core::error_chain::chain;
use std::fmt;
use std::process::ExitCode;

use muster_client::Failure;
use muster_core::certificate_names::plain;

use super::text::printable_lines;

/// An error that ends a command.
#[derive(Debug)]
pub struct Failed {
    message: String,
    remedy: Option<String>,
    code: u8,
}

impl Failed {
    /// Creates a usage error (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None, code: Failure::Usage.exit_code() }
    }

    /// Creates a general error (exit code 1).
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None, code: Failure::Failed.exit_code() }
    }

    /// Creates a not-found error (exit code 3).
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None, code: Failure::NotFound.exit_code() }
    }

    /// Sets the hint.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Sets the hint if there is none.
    #[must_use]
    pub fn or_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy.get_or_insert_with(|| remedy.into());
        self
    }
}

impl From<muster_client::Error> for Failed {
    fn from(error: muster_client::Error) -> Self {
        Self {
            // The word is for clients of Kibana.
            message: plain(&chain(&error).to_string()).replace("KQLSyntaxError: ", ""),
            remedy: error.remedy(),
            code: error.failure().exit_code(),
        }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::new(chain(&error).to_string())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both may contain text from agents, which must not control the terminal.
        write!(f, "muster: {}", printable_lines(&self.message))?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n  hint: {}", printable_lines(remedy)),
            None => Ok(()),
        }
    }
}

/// Prints an error to stderr and returns its exit code.
pub fn report(outcome: Result<(), Failed>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("{failed}");
            ExitCode::from(failed.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_has_a_hint_and_no_control_characters() {
        let failed = Failed::new("agent says \u{1b}[2Jboo").remedy("look").or_remedy("another");
        assert_eq!(failed.to_string(), "muster: agent says \u{fffd}[2Jboo\n  hint: look");
        assert_eq!(Failed::usage("x").or_remedy("y").to_string(), "muster: x\n  hint: y");
    }
}
