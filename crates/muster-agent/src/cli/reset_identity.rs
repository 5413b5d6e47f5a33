//! `muster-agent reset-identity`: for copies of a host, and before an image is made of it.

use super::enroll_options::Options;
use super::guard::{Guarded, guard};
use crate::enroll::delayed;
use crate::exit::{self, Failure};
use crate::host::fingerprint::Fingerprint;
use crate::install::removal;
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
        return Err(
            Failure::new(exit::FAILED, "the agent is running").hint("stop it first: systemctl stop muster-agent")
        );
    }
    let store = DiskStore::new(layout.clone());
    guard(layout, &store, "reset-identity", &args.guarded).await?;
    let enrollment = store.enrollment()?;
    if args.keep_id {
        return keep(&store, enrollment);
    }
    // The state first, so that nothing of the original can run under a new identity.
    store.save_state(&State::default())?;
    store.forget_enrollment()?;
    if let Some(plan) = plan {
        delayed::store(layout, &plan)?;
        println!("The agent enrolls when it is started");
    } else {
        println!("The agent has no identity; to enroll it: muster-agent enroll --url URL");
    }
    Ok(exit::DONE)
}

fn keep(store: &DiskStore, enrollment: Option<Enrollment>) -> Result<u8, Failure> {
    let Some(enrollment) = enrollment else {
        return Err(Failure::new(exit::NOT_ENROLLED, "the agent is not enrolled"));
    };
    store.save_enrollment(&Enrollment { machine: Some(Fingerprint::here()), ..enrollment })?;
    println!("The agent keeps its id on this machine");
    Ok(exit::DONE)
}
