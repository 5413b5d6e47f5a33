//! Construction of the services from shared parts: the store, the clock, caches, and the registry.

use std::sync::Arc;

use muster_core::Entropy;
use muster_core::seal::Sealer;
use muster_core::time::Clock;

use super::actions::Actions;
use super::agents::Agents;
use super::alerts::sender::AlertSender;
use super::alerts::{AlertParts, Alerts};
use super::audit_log::Audit;
use super::authenticate::{Authentication, AuthenticationParts};
use super::auto_upgrades::AutoUpgrades;
use super::backups::Backups;
use super::carves::Carves;
use super::change_feed::{ChangeFeed, ChangeFeedParts};
use super::change_log::ChangeLog;
use super::check_in::{CheckInParts, CheckIns};
use super::connection_tests::ConnectionTests;
use super::credentials::Credentials;
use super::currency::Currency;
use super::disk_keys::DiskKeys;
use super::enroll::Enrollment;
use super::files::Files;
use super::fleetd_options::FleetdOptions;
use super::hints::{HintParts, Hints};
use super::host_checks::HostChecks;
use super::host_logs::HostLogs;
use super::housekeeping::Housekeeping;
use super::idempotency::Idempotency;
use super::identity::bindings::Bindings;
use super::identity::devices::Devices;
use super::identity::federation::Federation;
use super::identity::openid::OpenIdProviders;
use super::identity::passwords::Passwords;
use super::identity::providers::Providers;
use super::identity::roles::Roles;
use super::identity::service_tokens::ServiceTokens;
use super::identity::sessions::Sessions;
use super::identity::setup::Setup;
use super::identity::sign_in::SignIn;
use super::identity::spaces::Spaces;
use super::identity::tokens::Tokens;
use super::identity::users::Users;
use super::installs::Installs;
use super::inventory::HostInventory;
use super::keys::EnrollmentKeys;
use super::labels::Labels;
use super::live_queries::LiveQueries;
use super::members::Members;
use super::network_objects::{NetworkFamily, NetworkObjects};
use super::nodes::Nodes;
use super::output_keys::issuer::KeyIssuer;
use super::output_keys::{OutputKeyParts, OutputKeys};
use super::outputs::Outputs;
use super::packs::Packs;
use super::policies::Policies;
use super::policy_cache::PolicyCache;
use super::policy_objects::PolicyObjects;
use super::query_failures::QueryFailures;
use super::records::Records;
use super::registry::Registry;
use super::respond::Responses;
use super::restoration::Restoration;
use super::rollouts::Rollouts;
use super::saved_queries::SavedQueries;
use super::scripts::Scripts;
use super::secrets::SealedSecrets;
use super::server_status::ServerStatus;
use super::shutdown::Shutdown;
use super::signing_keys::SigningKeys;
use super::software::SoftwareInventory;
use super::space_settings::Settings;
use super::status_timer::Statuses;
use super::transfers::Transfers;
use super::uninstall_tokens::UninstallTokens;
use super::urls::ServerUrls;
use super::watched_store::WatchedStore;
use super::{FleetParts, FleetSettings};

/// Parts that several services share, with a constructor method for each service. A method's parameters are the other
/// services that it depends on.
pub(crate) struct Wiring {
    pub(crate) store: Arc<WatchedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) shutdown: Arc<Shutdown>,
    pub(crate) records: Arc<Records>,
    pub(crate) urls: Arc<ServerUrls>,
    pub(crate) currency: Arc<Currency>,
    pub(crate) fleetd_options: Arc<FleetdOptions>,
    pub(crate) query_failures: Arc<QueryFailures>,
    pub(crate) host_checks: Arc<HostChecks>,
    pub(crate) labels: Arc<Labels>,
    pub(crate) members: Arc<Members>,
    pub(crate) restoration: Arc<Restoration>,
    /// Rendered policies.
    pub(crate) policy_cache: Arc<PolicyCache>,
    secrets: Arc<SealedSecrets>,
    sealer: Arc<Sealer>,
    pub(crate) signing: Arc<SigningKeys>,
    issuer: Arc<dyn KeyIssuer>,
    openid: Arc<dyn OpenIdProviders>,
    alert_sender: Arc<dyn AlertSender>,
    connection_tests: Arc<ConnectionTests>,
    settings: FleetSettings,
}

/// The services of what orbit fetches with its configuration.
pub(crate) struct OrbitWork {
    pub(crate) scripts: Arc<Scripts>,
    pub(crate) installs: Arc<Installs>,
    pub(crate) disk_keys: Arc<DiskKeys>,
}

impl Wiring {
    pub(crate) fn new(parts: FleetParts) -> Self {
        let FleetParts { store, clock, entropy, sealer, signer, issuer, openid, alert_sender, prober, settings } =
            parts;
        // The cache reads the bare store: policies are read for whole fleets, not for a caller with a space, and it
        // never commits. Everything below has to name an authority.
        let policy_cache = Arc::new(PolicyCache::new(Arc::clone(&store), Arc::clone(&sealer)));
        let store = Arc::new(WatchedStore::new(store));
        let registry = Arc::new(Registry::default());
        let urls = Arc::new(ServerUrls::new(Arc::clone(&store), Arc::clone(&clock), &settings));
        let labels = Arc::new(Labels::new(Arc::clone(&store), Arc::clone(&clock), Arc::clone(&entropy)));
        let fleetd_options = Arc::new(FleetdOptions::new(Arc::clone(&store), Arc::clone(&clock), Arc::clone(&labels)));
        Self {
            secrets: Arc::new(SealedSecrets::new(Arc::clone(&store), Arc::clone(&sealer), Arc::clone(&entropy))),
            records: Arc::new(Records::new(Arc::clone(&store), Arc::clone(&clock), Arc::clone(&registry))),
            connection_tests: Arc::new(ConnectionTests::new(prober, Arc::clone(&urls))),
            urls,
            currency: Arc::new(Currency::new(Arc::clone(&store))),
            query_failures: Arc::new(QueryFailures::new(
                Arc::clone(&store),
                Arc::clone(&clock),
                Arc::clone(&fleetd_options),
            )),
            fleetd_options,
            host_checks: Arc::new(HostChecks::new(
                Arc::clone(&store),
                Arc::clone(&clock),
                Arc::clone(&entropy),
                Arc::clone(&labels),
            )),
            labels,
            members: Arc::new(Members::new(Arc::clone(&store))),
            restoration: Arc::new(Restoration::new(Arc::clone(&store), Arc::clone(&clock))),
            signing: Arc::new(SigningKeys::new(
                Arc::clone(&store),
                Arc::clone(&clock),
                Arc::clone(&entropy),
                Arc::clone(&sealer),
                signer,
            )),
            shutdown: Arc::new(Shutdown::default()),
            policy_cache,
            store,
            clock,
            entropy,
            registry,
            sealer,
            issuer,
            openid,
            alert_sender,
            settings,
        }
    }

    fn store(&self) -> Arc<WatchedStore> {
        Arc::clone(&self.store)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    fn entropy(&self) -> Arc<dyn Entropy> {
        Arc::clone(&self.entropy)
    }

    fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    fn records(&self) -> Arc<Records> {
        Arc::clone(&self.records)
    }

    fn secrets(&self) -> Arc<SealedSecrets> {
        Arc::clone(&self.secrets)
    }

    fn shutdown(&self) -> Arc<Shutdown> {
        Arc::clone(&self.shutdown)
    }

    pub(crate) fn authentication(&self) -> Authentication {
        Authentication::new(AuthenticationParts {
            store: self.store(),
            clock: self.clock(),
            registry: self.registry(),
            records: self.records(),
            currency: Arc::clone(&self.currency),
            restoration: Arc::clone(&self.restoration),
        })
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::new(self.records())
    }

    pub(crate) fn enrollment(&self) -> Enrollment {
        Enrollment::new(self.store(), self.clock(), self.entropy(), self.registry(), self.settings.enroll_cooldown)
    }

    // Ten dependencies, as a struct: in a call with ten arguments, two of the same type are easily swapped.
    pub(crate) fn check_ins(&self, keys: &Arc<OutputKeys>) -> CheckIns {
        CheckIns::new(CheckInParts {
            store: self.store(),
            clock: self.clock(),
            entropy: self.entropy(),
            sealer: Arc::clone(&self.sealer),
            signing: Arc::clone(&self.signing),
            registry: self.registry(),
            records: self.records(),
            policies: Arc::clone(&self.policy_cache),
            keys: Arc::clone(keys),
            secrets: self.secrets(),
            urls: Arc::clone(&self.urls),
            currency: Arc::clone(&self.currency),
            members: Arc::clone(&self.members),
            limits: self.settings.poll(),
            shutdown: self.shutdown(),
        })
    }

    pub(crate) fn output_keys(&self) -> OutputKeys {
        OutputKeys::new(OutputKeyParts {
            store: self.store(),
            clock: self.clock(),
            entropy: self.entropy(),
            sealer: Arc::clone(&self.sealer),
            policies: Arc::clone(&self.policy_cache),
            issuer: Arc::clone(&self.issuer),
            shutdown: self.shutdown(),
        })
    }

    pub(crate) fn agents(&self) -> Agents {
        Agents::new(self.store(), self.clock(), self.registry(), self.records())
    }

    pub(crate) fn actions(&self) -> Actions {
        Actions::new(
            self.store(),
            self.clock(),
            self.entropy(),
            self.records(),
            self.secrets(),
            Arc::clone(&self.policy_cache),
            self.settings.accepted_versions(),
        )
    }

    pub(crate) fn enrollment_keys(&self) -> EnrollmentKeys {
        EnrollmentKeys::new(self.store(), self.clock(), self.entropy(), self.secrets())
    }

    pub(crate) fn policies(&self) -> Policies {
        let urls = Arc::clone(&self.urls);
        Policies::new(self.store(), self.clock(), self.entropy(), self.secrets(), Arc::clone(&self.signing), urls)
    }

    pub(crate) fn outputs(&self, policies: &Arc<Policies>) -> Outputs {
        Outputs::new(self.policy_objects(policies), Arc::clone(&self.issuer))
    }

    pub(crate) fn network_objects<F: NetworkFamily>(&self, policies: &Arc<Policies>) -> NetworkObjects<F> {
        NetworkObjects::new(self.policy_objects(policies), Arc::clone(&self.connection_tests))
    }

    fn policy_objects(&self, policies: &Arc<Policies>) -> PolicyObjects {
        let (store, clock, entropy) = (self.store(), self.clock(), self.entropy());
        PolicyObjects { store, clock, entropy, secrets: self.secrets(), policies: Arc::clone(policies) }
    }

    pub(crate) fn space_settings(&self) -> Settings {
        Settings::new(self.store(), self.clock())
    }

    pub(crate) fn host_logs(&self) -> HostLogs {
        HostLogs::new(self.clock(), Arc::clone(&self.fleetd_options), Arc::clone(&self.query_failures))
    }

    pub(crate) fn change_log(&self) -> ChangeLog {
        ChangeLog::new(self.store())
    }

    pub(crate) fn idempotency(&self) -> Idempotency {
        Idempotency::new(self.store(), self.clock(), self.entropy(), Arc::clone(&self.sealer))
    }

    pub(crate) fn uninstall_tokens(&self) -> UninstallTokens {
        UninstallTokens::new(self.store(), self.clock(), self.secrets())
    }

    pub(crate) fn responses(&self, actions: &Arc<Actions>, policies: &Arc<Policies>) -> Responses {
        let (actions, policies) = (Arc::clone(actions), Arc::clone(policies));
        Responses::new(self.store(), self.clock(), self.records(), actions, policies)
    }

    pub(crate) fn rollouts(&self, policies: &Arc<Policies>, actions: &Arc<Actions>) -> Rollouts {
        let (policies, actions) = (Arc::clone(policies), Arc::clone(actions));
        Rollouts::new(self.store(), self.clock(), self.entropy(), policies, actions, self.shutdown())
    }

    pub(crate) fn auto_upgrades(&self, actions: &Arc<Actions>) -> AutoUpgrades {
        AutoUpgrades::new(self.store(), self.clock(), self.records(), Arc::clone(actions), self.shutdown())
    }

    pub(crate) fn files(&self) -> Files {
        Files::new(self.store(), self.clock(), self.entropy())
    }

    pub(crate) fn audit(&self) -> Audit {
        Audit::new(self.store(), self.clock(), Arc::clone(&self.signing))
    }

    pub(crate) fn backups(&self) -> Backups {
        Backups::new(self.store(), self.clock(), self.entropy())
    }

    pub(crate) fn alerts(&self) -> Alerts {
        Alerts::new(AlertParts {
            store: self.store(),
            clock: self.clock(),
            entropy: self.entropy(),
            secrets: self.secrets(),
            sender: Arc::clone(&self.alert_sender),
            shutdown: self.shutdown(),
        })
    }

    pub(crate) fn passwords(&self) -> Passwords {
        Passwords::new(self.entropy(), self.settings.password_cost)
    }

    pub(crate) fn users(&self, passwords: &Arc<Passwords>, sign_in: &Arc<SignIn>) -> Users {
        Users::new(self.store(), self.clock(), self.entropy(), Arc::clone(passwords), Arc::clone(sign_in))
    }

    pub(crate) fn roles(&self) -> Roles {
        Roles::new(self.store(), self.clock())
    }

    pub(crate) fn bindings(&self, users: &Arc<Users>, roles: &Arc<Roles>) -> Bindings {
        Bindings::new(self.store(), self.clock(), self.entropy(), Arc::clone(users), Arc::clone(roles))
    }

    pub(crate) fn tokens(&self) -> Tokens {
        Tokens::new(self.store(), self.clock(), self.entropy())
    }

    pub(crate) fn service_tokens(&self) -> ServiceTokens {
        ServiceTokens::new(self.store(), self.clock(), self.entropy())
    }

    pub(crate) fn sessions(&self) -> Sessions {
        Sessions::new(self.store(), self.clock())
    }

    pub(crate) fn spaces(&self) -> Spaces {
        Spaces::new(self.store(), self.clock())
    }

    pub(crate) fn sign_in(&self, passwords: &Arc<Passwords>) -> SignIn {
        SignIn::new(self.store(), self.clock(), self.entropy(), Arc::clone(passwords))
    }

    pub(crate) fn providers(&self) -> Providers {
        Providers::new(self.store(), self.clock(), self.entropy(), Arc::clone(&self.sealer))
    }

    pub(crate) fn federation(&self, providers: &Arc<Providers>, sign_in: &Arc<SignIn>) -> Federation {
        Federation {
            store: self.store(),
            clock: self.clock(),
            entropy: self.entropy(),
            sealer: Arc::clone(&self.sealer),
            providers: Arc::clone(providers),
            openid: Arc::clone(&self.openid),
            sign_in: Arc::clone(sign_in),
        }
    }

    pub(crate) fn devices(&self, sign_in: &Arc<SignIn>) -> Devices {
        Devices::new(self.store(), self.clock(), self.entropy(), Arc::clone(sign_in))
    }

    pub(crate) fn setup(&self, passwords: &Arc<Passwords>, sign_in: &Arc<SignIn>) -> Setup {
        let (passwords, sign_in) = (Arc::clone(passwords), Arc::clone(sign_in));
        Setup::new(self.store(), self.clock(), self.entropy(), passwords, sign_in)
    }

    pub(crate) fn nodes(&self) -> Nodes {
        Nodes::new(self.store(), self.clock())
    }

    pub(crate) fn server_status(&self) -> ServerStatus {
        ServerStatus::new(self.store(), self.clock(), self.entropy(), self.settings.tested_version)
    }

    pub(crate) fn statuses(&self) -> Statuses {
        let members = Arc::clone(&self.members);
        Statuses::new(self.store(), self.clock(), self.registry(), self.records(), members, self.shutdown())
    }

    pub(crate) fn live_queries(&self) -> LiveQueries {
        LiveQueries::new(self.store(), self.clock(), self.entropy(), self.shutdown())
    }

    pub(crate) fn scripts(&self) -> Scripts {
        Scripts::new(self.store(), self.clock(), self.entropy(), self.shutdown())
    }

    pub(crate) fn installs(&self) -> Installs {
        Installs::new(self.store(), self.clock(), self.entropy(), self.shutdown())
    }

    pub(crate) fn disk_keys(&self) -> DiskKeys {
        DiskKeys::new(self.store(), self.clock(), self.entropy(), Arc::clone(&self.sealer), self.shutdown())
    }

    pub(crate) fn transfers(&self) -> Transfers {
        Transfers::new(self.store(), self.clock(), self.entropy(), self.registry())
    }

    pub(crate) fn carves(&self) -> Carves {
        Carves::new(self.store(), self.clock(), self.entropy())
    }

    pub(crate) fn saved_queries(&self) -> SavedQueries {
        SavedQueries::new(self.store(), self.clock(), self.entropy())
    }

    pub(crate) fn packs(&self) -> Packs {
        Packs::new(self.store(), self.clock(), self.entropy(), Arc::clone(&self.fleetd_options))
    }

    pub(crate) fn software(&self) -> SoftwareInventory {
        SoftwareInventory::new(self.store(), self.clock(), self.shutdown())
    }

    pub(crate) fn inventory(&self) -> HostInventory {
        HostInventory::new(self.store(), self.clock())
    }

    fn orbit_work(&self) -> OrbitWork {
        OrbitWork {
            scripts: Arc::new(self.scripts()),
            installs: Arc::new(self.installs()),
            disk_keys: Arc::new(self.disk_keys()),
        }
    }

    /// Builds what follows changes, in the order in which they depend on each other.
    pub(crate) fn followers_of_changes(
        &self,
        statuses: &Arc<Statuses>,
        live_queries: &Arc<LiveQueries>,
    ) -> (OrbitWork, Arc<Hints>, Arc<ChangeFeed>) {
        let orbit_work = self.orbit_work();
        let hints = Arc::new(self.hints(live_queries, &orbit_work));
        let feed = Arc::new(self.feed(statuses, live_queries, &orbit_work, &hints));
        (orbit_work, hints, feed)
    }

    fn hints(&self, live_queries: &Arc<LiveQueries>, orbit_work: &OrbitWork) -> Hints {
        Hints::new(HintParts {
            clock: self.clock(),
            registry: self.registry(),
            records: self.records(),
            live_queries: Arc::clone(live_queries),
            scripts: Arc::clone(&orbit_work.scripts),
            installs: Arc::clone(&orbit_work.installs),
            disk_keys: Arc::clone(&orbit_work.disk_keys),
            host_checks: Arc::clone(&self.host_checks),
            labels: Arc::clone(&self.labels),
            shutdown: self.shutdown(),
        })
    }

    fn feed(
        &self,
        statuses: &Arc<Statuses>,
        live_queries: &Arc<LiveQueries>,
        orbit_work: &OrbitWork,
        hints: &Arc<Hints>,
    ) -> ChangeFeed {
        let (policies, statuses) = (Arc::clone(&self.policy_cache), Arc::clone(statuses));
        ChangeFeed::new(ChangeFeedParts {
            store: self.store(),
            clock: self.clock(),
            registry: self.registry(),
            records: self.records(),
            policies,
            live_queries: Arc::clone(live_queries),
            scripts: Arc::clone(&orbit_work.scripts),
            installs: Arc::clone(&orbit_work.installs),
            disk_keys: Arc::clone(&orbit_work.disk_keys),
            statuses,
            urls: Arc::clone(&self.urls),
            fleetd_options: Arc::clone(&self.fleetd_options),
            host_checks: Arc::clone(&self.host_checks),
            labels: Arc::clone(&self.labels),
            hints: Arc::clone(hints),
            signing: Arc::clone(&self.signing),
            shutdown: self.shutdown(),
        })
    }

    pub(crate) fn housekeeping(
        &self,
        actions: &Arc<Actions>,
        statuses: &Arc<Statuses>,
        feed: &Arc<ChangeFeed>,
    ) -> Housekeeping {
        let (actions, statuses, feed) = (Arc::clone(actions), Arc::clone(statuses), Arc::clone(feed));
        Housekeeping::new(self.store(), self.clock(), self.registry(), actions, statuses, feed, self.shutdown())
    }
}
