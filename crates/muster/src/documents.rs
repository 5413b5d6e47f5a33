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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_defined_without_contradiction() {
        Cli::command().debug_assert();
    }

    /// Every command that does something, with its path.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        let path = format!("{path} {}", command.get_name());
        let mut below = command.get_subcommands().filter(|sub| sub.get_name() != "help").peekable();
        if below.peek().is_none() {
            found.push((path.trim_start().to_owned(), command.clone()));
        }
        below.for_each(|sub| leaves(sub, &path, found));
    }

    fn all_leaves() -> Vec<(String, clap::Command)> {
        let mut found = Vec::new();
        leaves(&Cli::command(), "", &mut found);
        found
    }

    #[test]
    fn every_command_has_help_and_examples_of_itself() {
        let leaves = all_leaves();
        assert!(leaves.len() > 25, "{}", leaves.len());
        for (path, command) in leaves {
            assert!(command.get_about().is_some_and(|about| !about.to_string().is_empty()), "{path}: no help");
            let after = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
            let examples = after.unwrap_or_default();
            assert!(examples.contains("Examples:\n"), "{path}: no examples");
            assert!(examples.contains(&format!("  {path}")), "{path}: its examples show something else");
        }
    }

    #[test]
    fn every_argument_has_help() {
        for (path, command) in all_leaves() {
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let told = argument.get_help().is_some_and(|help| !help.to_string().is_empty());
                assert!(told, "{path}: {} has no help", argument.get_id());
            }
        }
    }

    /// The examples are what people copy: each must parse.
    #[test]
    fn examples_parse() {
        for (path, command) in all_leaves() {
            let after = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
            let examples = after.unwrap_or_default();
            for line in examples.lines().filter(|line| line.trim_start().starts_with("muster ")) {
                let line = line.split(['>', '&', '|']).next().unwrap_or_default();
                let parsed = Cli::command().try_get_matches_from(words(line));
                assert!(parsed.is_ok(), "{path}: {line}: {}", parsed.unwrap_err());
            }
        }
    }

    /// Words as a shell makes them, of lines that quote with ' only.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (place, part) in line.split('\'').enumerate() {
            match place % 2 {
                1 => words.push(part.to_owned()),
                _ => words.extend(part.split_whitespace().map(str::to_owned)),
            }
        }
        words
    }
}
