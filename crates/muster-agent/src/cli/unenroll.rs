//! `muster-agent unenroll`.

use std::sync::Arc;
use std::time::Duration;

use super::guard::{Guarded, guard};
use super::transport;
use crate::clock::SystemClock;
use crate::control::{Answer, client};
use crate::coordinator::leave;
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::fleet::FleetClient;
use crate::net::Server;
use crate::paths::Layout;
use crate::state::disk::DiskStore;
use crate::state::{Enrollment, Store, StoreError};
use muster_core::error_chain::chain;

/// Maximum time for the daemon to stop its programs and notify the server. Both steps also have their own timeouts.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(120);

/// Arguments of `unenroll`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not notify the server
    #[arg(long)]
    skip_fleet_audit: bool,
    #[command(flatten)]
    guarded: Guarded,
}

/// Unenrolls the agent, through the daemon if it is running.
pub async fn run(layout: &Layout, args: &Args) -> Result<u8, Failure> {
    let store = DiskStore::new(layout.clone());
    // A standalone agent has no fleet to leave, and its daemon must go on.
    if matches!(store.enrollment(), Ok(None)) {
        return Err(not_enrolled(layout));
    }
    guard(layout, &store, "unenroll", &args.guarded).await?;
    let asked = client::call(&layout.socket(), http::Method::POST, "/v1/unenroll", DAEMON_TIMEOUT).await?;
    let warning = match asked {
        Some(Answer { warning }) => warning,
        None => alone(layout, &store, args).await?,
    };
    if let Some(warning) = warning {
        eprintln!("Warning: {warning}");
    }
    println!("Unenrolled; credentials and policy deleted");
    Ok(exit::DONE)
}

fn not_enrolled(layout: &Layout) -> Failure {
    Failure::new(exit::NOT_ENROLLED, format!("no agent is enrolled under {}", layout.base()))
}

async fn alone(layout: &Layout, store: &DiskStore, args: &Args) -> Result<Option<String>, Failure> {
    let warning = match store.enrollment() {
        Ok(None) => return Err(not_enrolled(layout)),
        Ok(Some(_)) if args.skip_fleet_audit => None,
        Ok(Some(enrollment)) => tell(&enrollment).await.err(),
        // A corrupt document must not prevent the removal of the agent.
        Err(error @ (StoreError::Damaged { .. } | StoreError::Locked { .. } | StoreError::Newer { .. })) => {
            Some(chain(&error).to_string())
        }
        Err(error) => return Err(error.into()),
    };
    // Credentials are deleted even if the server was not notified: the user wants the agent to leave.
    leave::forget(store)?;
    Ok(warning)
}

async fn tell(enrollment: &Enrollment) -> Result<(), String> {
    let transport = transport(&enrollment.trust_in_effect()).map_err(|failure| failure.message)?;
    let servers = enrollment.servers.iter().filter_map(|url| Server::parse(url).ok()).collect();
    let client = FleetClient::new(transport, servers, enrollment.access_api_key.clone(), Arc::new(System));
    let told =
        leave::tell(&client, &enrollment.agent_id, "uninstall", leave::AUDIT_TIMEOUT, &SystemClock, &System).await;
    told.map_err(|error| format!("the server was not notified: {}", chain(&error)))
}
