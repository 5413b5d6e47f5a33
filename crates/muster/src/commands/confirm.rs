//! Asks before a change touches more than one agent.

use std::io::{self, IsTerminal as _};

use clap::Args;
use dialoguer::Confirm;

use super::failure::Failed;

/// `--yes` and `--dry-run`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Care {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Have the server check it, tell what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Care {
    /// Asks `question` unless `--yes` was given; refuses without a terminal to ask on.
    pub fn confirm(self, question: &str) -> Result<(), Failed> {
        if self.yes {
            return Ok(());
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(Failed::usage(format!("{question} Nothing was done: there is no terminal to ask on"))
                .remedy("give --yes to do it, or --dry-run to see what it would do"));
        }
        match Confirm::new().with_prompt(question).default(false).interact() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failed::new("nothing was done: the answer was no")),
            Err(error) => Err(Failed::new(format!("nothing was done: can't ask: {error}"))),
        }
    }
}
