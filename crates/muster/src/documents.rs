//! What is generated from the definition of the flags: completions and man pages.

use std::io;

use camino::Utf8PathBuf;
use clap::{CommandFactory as _, Subcommand};
use clap_complete::Shell;

use crate::Cli;
use crate::commands::Failed;

/// Completions and man pages.
#[derive(Debug, Subcommand)]
pub enum DocumentCommand {
    /// Print completions for a shell
    #[command(after_help = "Examples:\n  muster completions bash > /etc/bash_completion.d/muster")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: Utf8PathBuf,
    },
}

impl DocumentCommand {
    /// Prints or writes it.
    pub fn run(self) -> Result<(), Failed> {
        let mut command = Cli::command();
        match self {
            Self::Completions { shell } => clap_complete::generate(shell, &mut command, "muster", &mut io::stdout()),
            Self::Man { folder } => {
                std::fs::create_dir_all(&folder)?;
                clap_mangen::generate_to(command, &folder)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_defined_without_contradiction() {
        Cli::command().debug_assert();
    }
}
