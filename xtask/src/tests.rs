//! `cargo xtask test`: builds the tests, and runs the test programs side by side.
//!
//! `cargo test` runs one program after another. Ours wait a lot, for servers, browsers and deadlines, so that the processors were
//! idle for half of the time. cargo-nextest would start a process for each test, and so a server for each test of the command line.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;

use crate::shell;

/// How many of the slowest programs are named at the end.
const SLOWEST: usize = 8;

/// Arguments of `test`.
#[derive(Args)]
pub struct TestArgs {
    /// Number of test programs that run at once; by default, two more than there are processors.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

/// A test program, or the examples of the documentation.
struct Job {
    name: String,
    command: Command,
}

struct Outcome {
    name: String,
    status: ExitStatus,
    took: Duration,
}

/// Builds all tests and runs them. Returns an error that names the programs that failed.
pub fn run(args: &TestArgs) -> anyhow::Result<()> {
    let began = Instant::now();
    let processors = std::thread::available_parallelism()?.get();
    let jobs = args.jobs.map_or(processors + 2, usize::from);
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(receiver);
    let (built, outcomes) = std::thread::scope(|scope| {
        let runners: Vec<_> = (0..jobs).map(|_| scope.spawn(|| run_jobs(&receiver))).collect();
        let built = build(&sender);
        println!("\n== built after {:.0?}", began.elapsed());
        drop(sender);
        let outcomes =
            runners.into_iter().flat_map(|runner| runner.join().unwrap_or_else(|_| Vec::from([Err(panicked())])));
        (built, outcomes.collect::<anyhow::Result<Vec<_>>>())
    });
    let mut outcomes = outcomes?;
    built?;
    outcomes.sort_by_key(|outcome| std::cmp::Reverse(outcome.took));
    println!("\n== {} test programs after {:.0?}; the slowest:", outcomes.len(), began.elapsed());
    for outcome in outcomes.iter().take(SLOWEST) {
        println!("{:>8.1?}  {}", outcome.took, outcome.name);
    }
    let failed: Vec<_> =
        outcomes.iter().filter(|outcome| !outcome.status.success()).map(|outcome| &*outcome.name).collect();
    anyhow::ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn panicked() -> anyhow::Error {
    anyhow::anyhow!("a thread that runs test programs panicked")
}

/// Builds everything, and sends each test program as soon as it can run.
fn build(sender: &Sender<Job>) -> anyhow::Result<()> {
    let with_programs = packages_with_programs()?;
    let arguments = ["test", "--locked", "--workspace", "--no-run", "--message-format=json-render-diagnostics"];
    let mut cargo = shell::cargo(&arguments).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let messages = cargo.stdout.take().context("cargo has no standard output")?;
    let mut later = Vec::new();
    for line in BufReader::new(messages).lines() {
        let Some(program) = TestProgram::of_message(&line?)? else { continue };
        // Cargo links the programs of a package and the tests that start them in any order.
        if program.is_integration_test && with_programs.contains(&program.manifest) {
            later.push(program);
        } else {
            sender.send(program.job()?)?;
        }
    }
    let status = cargo.wait()?;
    anyhow::ensure!(status.success(), "the tests cannot be built");
    // Large programs take longest, and the last one should not run alone.
    later.sort_by_key(|program| std::cmp::Reverse(program.executable.metadata().map_or(0, |file| file.len())));
    for program in later {
        sender.send(program.job()?)?;
    }
    sender.send(Job::examples())?;
    Ok(())
}

/// Returns the manifests of the packages that have programs, which their integration tests may start.
fn packages_with_programs() -> anyhow::Result<BTreeSet<PathBuf>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        manifest_path: PathBuf,
        targets: Vec<Target>,
    }
    let output = shell::cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]).output()?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("malformed output of cargo metadata")?;
    let with_programs =
        metadata.packages.into_iter().filter(|package| package.targets.iter().any(|target| target.is("bin")));
    Ok(with_programs.map(|package| package.manifest_path).collect())
}

/// A target of a package.
#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

impl Target {
    fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|other| other == kind)
    }
}

/// A program made of tests.
struct TestProgram {
    manifest: PathBuf,
    /// Its source file, relative to the repository.
    name: String,
    executable: PathBuf,
    is_integration_test: bool,
}

impl TestProgram {
    /// Returns the test program that a message of cargo announces, if it announces one:
    /// <https://doc.rust-lang.org/cargo/reference/external-tools.html#json-messages>.
    fn of_message(message: &str) -> anyhow::Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Message {
            manifest_path: Option<PathBuf>,
            target: Option<Target>,
            profile: Option<Profile>,
            executable: Option<PathBuf>,
        }
        #[derive(Deserialize)]
        struct Profile {
            test: bool,
        }
        let message: Message = serde_json::from_str(message).context("malformed message of cargo")?;
        let Message { manifest_path: Some(manifest), target: Some(target), profile: Some(profile), executable } =
            message
        else {
            return Ok(None);
        };
        let Some(executable) = executable.filter(|_| profile.test) else { return Ok(None) };
        let name = target.src_path.strip_prefix(shell::root()).unwrap_or(&target.src_path).display().to_string();
        Ok(Some(Self { manifest, name, executable, is_integration_test: target.is("test") }))
    }

    fn job(self) -> anyhow::Result<Job> {
        let package = self.manifest.parent().context("a manifest without a directory")?;
        let mut command = Command::new(self.executable);
        // As `cargo test` does.
        command.current_dir(package).env("CARGO_MANIFEST_DIR", package);
        Ok(Job { name: self.name, command })
    }
}

impl Job {
    /// The examples of the documentation, which only rustdoc can run.
    fn examples() -> Self {
        Self { name: "examples".into(), command: shell::cargo(&["test", "--locked", "--workspace", "--doc"]) }
    }

    /// Runs the program, and prints what it printed when it has ended.
    fn run(mut self) -> anyhow::Result<Outcome> {
        let began = Instant::now();
        let output =
            self.command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", self.name))?;
        let took = began.elapsed();
        let mut screen = std::io::stdout().lock();
        writeln!(screen, "\n== {} ({took:.1?})", self.name)?;
        screen.write_all(&output.stdout)?;
        screen.write_all(&output.stderr)?;
        if !output.status.success() {
            writeln!(screen, "== {} FAILED: {}", self.name, output.status)?;
        }
        Ok(Outcome { name: self.name, status: output.status, took })
    }
}

/// Runs programs until no more come.
fn run_jobs(jobs: &Mutex<Receiver<Job>>) -> Vec<anyhow::Result<Outcome>> {
    let next = || jobs.lock().ok()?.recv().ok();
    std::iter::from_fn(next).map(Job::run).collect()
}
