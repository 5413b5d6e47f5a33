//! Shell completions and man pages, generated from the command definitions.

use camino::Utf8PathBuf;
use clap::{CommandFactory as _, Subcommand};
use clap_complete::Shell;

use crate::Cli;
use crate::commands::{Failed, print_line};

/// Completions and man pages.
#[derive(Debug, Subcommand)]
pub enum DocumentCommand {
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  muster completions bash > /etc/bash_completion.d/muster\n  muster completions zsh > ~/.zfunc/_muster"
    )]
    Completions {
        /// Shell for which to print the script
        shell: Shell,
    },
    /// Write man pages into a directory
    #[command(
        after_help = "Examples:\n  muster man /usr/local/share/man/man1\n  muster man . && man ./muster-agent-list.1"
    )]
    Man {
        /// Target directory; created if it does not exist
        directory: Utf8PathBuf,
    },
}

impl DocumentCommand {
    /// Prints or writes the documents.
    pub fn run(self) -> Result<(), Failed> {
        let mut command = Cli::command();
        match self {
            Self::Completions { shell } => {
                // Buffered, because clap panics when the reader closes the pipe.
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut command, "muster", &mut script);
                print_line(String::from_utf8_lossy(&script).trim_end())?;
            }
            Self::Man { directory } => {
                std::fs::create_dir_all(&directory)
                    .and_then(|()| clap_mangen::generate_to(command, &directory))
                    .map_err(|error| Failed::new(format!("cannot write man pages to {directory}: {error}")))?;
            }
        }
        Ok(())
    }
}
