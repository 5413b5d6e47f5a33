//! Settings of a space (MG §1.9, §2.13).

use std::sync::Arc;

use muster_core::Error;
use muster_core::authorization::{Grant, Privilege, SettingsRead, SettingsWrite};
use muster_core::change::Change;
use muster_core::error_chain::SharedError;
use muster_core::hex;
use muster_core::id::SpaceId;
use muster_core::time::Clock;
use muster_store::{Precondition, SettingWrite, StoreError, Write};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::audit::audit_line;
use super::registry::AgentEntry;
use super::scope::Scoped;
use super::watched_store::WatchedStore;

/// Maximum number of prefixes, and maximum length of one in bytes.
const MAX_PREFIXES: usize = 100;
const MAX_PREFIX: usize = 100;
/// Longest retention of unenrolled agents, seconds: ten years.
const MAX_RETENTION: u64 = 3650 * 24 * 3600;

/// The settings of a space. Absent ones have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct SpaceSettings {
    /// Prefixes that the data namespaces of policies must have; empty allows all.
    pub allowed_namespace_prefixes: Vec<String>,
    /// Seconds after which unenrolled agents are deleted; `None` keeps them (MG153).
    pub delete_unenrolled_after: Option<u64>,
    /// Whether a notice of Kibana's pages was closed. Kept for them, without effect.
    pub has_seen_add_data_notice: Option<bool>,
    /// Whether prerelease versions of integration packages are offered. Kept for clients, without effect.
    pub prerelease_integrations_enabled: Option<bool>,
    /// Whether hosts get no scripts.
    pub scripts_disabled: bool,
}

/// Returns whether the hosts of an agent's space get no scripts.
pub(crate) async fn are_scripts_disabled(store: &WatchedStore, entry: &AgentEntry) -> Result<bool, Error> {
    let Some(record) = entry.record() else { return Ok(true) };
    let text = store.everywhere(entry).setting(&setting_name(&record.space)).await?;
    Ok(parse(text.as_deref())?.scripts_disabled)
}

impl SpaceSettings {
    /// Version, for preconditions: the same for the same settings. Settings that are set back have the former version, which is
    /// right: whoever has seen them then overwrites nothing that they do not know.
    pub fn version(&self) -> Result<String, Error> {
        let text = serde_json::to_vec(self).map_err(Error::internal)?;
        Ok(hex::encode(&hex::sha256(&text)[..16]))
    }

    /// Rejects a data namespace without one of the allowed prefixes (MG90).
    pub(crate) fn check_namespace(&self, namespace: &str) -> Result<(), Error> {
        let allowed = &self.allowed_namespace_prefixes;
        if allowed.is_empty() || allowed.iter().any(|prefix| namespace.starts_with(prefix.as_str())) {
            return Ok(());
        }
        let reason = format!("must begin with one of the prefixes of this space: {}", allowed.join(", "));
        Err(Error::invalid("namespace", reason))
    }

    fn check(&self) -> Result<(), Error> {
        if self.delete_unenrolled_after.is_some_and(|seconds| seconds > MAX_RETENTION) {
            let reason = format!("at most {MAX_RETENTION} seconds");
            return Err(Error::invalid("delete_unenrolled_agents.retention_seconds", reason));
        }
        let field = "allowed_namespace_prefixes";
        if self.allowed_namespace_prefixes.len() > MAX_PREFIXES {
            return Err(Error::invalid(field, format!("at most {MAX_PREFIXES} prefixes")));
        }
        for prefix in &self.allowed_namespace_prefixes {
            // A namespace is a part of names of data streams, in which `-` separates the parts.
            let is_plain = prefix.bytes().all(|b| b.is_ascii_graphic() && b != b'-' && !b.is_ascii_uppercase());
            if !is_plain || prefix.is_empty() || prefix.len() > MAX_PREFIX {
                let reason = "a prefix has 1 to 100 visible ASCII characters without `-` and upper case";
                return Err(Error::invalid(field, reason));
            }
        }
        Ok(())
    }
}

/// Name of the setting that holds a space's settings.
pub(crate) fn setting_name(space: &SpaceId) -> String {
    format!("space_settings:{space}")
}

/// Parses the stored settings of a space.
pub(crate) fn parse(text: Option<&str>) -> Result<SpaceSettings, Error> {
    let Some(text) = text else { return Ok(SpaceSettings::default()) };
    serde_json::from_str(text).map_err(|error| Error::internal(SharedError::during("settings of a space", error)))
}

/// Reads the settings of the space of a view.
pub(crate) async fn of(seen: Scoped<'_>) -> Result<SpaceSettings, Error> {
    parse(seen.space_settings().await?.as_deref())
}

/// The service of settings of spaces.
pub struct Settings {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
}

impl Settings {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Returns the settings of the grant's space.
    pub async fn read(&self, grant: &Grant<SettingsRead>) -> Result<SpaceSettings, Error> {
        of(self.store.seen_by(grant)).await
    }

    /// Changes the settings of the grant's space. A change without a difference writes nothing. With an `expected`
    /// [`SpaceSettings::version`], it fails with `settings_changed` if the settings have another one.
    pub async fn update(
        &self,
        grant: &Grant<SettingsWrite>,
        expected: Option<&str>,
        change: impl FnOnce(&mut SpaceSettings) + Send,
    ) -> Result<SpaceSettings, Error> {
        self::change(&self.store, &*self.clock, grant, expected, change).await
    }
}

/// Changes the settings of the grant's space. The caller's privilege covers what `change` changes.
pub(crate) async fn change<P: Privilege>(
    store: &WatchedStore,
    clock: &dyn Clock,
    grant: &Grant<P>,
    expected: Option<&str>,
    change: impl FnOnce(&mut SpaceSettings) + Send,
) -> Result<SpaceSettings, Error> {
    // The stored text, which the commit compares.
    let before = store.seen_by(grant).space_settings().await?;
    let known = parse(before.as_deref())?;
    if let Some(expected) = expected
        && expected != known.version()?
    {
        return Err(changed());
    }
    let mut after = known.clone();
    change(&mut after);
    after.check()?;
    if after == known {
        return Ok(after);
    }
    let (name, now) = (setting_name(grant.space()), clock.now());
    let value = serde_json::to_string(&after).map_err(Error::internal)?;
    let detail = json!({"before": known, "after": after});
    let writes = vec![
        SettingWrite::Swap { name: name.clone(), before, value }.into(),
        Write::Changed(Change::Setting(name.clone())),
        audit_line(grant.origin(), now, "settings.update", audit_subject(grant.space()), detail),
    ];
    store.commit(grant, writes).await.map_err(refused)?;
    Ok(after)
}

/// Returns the subject of audit events about the settings of a space.
pub fn audit_subject(space: &SpaceId) -> String {
    format!("setting:{}", setting_name(space))
}

fn refused(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::Changed(_)) => changed(),
        other => other.into(),
    }
}

fn changed() -> Error {
    Error::conflict("settings_changed", "the settings have changed in the meantime").remedy("retry")
}
