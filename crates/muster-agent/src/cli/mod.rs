//! The command line.

mod account;
mod container;
mod elasticsearch_options;
mod enroll;
mod enroll_options;
mod enrolling;
mod guard;
mod inspect;
mod install;
mod notify;
mod prompt;
mod reset_identity;
mod run;
mod secret_value;
mod server_options;
mod signals;
mod standby;
mod status;
mod tools;
mod unenroll;
mod uninstall;
mod uninstall_services;
mod upgrade;
mod verify_unprotected;

use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Parser, Subcommand};

use crate::base_dir::{self, BadBase};
use crate::control::client;
use crate::coordinator::report::Snapshot;
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::fleet::FleetClient;
use crate::net::Transport;
use crate::net::extra_headers;
use crate::net::http1::Http1;
use crate::net::proxy::Proxy;
use crate::net::tls::{self, TrustError};
use crate::notice::Notice;
use crate::paths::Layout;
use crate::state::enrollment::Trust;
use muster_core::error_chain::chain;

/// Base path, unless the program is in one.
const BASE_PATH: &str = "/opt/muster-agent";
/// Interval at which a starting daemon is observed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Endpoint agent that applies a policy, runs actions and supervises programs
#[derive(Debug, Parser)]
#[command(name = "muster-agent", version = crate::version::agent_version(), max_term_width = 100)]
pub struct Cli {
    /// Directory in which the agent stores its data [default: that of the installed program, or /opt/muster-agent]
    #[arg(long, global = true, env = "MUSTER_AGENT_BASE_PATH")]
    base_path: Option<Utf8PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install the agent on this host, enroll it, and run it as a service
    ///
    /// On a terminal, the command asks for what it needs, unless --url,
    /// --enrollment-token or --non-interactive is passed. Without a
    /// fleet, the agent is standalone: it runs the policy in the file
    /// policy.yml in its base path.
    #[command(
        after_help = "Examples:\n  muster-agent install\n  muster-agent install --url https://fleet.example:8220 --enrollment-token @token --certificate-authorities ca.crt\n  muster-agent install --non-interactive --unprivileged\n  muster-agent install --fleet-server --url https://fleet.example:8220\n  muster-agent install --fleet-server-es https://es.example:9200 --fleet-server-service-token @/run/es-token"
    )]
    Install(Box<install::Args>),
    /// Uninstall the agent: stop it, notify the server, and delete program and data
    #[command(
        after_help = "Examples:\n  muster-agent uninstall\n  muster-agent uninstall --force --reason \"host is replaced\"\n  muster-agent uninstall --uninstall-token /run/uninstall-token"
    )]
    Uninstall(uninstall::Args),
    /// Enroll this host in a fleet
    #[command(
        after_help = "Examples:\n  muster-agent enroll --url https://fleet.example:8220 --enrollment-token @/run/token\n  muster-agent enroll --fleet-server\n  muster-agent enroll --fleet-server-es https://es.example:9200 --fleet-server-service-token-path /run/es-token"
    )]
    Enroll(Box<enroll::Args>),
    /// Run the agent (the default)
    Run(run::Args),
    /// Enroll if necessary and run the agent, as set by the environment variables of a container
    Container(run::Args),
    /// Show the agent's status
    #[command(
        after_help = "Examples:\n  muster-agent status\n  muster-agent status --output json\n  muster-agent status --watch"
    )]
    Status(status::Args),
    /// Show the stored configuration, without secrets
    Inspect(inspect::Args),
    /// Show what protects this agent against its removal, and what does not
    ///
    /// Exits with 0 if there is no gap, and with 15 if there is one.
    /// Run it as root: other users cannot read what is stored.
    #[command(
        after_help = "Examples:\n  muster-agent verify-unprotected\n  muster-agent verify-unprotected --output json"
    )]
    VerifyUnprotected(verify_unprotected::Args),
    /// Upgrade the agent, or return to the previous version
    ///
    /// The daemon carries out the upgrade, even if this command is
    /// interrupted. If the new version does not work, the daemon
    /// returns to the previous one.
    #[command(
        after_help = "Examples:\n  muster-agent upgrade 0.2.0\n  muster-agent upgrade 0.2.0 --source-uri file:///mnt/packages\n  muster-agent upgrade 0.1.0 --rollback\n  muster-agent upgrade 0.2.0 --force"
    )]
    Upgrade(upgrade::Args),
    /// Watch an upgrade
    #[command(hide = true)]
    Watch(upgrade::WatchArgs),
    /// Count a start during an upgrade
    #[command(hide = true)]
    Guard,
    /// Restart the daemon and its components
    Restart,
    /// Print the versions of this program and of the daemon
    Version(tools::VersionArgs),
    /// Print the log of the agent or of a component
    Logs(tools::LogsArgs),
    /// Write a diagnostics bundle without secrets, even if no daemon is running
    Diagnostics(tools::DiagnosticsArgs),
    /// Print completions for a shell
    Completions(tools::CompletionsArgs),
    /// Unenroll this host: stop all programs, notify the server, and delete credentials and policy
    Unenroll(unenroll::Args),
    /// Run the installed agent as a user without privileges
    Unprivileged(account::UnprivilegedArgs),
    /// Run the installed agent as root
    Privileged(account::PrivilegedArgs),
    /// Delete the agent's identity, on a copy of another host or before an image is created
    ResetIdentity(Box<reset_identity::Args>),
    /// Deliver the notices of an uninstalled agent
    #[command(hide = true)]
    Notify(notify::Args),
}

/// Runs the command; returns the exit code.
pub async fn main(cli: Cli) -> u8 {
    match dispatch(cli).await {
        Ok(code) => code,
        // Failures are printed only here. Every command returns them with their exit code.
        Err(failure) => {
            eprintln!("Error: {}", failure.message);
            if let Some(hint) = failure.hint {
                eprintln!("hint: {hint}");
            }
            failure.code
        }
    }
}

async fn dispatch(cli: Cli) -> Result<u8, Failure> {
    // `run` is the default (AG1).
    let command = cli.command.unwrap_or(Command::Run(run::Args::default()));
    let namespace = if let Command::Install(args) = &command { args.namespace() } else { None };
    let is_named = cli.base_path.is_some();
    let base = cli.base_path.unwrap_or_else(|| default_base(namespace, matches!(command, Command::Container(_))));
    // A relative path would depend on the directory from which somebody installs (AG3).
    if matches!(command, Command::Install(_)) && !base.is_absolute() {
        return Err(Failure::new(exit::USAGE, format!("--base-path: {base} is not absolute")));
    }
    let layout = Layout::new(absolute(&base)?);
    match command {
        Command::Install(args) => install::run(&layout, *args).await,
        Command::Uninstall(args) => uninstall::run(&layout, &args).await,
        Command::Enroll(args) => enroll::run(&layout, *args).await,
        Command::Run(args) => run::run(&layout, &args).await,
        Command::Container(args) => container::run(&layout, &args).await,
        Command::Status(args) => status::run(&layout, &args).await,
        Command::Inspect(args) => inspect::run(&layout, &args),
        Command::VerifyUnprotected(args) => verify_unprotected::run(&layout, &args),
        Command::Upgrade(args) => upgrade::run(&layout, &args).await,
        Command::Watch(args) => upgrade::watch(&layout, &args).await,
        Command::Guard => upgrade::guard(&layout),
        Command::Restart => tools::restart(&layout).await,
        Command::Version(args) => tools::version(&layout, &args, is_named).await,
        Command::Logs(args) => tools::logs(&layout, &args).await,
        Command::Diagnostics(args) => tools::diagnostics(&layout, &args).await,
        Command::Completions(args) => Ok(tools::completions(&args)),
        Command::Unenroll(args) => unenroll::run(&layout, &args).await,
        Command::Unprivileged(args) => account::unprivileged(&layout, &args).await,
        Command::Privileged(args) => account::privileged(&layout, &args).await,
        Command::ResetIdentity(args) => reset_identity::run(&layout, &args).await,
        Command::Notify(args) => notify::run(&args).await,
    }
}

/// Returns the base path if none was passed: that of the installed program, so that its commands need no flag.
fn default_base(namespace: Option<&str>, is_container: bool) -> Utf8PathBuf {
    if let Some(name) = namespace {
        return Utf8PathBuf::from(format!("{BASE_PATH}-{name}"));
    }
    let own = std::env::current_exe().ok().and_then(|path| Utf8PathBuf::from_path_buf(path).ok());
    // BASE/versions/NAME/muster-agent
    let base = own.as_ref().and_then(|program| program.ancestors().nth(3).map(Layout::new));
    match base.filter(|layout| layout.installation().symlink_metadata().is_ok()) {
        Some(layout) => layout.base().to_owned(),
        None => state_path(is_container).unwrap_or_else(|| BASE_PATH.into()),
    }
}

/// Returns the directory in which containers of Elastic's images keep their state: there is the volume. Other commands find the
/// agent there that the container runs.
fn state_path(is_container: bool) -> Option<Utf8PathBuf> {
    let path = Utf8PathBuf::from(std::env::var("STATE_PATH").ok()?);
    let is_used = is_container || Layout::new(&path).lock().symlink_metadata().is_ok();
    (path.is_absolute() && is_used).then_some(path)
}

fn absolute(path: &Utf8Path) -> Result<Utf8PathBuf, Failure> {
    // The path must be absolute, because programs run in other working directories and get paths below this one.
    let made = std::path::absolute(path).map_err(|error| Failure::new(exit::USAGE, format!("{path}: {error}")))?;
    let made = Utf8PathBuf::from_path_buf(made)
        .map_err(|path| Failure::new(exit::USAGE, format!("{} is not UTF-8", path.display())))?;
    // Without a slash at the end, to which names of directories beside this one are added.
    Ok(made.components().collect())
}

/// Waits until the daemon responds on its control socket.
async fn wait_for_daemon(layout: &Layout, limit: Duration) -> Result<Snapshot, Failure> {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let asked = client::call(&layout.socket(), http::Method::GET, "/v1/status", LOOK_EVERY * 100).await;
        if let Ok(Some(snapshot)) = asked {
            return Ok(snapshot);
        }
        if tokio::time::Instant::now() > deadline {
            let failure = Failure::new(exit::TIMEOUT, format!("the agent did not respond within {limit:?}"));
            return Err(failure.hint(format!("its log is in {}", layout.logs())));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Creates a client that uses the credential and the servers of a notice.
fn connect(notice: &Notice) -> Result<FleetClient, String> {
    let transport = transport(&notice.trust).map_err(|failure| failure.message)?;
    Ok(FleetClient::new(transport, notice.servers(), notice.access_api_key.clone(), Arc::new(System)))
}

/// Creates a network client that reaches and verifies servers as specified in `trust`.
fn transport(trust: &Trust) -> Result<Arc<dyn Transport>, Failure> {
    let tls = tls::client_config(trust).map_err(|error| match &error {
        TrustError::BadFingerprint(_) => Failure::new(exit::USAGE, format!("--ca-sha256: {error}")),
        _ => Failure::new(exit::TLS, chain(&error).to_string()),
    })?;
    let tunnel = trust.proxy.as_ref().map(Proxy::tunnel).transpose();
    let tunnel = tunnel.map_err(|error| Failure::new(exit::USAGE, format!("the proxy: {error}")))?;
    let headers = extra_headers::parse(&trust.headers);
    let headers = headers.map_err(|error| Failure::new(exit::USAGE, error.to_string()))?;
    Ok(Arc::new(Http1::new(tls).through(tunnel).with_headers(headers)))
}

/// Checks that the base path is a directory that this agent may own.
fn check_base(base: &Utf8Path) -> Result<(), Failure> {
    base_dir::check(base).map_err(|error| {
        let (code, hint) = match &error {
            BadBase::Io { .. } => (exit::PERMISSION, "run muster-agent as a user that can write there, or"),
            BadBase::Owner { .. } => (exit::PERMISSION, "run muster-agent as the owner, or"),
            _ => (exit::USAGE, "the agent needs its own directory:"),
        };
        Failure::new(code, format!("--base-path: {error}"))
            .hint(format!("{hint} pass --base-path with a directory that is empty or does not exist yet"))
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::control::server::{self, Control};
    use crate::coordinator;

    #[test]
    fn a_base_path_with_a_slash_at_its_end_is_the_same_directory() {
        for path in ["/opt/agent", "/opt/agent/", "/opt//./agent//"] {
            assert_eq!(absolute(Utf8Path::new(path)).unwrap(), "/opt/agent");
        }
    }

    #[tokio::test]
    async fn ag155_the_agent_counts_as_started_once_it_responds() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
        fs_err::create_dir(layout.run()).unwrap();
        let soon = Duration::from_millis(100);
        assert_eq!(wait_for_daemon(&layout, soon).await.unwrap_err().code, exit::TIMEOUT, "no socket");
        let (commands, mut received) = mpsc::channel(1);
        let _control = Control::start(server::bind(&layout.socket()).unwrap(), commands);
        let waiting = wait_for_daemon(&layout, Duration::from_secs(30));
        let answering = async {
            tokio::time::sleep(soon).await;
            let Some(coordinator::Command::Status(reply)) = received.recv().await else { panic!("no status") };
            reply.send(standby::snapshot("x", Vec::new())).unwrap();
        };
        assert_eq!(tokio::join!(waiting, answering).0.unwrap().message, "x");
    }
}
