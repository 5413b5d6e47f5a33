//! `cargo xtask fuzz`: the parsers that read the network, under a fuzzer.
//!
//! The targets stand in `fuzz/`, a package of its own, since a fuzzer needs the whole program built with instruments
//! that only a development compiler takes. We let our pinned compiler take them (`RUSTC_BOOTSTRAP`), so that nothing has
//! to be installed. The same seeds and what was ever found run in every `cargo test`, without a fuzzer, as `fuzz_replay`.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use clap::Args;

use crate::shell;

/// What the compiler must do for the fuzzer to see where a program goes.
const INSTRUMENTS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1 -Zsanitizer=address";

/// Arguments of `fuzz`.
#[derive(Args)]
pub struct FuzzArgs {
    /// The target; all of them when none is named.
    target: Option<String>,
    /// Seconds for each.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Builds and runs.
pub fn run(args: &FuzzArgs) -> anyhow::Result<()> {
    let folder = shell::root().join("fuzz");
    let targets = targets(&folder)?;
    let wanted: Vec<_> =
        targets.iter().filter(|name| args.target.as_ref().is_none_or(|wanted| wanted == *name)).collect();
    anyhow::ensure!(!wanted.is_empty(), "no such target; there are {}", targets.join(", "));
    let host = host()?;
    build(&folder, &host)?;
    for target in wanted {
        fuzz(&folder, &host, target, args.seconds)?;
    }
    Ok(())
}

/// Names of the files in `fuzz_targets`.
fn targets(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.join("fuzz_targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// With `--target`, the flags go to what is fuzzed and not to build scripts.
fn build(folder: &Path, host: &str) -> anyhow::Result<()> {
    let mut command = shell::cargo(&["build", "--release", "--bins", "--target", host]);
    command.current_dir(folder).env("RUSTFLAGS", INSTRUMENTS).env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO_TARGET_DIR", shell::target()?.join("fuzz"));
    shell::run(command)
}

fn fuzz(folder: &Path, host: &str, target: &str, seconds: u64) -> anyhow::Result<()> {
    println!("{target}: {seconds} s");
    let program = shell::target()?.join("fuzz").join(host).join("release").join(target);
    let found = shell::target()?.join("fuzz/found").join(target);
    let seeds = folder.join("seeds").join(target);
    let findings = folder.join("findings").join(target);
    for path in [&found, &findings, &seeds] {
        std::fs::create_dir_all(path)?;
    }
    let mut command = Command::new(program);
    command.arg(&found).arg(&seeds);
    command.arg(format!("-artifact_prefix={}/", findings.display()));
    command.args([
        format!("-max_total_time={seconds}").as_str(),
        "-timeout=10",
        "-rss_limit_mb=1024",
        "-max_len=65536",
        "-print_final_stats=1",
    ]);
    shell::run(command).with_context(|| format!("{target} found something: {}", findings.display()))
}

fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say its host")?.to_owned())
}
