//! The services of a [`Fleet`], by name.

use std::sync::Arc;

use muster_core::Entropy;
use muster_core::time::Timestamp;

use crate::actions::Actions;
use crate::agents::Agents;
use crate::alerts::Alerts;
use crate::audit_log::Audit;
use crate::authenticate::Authentication;
use crate::auto_upgrades::AutoUpgrades;
use crate::backups::Backups;
use crate::carves::Carves;
use crate::change_log::ChangeLog;
use crate::check_in::CheckIns;
use crate::credentials::Credentials;
use crate::disk_keys::DiskKeys;
use crate::enroll::Enrollment;
use crate::files::Files;
use crate::fleetd_options::FleetdOptions;
use crate::hints::Hints;
use crate::host_checks::HostChecks;
use crate::host_logs::HostLogs;
use crate::housekeeping::Housekeeping;
use crate::idempotency::Idempotency;
use crate::identity::bindings::Bindings;
use crate::identity::devices::Devices;
use crate::identity::federation::Federation;
use crate::identity::providers::Providers;
use crate::identity::roles::Roles;
use crate::identity::service_tokens::ServiceTokens;
use crate::identity::sessions::Sessions;
use crate::identity::setup::Setup;
use crate::identity::sign_in::SignIn;
use crate::identity::spaces::Spaces;
use crate::identity::tokens::Tokens;
use crate::identity::users::Users;
use crate::installs::Installs;
use crate::inventory::HostInventory;
use crate::keys::EnrollmentKeys;
use crate::labels::Labels;
use crate::live_queries::LiveQueries;
use crate::network_objects::{DownloadSources, NetworkObjects, Proxies, ServerHosts};
use crate::nodes::Nodes;
use crate::output_keys::OutputKeys;
use crate::outputs::Outputs;
use crate::packs::Packs;
use crate::policies::Policies;
use crate::query_failures::QueryFailures;
use crate::refusals::Refusals;
use crate::respond::Responses;
use crate::restoration::Restoration;
use crate::rollouts::Rollouts;
use crate::saved_queries::SavedQueries;
use crate::scripts::Scripts;
use crate::server_status::ServerStatus;
use crate::software::SoftwareInventory;
use crate::space_settings::Settings;
use crate::status_timer::Statuses;
use crate::transfers::Transfers;
use crate::uninstall_tokens::UninstallTokens;
use crate::urls::ServerUrls;

use crate::Fleet;
use crate::settings::FleetSettings;

impl Fleet {
    /// Agents, for administrators.
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Live queries.
    pub fn live_queries(&self) -> &Arc<LiveQueries> {
        &self.live_queries
    }

    /// Hints to connected hosts.
    pub fn hints(&self) -> &Arc<Hints> {
        &self.hints
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

    /// The configuration of hosts with osquery.
    pub fn fleetd_options(&self) -> &FleetdOptions {
        &self.fleetd_options
    }

    /// Host checks.
    pub fn host_checks(&self) -> &HostChecks {
        &self.host_checks
    }

    /// Returns the service of packs.
    pub fn packs(&self) -> &Packs {
        &self.packs
    }

    /// Returns the service of labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Installs of software, and installers.
    pub fn installs(&self) -> &Installs {
        &self.orbit_work.installs
    }

    /// Scripts.
    pub fn scripts(&self) -> &Scripts {
        &self.orbit_work.scripts
    }

    /// Disk keys.
    pub fn disk_keys(&self) -> &DiskKeys {
        &self.orbit_work.disk_keys
    }

    /// Transfers of hosts between spaces.
    pub fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// Carves.
    pub fn carves(&self) -> &Carves {
        &self.carves
    }

    /// Returns the service of scheduled queries that do not work.
    pub fn query_failures(&self) -> &QueryFailures {
        &self.query_failures
    }

    /// Saved queries.
    pub fn saved_queries(&self) -> &SavedQueries {
        &self.saved_queries
    }

    /// Software of hosts.
    pub fn software(&self) -> &SoftwareInventory {
        &self.software
    }

    /// Inventory of hosts besides their software.
    pub fn inventory(&self) -> &HostInventory {
        &self.inventory
    }

    /// Logs of osquery.
    pub fn host_logs(&self) -> &HostLogs {
        &self.host_logs
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

    /// Who is logged in.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
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
}
