//! The service of actions: one action each, whatever the number of its targets.
//!
//! [`Actions::give`](give) is the one way: it asks of every selected agent whether it can be a target, commits the action
//! with those that can as targets and an error result for each that can't, and then changes the records that the
//! action itself changes. Who can be a target of what is decided in core's `eligibility`, what a valid action is in its
//! `order`, and what an action does to a record before its ack in its `lifecycle`.

mod any;
mod cancel;
mod effect;
mod facts;
mod give;
mod migrate;
mod reassign;
mod secrets;
mod unenroll;
mod upgrade;

use std::sync::Arc;

use muster_core::Entropy;
use muster_core::action::Action;
use muster_core::id::AgentId;
use muster_core::time::Clock;
use muster_core::version::AcceptedVersions;

pub use migrate::MigrateOrder;
pub use upgrade::UpgradeOrder;

use super::policy_cache::PolicyCache;
use super::records::Records;
use super::registry::Registry;
use super::secrets::SealedSecrets;
use super::watched_store::WatchedStore;

/// Actions: created, listed, cancelled, and finished after a crash.
pub struct Actions {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    registry: Arc<Registry>,
    records: Arc<Records>,
    secrets: Arc<SealedSecrets>,
    /// Rendered policies: a revision that agents are put on must be one of them.
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
        let registry = Arc::clone(&records.registry);
        Self { store, clock, entropy, registry, records, secrets, policies, accepted }
    }
}

/// An order that was given.
#[derive(Debug)]
pub struct Given {
    /// The action that was made.
    pub action: Action,
    /// Agents that it was addressed to.
    pub ordered: u64,
    /// Agents that could not be ordered, and why.
    pub refused: Vec<(AgentId, String)>,
}
