//! `muster-agent notify`: the notifier, which an uninstallation leaves behind.

use camino::Utf8PathBuf;
use muster_core::error_chain::chain;
use nix::fcntl::{Flock, FlockArg};

use super::connect;
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::install::notifier::Notifier;

/// Arguments of `notify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the notifier
    #[arg(long, value_name = "DIR")]
    directory: Utf8PathBuf,
}

/// Delivers the notices, and removes the notifier when none is left.
pub async fn run(args: &Args) -> Result<u8, Failure> {
    let notifier = Notifier::open(&args.directory).map_err(|error| failed(&error))?;
    // A second one would send everything twice.
    let lock = std::fs::File::open(&args.directory).map_err(|error| failed(&error))?;
    let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
        return Err(Failure::new(exit::FAILED, format!("another notifier is running in {}", args.directory)));
    };
    notifier.spool().deliver_all(&connect, &System).await?;
    notifier.remove().await.map_err(|error| failed(&error))?;
    Ok(exit::DONE)
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(exit::FAILED, chain(error).to_string())
}
