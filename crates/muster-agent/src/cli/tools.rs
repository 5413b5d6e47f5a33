//! Small commands: `restart`, `version`, `logs`, `diagnostics` and `completions`.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use clap::CommandFactory;
use tokio::time::Instant;

use super::Cli;
use crate::clock::SystemClock;
use crate::control::{Answer, client};
use crate::coordinator::report::Snapshot;
use crate::diagnostics;
use crate::exit::{self, Failure};
use crate::paths::Layout;
use crate::state::Store;
use crate::state::disk::DiskStore;
use crate::version;
use muster_core::error_chain::chain;
use muster_core::time::Clock;

/// Time for the daemon to respond.
const ANSWER: Duration = Duration::from_secs(30);
/// Time for the daemon to stop its components and to start anew.
const RESTART: Duration = Duration::from_secs(90);
/// Interval between looks at a file or at the daemon.
const LOOK: Duration = Duration::from_millis(200);
/// Maximum number of bytes of a log that `logs` reads from its end.
const LOG_TAIL: u64 = 4 << 20;

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
pub struct VersionArgs {
    /// Print only the version of this program
    #[arg(long)]
    binary_only: bool,
}

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Number of lines to print
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    lines: usize,
    /// Print new lines as they are written
    #[arg(long, short)]
    follow: bool,
    /// Print the log of a component instead of that of the agent
    #[arg(long, short = 'C', value_name = "ID")]
    component: Option<String>,
}

/// Arguments of `diagnostics`.
#[derive(Debug, clap::Args)]
pub struct DiagnosticsArgs {
    /// File to write; it must not exist
    #[arg(long, short, value_name = "FILE")]
    file: Option<Utf8PathBuf>,
}

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Restarts the daemon, and waits until it answers again.
pub async fn restart(layout: &Layout) -> Result<u8, Failure> {
    let before = status(layout).await?.ok_or_else(|| super::status::no_daemon(layout))?;
    let asked: Option<Answer> = client::call(&layout.socket(), http::Method::POST, "/v1/restart", ANSWER).await?;
    asked.ok_or_else(|| super::status::no_daemon(layout))?;
    let deadline = Instant::now() + RESTART;
    while Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        // The process stays the same, so that the start time distinguishes the new daemon.
        if let Ok(Some(now)) = status(layout).await
            && (now.started_at != before.started_at || now.pid != before.pid)
        {
            println!("The agent has restarted");
            return Ok(exit::DONE);
        }
    }
    Err(Failure::new(exit::TIMEOUT, format!("the daemon did not restart within {RESTART:?}")))
}

async fn status(layout: &Layout) -> Result<Option<Snapshot>, Failure> {
    client::call(&layout.socket(), http::Method::GET, "/v1/status", ANSWER).await
}

/// Prints the versions of this program and of the daemon. `is_named` is whether somebody asks for an agent by its base path:
/// otherwise, a host without one is no failure.
pub async fn version(layout: &Layout, args: &VersionArgs, is_named: bool) -> Result<u8, Failure> {
    println!("Binary: {}", version::agent_version());
    if args.binary_only {
        return Ok(exit::DONE);
    }
    match status(layout).await?.ok_or_else(|| super::status::no_daemon(layout)) {
        Ok(snapshot) => println!("Daemon: {}", snapshot.version),
        Err(failure) if failure.code == exit::NOT_ENROLLED && !is_named => {
            let is_there = layout.base().symlink_metadata().is_ok();
            println!("Daemon: {}", if is_there { failure.message } else { "no agent is installed".into() });
        }
        Err(failure) => return Err(failure),
    }
    Ok(exit::DONE)
}

/// Prints the end of a log.
pub async fn logs(layout: &Layout, args: &LogsArgs) -> Result<u8, Failure> {
    let path = match &args.component {
        None => layout.logs().join("muster-agent.jsonl"),
        Some(id) => component_log(layout, id)?,
    };
    let unreadable = |error: std::io::Error| Failure::new(exit::FAILED, format!("{path}: {error}"));
    let mut place = match print_tail(&path, args.lines) {
        // An agent that has never run has no log.
        Err(_) if layout.logs().symlink_metadata().is_err() => return Err(super::status::no_daemon(layout)),
        printed => printed.map_err(unreadable)?,
    };
    if !args.follow {
        return Ok(exit::DONE);
    }
    loop {
        tokio::time::sleep(LOOK).await;
        place = print_from(&path, place).map_err(unreadable)?;
    }
}

fn component_log(layout: &Layout, id: &str) -> Result<Utf8PathBuf, Failure> {
    let directory = layout.logs().join("components");
    // Listed and compared, so that an id never leads out of the directory.
    let wanted = format!("{id}.log");
    let entries = directory.read_dir_utf8().map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let known: Vec<&str> = entries.iter().map(camino::Utf8DirEntry::file_name).collect();
    if known.contains(&wanted.as_str()) {
        return Ok(directory.join(wanted));
    }
    let names: Vec<&str> = known.iter().filter_map(|name| name.strip_suffix(".log")).collect();
    let hint =
        if names.is_empty() { "no component has a log".into() } else { format!("components: {}", names.join(", ")) };
    Err(Failure::new(exit::USAGE, format!("no log of component {id:?}")).hint(hint))
}

/// Prints the last lines; returns the length of the file.
fn print_tail(path: &Utf8Path, lines: usize) -> std::io::Result<u64> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let mut out = std::io::stdout().lock();
    for line in &all[all.len().saturating_sub(lines)..] {
        writeln!(out, "{line}")?;
    }
    Ok(length)
}

/// Prints what was written since; returns the new length. A shorter file is a new one.
fn print_from(path: &Utf8Path, place: u64) -> std::io::Result<u64> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let start = if length < place { 0 } else { place };
    file.seek(SeekFrom::Start(start))?;
    let mut out = std::io::stdout().lock();
    // What exceeds this is printed by the next call.
    let copied = std::io::copy(&mut file.take(LOG_TAIL), &mut out)?;
    Ok(start + copied)
}

/// Writes a diagnostics bundle: of the daemon, or of the files if none is running (AG150).
pub async fn diagnostics(layout: &Layout, args: &DiagnosticsArgs) -> Result<u8, Failure> {
    let asked = client::fetch(&layout.socket(), http::Method::GET, "/v1/diagnostics", ANSWER).await;
    let bundle = match asked {
        Ok(Some(bundle)) if !bundle.is_empty() => bundle,
        Ok(None) if !layout.state().try_exists().unwrap_or(true) && !layout.fleet().try_exists().unwrap_or(true) => {
            return Err(super::status::no_daemon(layout));
        }
        other => {
            let reason = other.err().map_or("no daemon is running".to_owned(), |failure| failure.message);
            eprintln!("Warning: {reason}; the bundle contains only what is on disk");
            let state = DiskStore::new(layout.clone()).state().map_err(|error| chain(&error).to_string());
            diagnostics::of_files(&state, &log_tail(layout))
                .map_err(|error| Failure::new(exit::FAILED, chain(&error).to_string()))?
        }
    };
    let stamp = SystemClock.now().to_rfc3339_seconds().replace(':', "-");
    let path = args.file.clone().unwrap_or_else(|| format!("muster-agent-diagnostics-{stamp}.json.gz").into());
    // Not for other users, although it contains no secrets (AG165).
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(&bundle).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::new(exit::FAILED, format!("{path}: {error}")))?;
    println!("{path}");
    Ok(exit::DONE)
}

fn log_tail(layout: &Layout) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(layout.logs().join("muster-agent.jsonl"))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(256 << 10)))?;
        let mut bytes = Vec::new();
        file.take(256 << 10).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) -> u8 {
    let all = Cli::command();
    // Completions would offer the commands that only the agent itself uses.
    let mut public = clap::Command::new("muster-agent")
        .version(version::agent_version())
        .args(all.get_arguments().cloned())
        .subcommands(all.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
    clap_complete::generate(args.shell, &mut public, "muster-agent", &mut std::io::stdout());
    exit::DONE
}
