//! `muster-agent reset-identity`: for copies of a host, and before an image is made of it.

use super::enroll::renew_unusable_key;
use super::enroll_options::Options;
use super::guard::{Guarded, guard};
use super::status;
use crate::enroll::delayed;
use crate::exit::{self, Failure};
use crate::host::fingerprint::Fingerprint;
use crate::install::{Installation, Manager, removal, steps};
use crate::paths::Layout;
use crate::state::disk::DiskStore;
use crate::state::enrollment::Enrollment;
use crate::state::{State, Store};

/// Arguments of `reset-identity`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep the identity: this is the same machine with other hardware
    #[arg(long)]
    keep_id: bool,
    /// With --url and --enrollment-token, the agent enrolls as a new one when it is started
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    guarded: Guarded,
}

/// Forgets the identity, without notifying the server: the original of a copy is still there.
pub async fn run(layout: &Layout, args: &Args) -> Result<u8, Failure> {
    let plan = if args.options.is_absent() { None } else { Some(args.options.plan(&[])?) };
    if removal::is_running(layout) {
        return Err(Failure::new(exit::FAILED, "the agent is running").hint(how_to_stop(layout)));
    }
    let store = DiskStore::new(layout.clone());
    // A plan can be left where no agent has been enrolled yet.
    if plan.is_none() && [layout.fleet(), layout.state()].iter().all(|path| path.symlink_metadata().is_err()) {
        return Err(status::no_daemon(layout));
    }
    guard(layout, &store, "reset-identity", &args.guarded).await?;
    if args.keep_id {
        return keep(&store, store.enrollment()?);
    }
    renew_unusable_key(&store)?;
    // The state first, so that nothing of the original can run under a new identity.
    store.save_state(&State::default())?;
    store.forget_enrollment()?;
    if let Some(plan) = plan {
        steps::prepare_image(layout).await?;
        delayed::store(layout, &plan)?;
        println!("The agent enrolls when it is started");
    } else {
        println!("The agent has no identity; to enroll it: muster-agent enroll --url URL --enrollment-token TOKEN");
    }
    Ok(exit::DONE)
}

fn how_to_stop(layout: &Layout) -> String {
    let installation = Installation::load(layout).ok().flatten();
    match installation.as_ref().map(|found| (found.manager, &found.service)) {
        Some((Manager::Systemd, service)) => format!("stop it first: systemctl stop {service}"),
        Some((Manager::OpenRc, service)) => format!("stop it first: rc-service {service} stop"),
        _ => "stop it first: end the process of `muster-agent run` with SIGTERM".into(),
    }
}

fn keep(store: &DiskStore, enrollment: Option<Enrollment>) -> Result<u8, Failure> {
    let Some(enrollment) = enrollment else {
        return Err(Failure::new(exit::NOT_ENROLLED, "the agent is not enrolled"));
    };
    store.save_enrollment(&Enrollment { machine: Some(Fingerprint::here()), ..enrollment })?;
    println!("The agent keeps its id on this machine");
    Ok(exit::DONE)
}
