//! The services over core and store: one `enroll`, one `check_in`, one `acknowledge`, one `revoke` for every adapter.
//!
//! An operation loads records, calls core for the decision, commits, and updates this node's registry. It knows
//! neither HTTP nor SQL.

mod acknowledge;
pub mod action_search;
pub mod action_views;
pub mod actions;
pub mod agent_history;
pub mod agent_views;
pub mod agents;
pub mod alerts;
mod artifacts;
mod audit;
pub mod audit_export;
pub mod audit_log;
pub mod audit_report;
pub mod authenticate;
pub mod authority;
pub mod auto_upgrades;
mod background;
pub mod backups;
mod bulk_update;
pub mod carves;
mod change_feed;
pub mod change_log;
pub mod check_in;
mod connection;
pub mod connection_tests;
pub mod credentials;
mod currency;
pub mod disk;
pub mod disk_keys;
pub mod enroll;
mod events;
pub mod files;
pub mod fleet_keys;
pub mod fleetd_options;
pub mod force;
pub mod health;
pub mod hints;
pub mod host_checks;
pub mod host_logs;
pub mod host_runs;
pub mod host_targets;
pub mod host_views;
pub mod housekeeping;
pub mod idempotency;
pub mod identity;
mod inactivity;
mod inline_seals;
pub mod installs;
pub mod inventory;
pub mod keys;
pub mod labels;
pub mod live_queries;
mod members;
pub mod membership;
pub mod moment;
mod network_object_test;
pub mod network_objects;
pub mod nodes;
mod observation;
mod offered_files;
pub mod outgoing;
pub mod output_health;
pub mod output_keys;
mod output_test;
mod output_yaml;
pub mod outputs;
mod own_space;
mod packages;
pub mod packs;
pub mod policies;
pub mod policy_cache;
mod policy_objects;
pub mod query_failures;
mod record_versions;
mod records;
mod reenroll;
pub mod refusals;
pub mod registry;
mod removed_files;
pub mod respond;
pub mod restoration;
pub mod rollouts;
pub mod saved_queries;
pub mod saved_views;
pub mod scope;
pub mod scripts;
mod sealed_fields;
pub mod secrets;
pub mod selection;
pub mod server_status;
mod services;
mod settings;
mod shutdown;
pub mod sign;
pub mod signing_keys;
mod silence;
pub mod software;
mod space_cache;
pub mod space_settings;
pub mod status_timer;
pub mod system;
pub mod tags;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod throttle;
pub mod transfers;
pub mod uninstall_tokens;
mod update;
pub mod upload_limits;
pub mod upload_views;
pub mod uploads;
pub mod urls;
mod waiting;
pub mod watched_store;
mod wiring;

use std::sync::Arc;

use muster_core::Entropy;
use muster_core::seal::Sealer;
use muster_core::signing::Signer;
use muster_core::time::Clock;
use muster_store::Store;

use self::actions::Actions;
use self::agents::Agents;
use self::alerts::Alerts;
use self::alerts::sender::AlertSender;
use self::audit_log::Audit;
use self::authenticate::Authentication;
use self::auto_upgrades::AutoUpgrades;
use self::backups::Backups;
use self::carves::Carves;
use self::change_feed::ChangeFeed;
use self::change_log::ChangeLog;
use self::check_in::CheckIns;
use self::connection_tests::Prober;
use self::credentials::Credentials;
use self::enroll::Enrollment;
use self::files::Files;
use self::fleetd_options::FleetdOptions;
use self::hints::Hints;
use self::host_checks::HostChecks;
use self::host_logs::HostLogs;
use self::housekeeping::Housekeeping;
use self::idempotency::Idempotency;
use self::identity::bindings::Bindings;
use self::identity::devices::Devices;
use self::identity::federation::Federation;
use self::identity::openid::OpenIdProviders;
use self::identity::providers::Providers;
use self::identity::roles::Roles;
use self::identity::service_tokens::ServiceTokens;
use self::identity::sessions::Sessions;
use self::identity::setup::Setup;
use self::identity::sign_in::SignIn;
use self::identity::spaces::Spaces;
use self::identity::tokens::Tokens;
use self::identity::users::Users;
use self::inventory::HostInventory;
use self::keys::EnrollmentKeys;
use self::labels::Labels;
use self::live_queries::LiveQueries;
use self::members::Members;
use self::network_objects::{DownloadSources, NetworkObjects, Proxies, ServerHosts};
use self::nodes::Nodes;
use self::output_keys::OutputKeys;
use self::output_keys::issuer::KeyIssuer;
use self::outputs::Outputs;
use self::packs::Packs;
use self::policies::Policies;
use self::query_failures::QueryFailures;
use self::refusals::Refusals;
use self::registry::Registry;
use self::respond::Responses;
use self::restoration::Restoration;
use self::rollouts::Rollouts;
use self::saved_queries::SavedQueries;
use self::server_status::ServerStatus;
use self::shutdown::Shutdown;
use self::software::SoftwareInventory;
use self::space_settings::Settings;
use self::status_timer::Statuses;
use self::transfers::Transfers;
use self::uninstall_tokens::UninstallTokens;
use self::urls::ServerUrls;
use self::watched_store::WatchedStore;
use self::wiring::{OrbitWork, Wiring};

pub use self::settings::FleetSettings;

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
    fleetd_options: Arc<FleetdOptions>,
    host_checks: Arc<HostChecks>,
    labels: Arc<Labels>,
    host_logs: HostLogs,
    software: Arc<SoftwareInventory>,
    inventory: HostInventory,
    query_failures: Arc<QueryFailures>,
    saved_queries: SavedQueries,
    packs: Packs,
    rollouts: Arc<Rollouts>,
    auto_upgrades: Arc<AutoUpgrades>,
    responses: Responses,
    output_keys: Arc<OutputKeys>,
    files: Files,
    carves: Carves,
    orbit_work: OrbitWork,
    transfers: Transfers,
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
    sessions: Sessions,
    setup: Setup,
    members: Arc<Members>,
    live_queries: Arc<LiveQueries>,
    hints: Arc<Hints>,
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
    /// Tests connections of agents.
    pub prober: Arc<dyn Prober>,
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
        let (policies, statuses) = (Arc::new(wiring.policies()), Arc::new(wiring.statuses()));
        let (actions, live_queries) = (Arc::new(wiring.actions()), Arc::new(wiring.live_queries()));
        let (orbit_work, hints, feed) = wiring.followers_of_changes(&statuses, &live_queries);
        let (output_keys, passwords) = (Arc::new(wiring.output_keys()), Arc::new(wiring.passwords()));
        let (sign_in, providers) = (Arc::new(wiring.sign_in(&passwords)), Arc::new(wiring.providers()));
        let (users, roles) = (Arc::new(wiring.users(&passwords, &sign_in)), Arc::new(wiring.roles()));
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
            fleetd_options: Arc::clone(&wiring.fleetd_options),
            host_checks: Arc::clone(&wiring.host_checks),
            labels: Arc::clone(&wiring.labels),
            host_logs: wiring.host_logs(),
            software: Arc::new(wiring.software()),
            inventory: wiring.inventory(),
            query_failures: Arc::clone(&wiring.query_failures),
            saved_queries: wiring.saved_queries(),
            packs: wiring.packs(),
            responses: wiring.responses(&actions, &policies),
            output_keys,
            files: wiring.files(),
            carves: wiring.carves(),
            transfers: wiring.transfers(),
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
            sessions: wiring.sessions(),
            providers,
            users,
            roles,
            sign_in,
            housekeeping: Arc::new(wiring.housekeeping(&actions, &statuses, &feed)),
            #[cfg(any(test, feature = "testing"))]
            inner: testing::Inner::new(inner, &wiring),
            actions,
            policies,
            live_queries,
            orbit_work,
            hints,
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
}
