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
pub mod audit_log;
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
mod ground;
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
mod reenroll;
pub mod refusals;
pub mod registry;
pub mod scope;
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
pub mod watched_store;

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
use self::audit_log::Audit;
use self::authenticate::Authentication;
use self::change_feed::ChangeFeed;
use self::check_in::CheckIns;
use self::credentials::Credentials;
use self::enroll::Enrollment;
use self::files::Files;
use self::ground::Ground;
use self::housekeeping::Housekeeping;
use self::keys::EnrollmentKeys;
use self::outputs::Outputs;
use self::policies::Policies;
use self::refusals::Refusals;
use self::registry::Registry;
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
    audit: Audit,
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
    /// What depends on what can be read here and in [`Ground`]: each service is given what stands above it.
    pub fn new(parts: FleetParts) -> Arc<Self> {
        let settings = parts.settings.clone();
        #[cfg(any(test, feature = "testing"))]
        let inner = (Arc::clone(&parts.store), Arc::clone(&parts.sealer), Arc::clone(&parts.signer));
        let ground = Ground::new(parts);
        let (policies, statuses) = (Arc::new(ground.policies()), Arc::new(ground.statuses()));
        let actions = Arc::new(ground.actions());
        let feed = Arc::new(ground.feed(&statuses));
        Arc::new(Self {
            authentication: ground.authentication(),
            credentials: ground.credentials(),
            enrollment: ground.enrollment(),
            check_ins: Arc::new(ground.check_ins()),
            agents: ground.agents(),
            enrollment_keys: ground.enrollment_keys(),
            outputs: ground.outputs(&policies),
            files: ground.files(),
            audit: ground.audit(),
            server_status: ground.server_status(),
            housekeeping: Arc::new(ground.housekeeping(&actions, &statuses, &feed)),
            #[cfg(any(test, feature = "testing"))]
            inner: testing::Inner::new(inner, &ground),
            actions,
            policies,
            statuses,
            feed,
            refusals: Refusals::default(),
            settings,
            store: ground.store,
            clock: ground.clock,
            entropy: ground.entropy,
            registry: ground.registry,
            stopping: ground.stopping,
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

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
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
