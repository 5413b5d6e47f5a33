//! `muster-agent upgrade`, and the hidden `watch`, which it leads to.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use super::guard::{self, Guarded};
use crate::control::{Answer, client};
use crate::coordinator::report::Snapshot;
use crate::exit::{self, Failure};
use crate::paths::Layout;
use crate::settings::Settings;
use crate::state::disk::DiskStore;
use crate::upgrade::details::Stage;
use crate::upgrade::disk::HostDisk;
use crate::upgrade::{switch, watcher};
use crate::version;
use muster_core::canonical;
use muster_core::error_chain::chain;

/// Time for the daemon to respond.
const ANSWER: Duration = Duration::from_secs(30);
/// Interval between looks at the progress.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `upgrade`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Target version
    #[arg(value_name = "VERSION")]
    version: String,
    /// URL of a directory with packages (https, http or file) [default: upgrade.source_uri in agent.yml, or the server]
    #[arg(long, value_name = "URL", conflicts_with = "rollback")]
    source_uri: Option<String>,
    /// Return to a version that is still on disk
    #[arg(long)]
    rollback: bool,
    /// Upgrade an enrolled agent, whose version the server decides
    #[arg(long, short = 'f')]
    force: bool,
    /// Maximum time to wait until the new version runs; 0 means do not wait
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = crate::duration::parse)]
    wait: Duration,
    #[command(flatten)]
    guarded: Guarded,
}

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Id of the upgrade
    #[arg(long)]
    id: String,
}

/// Asks the daemon for an upgrade, and waits until the new version runs. The daemon goes on if this command is
/// interrupted (AG171).
pub async fn run(layout: &Layout, args: &Args) -> Result<u8, Failure> {
    // Converted here, so that a mistake is reported without asking the daemon.
    let version = canonical::version(&args.version).map_err(|error| Failure::new(exit::USAGE, error))?;
    let mut query = format!("version={}&rollback={}&force={}", encoded(&version), args.rollback, args.force);
    if let Some(source) = &args.source_uri {
        query.push_str(&format!("&source_uri={}", encoded(source)));
    }
    // A previous version may lack what protects this one (AG143).
    if args.rollback || may_be_older(&version, version::agent_version()) {
        guard::guard(layout, &DiskStore::new(layout.clone()), "upgrade", &args.guarded).await?;
    }
    let path = format!("/v1/upgrade?{query}");
    let answer: Option<Answer> = client::call(&layout.socket(), http::Method::POST, &path, ANSWER).await?;
    match answer {
        None => return Err(super::status::no_daemon(layout)),
        Some(Answer { warning: Some(reason) }) => return Err(Failure::new(exit::FAILED, reason)),
        Some(_) => {}
    }
    if args.wait.is_zero() {
        println!("The agent is upgrading to {version}; to see its progress: muster-agent status");
        return Ok(exit::DONE);
    }
    follow(layout, &version, args.wait).await
}

/// Returns whether a version is not certainly newer than the running one. Versions that differ only in their suffix have no
/// order that every release follows.
fn may_be_older(version: &str, running: &str) -> bool {
    let numbers = |version: &str| {
        let core = version.split(['-', '+']).next().unwrap_or_default();
        core.split('.').map(|number| number.parse::<u32>().unwrap_or_default()).collect::<Vec<_>>()
    };
    version != running && numbers(version) <= numbers(running)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Prints the progress until the new version runs, or the upgrade has failed.
async fn follow(layout: &Layout, version: &str, wait: Duration) -> Result<u8, Failure> {
    let deadline = Instant::now() + wait;
    let mut shown = None;
    while Instant::now() < deadline {
        // While the daemon restarts, it does not answer.
        let status = client::call::<Snapshot>(&layout.socket(), http::Method::GET, "/v1/status", ANSWER).await;
        // Errors are expected while the daemon restarts.
        if let Ok(Some(snapshot)) = status {
            let stage = snapshot.upgrade.as_ref().map(|details| details.state);
            if matches!(stage, Some(Stage::Failed | Stage::Rollback)) {
                return Err(Failure::new(exit::FAILED, describe(&snapshot)));
            }
            if stage.is_some() && stage != shown {
                eprintln!("{}", describe(&snapshot));
                shown = stage;
            }
            match stage {
                // The version decides: without details, the upgrade has ended, one way or the other.
                None | Some(Stage::Watching) if snapshot.version == version => {
                    println!("The agent runs version {version}");
                    return Ok(exit::DONE);
                }
                _ => {}
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::new(exit::TIMEOUT, format!("version {version} did not run within {wait:?}"))
        .hint("the upgrade goes on; to see its progress: muster-agent status"))
}

/// Returns the upgrade of a status as a sentence.
pub fn describe(snapshot: &Snapshot) -> String {
    let Some(details) = &snapshot.upgrade else { return String::new() };
    let version = &details.target_version;
    let reason = details.metadata.error_msg.as_ref().or(details.metadata.retry_error_msg.as_ref());
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    match details.state {
        Stage::Requested => format!("upgrade to {version} requested"),
        Stage::Scheduled => {
            format!("upgrade to {version} at {}", details.metadata.scheduled_at.as_deref().unwrap_or_default())
        }
        Stage::Downloading => {
            let part = details.metadata.download_percent.map(|part| format!(" {:.0} %", part * 100.0));
            format!("downloading {version}{}{reason}", part.unwrap_or_default())
        }
        Stage::Extracting => format!("unpacking {version}"),
        Stage::Replacing | Stage::Restarting => format!("switching to {version}"),
        Stage::Watching => format!("watching {version}"),
        Stage::Rollback | Stage::Failed => format!("upgrade to {version} failed{reason}"),
    }
}

/// Counts a start during an upgrade. Service managers run it, with the previous version, before each start of the agent.
pub fn guard(layout: &Layout) -> Result<u8, Failure> {
    switch::guard(&HostDisk, layout)?;
    Ok(exit::DONE)
}

/// Watches an upgrade.
pub async fn watch(layout: &Layout, args: &WatchArgs) -> Result<u8, Failure> {
    let settings = Settings::load(&layout.settings(), &[])
        .map_err(|error| Failure::new(exit::USAGE, chain(&error).to_string()))?;
    watcher::run(layout, &args.id, &settings.upgrade).await.map_err(|error| Failure::new(exit::FAILED, error))?;
    Ok(exit::DONE)
}
