//! The services over core and store: one `enroll`, one `check_in`, one `acknowledge`, one `revoke`, whatever the adapter.
//!
//! An operation loads, asks core to decide, commits, and tells this node's registry. It knows neither HTTP nor SQL.

mod acknowledge;
pub mod action_views;
pub mod actions;
pub mod agent_views;
pub mod agents;
mod artifacts;
mod audit;
mod audit_report;
pub mod authenticate;
pub mod authority;
mod change_feed;
pub mod check_in;
pub mod credentials;
pub mod disk;
pub mod enroll;
pub mod files;
pub mod force;
pub mod health;
pub mod housekeeping;
mod inactivity;
pub mod keys;
mod many;
pub mod membership;
pub mod moment;
mod offered_files;
pub mod output_health;
mod output_yaml;
pub mod outputs;
pub mod policies;
pub mod policy_cache;
mod records;
pub mod refusals;
pub mod registry;
pub mod secrets;
pub mod selection;
pub mod server_status;
mod sign;
pub mod status_timer;
mod stopping;
pub mod system;
pub mod tags;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod throttle;
mod update;
pub mod upload_limits;
pub mod upload_views;
pub mod uploads;
mod vigil;
mod watched_store;

use std::sync::Arc;
use std::time::Duration;

use muster_core::Entropy;
use muster_core::poll::PollLimits;
use muster_core::seal::Sealer;
use muster_core::signing::Signer;
use muster_core::time::{Clock, Timestamp};
use muster_core::version::AcceptedVersions;
use muster_store::Store;

use self::actions::Actions;
use self::agents::Agents;
use self::authenticate::Authentication;
use self::change_feed::ChangeFeed;
use self::check_in::{CheckInParts, CheckIns};
use self::credentials::Credentials;
use self::enroll::Enrollment;
use self::files::Files;
use self::housekeeping::Housekeeping;
use self::keys::EnrollmentKeys;
use self::outputs::Outputs;
use self::policies::Policies;
use self::policy_cache::PolicyCache;
use self::records::Records;
use self::refusals::Refusals;
use self::registry::Registry;
use self::secrets::SealedSecrets;
use self::server_status::ServerStatus;
use self::status_timer::Statuses;
use self::stopping::Stopping;
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

    /// The agent versions that are let in.
    pub fn accepted_versions(&self) -> AcceptedVersions {
        AcceptedVersions { lowest: self.lowest_version, highest: self.highest_version, tested: self.tested_version }
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

/// The fleet's services, put together over one store.
pub struct Fleet {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    settings: FleetSettings,
    registry: Arc<Registry>,
    stopping: Arc<Stopping>,
    authentication: Authentication,
    credentials: Credentials,
    enrollment: Enrollment,
    check_ins: Arc<CheckIns>,
    agents: Agents,
    actions: Arc<Actions>,
    enrollment_keys: EnrollmentKeys,
    policies: Arc<Policies>,
    outputs: Outputs,
    files: Files,
    statuses: Arc<Statuses>,
    refusals: Refusals,
    server_status: ServerStatus,
    housekeeping: Arc<Housekeeping>,
    feed: Arc<ChangeFeed>,
    /// What tests look at besides.
    #[cfg(any(test, feature = "testing"))]
    inner: testing::Inner,
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
    /// A fleet over these parts. Its background work is started by [`Fleet::run_background`].
    ///
    /// What depends on what can be read here: each service is given what stands above it.
    pub fn new(parts: FleetParts) -> Arc<Self> {
        let FleetParts { store, clock, entropy, sealer, signer, settings } = parts;
        let policy_cache = Arc::new(PolicyCache::new(Arc::clone(&store), Arc::clone(&sealer)));
        #[cfg(any(test, feature = "testing"))]
        let inner = (Arc::clone(&store), Arc::clone(&sealer), Arc::clone(&signer), Arc::clone(&policy_cache));
        let store = Arc::new(WatchedStore::new(store));
        let (registry, stopping) = (Arc::new(Registry::default()), Arc::new(Stopping::default()));
        let (s, c, e, r) =
            (|| Arc::clone(&store), || Arc::clone(&clock), || Arc::clone(&entropy), || Arc::clone(&registry));
        let ending = || Arc::clone(&stopping);
        let secrets = Arc::new(SealedSecrets::new(s(), Arc::clone(&sealer), e()));
        let records = Arc::new(Records::new(s(), c(), r()));
        #[cfg(any(test, feature = "testing"))]
        let inner = testing::Inner::new(inner, &records);
        let policies = Arc::new(Policies::new(
            s(),
            c(),
            e(),
            Arc::clone(&secrets),
            Arc::clone(&signer),
            settings.external_urls.clone(),
        ));
        let statuses = Arc::new(Statuses::new(s(), c(), r(), Arc::clone(&records), ending()));
        let actions = Arc::new(Actions::new(
            s(),
            c(),
            e(),
            Arc::clone(&records),
            Arc::clone(&secrets),
            Arc::clone(&policy_cache),
            settings.accepted_versions(),
        ));
        let check_ins = Arc::new(CheckIns::new(CheckInParts {
            store: s(),
            clock: c(),
            entropy: e(),
            sealer,
            signer,
            registry: r(),
            records: Arc::clone(&records),
            policies: Arc::clone(&policy_cache),
            limits: settings.poll(),
            stopping: ending(),
        }));
        let feed =
            Arc::new(ChangeFeed::new(s(), r(), Arc::clone(&records), policy_cache, Arc::clone(&statuses), ending()));
        let housekeeping = Arc::new(Housekeeping::new(
            s(),
            c(),
            r(),
            Arc::clone(&actions),
            Arc::clone(&statuses),
            Arc::clone(&feed),
            ending(),
        ));
        Arc::new(Self {
            authentication: Authentication::new(s(), c(), r(), Arc::clone(&records)),
            credentials: Credentials::new(Arc::clone(&records)),
            enrollment: Enrollment::new(s(), c(), e(), r()),
            agents: Agents::new(s(), c(), r(), records),
            enrollment_keys: EnrollmentKeys::new(s(), c(), e(), Arc::clone(&secrets)),
            outputs: Outputs::new(s(), c(), e(), secrets, Arc::clone(&policies)),
            files: Files::new(s(), c(), e()),
            server_status: ServerStatus::new(s(), c(), e(), settings.tested_version),
            check_ins,
            actions,
            policies,
            statuses,
            housekeeping,
            feed,
            store,
            clock,
            entropy,
            settings,
            refusals: Refusals::default(),
            registry,
            stopping,
            #[cfg(any(test, feature = "testing"))]
            inner,
        })
    }

    /// Agents, for people.
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Actions.
    pub fn actions(&self) -> &Actions {
        &self.actions
    }

    /// Enrollment keys.
    pub fn enrollment_keys(&self) -> &EnrollmentKeys {
        &self.enrollment_keys
    }

    /// Policies.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Outputs.
    pub fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// Uploads, files for agents, artifacts.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Who presents an access key.
    pub fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// Further credentials of agents.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Enrolment.
    pub fn enrollment(&self) -> &Enrollment {
        &self.enrollment
    }

    /// Check-ins, acks, and reports of agents that they left.
    pub fn check_ins(&self) -> &Arc<CheckIns> {
        &self.check_ins
    }

    /// Statuses and presence.
    pub fn statuses(&self) -> &Arc<Statuses> {
        &self.statuses
    }

    /// The server's own state.
    pub fn server_status(&self) -> &ServerStatus {
        &self.server_status
    }

    /// What is done every ten minutes.
    pub fn housekeeping(&self) -> &Housekeeping {
        &self.housekeeping
    }

    /// Requests of agents that this node refused.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// The configuration's part.
    pub fn settings(&self) -> &FleetSettings {
        &self.settings
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The generator.
    pub fn entropy(&self) -> &dyn Entropy {
        &*self.entropy
    }

    /// Follows the change log, keeps statuses and keeps house until [`Fleet::stop`]; ends when all have ended.
    pub async fn run_background(self: Arc<Self>) {
        let feed = tokio::spawn(Arc::clone(&self.feed).follow());
        let statuses = tokio::spawn(Arc::clone(&self.statuses).keep());
        let trying = Arc::clone(&self.store).keep_trying(Arc::clone(&self.clock), Arc::clone(&self.stopping));
        let trying = tokio::spawn(trying);
        let house = tokio::spawn(Arc::clone(&self.housekeeping).keep());
        for task in [feed, statuses, trying, house] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a background task ended");
            }
        }
    }

    /// Releases every held poll with an empty answer (EA87) and ends the background work.
    pub fn stop(&self) {
        self.stopping.begin();
        for entry in self.registry.select(registry::AgentEntry::is_connected) {
            entry.wake();
        }
    }

    /// Whether [`Fleet::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.has_begun()
    }

    /// Waits for [`Fleet::stop`].
    pub async fn stopped(&self) {
        self.stopping.begun().await;
    }
}
