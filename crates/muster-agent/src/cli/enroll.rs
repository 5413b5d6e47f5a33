//! `muster-agent enroll`.
//!
//! Everything that can be checked without the server is checked first. Nothing on disk is changed until the server has
//! accepted the agent.

use std::sync::Arc;
use std::time::Duration;

use muster_core::error_chain::chain;
use muster_core::time::Clock as _;
use muster_protocol::elastic::enroll::EnrolledItem;

use super::enroll_options::Options;
use super::guard::{Guarded, guard};
use super::prompt;
use super::server_options::{ServerOptions, Target, check_stopped};
use super::{check_base, connect, transport};
use crate::clock::SystemClock;
use crate::control::{Answer, client};
use crate::duration;
use crate::enroll::delayed;
use crate::enroll::join::Joining;
use crate::enroll::plan::Plan;
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::host::HostFacts;
use crate::host::fingerprint::Fingerprint;
use crate::install::{Installation, Manager, steps};
use crate::interrupt::Interrupt;
use crate::notice::departure::Departure;
use crate::notice::{Event, Notice, Spool};
use crate::paths::Layout;
use crate::state::disk::DiskStore;
use crate::state::enrollment::Enrollment;
use crate::state::{Store, StoreError};

/// Maximum time to notify the previous server that this agent has left. After that, the daemon keeps trying.
const FAREWELL: Duration = Duration::from_secs(10);

/// Arguments of `enroll`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    server: ServerOptions,
    /// Enroll even if the agent is already enrolled, and notify its previous server that it has left
    #[arg(long, short = 'f')]
    force: bool,
    /// Store the enrollment, and enroll when the agent is started for the next time
    #[arg(long)]
    delay_enroll: bool,
    /// Maximum time for a running agent to use the new enrollment
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration::parse)]
    daemon_timeout: Duration,
    /// Do not tell a running agent about the new enrollment; it uses it from its next start
    #[arg(long)]
    skip_daemon_reload: bool,
    #[command(flatten)]
    guarded: Guarded,
}

/// The previous enrollment in an existing base path.
pub(super) enum Former {
    None,
    Enrolled(Box<Enrollment>),
    /// The document cannot be read; contains the reason.
    Unreadable(String),
}

/// Enrolls, stores the result, and reloads a running daemon.
pub async fn run(layout: &Layout, args: Args) -> Result<u8, Failure> {
    // All usage errors are reported before the first connection.
    let target = Target::new(layout, &args.options, &args.server, &[])?;
    args.options.explain();
    check_base(layout.base())?;
    check_stopped(layout, &args.server)?;
    // This opens nothing yet, because the directory may not exist.
    let store = DiskStore::new(layout.clone());
    let Some(force) = confirmed(&store, args.force) else {
        println!("The enrollment is unchanged");
        return Ok(exit::DONE);
    };
    let former = former(&store, force)?;
    guard(layout, &store, "enroll", &args.guarded).await?;
    renew_unusable_key(&store).await?;
    if args.delay_enroll {
        return delay(layout, &target, &former);
    }
    let interrupt = Interrupt::listen()?;
    let (plan, item) = join_at(&store, layout, &target, &former, &args.options, &interrupt).await?;
    // The rest is of use whether or not the agent runs with the new enrollment.
    let reloaded = if args.skip_daemon_reload {
        println!("The agent uses the new enrollment from its next start");
        Ok(())
    } else {
        start_or_reload(layout, args.daemon_timeout).await
    };
    say_farewell(layout, former, &item.id, &plan).await;
    target.describe().into_iter().for_each(|text| println!("{text}"));
    reloaded.map(|()| exit::DONE)
}

/// Returns whether an existing enrollment may be replaced: with `--force`, or if somebody at the terminal agrees. `None` if
/// they do not (AG14).
fn confirmed(store: &DiskStore, force: bool) -> Option<bool> {
    match store.enrollment() {
        Ok(Some(enrollment)) if !force && prompt::is_interactive() => {
            let question = format!("This host is enrolled as agent {}. Replace the enrollment?", enrollment.agent_id);
            prompt::confirm(&question, false)?.then_some(true)
        }
        _ => Some(force),
    }
}

/// Stores the enrollment for the next start of an agent that has none (AG91).
fn delay(layout: &Layout, target: &Target, former: &Former) -> Result<u8, Failure> {
    let Target::Remote(plan) = target else {
        // A server cannot start before there is an agent that supervises it (AG92).
        let message = "--delay-enroll cannot be combined with a fleet server on this host";
        return Err(Failure::new(exit::USAGE, message));
    };
    if !matches!(former, Former::None) {
        let failure = Failure::new(exit::USAGE, "--delay-enroll: the agent is enrolled already");
        return Err(
            failure.hint("muster-agent reset-identity --url URL --enrollment-token TOKEN delays a new enrollment")
        );
    }
    delayed::store(layout, plan)?;
    println!("The agent enrolls when it is started for the next time");
    Ok(exit::DONE)
}

/// Replaces a key that cannot be used on this host, before the server is asked for anything: an agent that cannot store its
/// enrollment would exist only there.
pub(super) async fn renew_unusable_key(store: &DiskStore) -> Result<(), Failure> {
    if !store.is_locked() {
        return Ok(());
    }
    let installation = Installation::load(store.layout())?.filter(|found| found.manager == Manager::Systemd);
    // Other users cannot decrypt a key that is perfectly usable, and the service loads it by its name.
    if installation.is_some() && !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(exit::PERMISSION, "only root can read or replace the key of the agent's files"));
    }
    store.renew_key()?;
    eprintln!(
        "Note: the key of the agent's files cannot be used on this host, and a new one replaces it; the former files are \
         kept as {}/*.unusable",
        store.layout().base()
    );
    match installation {
        Some(installation) => steps::register(store.layout(), &installation).await,
        None => Ok(()),
    }
}

/// Enrolls at the target. A server of this host runs only meanwhile; from then on, the daemon runs it. If this fails or is
/// interrupted, the server is stopped and forgotten.
pub(super) async fn join_at(
    store: &DiskStore,
    layout: &Layout,
    target: &Target,
    former: &Former,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<(Plan, EnrolledItem), Failure> {
    if matches!(target, Target::Local(_)) {
        store.prepare()?;
    }
    let (plan, server) = target.begin(layout, interrupt).await?;
    let joined = interrupt.unless(join(store, &plan, former, options)).await;
    if let Some(server) = server {
        if joined.is_ok() { server.stop().await } else { server.abandon().await }
    }
    Ok((plan, joined?))
}

/// Enrolls and prints the result.
pub(super) async fn join(
    store: &DiskStore,
    plan: &Plan,
    former: &Former,
    options: &Options,
) -> Result<EnrolledItem, Failure> {
    let former = match former {
        Former::Enrolled(former) => Some(&**former),
        Former::None | Former::Unreadable(_) => None,
    };
    let (transport, patience) = (transport(&plan.trust)?, options.patience());
    let progress = |line: &str| eprintln!("{line}");
    eprintln!("Enrolling with {} …", plan.servers.join(", "));
    let joining = Joining {
        plan,
        transport,
        former,
        patience: &patience,
        progress: &progress,
        facts: &HostFacts,
        entropy: Arc::new(System),
    };
    let (item, kept) = joining.join(store).await?;
    println!("Enrolled as agent {}{}", item.id, on_policy(&item));
    if let Some(kept) = kept {
        println!("The policy comes from the server from now on; the local one is kept as {kept}");
    }
    Ok(item)
}

fn on_policy(item: &EnrolledItem) -> String {
    if item.policy_id.is_empty() { ", without a policy yet".into() } else { format!(" on policy {}", item.policy_id) }
}

/// Loads the previous enrollment, which only `--force` may replace.
pub(super) fn former(store: &DiskStore, force: bool) -> Result<Former, Failure> {
    match store.enrollment() {
        Ok(None) => Ok(Former::None),
        Ok(Some(enrollment)) if force => Ok(Former::Enrolled(Box::new(enrollment))),
        Ok(Some(enrollment)) => {
            let message = format!("already enrolled as agent {}", enrollment.agent_id);
            Err(Failure::new(exit::ALREADY_ENROLLED, message)
                .hint("unenroll the agent first, or add --force to replace the enrollment"))
        }
        // On a copy of a host, the original is still there: nobody has left.
        Err(StoreError::Locked { .. }) if force => Ok(Former::None),
        // --force also replaces a document that is corrupt or of a newer version.
        Err(error @ (StoreError::Damaged { .. } | StoreError::Newer { .. })) if force => {
            Ok(Former::Unreadable(chain(&error).to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes the agent run with the new enrollment. A failure is one of the command, so that a script does not continue while the
/// agent still runs with the previous enrollment, or not at all (AG83).
async fn start_or_reload(layout: &Layout, limit: Duration) -> Result<(), Failure> {
    // Without this, a running daemon would continue to use the previous enrollment until its next start.
    let answer = client::call::<Answer>(&layout.socket(), http::Method::POST, "/v1/reload", limit).await;
    match answer {
        Ok(Some(_)) => println!("The running agent now uses the new enrollment"),
        Ok(None) => return start(layout).await,
        Err(Failure { code, message, .. }) => {
            let message = format!("enrolled, but the running agent does not use the new enrollment: {message}");
            return Err(Failure::new(code, message).hint("restart the agent"));
        }
    }
    Ok(())
}

/// Starts the service, if the agent is installed as one.
async fn start(layout: &Layout) -> Result<(), Failure> {
    match Installation::load(layout) {
        Ok(Some(installation)) if installation.manager != Manager::None => {
            let started = installation.service().start().await;
            started.map_err(|error| {
                Failure::new(exit::FAILED, format!("enrolled, but the service was not started: {}", chain(&error)))
            })
        }
        _ => {
            println!("To start the agent: muster-agent run --base-path {}", layout.base());
            Ok(())
        }
    }
}

/// Notifies the server of the previous enrollment that its agent has left. This happens after the new enrollment,
/// because a failed enrollment must leave the agent unchanged, and after the reload, because a check-in under the
/// previous id would clear the notice.
pub(super) async fn say_farewell(layout: &Layout, former: Former, agent_id: &str, plan: &Plan) {
    let former = match former {
        // After a first enrollment, there is no previous server.
        Former::None => return,
        // It is the same agent with a new key, so that no agent has left.
        Former::Enrolled(former) if former.agent_id == agent_id => return,
        // The original is still there: it must not be reported as gone.
        Former::Enrolled(former) if is_copy(&former) => return,
        Former::Enrolled(former) => former,
        Former::Unreadable(reason) => return warn("of the previous enrollment", &reason),
    };
    let departure = Departure::by_this_process("enroll", None, plan.servers.first().map(String::as_str));
    let notice = Notice::new(Event::Uninstall, &former, departure, SystemClock.now());
    // Stored before it is sent, so that the daemon delivers it if this fails (AG86).
    let spool = Spool::new(layout);
    match spool.add(&notice, &System) {
        Ok(_) => match tokio::time::timeout(FAREWELL, spool.deliver_once(&connect)).await {
            Ok(Ok(0)) => println!("Notified the previous server that agent {} has left", former.agent_id),
            _ => eprintln!("The previous server has not been notified yet; the agent will notify it later"),
        },
        Err(error) => warn(&former.agent_id, &chain(&error).to_string()),
    }
}

fn is_copy(former: &Enrollment) -> bool {
    former.machine.as_ref().is_some_and(|machine| machine.differs(&Fingerprint::here()))
}

fn warn(id: &str, reason: &str) {
    eprintln!("Warning: the agent {id} is still enrolled with its previous server: {reason}");
    eprintln!("hint: to revoke its access key, run on the previous server: muster agent unenroll AGENT --force");
}
