//! `muster-agent uninstall`.
//!
//! The services that the agent has installed go first, while everything can still be undone: if one of them cannot be
//! uninstalled, the agent starts again, and stays (AG141). The notice to the server is then stored, with a program that
//! delivers it, before anything else is removed. The command tries to deliver it for a limited time; whether it succeeds
//! does not matter to the uninstallation (AG138).

use std::time::Duration;

use muster_core::error_chain::chain;
use muster_core::time::Clock as _;

use super::guard::{Guarded, guard};
use super::{connect, prompt, uninstall_services};
use crate::clock::SystemClock;
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::homes;
use crate::install::notifier::Notifier;
use crate::install::removal::{self, Found};
use crate::install::{Installation, Manager};
use crate::local_server::LocalServer;
use crate::notice::departure::Departure;
use crate::notice::{Event, Notice, Spool};
use crate::paths::Layout;
use crate::state::Store;
use crate::state::disk::DiskStore;
use crate::state::enrollment::Enrollment;

/// Maximum time to deliver the notice while the user waits.
const NOTICE: Duration = Duration::from_secs(20);

/// Arguments of `uninstall`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not ask for confirmation
    #[arg(long, short = 'f')]
    force: bool,
    #[command(flatten)]
    guarded: Guarded,
    /// Do not notify the server
    #[arg(long)]
    skip_fleet_audit: bool,
    /// Keep the services that components have installed
    ///
    /// Without this flag, the command fails and the agent stays if one
    /// of them cannot be uninstalled.
    #[arg(long)]
    keep_services: bool,
    /// Reason to show on the server
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Uninstalls the agent.
pub async fn run(layout: &Layout, args: &Args) -> Result<u8, Failure> {
    let installation = installed(layout)?;
    check_permission(layout)?;
    // Before anything is asked or stopped.
    check_program(layout)?;
    let store = DiskStore::new(layout.clone());
    guard(layout, &store, "uninstall", &args.guarded).await?;
    confirm(layout, args)?;
    // Collected while the enrollment can still be read.
    let mut notices = if args.skip_fleet_audit { Vec::new() } else { notices(layout, &store, args.reason.as_deref()) };
    let server = LocalServer::load(layout).ok().flatten();
    if let Some(server) = &server {
        tell_local(server, &mut notices).await;
    }
    // After the notices for the server on this host, which ends with the daemon.
    removal::stop(layout, &installation).await.map_err(|error| failed(&error))?;
    if !args.keep_services {
        uninstall_services::run(layout, &installation, &store, &args.guarded).await?;
    }
    // Stored outside of the base path, before that is removed.
    let notifier = prepare_notifier(layout, &installation, &notices).await;
    removal::remove(layout, &installation).await.map_err(|error| failed(&error))?;
    println!("muster-agent was uninstalled from {}", layout.base());
    if let Some(server) = server {
        // It may be the only copy of a fleet.
        println!("The data of the fleet server stays in {}", server.data_dir);
    }
    if let Some(notifier) = notifier {
        deliver(&notifier).await;
    }
    Ok(exit::DONE)
}

/// Returns the record. A directory without one was never installed, and nothing in it is touched (AG154).
fn installed(layout: &Layout) -> Result<Installation, Failure> {
    match removal::find(layout)? {
        Found::Whole(installation) | Found::Broken(installation) => Ok(installation),
        Found::Nothing => Err(Failure::new(exit::FAILED, format!("no agent is installed in {}", layout.base())).hint(
            "pass --base-path with the directory of the installation; unenroll leaves a fleet without an installation",
        )),
    }
}

fn check_permission(layout: &Layout) -> Result<(), Failure> {
    let user = nix::unistd::geteuid();
    // An installation without root belongs to the user who made it.
    let owner = fs_err::metadata(layout.base()).map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
    if user.is_root() || owner.is_ok_and(|owner| owner == user.as_raw()) {
        return Ok(());
    }
    Err(Failure::new(exit::PERMISSION, "uninstalling requires root").hint("run it with sudo"))
}

/// Only the installed program may remove the installation, because another version may not know all of it (AG20). A
/// broken installation may have no program.
fn check_program(layout: &Layout) -> Result<(), Failure> {
    let Ok(Some(active)) = homes::active(layout) else { return Ok(()) };
    let Ok(expected) = fs_err::canonicalize(layout.home(&active).program()) else { return Ok(()) };
    if std::env::current_exe().is_ok_and(|own| own == expected) {
        return Ok(());
    }
    let failure = Failure::new(exit::USAGE, "this program is not the installed one");
    Err(failure.hint(format!("run {} uninstall", layout.link())))
}

fn confirm(layout: &Layout, args: &Args) -> Result<(), Failure> {
    if args.force {
        return Ok(());
    }
    let question = format!("Uninstall muster-agent from {} and delete its data?", layout.base());
    match prompt::confirm(&question, false) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(exit::FAILED, "not uninstalled")),
        None => Err(Failure::new(exit::USAGE, "uninstall requires confirmation").hint("add --force")),
    }
}

/// Returns the notices to deliver: those that are pending, and the one about this uninstallation.
fn notices(layout: &Layout, store: &DiskStore, why: Option<&str>) -> Vec<Notice> {
    let pending = Spool::new(layout).pending().unwrap_or_default();
    let mut notices: Vec<Notice> = pending.into_iter().map(|(_, notice)| notice).collect();
    match store.enrollment() {
        Ok(Some(enrollment)) => {
            let departure = Departure::by_this_process("uninstall", why, None);
            notices.push(Notice::new(Event::Uninstall, &enrollment, departure, SystemClock.now()));
        }
        Ok(None) => {}
        // An agent with a corrupt file must not become unremovable.
        Err(error) => eprintln!("Warning: the server could not be notified: {}", chain(&error)),
    }
    notices
}

async fn prepare_notifier(layout: &Layout, installation: &Installation, notices: &[Notice]) -> Option<Notifier> {
    if notices.is_empty() {
        return None;
    }
    match Notifier::set_up(layout, installation, notices, &System).await {
        Ok(notifier) => Some(notifier),
        Err(error) => {
            eprintln!("Warning: the notifier was not set up: {}", chain(&error));
            None
        }
    }
}

/// Delivers the notices for the server of this host, which is about to be stopped: nobody could deliver them later.
async fn tell_local(server: &LocalServer, notices: &mut Vec<Notice>) {
    let url = server.local_url();
    let local: Vec<Notice> = notices.extract_if(.., |notice| notice.servers.contains(&url)).collect();
    let deliver = async {
        for notice in &local {
            if let Ok(client) = connect(notice) {
                let _ = notice.deliver(&client).await;
            }
        }
    };
    let _ = tokio::time::timeout(NOTICE, deliver).await;
}

/// Tries to deliver the notices now, and leaves the rest to the notifier.
async fn deliver(notifier: &Notifier) {
    let delivered = tokio::time::timeout(NOTICE, notifier.spool().deliver_once(&connect)).await;
    let finished = match delivered {
        // All delivered: the notifier has nothing to do, and removes itself now.
        Ok(Ok(0)) => notifier.remove().await.map(|()| println!("The server was notified")),
        _ => notifier.start().await.map(|()| println!("{}", continues(notifier))),
    };
    if let Err(error) = finished {
        eprintln!("Warning: {}", chain(&error));
    }
}

fn continues(notifier: &Notifier) -> String {
    let place = notifier.directory();
    let what = format!(
        "The server has not accepted every notice. A notifier in {place} keeps trying for about 30 days, and then removes itself"
    );
    if notifier.manager() == Manager::None {
        return format!("{what}; without a service manager, it ends when the host shuts down");
    }
    what
}

/// Notifies the server once, if it responds in time. Failures are printed only.
pub(super) async fn notify_once(enrollment: &Enrollment, command: &str, why: Option<&str>) {
    let departure = Departure::by_this_process(command, why, None);
    let notice = Notice::new(Event::Uninstall, enrollment, departure, SystemClock.now());
    if let Ok(client) = connect(&notice) {
        let _ = tokio::time::timeout(NOTICE, notice.deliver(&client)).await;
    }
}

fn failed(error: &removal::RemovalError) -> Failure {
    Failure::new(exit::FAILED, chain(error).to_string()).hint("run uninstall again; it continues where it stopped")
}
