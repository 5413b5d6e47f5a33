//! Confirmation before a change that affects more than one agent.

use std::io::{self, IsTerminal as _};

use clap::Args;
use dialoguer::Confirm;

use super::failure::Failed;
use super::text::print_line;

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
    /// Deletes something after confirmation, or validates that with `--dry-run`, and prints what happened.
    pub async fn delete(
        self,
        name: &str,
        question: &str,
        delete: impl AsyncFn(bool) -> muster_client::Result<()>,
    ) -> Result<(), Failed> {
        if !self.dry_run {
            self.confirm(question)?;
        }
        delete(self.dry_run).await?;
        print_line(if self.dry_run { format!("would delete {name}") } else { format!("{name}: deleted") })
    }

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
            Ok(false) => Err(Failed::new("nothing was changed: the change was not confirmed")),
            Err(error) => Err(Failed::new(format!("nothing was changed: cannot ask for confirmation: {error}"))),
        }
    }
}
