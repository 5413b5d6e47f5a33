//! The services over core and store: one `enroll`, one `check_in`, one `acknowledge`, one `revoke`, whatever the adapter.
//!
//! An operation loads, asks core to decide, commits, and tells this node's registry. It knows neither HTTP nor SQL.

pub mod acknowledge;
pub mod action_views;
pub mod agent_views;
pub mod artifacts;
pub mod audit;
pub mod audit_report;
pub mod authenticate;
pub mod change_feed;
pub mod check_in;
pub mod disk;
pub mod enroll;
pub mod files;
pub mod health;
pub mod housekeeping;
pub mod keys;
pub mod many;
pub mod membership;
pub mod moment;
pub mod offered_files;
pub mod orders;
pub mod output_health;
mod output_yaml;
pub mod outputs;
pub mod policies;
pub mod policy_cache;
pub mod refusals;
pub mod registry;
pub mod secrets;
pub mod selection;
pub mod status_timer;
pub mod system;
pub mod tags;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod throttle;
pub mod update;
pub mod upload_limits;
pub mod upload_views;
pub mod uploads;
mod vigil;
pub mod watched_store;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use muster_core::Entropy;
use muster_core::context::OpContext;
use muster_core::poll::PollLimits;
use muster_core::seal::Sealer;
use muster_core::signing::Signer;
use muster_core::time::Clock;
use muster_store::{Store, StoreError, Write};
use tokio::sync::watch;

use self::enroll::Enrolling;
use self::policies::output_uses::OutputUses;
use self::policy_cache::PolicyCache;
use self::refusals::Refusals;
use self::registry::Registry;
use self::throttle::Throttle;
use self::vigil::Vigil;
use self::watched_store::WatchedStore;

/// What operations need to know of the configuration.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// How long a check-in is held when there is nothing to deliver (`timeouts.checkin_long_poll`).
    pub long_poll: Duration,
    /// Upper bound of the random part subtracted from it (`timeouts.checkin_jitter`).
    pub poll_jitter: Duration,
    /// Cap on what a client may ask for (`timeouts.checkin_max_poll`).
    pub max_poll: Duration,
    /// What agents are told as `fleet.hosts`.
    pub external_urls: Vec<String>,
    /// Highest agent version that this server was tested with: major and minor (EA32).
    pub tested_version: (u32, u32),
    /// Highest agent version let in: major, and minor unless any.
    pub highest_version: (u32, Option<u32>),
    /// Lowest agent version let in: major and minor.
    pub lowest_version: (u32, u32),
    /// The commit that the program is made of; empty when it is not known.
    pub build_hash: String,
}

impl FleetSettings {
    /// The part that decides how long a poll is held.
    pub fn poll(&self) -> PollLimits {
        PollLimits { default: self.long_poll, max: self.max_poll, jitter: self.poll_jitter }
    }
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            long_poll: Duration::from_secs(300),
            poll_jitter: Duration::from_secs(30),
            max_poll: Duration::from_secs(3600),
            external_urls: Vec::new(),
            tested_version: (9, 5),
            highest_version: (9, None),
            lowest_version: (7, 13),
            build_hash: String::new(),
        }
    }
}

/// The fleet: everything that operations share.
pub struct Fleet {
    /// The store.
    pub store: WatchedStore,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The generator.
    pub entropy: Arc<dyn Entropy>,
    /// Seals what must be read back.
    pub sealer: Arc<Sealer>,
    /// Signs policies and actions.
    pub signer: Arc<Signer>,
    /// The configuration's part.
    pub settings: FleetSettings,
    /// Agents known to this node, and who of them is connected.
    pub registry: Registry,
    /// Rendered policies.
    pub policies: PolicyCache,
    /// The last row of the change log that this node handled.
    handled_changes: AtomicI64,
    /// Held while policies or outputs are changed: a revision is never compiled from what is about to change.
    revising: tokio::sync::Mutex<()>,
    /// Which outputs policies use.
    output_uses: OutputUses,
    enrolling: Enrolling,
    mismatches: Throttle,
    /// Requests of agents that this node refused.
    pub refusals: Refusals,
    vigil: Vigil,
    stopping: watch::Sender<bool>,
}

/// What a fleet stands on.
pub struct FleetParts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The generator.
    pub entropy: Arc<dyn Entropy>,
    /// Seals what must be read back.
    pub sealer: Arc<Sealer>,
    /// Signs policies and actions.
    pub signer: Arc<Signer>,
    /// The configuration's part.
    pub settings: FleetSettings,
}

impl Fleet {
    /// Commits what an operation came to; in a dry run nothing.
    pub(crate) async fn commit_for(&self, context: &OpContext, writes: Vec<Write>) -> Result<(), StoreError> {
        if context.is_dry_run() { Ok(()) } else { self.store.commit(writes).await.map(drop) }
    }

    /// A fleet over these parts. Its background work is started by [`Fleet::run_background`].
    pub fn new(parts: FleetParts) -> Arc<Self> {
        let FleetParts { store, clock, entropy, sealer, signer, settings } = parts;
        let handled_changes = AtomicI64::new(*store.changes().borrow());
        Arc::new(Self {
            handled_changes,
            policies: PolicyCache::new(Arc::clone(&store), Arc::clone(&sealer)),
            store: WatchedStore::new(store),
            vigil: Vigil::new(&*clock),
            clock,
            entropy,
            sealer,
            signer,
            settings,
            registry: Registry::default(),
            revising: tokio::sync::Mutex::default(),
            output_uses: OutputUses::default(),
            enrolling: Enrolling::default(),
            mismatches: Throttle::new(Duration::from_secs(60)),
            refusals: Refusals::default(),
            stopping: watch::Sender::new(false),
        })
    }

    /// Follows the change log, keeps statuses and keeps house until [`Fleet::stop`]; ends when all have ended.
    pub async fn run_background(self: Arc<Self>) {
        let feed = tokio::spawn(Arc::clone(&self).follow_changes());
        let statuses = tokio::spawn(Arc::clone(&self).keep_statuses());
        let trying = tokio::spawn(Arc::clone(&self).keep_trying_store());
        let house = tokio::spawn(self.keep_house());
        for task in [feed, statuses, trying, house] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a background task ended");
            }
        }
    }

    /// Releases every held poll with an empty answer (EA87) and ends the background work.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
        for entry in self.registry.select(registry::AgentEntry::is_connected) {
            entry.wake();
        }
    }

    /// Whether [`Fleet::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits for [`Fleet::stop`].
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // An error means that the sender is gone, which it can't be while `self` lives.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}
