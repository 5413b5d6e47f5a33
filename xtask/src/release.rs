//! `cargo xtask release`: the programs, a signed package of muster-agent, to which agents can be upgraded, and a Debian
//! package, with which it can be installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::Args;

use crate::{debian, shell};

/// Arguments of `release`.
#[derive(Args)]
pub struct ReleaseArgs {
    /// Release key, which is generated if the file does not exist [default: release.key in the target directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Public half of another release key that the new agent trusts (repeatable).
    #[arg(long, value_name = "BASE64")]
    trust: Vec<String>,
}

/// Builds the programs and the package.
pub fn run(args: &ReleaseArgs) -> anyhow::Result<()> {
    let target = shell::target()?;
    let directory = target.join("release");
    let key = args.key.clone().unwrap_or_else(|| target.join("release.key"));
    shell::run(shell::cargo(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "muster-agent",
        "--bin",
        "muster-agent-pack",
    ]))?;
    let public = public_half(&directory, &key)?;
    // The new agent accepts packages that are signed with the key of its own package.
    let keys: Vec<&str> = std::iter::once(public.as_str()).chain(args.trust.iter().map(String::as_str)).collect();
    shell::run(shell::cargo(&["build", "--release", "--locked", "--package", "muster"]))?;
    let mut build = agent_build();
    build.env("MUSTER_RELEASE_KEYS", keys.join(","));
    shell::run(build)?;
    let agent = agent()?;
    println!("{}\n{}", directory.join("muster").display(), agent.display());
    // Symbols are for developers, and would make the package several times as large.
    let stripped = directory.join("muster-agent.stripped");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&stripped).arg(&agent);
    shell::run(strip)?;
    let (version, packages) = (env!("CARGO_PKG_VERSION"), target.join("packages"));
    let mut pack = Command::new(directory.join("muster-agent-pack"));
    pack.args(["pack", "--version", version]).arg("--key").arg(&key);
    pack.arg("--program").arg(&stripped).arg("--out").arg(&packages);
    shell::run(pack)?;
    println!("{}", debian::package(&stripped, version, &packages)?.display());
    Ok(())
}

/// Returns the command that builds muster-agent as in a release.
pub fn agent_build() -> Command {
    let mut build = shell::cargo(&[
        "rustc",
        "--profile",
        "agent",
        "--locked",
        "--package",
        "muster-agent",
        "--bin",
        "muster-agent",
        "--",
        // Functions in the order of their names, which is that of their crates: what runs together shares pages, so that
        // fewer of them are in memory. LLD, the default linker, keeps the order in which they were compiled.
        "-Clinker-features=-lld",
        "-Clink-arg=-Wl,--sort-section=name",
    ]);
    // Otherwise AWS-LC measures the jitter of the CPU at the first handshake, which takes 50 ms of CPU time. Without it, its
    // generator is seeded by the kernel and the instruction RDRAND.
    build.env("AWS_LC_SYS_NO_JITTER_ENTROPY", "1");
    build
}

/// Returns the path of the program that [`agent_build`] builds.
pub fn agent() -> anyhow::Result<PathBuf> {
    Ok(shell::target()?.join("agent/muster-agent"))
}

fn public_half(directory: &Path, key: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(directory.join("muster-agent-pack"));
    let output = command.arg("key").arg(key).stderr(std::process::Stdio::inherit()).output();
    let output = output.context("cannot start muster-agent-pack")?;
    anyhow::ensure!(output.status.success(), "muster-agent-pack exited with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
