//! The service of actions. A request creates one action, however many targets it has.
//!
//! All operations use [`submit`]: it checks every selected agent, commits the action with the eligible agents as
//! targets and a failed result for each other one, and applies the action's immediate effect to the records. Core
//! decides eligibility (`eligibility`), validates requests (`action_request`) and computes effects (`lifecycle`).

mod any;
mod cancel;
mod effect;
mod facts;
mod migrate;
mod reassign;
mod secrets;
mod submit;
mod survey;
mod unenroll;
mod upgrade;

use std::sync::Arc;

use muster_core::Entropy;
use muster_core::action::Action;
use muster_core::id::AgentId;
use muster_core::time::Clock;
use muster_core::version::AcceptedVersions;

pub use cancel::Cancellation;
pub use migrate::MigrateRequest;
pub use survey::{Eligible, Surveyed};
pub use upgrade::UpgradeRequest;

use super::policy_cache::PolicyCache;
use super::records::Records;
use super::registry::Registry;
use super::secrets::SealedSecrets;
use super::watched_store::WatchedStore;

/// Agents read at a time: a selection may have a hundred thousand, each with its documents.
const READ_BATCH: usize = 1000;

/// Actions: created, listed, cancelled, and finished after a crash.
pub struct Actions {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    registry: Arc<Registry>,
    records: Arc<Records>,
    secrets: Arc<SealedSecrets>,
    /// Rendered policies. Agents can be assigned only to a revision that renders.
    policies: Arc<PolicyCache>,
    /// Versions that agents can be upgraded to.
    accepted: AcceptedVersions,
}

impl Actions {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        records: Arc<Records>,
        secrets: Arc<SealedSecrets>,
        policies: Arc<PolicyCache>,
        accepted: AcceptedVersions,
    ) -> Self {
        // The registry of `records`, and not one of its own: an effect must update the entries that polls hold.
        let registry = Arc::clone(&records.registry);
        Self { store, clock, entropy, registry, records, secrets, policies, accepted }
    }
}

/// A created action.
#[derive(Debug)]
pub struct Submitted {
    /// The action; in a dry run, as it would be created.
    pub action: Action,
    /// Number of eligible targets.
    pub targets: u64,
    /// Agents that were not eligible, with the reasons.
    pub refused: Vec<(AgentId, String)>,
}
