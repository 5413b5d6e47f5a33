//! What the coordinator depends on.

use std::sync::Arc;

use muster_core::Entropy;
use muster_core::time::Clock;

use super::migrate::Connect;
use super::quiet::Memory;
use crate::components::Components;
use crate::host::Facts;
use crate::install::privileges::Privileges;
use crate::model::Catalog;
use crate::net::Transport;
use crate::settings::Settings;
use crate::standalone::file::PolicyFile;
use crate::state::Store;
use crate::upgrade::Upgrades;
use crate::variables::Variables;

/// The coordinator's dependencies; tests replace all of them.
#[derive(Clone)]
pub struct Deps {
    /// Stores the documents.
    pub store: Arc<dyn Store>,
    /// Sends requests.
    pub transport: Arc<dyn Transport>,
    /// Runs the components.
    pub components: Arc<dyn Components>,
    /// Provides the variables of policies.
    pub variables: Arc<dyn Variables>,
    /// Installed components and local rules.
    pub catalog: Arc<Catalog>,
    /// Provides host metadata.
    pub facts: Arc<dyn Facts>,
    /// Provides the wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Provides randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Sets the log level.
    pub log_level: Arc<dyn LogLevel>,
    /// Replaces the program by another version.
    pub upgrades: Arc<dyn Upgrades>,
    /// The privileges of the agent on its host.
    pub privileges: Arc<dyn Privileges>,
    /// Connects to the server of a migration.
    pub connect: Connect,
    /// The memory of the process.
    pub memory: Arc<dyn Memory>,
    /// Settings.
    pub settings: Settings,
    /// The policy of a standalone agent, which has no server.
    pub policy_file: Option<PolicyFile>,
}

/// A log with a configurable level.
pub trait LogLevel: Send + Sync {
    /// Sets the level: `trace`, `debug`, `info`, `warning` or `error`.
    fn set(&self, level: &str);
    /// Returns the end of the log, for diagnostics.
    fn tail(&self) -> String;
}
