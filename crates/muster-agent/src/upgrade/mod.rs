//! Replaces the agent's program by another version, and goes back if the new one does not work.
//!
//! An upgrade has three parts. The daemon **prepares** a versioned home ([`prepare`]): it downloads a package, verifies
//! it, unpacks it and starts its program once for a test. It then **switches** ([`switch`]): it records the upgrade,
//! starts a watcher, changes the link, and becomes the new program. The **watcher** ([`watch`]) is a process of the
//! previous version. It observes the new one, and either ends the upgrade or changes the link back.
//!
//! The link is the only thing that decides which version starts. The file `upgrade.json` ([`record`]) tells every process
//! that starts after a crash how far the upgrade was. Each change on disk is a method of [`disk::Disk`], so that tests
//! can stop an upgrade at every one of them.

pub mod details;
pub mod disk;
pub mod download;
mod host;
pub mod pack;
pub mod package;
pub mod prepare;
pub mod record;
pub mod source;
pub mod switch;
pub mod unpack;
pub mod watch;
pub mod watcher;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;

use crate::fleet::FleetClient;
use crate::homes::HomeName;
use crate::net::proxy::Proxy;
use crate::state::enrollment::Secret;
use details::{Details, Metadata, Stage};
pub use host::{HostUpgrades, running};
use record::{Kept, Terms};
pub use switch::Resumed;

/// What an UPGRADE action, or a command on the host, asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(expecting = "an object with a version")]
pub struct Request {
    /// Target version.
    pub version: String,
    /// Where packages are; the default is the setting `upgrade.source_uri`, and then the server.
    #[serde(default)]
    pub source_uri: Option<String>,
    /// Download source of the policy, where a package is looked for if the server does not have it.
    #[serde(skip)]
    pub policy_source: Option<PolicySource>,
    /// Return to a version that is still on disk.
    #[serde(default)]
    pub rollback: bool,
    /// Upgrade on the host, although the server of the fleet decides.
    #[serde(skip)]
    pub is_forced: bool,
}

/// A download source of a policy: `agent.download`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySource {
    /// URL of a directory with packages.
    pub url: String,
    /// Proxy through which it is reached.
    pub proxy: Option<Proxy>,
    /// PEM certificates, or files with them; the default is the setting `upgrade.certificate_authorities`.
    pub certificate_authorities: Vec<String>,
}

impl PolicySource {
    /// Returns the source that a policy names.
    pub fn of(policy: &Value) -> Option<Self> {
        let download = &policy["agent"]["download"];
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let url = text(&download["sourceURI"])?;
        let is_direct = download["proxy_disable"] == true;
        let headers = download["proxy_headers"].as_object().into_iter().flatten();
        let proxy = text(&download["proxy_url"]).filter(|_| !is_direct).map(|url| Proxy {
            url: Secret::new(url),
            headers: headers.filter_map(|(name, value)| Some((name.clone(), Secret::new(text(value)?)))).collect(),
        });
        let authorities = download["ssl"]["certificate_authorities"].as_array().into_iter().flatten();
        Some(Self { url, proxy, certificate_authorities: authorities.filter_map(text).collect() })
    }
}

/// Why an upgrade failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// What the upgrade was doing.
    pub stage: Stage,
    /// The reason.
    pub message: String,
}

impl Failed {
    /// Creates a failure.
    pub fn new(stage: Stage, message: impl Into<String>) -> Self {
        Self { stage, message: message.into() }
    }
}

/// Progress of the preparation, shared with the coordinator, which reports it.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<(Mutex<Option<Reached>>, Notify)>);

type Reached = (Stage, Metadata);

impl Progress {
    /// Sets the current stage.
    pub fn set(&self, stage: Stage, metadata: Metadata) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((stage, metadata));
        self.0.1.notify_one();
    }

    /// Waits for the next change.
    pub async fn changed(&self) {
        self.0.1.notified().await;
    }

    /// Returns the details of an upgrade to `version`.
    pub fn details(&self, version: &str, action_id: &str) -> Details {
        let current = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (state, metadata) = current.unwrap_or((Stage::Requested, Metadata::default()));
        Details { target_version: version.to_owned(), state, action_id: action_id.to_owned(), metadata }
    }
}

/// A switch to a prepared home.
#[derive(Clone, Debug)]
pub struct Switch {
    /// The home.
    pub to: HomeName,
    /// Action that requested it; empty for a command on the host.
    pub action_id: String,
    /// What the watcher requires of the new version.
    pub terms: Terms,
}

/// Everything that an upgrade does to the host. Tests replace it.
#[async_trait]
pub trait Upgrades: Send + Sync {
    /// Returns the version of the running program, if it was installed so that it can be replaced.
    fn running(&self) -> Option<HomeName>;
    /// Returns the versions that are still on disk and can be activated again.
    fn kept(&self) -> Vec<Kept>;
    /// Checks what can be checked of a request without preparing anything.
    fn check(&self, request: &Request, client: Arc<FleetClient>) -> Result<(), Failed>;
    /// Prepares a home of the requested version.
    async fn prepare(&self, request: Request, client: Arc<FleetClient>, progress: Progress)
    -> Result<HomeName, Failed>;
    /// Records the upgrade, starts a watcher, and activates the home. The daemon must then restart.
    async fn switch(&self, switch: Switch) -> Result<(), Failed>;
    /// Returns what became of an upgrade that was in progress when this process started.
    fn resumed(&self) -> Resumed;
    /// Ends an upgrade whose result is stored: removes what is left of it.
    fn finish(&self);
}

/// A host on which the agent cannot be replaced.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotInstalled;

/// Reason for [`NotInstalled`].
pub const NOT_INSTALLED: &str =
    "this agent was not installed with `muster-agent install`, so it cannot replace its program";

#[async_trait]
impl Upgrades for NotInstalled {
    fn running(&self) -> Option<HomeName> {
        None
    }

    fn kept(&self) -> Vec<Kept> {
        Vec::new()
    }

    fn check(&self, _: &Request, _: Arc<FleetClient>) -> Result<(), Failed> {
        Err(Failed::new(Stage::Requested, NOT_INSTALLED))
    }

    async fn prepare(&self, _: Request, _: Arc<FleetClient>, _: Progress) -> Result<HomeName, Failed> {
        Err(Failed::new(Stage::Requested, NOT_INSTALLED))
    }

    async fn switch(&self, _: Switch) -> Result<(), Failed> {
        Err(Failed::new(Stage::Replacing, NOT_INSTALLED))
    }

    fn resumed(&self) -> Resumed {
        Resumed::Nothing
    }

    fn finish(&self) {}
}
