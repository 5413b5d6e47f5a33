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
    /// Asks `question` unless `--yes` is set. Fails if there is no terminal to ask on.
    pub fn confirm(self, question: &str) -> Result<(), Failed> {
        if self.yes {
            return Ok(());
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(Failed::usage(format!(
                "{question} Nothing was changed: there is no terminal to ask for confirmation"
            ))
            .remedy("pass --yes to confirm, or --dry-run to see what would happen"));
        }
        match Confirm::new().with_prompt(question).default(false).interact() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failed::new("nothing was changed: not confirmed")),
            Err(error) => Err(Failed::new(format!("nothing was changed: cannot ask for confirmation: {error}"))),
        }
    }
}
