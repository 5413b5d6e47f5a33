//! Paths, and running other programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// Returns the root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// Returns the target directory of cargo.
pub fn target() -> anyhow::Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let output = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]).output()?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("malformed output of cargo metadata")?;
    Ok(metadata.target_directory)
}

/// Returns a cargo command in the repository.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Runs a command. Returns an error if the command fails.
pub fn run(mut command: Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?} exited with {status}");
    Ok(())
}

/// Returns the abbreviated id of the current commit, with `+` if files have been changed since.
pub fn commit() -> String {
    let describe = ["describe", "--always", "--exclude=*", "--dirty=+"];
    let output = Command::new("git").current_dir(root()).args(describe).output();
    let id = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    id.ok().filter(|id| !id.is_empty()).unwrap_or_else(|| "unknown".into())
}

/// Returns the files tracked by git, relative to the root.
pub fn tracked() -> anyhow::Result<Vec<PathBuf>> {
    let output =
        Command::new("git").current_dir(root()).args(["ls-files", "-z"]).output().context("cannot start git")?;
    anyhow::ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout)?;
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
}

/// Returns tracked and untracked files, except ignored ones, so that work in progress counts.
pub fn sources() -> anyhow::Result<Vec<PathBuf>> {
    let arguments = ["ls-files", "-z", "--others", "--exclude-standard"];
    let output = Command::new("git").current_dir(root()).args(arguments).output().context("cannot start git")?;
    let names = String::from_utf8(output.stdout)?;
    let mut all = tracked()?;
    all.extend(names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from));
    // The file was deleted, but the deletion is not committed yet.
    all.retain(|path| root().join(path).is_file());
    all.sort();
    Ok(all)
}
