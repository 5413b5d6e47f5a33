//! How a command fails: what failed, why, what to do; and the exit code that says it to scripts.

use std::fmt;
use std::process::ExitCode;

use muster_client::Failure;

use super::text::printable_lines;

/// A failed command.
#[derive(Debug)]
pub struct Failed {
    message: String,
    remedy: Option<String>,
    code: u8,
}

impl Failed {
    /// Wrong usage (2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None, code: Failure::Usage.exit_code() }
    }

    /// Failed (1).
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None, code: Failure::Failed.exit_code() }
    }

    /// No such thing (3).
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None, code: Failure::NotFound.exit_code() }
    }

    /// Adds what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds what to do, unless that is told already.
    #[must_use]
    pub fn or_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy.get_or_insert_with(|| remedy.into());
        self
    }
}

impl From<muster_client::Error> for Failed {
    fn from(error: muster_client::Error) -> Self {
        Self { message: error.to_string(), remedy: error.remedy(), code: error.failure().exit_code() }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both may quote what an agent said.
        write!(f, "muster: {}", printable_lines(&self.message))?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n        {}", printable_lines(remedy)),
            None => Ok(()),
        }
    }
}

/// Prints a failure to stderr and answers its exit code.
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
    fn a_failure_says_what_and_what_to_do_and_quotes_nobody_raw() {
        let failed = Failed::new("agent says \u{1b}[2Jboo").remedy("look").or_remedy("another");
        assert_eq!(failed.to_string(), "muster: agent says \u{fffd}[2Jboo\n        look");
        assert_eq!(Failed::usage("x").or_remedy("y").to_string(), "muster: x\n        y");
    }
}
