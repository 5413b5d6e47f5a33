//! What is generated from the definition of the flags: completions and man pages.

use camino::Utf8PathBuf;
use clap::{CommandFactory as _, Subcommand};
use clap_complete::Shell;

use crate::Cli;
use crate::commands::{Failed, print_line};

/// Completions and man pages.
#[derive(Debug, Subcommand)]
pub enum DocumentCommand {
    /// Print completions for a shell
    #[command(
        after_help = "Examples:\n  muster completions bash > /etc/bash_completion.d/muster\n  muster completions zsh > ~/.zfunc/_muster"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages into a folder
    #[command(
        after_help = "Examples:\n  muster man /usr/local/share/man/man1\n  muster man . && man ./muster-agent-list.1"
    )]
    Man {
        /// The folder; it is made if it is not there
        folder: Utf8PathBuf,
    },
}

impl DocumentCommand {
    /// Prints or writes it.
    pub fn run(self) -> Result<(), Failed> {
        let mut command = Cli::command();
        match self {
            Self::Completions { shell } => {
                // Not straight to stdout: a reader that closes the pipe is no error.
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut command, "muster", &mut script);
                print_line(String::from_utf8_lossy(&script).trim_end())?;
            }
            Self::Man { folder } => {
                std::fs::create_dir_all(&folder)
                    .and_then(|()| clap_mangen::generate_to(command, &folder))
                    .map_err(|error| Failed::new(format!("can't write man pages into {folder}: {error}")))?;
            }
        }
        Ok(())
    }
}
