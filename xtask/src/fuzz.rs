//! `cargo xtask fuzz` fuzzes the parsers of network input.
//!
//! The targets are in `fuzz/`, in one program. The feature `fuzzer` compiles libFuzzer into it (which requires a C++
//! compiler), and the pinned Rust compiler adds the instrumentation, so that nothing has to be installed. The address
//! sanitizer is not used, because the parsers have no `unsafe` and check bounds and overflows anyway.

use std::process::Command;

use anyhow::Context as _;
use clap::Args;

use crate::shell;

/// Compiler flags for coverage instrumentation.
const INSTRUMENTS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1";

/// Arguments of `fuzz`.
#[derive(Args)]
pub struct FuzzArgs {
    /// Target [default: all].
    target: Option<String>,
    /// Seconds per target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Builds and runs the targets.
pub fn run(args: &FuzzArgs) -> anyhow::Result<()> {
    let targets = targets()?;
    let is_wanted = |name: &&String| args.target.as_ref().is_none_or(|wanted| wanted == *name);
    let wanted: Vec<_> = targets.iter().filter(is_wanted).collect();
    anyhow::ensure!(!wanted.is_empty(), "unknown target; targets: {}", targets.join(", "));
    let host = host()?;
    build(&host)?;
    let program = shell::target()?.join("fuzz").join(host).join("release/fuzz");
    for target in wanted {
        fuzz(Command::new(&program), target, args.seconds)?;
    }
    Ok(())
}

/// Returns the names of the directories in `seeds`. A test compares them with the targets.
fn targets() -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(shell::root().join("fuzz/seeds"))?;
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// With `--target`, the compiler flags apply to the fuzzed code and not to build scripts.
fn build(host: &str) -> anyhow::Result<()> {
    let arguments =
        ["build", "--release", "--package", "muster-fuzz", "--features", "fuzzer", "--bin", "fuzz", "--target", host];
    let mut command = shell::cargo(&arguments);
    command.env("RUSTFLAGS", INSTRUMENTS).env("CARGO_TARGET_DIR", shell::target()?.join("fuzz"));
    command.env("CARGO_PROFILE_RELEASE_LTO", "off");
    shell::run(command)
}

fn fuzz(mut program: Command, target: &str, seconds: u64) -> anyhow::Result<()> {
    println!("{target}: {seconds} s");
    let corpus = shell::target()?.join("fuzz/corpus").join(target);
    let seeds = shell::root().join("fuzz/seeds").join(target);
    let findings = shell::root().join("fuzz/findings").join(target);
    for path in [&corpus, &findings] {
        std::fs::create_dir_all(path)?;
    }
    program.env("FUZZ_TARGET", target).arg(&corpus).arg(&seeds);
    program.arg(format!("-artifact_prefix={}/", findings.display())).arg(format!("-max_total_time={seconds}"));
    program.args([
        "-timeout=10",
        "-rss_limit_mb=1024",
        "-malloc_limit_mb=256",
        "-max_len=65536",
        "-verbosity=0",
        "-print_final_stats=1",
    ]);
    shell::run(program).with_context(|| format!("{target} failed: see {}", findings.display()))?;
    // Remove the directory if it is empty.
    let _ = std::fs::remove_dir(findings);
    Ok(())
}

fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc did not print its host")?.to_owned())
}
