//! Running other programs, and where things are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// The top of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// Where cargo puts what it builds.
pub fn target() -> anyhow::Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let output = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]).output()?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata did not answer")?;
    Ok(metadata.target_directory)
}

/// Cargo in the repository.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Runs to the end.
pub fn run(mut command: Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Files in the repository under git, relative to its top.
pub fn tracked() -> anyhow::Result<Vec<PathBuf>> {
    let output =
        Command::new("git").current_dir(root()).args(["ls-files", "-z"]).output().context("cannot start git")?;
    anyhow::ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout)?;
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
}

/// The same with what git does not know yet but does not ignore either: work in progress counts.
pub fn sources() -> anyhow::Result<Vec<PathBuf>> {
    let arguments = ["ls-files", "-z", "--others", "--exclude-standard"];
    let output = Command::new("git").current_dir(root()).args(arguments).output().context("cannot start git")?;
    let names = String::from_utf8(output.stdout)?;
    let mut all = tracked()?;
    all.extend(names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from));
    // Deleted but not yet committed.
    all.retain(|path| root().join(path).is_file());
    all.sort();
    Ok(all)
}
