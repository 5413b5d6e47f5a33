//! `muster-agent unprivileged` and `muster-agent privileged` (AG49).

use std::time::Duration;

use muster_core::error_chain::chain;

use super::guard::{Guarded, guard};
use super::wait_for_daemon;
use crate::duration;
use crate::exit::{self, Failure};
use crate::install::removal::{self, Found};
use crate::install::{Account, Installation, Manager, account, steps};
use crate::paths::Layout;
use crate::state::disk::DiskStore;

/// Arguments of `unprivileged`.
#[derive(Debug, clap::Args)]
pub struct UnprivilegedArgs {
    /// Existing user to run the agent as [default: muster-agent, which is created]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Existing group for this user [default: muster-agent, which is created]
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    guarded: Guarded,
}

/// Arguments of `privileged`.
#[derive(Debug, clap::Args)]
pub struct PrivilegedArgs {
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, clap::Args)]
struct Waiting {
    /// Maximum time for the restarted agent to respond
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration::parse)]
    daemon_timeout: Duration,
}

/// Runs the agent as a user without privileges.
pub async fn unprivileged(layout: &Layout, args: &UnprivilegedArgs) -> Result<u8, Failure> {
    let installation = service(layout)?;
    // An unprivileged agent can do less to protect the host.
    guard(layout, &DiskStore::new(layout.clone()), "unprivileged", &args.guarded).await?;
    let made = account::prepare(args.user.as_deref(), args.group.as_deref()).await;
    let made = made.map_err(|error| Failure::new(exit::FAILED, format!("account: {}", chain(&error))))?;
    change(layout, installation, Some(made), args.waiting.daemon_timeout).await
}

/// Runs the agent as root.
pub async fn privileged(layout: &Layout, args: &PrivilegedArgs) -> Result<u8, Failure> {
    change(layout, service(layout)?, None, args.waiting.daemon_timeout).await
}

/// Returns the installation, which must be a service, because only a service manager can change its user.
fn service(layout: &Layout) -> Result<Installation, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(
            Failure::new(exit::PERMISSION, "changing the user of a service requires root").hint("run it with sudo")
        );
    }
    match removal::find(layout)? {
        Found::Whole(installation) if installation.manager != Manager::None => Ok(installation),
        Found::Whole(_) => Err(Failure::new(
            exit::FAILED,
            format!(
                "the agent in {} was installed without a service, so that whoever starts it decides its user",
                layout.base()
            ),
        )),
        _ => Err(Failure::new(exit::FAILED, format!("no service is installed in {}", layout.base()))
            .hint("install the agent first: muster-agent install")),
    }
}

async fn change(
    layout: &Layout,
    former: Installation,
    account: Option<Account>,
    limit: Duration,
) -> Result<u8, Failure> {
    // Before the files change hands: a running agent would write new ones as its former user.
    removal::stop(layout, &former).await.map_err(|error| Failure::new(exit::FAILED, chain(&error).to_string()))?;
    // The account that was used before is kept: files outside of the base path may belong to it.
    let next = Installation { account, ..former.clone() };
    let changed = async {
        next.save(layout)?;
        steps::own(layout, &next)?;
        steps::register(layout, &next).await?;
        next.service().start().await.map_err(|error| Failure::new(exit::FAILED, chain(&error).to_string()))?;
        wait_for_daemon(layout, limit).await
    };
    if let Err(failure) = changed.await {
        steps::restore(layout, &former, None).await?;
        // Otherwise the next attempt would find the account, and uninstall would never remove it.
        if let Some(made) = &next.account {
            account::remove(made).await.map_err(|error| Failure::new(exit::FAILED, chain(&error).to_string()))?;
        }
        return Err(failure);
    }
    println!("The agent now runs as {}", next.account.as_ref().map_or("root", |account| account.user.as_str()));
    Ok(exit::DONE)
}
