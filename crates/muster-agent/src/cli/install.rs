//! `muster-agent install`.
//!
//! Everything is validated before anything is changed. The record of the installation is written first, so that a step
//! that fails, or a process that is killed, leaves nothing that `uninstall` would not find.

use std::time::Duration;

use muster_core::error_chain::chain;
use muster_core::time::Clock as _;

use super::enroll_options::Options;
use super::guard::{Guarded, guard};
use super::server_options::{ServerOptions, Target};
use super::{check_base, enroll, prompt, wait_for_daemon};
use crate::base_dir;
use crate::clock::SystemClock;
use crate::duration;
use crate::enroll::delayed;
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::homes::{self, HomeName};
use crate::install::definition;
use crate::install::installation::INSTALLATION_VERSION;
use crate::install::notifier::Notifier;
use crate::install::removal::{self, Found};
use crate::install::{Installation, Manager, account, program, steps};
use crate::interrupt::Interrupt;
use crate::local_server::LocalServer;
use crate::paths::Layout;
use crate::standalone;
use crate::state::disk::DiskStore;
use crate::version;

/// Arguments of `install`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    server: ServerOptions,
    /// Replace an existing installation of this base path; keeps its enrollment unless --url is passed
    #[arg(long, short = 'f')]
    force: bool,
    /// Never prompt, not even on a terminal
    #[arg(long, short = 'n')]
    non_interactive: bool,
    /// Run the agent as a user without privileges, which is created if it does not exist
    #[arg(long)]
    unprivileged: bool,
    /// Existing user to run the agent as; implies --unprivileged
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Existing group for the agent's user; implies --unprivileged
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Service manager [default: the one that runs this host]
    #[arg(long, value_enum, env = "MUSTER_AGENT_SERVICE", value_name = "MANAGER")]
    service: Option<Manager>,
    /// Name of an additional installation on this host, which is also added as a tag
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Do not start the agent; it enrolls when it is started for the first time
    #[arg(long)]
    delay_enroll: bool,
    /// Maximum time for the started agent to respond
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration::parse)]
    daemon_timeout: Duration,
    #[command(flatten)]
    guarded: Guarded,
}

impl Args {
    /// Returns the name of a further installation.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

/// A validated installation.
struct Job {
    layout: Layout,
    target: Option<Target>,
    found: Found,
    /// The active version before the installation.
    former: Option<HomeName>,
    /// Whether the base path belonged to an agent before, with or without an installation.
    used: bool,
    installation: Installation,
}

/// Installs the agent, enrolls it and starts it.
pub async fn run(layout: &Layout, mut args: Args) -> Result<u8, Failure> {
    let mut job = validate(layout, &args)?;
    args.options.explain();
    if job.target.is_none() && !args.force && !args.non_interactive && prompt::is_interactive() {
        ask(layout, &mut args.options)?;
        job.target = target(layout, &args)?;
    }
    // Someone who can replace an installation could also remove it.
    if job.found != Found::Nothing {
        guard(layout, &DiskStore::new(layout.clone()), "install", &args.guarded).await?;
    }
    // After the last prompt, which Ctrl-C must end.
    let interrupt = Interrupt::listen()?;
    match install(job, &args, &interrupt).await {
        Ok(message) => println!("{message}"),
        Err((job, failure)) => {
            undo(&job).await;
            return Err(failure);
        }
    }
    Ok(exit::DONE)
}

/// Asks whether and where to enroll (AG6).
fn ask(layout: &Layout, options: &mut Options) -> Result<(), Failure> {
    let stopped = || Failure::new(exit::FAILED, "not installed");
    if prompt::confirm(&format!("Install muster-agent in {}?", layout.base()), true) != Some(true) {
        return Err(stopped());
    }
    if !prompt::confirm("Enroll it in a fleet?", true).ok_or_else(stopped)? {
        return Ok(());
    }
    let url = prompt::ask("URL of the server:").filter(|url| !url.is_empty()).ok_or_else(stopped)?;
    let token = prompt::ask_hidden("Enrollment token:").filter(|token| !token.is_empty()).ok_or_else(stopped)?;
    options.complete(url, token);
    Ok(())
}

/// Returns where the agent enrolls; `None` if it stays standalone, or as it is.
fn target(layout: &Layout, args: &Args) -> Result<Option<Target>, Failure> {
    if args.options.is_absent() && !args.delay_enroll && !args.server.is_wanted() {
        return Ok(None);
    }
    let tags: Vec<String> = args.namespace.clone().into_iter().collect();
    Target::new(layout, &args.options, &args.server, &tags).map(Some)
}

/// Checks everything that can be checked without changing anything (AG2 – AG5).
fn validate(layout: &Layout, args: &Args) -> Result<Job, Failure> {
    if let Some(name) = &args.namespace {
        check_namespace(name)?;
    }
    // A server cannot start before there is an agent that supervises it (AG92).
    if args.delay_enroll && args.server.is_wanted() {
        return Err(Failure::new(exit::USAGE, "--delay-enroll cannot be combined with a fleet server on this host"));
    }
    let target = target(layout, args)?;
    let found = removal::find(layout)?;
    // A replaced installation keeps its service manager.
    let former = match &found {
        Found::Whole(former) | Found::Broken(former) => Some(former),
        Found::Nothing => None,
    };
    // An explicit choice first, then what is there.
    let manager = args.service.or(former.map(|former| former.manager)).unwrap_or_else(Manager::detect);
    let installation = record(args, manager, former);
    if matches!(found, Found::Whole(_)) && !args.force {
        let message = format!("muster-agent is already installed in {}", layout.base());
        return Err(Failure::new(exit::ALREADY_ENROLLED, message).hint("to replace it, add --force"));
    }
    check_base(layout.base())?;
    check_service(layout, args, manager)?;
    check_other(layout, &installation)?;
    // Its files would be replaced under a running program.
    if removal::is_running(layout) && found == Found::Nothing {
        let message = format!("an agent that is not installed is running in {}", layout.base());
        return Err(Failure::new(exit::FAILED, message).hint("stop it first"));
    }
    // Kept for the case that the new version does not start.
    let former = homes::active(layout).ok().flatten();
    let files = [layout.fleet(), layout.state(), layout.policy_file()];
    let used = files.iter().any(|path| path.symlink_metadata().is_ok());
    Ok(Job { layout: layout.clone(), target, found, former, used, installation })
}

fn check_namespace(name: &str) -> Result<(), Failure> {
    let plain = !name.is_empty() && name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain {
        return Ok(());
    }
    Err(Failure::new(exit::USAGE, format!("--namespace: {name:?} is not a name"))
        .hint("use at most 32 letters, digits and hyphens"))
}

/// Checks what a service needs: root, and a base path that nobody else can change.
fn check_service(layout: &Layout, args: &Args, manager: Manager) -> Result<(), Failure> {
    let root = nix::unistd::geteuid().is_root();
    let wants_account = args.unprivileged || args.user.is_some() || args.group.is_some();
    if !root && (manager != Manager::None || wants_account) {
        let failure = Failure::new(exit::PERMISSION, "installing a service requires root");
        return Err(failure.hint("run it with sudo, or pass --service none to install without a service"));
    }
    if manager != Manager::None && !definition::is_plain(layout.base()) {
        let message = format!("--base-path: {} contains characters that services cannot use", layout.base());
        return Err(Failure::new(exit::USAGE, message).hint("use letters, digits and the characters / . _ + - @"));
    }
    base_dir::check_ancestors(layout.base())
        .map_err(|error| Failure::new(exit::USAGE, format!("--base-path: {error}")).hint("choose another base path"))
}

/// Checks that the service does not belong to an installation in another base path.
fn check_other(layout: &Layout, installation: &Installation) -> Result<(), Failure> {
    let other = installation.service().base_path().filter(|base| base != layout.base()).map(Layout::new);
    // A definition without its files is left from something that was deleted (AG155).
    let Some(other) = other.filter(|other| other.installation().symlink_metadata().is_ok()) else { return Ok(()) };
    let message = format!("service {} runs the installation in {}", installation.service, other.base());
    Err(Failure::new(exit::ALREADY_ENROLLED, message)
        .hint("to install another agent on this host, add --namespace NAME"))
}

fn record(args: &Args, manager: Manager, former: Option<&Installation>) -> Installation {
    let service = match (&args.namespace, former) {
        (Some(name), _) => format!("muster-agent-{name}"),
        (None, Some(former)) => former.service.clone(),
        (None, None) => "muster-agent".into(),
    };
    let command = (nix::unistd::geteuid().is_root() && manager != Manager::None)
        .then(|| camino::Utf8Path::new("/usr/local/bin").join(&service));
    // An unprivileged agent stays one.
    let account = former.and_then(|former| former.account.clone());
    let installed_at = SystemClock.now().to_rfc3339_millis();
    Installation { version: INSTALLATION_VERSION, manager, service, account, command, installed_at }
}

/// Performs the steps. On failure, returns the job so that it can be undone.
async fn install(mut job: Job, args: &Args, interrupt: &Interrupt) -> Result<String, (Box<Job>, Failure)> {
    match perform(&mut job, args, interrupt).await {
        Ok(message) => Ok(message),
        Err(failure) => Err((Box::new(job), failure)),
    }
}

async fn perform(job: &mut Job, args: &Args, interrupt: &Interrupt) -> Result<String, Failure> {
    let layout = job.layout.clone();
    let store = DiskStore::new(layout.clone());
    let former = enroll::former(&store, true)?;
    // Refused before anything changes if it is not root's.
    LocalServer::load(&layout)?;
    store.prepare()?;
    // Before every other step: whatever follows is found by `uninstall`.
    job.installation.save(&layout)?;
    if let Err(error) = Notifier::take_over(&layout, &System).await {
        eprintln!("Warning: the notices of an earlier uninstallation: {}", chain(&error));
    }
    if job.installation.account.is_none() && (args.unprivileged || args.user.is_some() || args.group.is_some()) {
        let made = account::prepare(args.user.as_deref(), args.group.as_deref()).await;
        job.installation.account = Some(made.map_err(|error| failed("account", &error))?);
        // Saved again, because an account was created that must be removed as well.
        job.installation.save(&layout)?;
    }
    if let Found::Whole(former) | Found::Broken(former) = &job.found {
        removal::stop(&layout, former).await.map_err(|error| failed("stopping the former version", &error))?;
    }
    // The program is copied before the link is changed, so that the link never leads to an incomplete version.
    let name = program::install(&layout, version::agent_version(), &System)
        .map_err(|error| failed("copying the program", &error))?;
    homes::activate(&layout, &name).map_err(|error| failed("linking the program", &error))?;
    if job.target.is_some() {
        enroll::renew_unusable_key(&store).await?;
    }
    steps::prepare(&layout, &job.installation, args.delay_enroll).await?;
    // After the program is in place: an enrollment without an agent would leave an agent behind that never checks in.
    match &job.target {
        Some(Target::Remote(plan)) if args.delay_enroll => delayed::store(&layout, plan)?,
        Some(target) => {
            let (plan, item) = enroll::join_at(&store, &layout, target, &former, &args.options, interrupt).await?;
            enroll::say_farewell(&layout, former, &item.id, &plan).await;
        }
        // Without a fleet, the agent runs what a file says, unless it is enrolled already.
        None => drop(standalone::prepare(&layout, &store)?),
    }
    // Last: every step before this runs as root, and creates files that belong to it.
    steps::own(&layout, &job.installation)?;
    let message = interrupt.unless(finish(job, args)).await?;
    let server = job.target.as_ref().and_then(Target::describe);
    Ok(server.map_or_else(|| message.clone(), |server| format!("{message}\n{server}")))
}

/// Starts the agent if it can run, and waits until it responds (AG155).
async fn finish(job: &Job, args: &Args) -> Result<String, Failure> {
    let (layout, installation) = (&job.layout, &job.installation);
    let place = format!("muster-agent {} is installed in {}", version::agent_version(), layout.base());
    let run = format!("{} run --base-path {}", layout.link(), layout.base());
    let store = DiskStore::new(layout.clone());
    let enrolled = crate::state::Store::enrollment(&store)?.is_some();
    let is_standalone = !enrolled && !args.delay_enroll && standalone::is_standalone(layout, &store);
    let to_enroll = format!("To enroll it: {} enroll --url URL --enrollment-token TOKEN", layout.link());
    // It was unenrolled.
    if !enrolled && !args.delay_enroll && !is_standalone {
        return Ok(format!("{place}, but not started. {to_enroll}"));
    }
    let alone = if is_standalone {
        format!("\nIt is standalone: its policy is {}. {to_enroll}", layout.policy_file())
    } else {
        String::new()
    };
    if installation.manager == Manager::None {
        return Ok(format!("{place}, without a service manager. To start it: {run}{alone}"));
    }
    if args.delay_enroll {
        return Ok(format!(
            "{place}. It enrolls when the host boots, or when the service {} is started",
            installation.service
        ));
    }
    installation.service().start().await.map_err(|error| failed("starting the service", &error))?;
    wait_for_daemon(layout, args.daemon_timeout).await?;
    Ok(format!("{place} and running as service {}{alone}", installation.service))
}

/// Restores what was there before. What remains is named, because the command fails anyway.
async fn undo(job: &Job) {
    let (layout, installation) = (&job.layout, &job.installation);
    let undone = match (&job.found, &job.former) {
        // The base path was used before, so its enrollment and state are not removed.
        (Found::Nothing, _) if job.used => {
            removal::remove_installation(layout, installation).await.map_err(|error| chain(&error).to_string())
        }
        (Found::Nothing, _) => undo_new(layout, installation).await,
        // The former version, with its enrollment, continues.
        (Found::Whole(former) | Found::Broken(former), name) => {
            steps::restore(layout, former, name.as_ref()).await.map_err(|failure| failure.message)
        }
    };
    match undone {
        Ok(()) => eprintln!("The installation was undone"),
        Err(reason) => eprintln!("Warning: the installation was not undone completely: {reason}"),
    }
}

/// Removes a new installation. An agent that the server knows already is reported as gone.
async fn undo_new(layout: &Layout, installation: &Installation) -> Result<(), String> {
    let store = DiskStore::new(layout.clone());
    if let Ok(Some(enrollment)) = crate::state::Store::enrollment(&store) {
        super::uninstall::notify_once(&enrollment, "install", Some("the installation failed")).await;
    }
    // The service may not exist yet.
    let _ = removal::stop(layout, installation).await;
    removal::remove(layout, installation).await.map_err(|error| chain(&error).to_string())
}

fn failed(step: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(exit::FAILED, format!("{step}: {}", chain(error)))
}
