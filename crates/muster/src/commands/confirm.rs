//! Confirmation before a change that affects more than one agent.

use std::io::{self, IsTerminal as _};

use clap::Args;
use dialoguer::Confirm;

use super::failure::Failed;

/// `--yes` and `--dry-run`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Care {
    /// Do not ask for confirmation
    #[arg(long, short)]
    pub yes: bool,
    /// Validate on the server and print what would happen, without changing anything
    #[arg(long)]
    pub dry_run: bool,
}

impl Care {
    /// Asks for confirmation unless `--yes` is set. Returns an error without a terminal.
    pub fn confirm(self, question: &str) -> Result<(), Failed> {
        if self.yes {
            return Ok(());
        }
        // The prompt is printed to stderr, so that stdout can be a pipe.
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(Failed::usage(format!(
                "{question} Nothing was changed: cannot ask for confirmation without a terminal"
            ))
            .remedy("pass --yes to confirm, or --dry-run to print what would happen"));
        }
        match Confirm::new().with_prompt(question).default(false).interact() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failed::new("nothing was changed: not confirmed")),
            Err(error) => Err(Failed::new(format!("nothing was changed: cannot ask for confirmation: {error}"))),
        }
    }
}
