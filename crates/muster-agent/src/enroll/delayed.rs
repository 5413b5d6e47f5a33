//! An enrollment that takes place at the first start: hosts that are installed from an image enroll themselves, each
//! under an id of its own. The request is stored sealed, because it contains the enrollment token.

use std::sync::Arc;
use std::time::Duration;

use super::join::Joining;
use super::plan::{PLAN_VERSION, Plan};
use super::{OnRejection, Patience};
use crate::entropy::System;
use crate::exit::Failure;
use crate::host::HostFacts;
use crate::net::Transport;
use crate::paths::Layout;
use crate::state::StoreError;
use crate::state::disk::DiskStore;

/// Stores the request for the next start.
pub fn store(layout: &Layout, plan: &Plan) -> Result<(), StoreError> {
    let store = DiskStore::new(layout.clone());
    store.prepare()?;
    store.save(&layout.delayed_enrollment(), plan)
}

/// Returns the stored request, if any.
pub fn pending(layout: &Layout) -> Result<Option<Plan>, StoreError> {
    DiskStore::new(layout.clone()).load(&layout.delayed_enrollment(), PLAN_VERSION)
}

/// Enrolls, retrying until the server accepts the agent, and removes the request.
pub async fn enroll(
    layout: &Layout,
    store: &DiskStore,
    plan: &Plan,
    transport: Arc<dyn Transport>,
) -> Result<(), Failure> {
    let patience = Patience {
        timeout: None,
        attempts: None,
        backoff_init: Duration::from_secs(60),
        backoff_max: Duration::from_secs(600),
        spread: Duration::from_secs(1),
        rejection: OnRejection::Retry,
    };
    let progress = |line: &str| tracing::warn!(reason = line, "not enrolled yet");
    let joining = Joining {
        plan,
        transport,
        former: None,
        patience: &patience,
        progress: &progress,
        facts: &HostFacts,
        entropy: Arc::new(System),
    };
    let (item, _) = joining.join(store).await?;
    tracing::info!(agent = item.id, "enrolled");
    // Removed last: if the agent is killed before, it enrolls again, but never not at all.
    Ok(store.remove(&layout.delayed_enrollment())?)
}
