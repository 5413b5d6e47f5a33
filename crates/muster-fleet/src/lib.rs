//! The services over core and store: one `enroll`, one `check_in`, one `acknowledge`, one `revoke` for every adapter.
//!
//! An operation loads records, calls core for the decision, commits, and updates this node's registry. It knows
//! neither HTTP nor SQL.

mod acknowledge;
pub mod action_views;
pub mod actions;
pub mod agent_views;
pub mod agents;
pub mod alerts;
mod artifacts;
mod audit;
pub mod audit_export;
pub mod audit_log;
mod audit_report;
pub mod authenticate;
pub mod authority;
pub mod auto_upgrades;
pub mod backups;
mod bulk_update;
mod change_feed;
pub mod change_log;
pub mod check_in;
pub mod credentials;
mod currency;
pub mod disk;
pub mod enroll;
mod events;
pub mod files;
pub mod fleet_keys;
pub mod force;
pub mod health;
pub mod housekeeping;
pub mod idempotency;
pub mod identity;
mod inactivity;
mod inline_seals;
pub mod keys;
mod members;
pub mod membership;
pub mod moment;
pub mod network_objects;
pub mod nodes;
mod observation;
mod offered_files;
pub mod output_health;
pub mod output_keys;
mod output_yaml;
pub mod outputs;
mod packages;
pub mod policies;
pub mod policy_cache;
mod policy_objects;
mod records;
mod reenroll;
pub mod refusals;
pub mod registry;
pub mod respond;
pub mod restoration;
pub mod rollouts;
pub mod scope;
mod sealed_fields;
pub mod secrets;
pub mod selection;
pub mod server_status;
mod shutdown;
pub mod sign;
pub mod signing_keys;
pub mod space_settings;
pub mod status_timer;
pub mod system;
pub mod tags;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod throttle;
pub mod uninstall_tokens;
mod update;
pub mod upload_limits;
pub mod upload_views;
pub mod uploads;
pub mod urls;
pub mod watched_store;
mod wiring;

use std::sync::Arc;
use std::time::Duration;

use muster_core::Entropy;
use muster_core::error_chain::chain;
use muster_core::poll::PollLimits;
use muster_core::seal::Sealer;
use muster_core::signing::Signer;
use muster_core::time::{Clock, Timestamp};
use muster_core::version::AcceptedVersions;
use muster_store::Store;

use self::actions::Actions;
use self::agents::Agents;
use self::alerts::Alerts;
use self::alerts::sender::AlertSender;
use self::audit_log::Audit;
use self::authenticate::Authentication;
use self::auto_upgrades::AutoUpgrades;
use self::backups::Backups;
use self::change_feed::ChangeFeed;
use self::change_log::ChangeLog;
use self::check_in::CheckIns;
use self::credentials::Credentials;
use self::enroll::Enrollment;
use self::files::Files;
use self::housekeeping::Housekeeping;
use self::idempotency::Idempotency;
use self::identity::bindings::Bindings;
use self::identity::devices::Devices;
use self::identity::federation::Federation;
use self::identity::openid::OpenIdProviders;
use self::identity::passwords::PasswordCost;
use self::identity::providers::Providers;
use self::identity::roles::Roles;
use self::identity::service_tokens::ServiceTokens;
use self::identity::setup::Setup;
use self::identity::sign_in::SignIn;
use self::identity::spaces::Spaces;
use self::identity::tokens::Tokens;
use self::identity::users::Users;
use self::keys::EnrollmentKeys;
use self::members::Members;
use self::network_objects::{DownloadSources, NetworkObjects, Proxies, ServerHosts};
use self::nodes::Nodes;
use self::output_keys::OutputKeys;
use self::output_keys::issuer::KeyIssuer;
use self::outputs::Outputs;
use self::policies::Policies;
use self::refusals::Refusals;
use self::registry::Registry;
use self::respond::Responses;
use self::restoration::Restoration;
use self::rollouts::Rollouts;
use self::server_status::ServerStatus;
use self::shutdown::Shutdown;
use self::space_settings::Settings;
use self::status_timer::Statuses;
use self::uninstall_tokens::UninstallTokens;
use self::urls::{OwnUrls, ServerUrls};
use self::watched_store::WatchedStore;
use self::wiring::Wiring;

/// The part of the configuration that services use.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// Default time that a check-in with nothing to deliver is held (`timeouts.checkin_long_poll`).
    pub long_poll: Duration,
    /// Maximum random time subtracted from it (`timeouts.checkin_jitter`).
    pub poll_jitter: Duration,
    /// Maximum poll time that a client may request (`timeouts.checkin_max_poll`).
    pub max_poll: Duration,
    /// What this server knows of the fleet's URLs, which are delivered to agents as `fleet.hosts`.
    pub urls: OwnUrls,
    /// Highest agent version that this server was tested with: major and minor (EA32).
    pub tested_version: (u32, u32),
    /// Highest accepted agent version: major and minor; without a minor, every minor of that major.
    pub highest_version: (u32, Option<u32>),
    /// Lowest accepted agent version: major and minor.
    pub lowest_version: (u32, u32),
    /// The commit that the program was built from; empty if unknown.
    pub build_hash: String,
    /// Cost of password hashes.
    pub password_cost: PasswordCost,
    /// Whether requests may authenticate with a name and a password (`auth.basic`).
    pub accepts_basic: bool,
}

impl FleetSettings {
    /// The limits of held polls.
    pub fn poll(&self) -> PollLimits {
        PollLimits { default: self.long_poll, max: self.max_poll, jitter: self.poll_jitter }
    }

    /// The agent versions that are accepted.
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
            urls: OwnUrls::default(),
            tested_version: (9, 5),
            highest_version: (9, None),
            lowest_version: (7, 13),
            build_hash: String::new(),
            password_cost: PasswordCost::default(),
            accepts_basic: false,
        }
    }
}

/// The fleet's services over one store.
pub struct Fleet {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    settings: FleetSettings,
    registry: Arc<Registry>,
    shutdown: Arc<Shutdown>,
    authentication: Authentication,
    credentials: Credentials,
    enrollment: Enrollment,
    check_ins: Arc<CheckIns>,
    agents: Agents,
    alerts: Arc<Alerts>,
    actions: Arc<Actions>,
    enrollment_keys: EnrollmentKeys,
    policies: Arc<Policies>,
    outputs: Outputs,
    server_hosts: NetworkObjects<ServerHosts>,
    proxies: NetworkObjects<Proxies>,
    download_sources: NetworkObjects<DownloadSources>,
    uninstall_tokens: UninstallTokens,
    idempotency: Idempotency,
    change_log: ChangeLog,
    space_settings: Settings,
    rollouts: Arc<Rollouts>,
    auto_upgrades: Arc<AutoUpgrades>,
    responses: Responses,
    output_keys: Arc<OutputKeys>,
    files: Files,
    audit: Audit,
    backups: Backups,
    restoration: Arc<Restoration>,
    statuses: Arc<Statuses>,
    refusals: Refusals,
    server_status: ServerStatus,
    urls: Arc<ServerUrls>,
    nodes: Nodes,
    users: Arc<Users>,
    roles: Arc<Roles>,
    bindings: Bindings,
    tokens: Tokens,
    spaces: Spaces,
    sign_in: Arc<SignIn>,
    providers: Arc<Providers>,
    federation: Federation,
    devices: Devices,
    service_tokens: ServiceTokens,
    setup: Setup,
    members: Arc<Members>,
    housekeeping: Arc<Housekeeping>,
    feed: Arc<ChangeFeed>,
    /// Internals that tests read.
    #[cfg(any(test, feature = "testing"))]
    inner: testing::Inner,
}

/// The dependencies of a [`Fleet`].
pub struct FleetParts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The random number generator.
    pub entropy: Arc<dyn Entropy>,
    /// Encrypts secrets that must be read back.
    pub sealer: Arc<Sealer>,
    /// Signs policies and actions.
    pub signer: Arc<Signer>,
    /// Reaches the clusters of outputs.
    pub issuer: Arc<dyn KeyIssuer>,
    /// Reaches OpenID providers.
    pub openid: Arc<dyn OpenIdProviders>,
    /// Sends alerts.
    pub alert_sender: Arc<dyn AlertSender>,
    /// The configuration.
    pub settings: FleetSettings,
}

impl Fleet {
    /// Builds the services. [`Fleet::run_background`] starts the background work.
    ///
    /// This function and [`Wiring`] show the dependencies between services: a service is passed the ones that were
    /// built before it, so that a cycle can't be written.
    pub fn new(parts: FleetParts) -> Arc<Self> {
        let settings = parts.settings.clone();
        #[cfg(any(test, feature = "testing"))]
        let inner = testing::Parts::of(&parts);
        let wiring = Wiring::new(parts);
        // Built first, because services below depend on them.
        let (policies, statuses) = (Arc::new(wiring.policies()), Arc::new(wiring.statuses()));
        let actions = Arc::new(wiring.actions());
        let feed = Arc::new(wiring.feed(&statuses));
        let output_keys = Arc::new(wiring.output_keys());
        let passwords = Arc::new(wiring.passwords());
        let (users, roles) = (Arc::new(wiring.users(&passwords)), Arc::new(wiring.roles()));
        let (sign_in, providers) = (Arc::new(wiring.sign_in(&passwords)), Arc::new(wiring.providers()));
        Arc::new(Self {
            authentication: wiring.authentication(),
            credentials: wiring.credentials(),
            enrollment: wiring.enrollment(),
            check_ins: Arc::new(wiring.check_ins(&output_keys)),
            agents: wiring.agents(),
            alerts: Arc::new(wiring.alerts()),
            enrollment_keys: wiring.enrollment_keys(),
            outputs: wiring.outputs(&policies),
            rollouts: Arc::new(wiring.rollouts(&policies, &actions)),
            auto_upgrades: Arc::new(wiring.auto_upgrades(&actions)),
            server_hosts: wiring.network_objects(&policies),
            proxies: wiring.network_objects(&policies),
            download_sources: wiring.network_objects(&policies),
            uninstall_tokens: wiring.uninstall_tokens(),
            idempotency: wiring.idempotency(),
            change_log: wiring.change_log(),
            space_settings: wiring.space_settings(),
            responses: wiring.responses(&actions, &policies),
            output_keys,
            files: wiring.files(),
            audit: wiring.audit(),
            backups: wiring.backups(),
            restoration: Arc::clone(&wiring.restoration),
            server_status: wiring.server_status(),
            nodes: wiring.nodes(),
            bindings: wiring.bindings(&users, &roles),
            tokens: wiring.tokens(),
            spaces: wiring.spaces(),
            setup: wiring.setup(&passwords, &sign_in),
            federation: wiring.federation(&providers, &sign_in),
            devices: wiring.devices(&sign_in),
            service_tokens: wiring.service_tokens(),
            providers,
            users,
            roles,
            sign_in,
            housekeeping: Arc::new(wiring.housekeeping(&actions, &statuses, &feed)),
            #[cfg(any(test, feature = "testing"))]
            inner: testing::Inner::new(inner, &wiring),
            actions,
            policies,
            statuses,
            feed,
            refusals: Refusals::default(),
            settings,
            store: wiring.store,
            clock: wiring.clock,
            entropy: wiring.entropy,
            registry: wiring.registry,
            urls: wiring.urls,
            members: wiring.members,
            shutdown: wiring.shutdown,
        })
    }

    /// Agents, for administrators.
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Receivers of alerts.
    pub fn alerts(&self) -> &Arc<Alerts> {
        &self.alerts
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

    /// Fleet Server hosts.
    pub fn server_hosts(&self) -> &NetworkObjects<ServerHosts> {
        &self.server_hosts
    }

    /// Proxies.
    pub fn proxies(&self) -> &NetworkObjects<Proxies> {
        &self.proxies
    }

    /// Download sources.
    pub fn download_sources(&self) -> &NetworkObjects<DownloadSources> {
        &self.download_sources
    }

    /// Settings of spaces.
    pub fn space_settings(&self) -> &Settings {
        &self.space_settings
    }

    /// Changes, for administrators.
    pub fn change_log(&self) -> &ChangeLog {
        &self.change_log
    }

    /// Idempotency keys.
    pub fn idempotency(&self) -> &Idempotency {
        &self.idempotency
    }

    /// Uninstall tokens.
    pub fn uninstall_tokens(&self) -> &UninstallTokens {
        &self.uninstall_tokens
    }

    /// Staged rollouts.
    pub fn rollouts(&self) -> &Arc<Rollouts> {
        &self.rollouts
    }

    /// Automatic upgrades.
    pub fn auto_upgrades(&self) -> &Arc<AutoUpgrades> {
        &self.auto_upgrades
    }

    /// Responses to compromises.
    pub fn responses(&self) -> &Responses {
        &self.responses
    }

    /// Keys of agents at the clusters of outputs.
    pub fn output_keys(&self) -> &Arc<OutputKeys> {
        &self.output_keys
    }

    /// Uploads, files for agents, artifacts.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Backups.
    pub fn backups(&self) -> &Backups {
        &self.backups
    }

    /// The last restore from a backup.
    pub fn restoration(&self) -> &Restoration {
        &self.restoration
    }

    /// Authentication of agents.
    pub fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// Additional credentials of agents.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Enrollment.
    pub fn enrollment(&self) -> &Enrollment {
        &self.enrollment
    }

    /// Check-ins, acks, and uninstallation reports.
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

    /// The fleet's URLs.
    pub fn urls(&self) -> &ServerUrls {
        &self.urls
    }

    /// Users and service accounts.
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// Roles.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Who has which role.
    pub fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    /// API tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Spaces.
    pub fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    /// Authentication of people and scripts.
    pub fn sign_in(&self) -> &SignIn {
        &self.sign_in
    }

    /// Tokens for tools that enroll agents.
    pub fn service_tokens(&self) -> &ServiceTokens {
        &self.service_tokens
    }

    /// OpenID providers.
    pub fn providers(&self) -> &Providers {
        &self.providers
    }

    /// Logins at OpenID providers.
    pub fn federation(&self) -> &Federation {
        &self.federation
    }

    /// Logins of devices.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The first administrator, and set-up links.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Whether requests may authenticate with a name and a password.
    pub fn accepts_basic(&self) -> bool {
        self.settings.accepts_basic
    }

    /// The servers of the fleet.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Returns true while this server sends its agents to other servers.
    pub fn is_draining(&self) -> bool {
        self.members.is_draining()
    }

    /// Number of live servers, as this one last saw it.
    pub fn live_nodes(&self) -> usize {
        self.members.count()
    }

    /// Periodic cleanup.
    pub fn housekeeping(&self) -> &Housekeeping {
        &self.housekeeping
    }

    /// Recently rejected agent requests of this node.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// The configuration.
    pub fn settings(&self) -> &FleetSettings {
        &self.settings
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The random number generator.
    pub fn entropy(&self) -> &dyn Entropy {
        &*self.entropy
    }

    /// Runs the background tasks until [`Fleet::stop`]: the change feed, status transitions, recovery of a read-only
    /// store, output keys, rollouts, alerts, and housekeeping. Returns when all of them have ended.
    pub async fn run_background(self: Arc<Self>) {
        // A task each, so that a slow read of one does not delay the others. The feed matters most: revocations by other
        // nodes depend on it.
        let feed = tokio::spawn(Arc::clone(&self.feed).follow());
        let statuses = tokio::spawn(Arc::clone(&self.statuses).run());
        let recovery = Arc::clone(&self.store).recover(Arc::clone(&self.clock), Arc::clone(&self.shutdown));
        let recovery = tokio::spawn(recovery);
        let house = tokio::spawn(Arc::clone(&self.housekeeping).run_periodically());
        let actions = tokio::spawn(Arc::clone(&self.actions).finish_abandoned(Arc::clone(&self.shutdown)));
        let keys = tokio::spawn(Arc::clone(&self.output_keys).run());
        let rollouts = tokio::spawn(Arc::clone(&self.rollouts).run());
        let upgrades = tokio::spawn(Arc::clone(&self.auto_upgrades).run());
        let alerts = tokio::spawn(Arc::clone(&self.alerts).run());
        for task in [feed, statuses, recovery, house, actions, keys, rollouts, upgrades, alerts] {
            // A task ends with an error only if it panicked. The others keep running: a server without housekeeping
            // still serves its agents.
            if let Err(error) = task.await {
                tracing::error!(error = %chain(&error), "a background task ended unexpectedly");
            }
        }
    }

    /// Answers every held poll with an empty response (EA87) and ends the background work.
    pub fn stop(&self) {
        self.shutdown.begin();
        // After the flag: a poll that is woken earlier would find nothing due and go on waiting.
        for entry in self.registry.select(registry::AgentEntry::is_connected) {
            entry.wake();
        }
    }

    /// Whether [`Fleet::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.shutdown.has_begun()
    }

    /// Waits for [`Fleet::stop`].
    pub async fn stopped(&self) {
        self.shutdown.wait().await;
    }
}
