//! fleetd options: the osquery configuration of the hosts of a space, and what orbit gets.

mod configurations;

use std::sync::Arc;

use muster_core::authorization::{Grant, OsqueryRead, OsqueryWrite};
use muster_core::change::Change;
use muster_core::denial::Denial;
use muster_core::error_chain::SharedError;
use muster_core::fleetd::desktop::DesktopOptions;
use muster_core::fleetd::options::{DEFAULT, Options};
use muster_core::fleetd::orbit_config::OrbitOptions;
use muster_core::fleetd::platform::Platform;
use muster_core::id::SpaceId;
use muster_core::policy::diff::Difference;
use muster_core::policy::problem::Problems;
use muster_core::time::{Clock, Timestamp};
use muster_core::yaml::is_secret;
use muster_core::{Error, ErrorKind};
use muster_store::{Precondition, SettingWrite, StoreError, Write};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use self::configurations::Configuration;
use self::configurations::Configurations;
use super::audit::audit_line;
use super::labels::Labels;
use super::packs;
use super::registry::AgentEntry;
use super::space_cache::SpaceCache;
use super::watched_store::WatchedStore;

/// Prefix of the names of the settings that hold the options.
const PREFIX: &str = "fleetd_options:";
/// Maximum number of differences in an audit event, and maximum length of a value in one, bytes.
const AUDITED_DIFFERENCES: usize = 100;
const AUDITED_VALUE: usize = 1024;

/// The options of a space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct SpaceOptions {
    /// Number of changes; 0 if the options were never set.
    pub version: i64,
    /// Time of the last change, microseconds.
    updated_at: Option<i64>,
    /// Who made it.
    pub updated_by: Option<String>,
    /// The document; `None` stands for the default.
    document: Option<String>,
}

impl SpaceOptions {
    /// Returns the document.
    pub fn document(&self) -> &str {
        self.document.as_deref().unwrap_or(DEFAULT)
    }

    /// Returns warnings about the document.
    pub fn advice(&self) -> Result<Problems, Error> {
        Ok(Options::stored(self.document())?.advice())
    }

    /// Returns whether they are the default.
    pub fn is_default(&self) -> bool {
        self.document.is_none()
    }

    /// Returns the time of the last change.
    pub fn updated_at(&self) -> Option<Timestamp> {
        self.updated_at.map(Timestamp::from_micros)
    }
}

/// The service of fleetd options.
pub struct FleetdOptions {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    labels: Arc<Labels>,
    cache: SpaceCache<Configurations>,
}

impl FleetdOptions {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, labels: Arc<Labels>) -> Self {
        Self { store, clock, labels, cache: SpaceCache::default() }
    }

    /// Returns the configuration of an agent's host, with its packs. Reads the store once after each change.
    pub async fn configuration(&self, entry: &AgentEntry) -> Result<Configuration, Error> {
        let record = entry.record().ok_or(Denial::UnknownKey)?;
        let space = self.of_space(entry, &record.space).await?;
        let platform = Platform::of(&record);
        let (mut packs, depends_on_labels) = space.packs_for(platform);
        if depends_on_labels {
            let labels = self.labels.of_agent(entry).await?;
            packs.retain(|pack| labels.is_among(space.labels_of(*pack)));
        }
        Ok(space.get(platform, packs))
    }

    /// Returns the parts of orbit's configuration that come from the options.
    pub async fn orbit(&self, entry: &AgentEntry) -> Result<OrbitOptions, Error> {
        let record = entry.record().ok_or(Denial::UnknownKey)?;
        Ok(self.of_space(entry, &record.space).await?.orbit.clone())
    }

    /// Returns what Fleet Desktop on an orbit's host gets from the options.
    pub async fn desktop(&self, entry: &AgentEntry) -> Result<DesktopOptions, Error> {
        let record = entry.record().ok_or(Denial::UnknownKey)?;
        Ok(self.of_space(entry, &record.space).await?.desktop.clone())
    }

    async fn of_space(&self, entry: &AgentEntry, space: &SpaceId) -> Result<Arc<Configurations>, Error> {
        let load = async {
            let store = self.store.everywhere(entry);
            let options = parse(store.setting(&setting_name(space)).await?.as_deref())?;
            let of_all = packs::stored(store.setting(&packs::setting_of_all()).await?.as_deref())?;
            let own = packs::stored(store.setting(&packs::setting_name(space)).await?.as_deref())?;
            Ok(Configurations::of(Options::stored(options.document())?, of_all, own))
        };
        self.cache.get(space, load).await
    }

    /// Returns the options of the grant's space.
    pub async fn read(&self, grant: &Grant<OsqueryRead>) -> Result<SpaceOptions, Error> {
        parse(self.store.seen_by(grant).fleetd_options().await?.as_deref())
    }

    /// Replaces the options of the grant's space, `None` by the default. `expected`: the version that the caller has seen.
    /// Returns the options with the differences from the former ones; without a difference, nothing is written.
    pub async fn update(
        &self,
        grant: &Grant<OsqueryWrite>,
        document: Option<String>,
        expected: Option<i64>,
    ) -> Result<(SpaceOptions, Vec<Difference>), Error> {
        let before = self.store.seen_by(grant).fleetd_options().await?;
        let known = parse(before.as_deref())?;
        if expected.is_some_and(|expected| expected != known.version) {
            return Err(changed());
        }
        let differences = Options::parse(document.as_deref().unwrap_or(DEFAULT))?
            .differences_from(&Options::stored(known.document())?);
        if document == known.document {
            return Ok((known, differences));
        }
        let now = self.clock.now();
        let after = SpaceOptions {
            version: known.version + 1,
            updated_at: Some(now.as_micros()),
            updated_by: Some(grant.actor().to_string()),
            document,
        };
        let name = setting_name(grant.space());
        let value = serde_json::to_string(&after).map_err(Error::internal)?;
        let detail = json!({
            "before": audited(known.version, &differences, |one| one.before.as_ref()),
            "after": audited(after.version, &differences, |one| one.after.as_ref()),
        });
        let writes = vec![
            SettingWrite::Swap { name: name.clone(), before, value }.into(),
            Write::Changed(Change::Setting(name.clone())),
            audit_line(grant.origin(), now, "fleetd_options.update", format_args!("setting:{name}"), detail),
        ];
        self.store.commit(grant, writes).await.map_err(refused)?;
        self.cache.forget(grant.space().as_str());
        Ok((after, differences))
    }

    /// Handles a change of a setting.
    pub(crate) fn setting_changed(&self, name: &str) {
        if name == packs::setting_of_all() {
            self.cache.clear();
        } else if let Some(space) = name.strip_prefix(PREFIX).or_else(|| packs::space_of(name)) {
            self.cache.forget(space);
        }
    }

    /// Forgets what is cached, after changes may have been missed.
    pub(crate) fn clear(&self) {
        self.cache.clear();
    }
}

/// Returns the name of the setting that holds the options of a space.
pub(crate) fn setting_name(space: &SpaceId) -> String {
    format!("{PREFIX}{space}")
}

/// Returns whether a setting holds the options of a space.
pub(crate) fn is_setting(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Parses the stored options of a space.
pub(crate) fn parse(stored: Option<&str>) -> Result<SpaceOptions, Error> {
    let Some(stored) = stored else { return Ok(SpaceOptions::default()) };
    serde_json::from_str(stored).map_err(|error| Error::internal(SharedError::during("fleetd options", error)))
}

/// Returns the values before or after a change for the audit log, by JSON pointer: not too many, without long values, and
/// without those that may be secrets.
fn audited(version: i64, differences: &[Difference], side: fn(&Difference) -> Option<&Value>) -> Value {
    let shown = |path: &str, value: &Value| match without_secrets(&path.replace('/', "."), value) {
        value if value.to_string().len() > AUDITED_VALUE => "too long".into(),
        value => value,
    };
    let of = |one: &Difference| Some((one.path.clone(), shown(&one.path, side(one)?)));
    let mut values: Map<String, Value> = differences.iter().take(AUDITED_DIFFERENCES).filter_map(of).collect();
    values.insert("version".to_owned(), version.into());
    values.into()
}

fn without_secrets(path: &str, value: &Value) -> Value {
    match value {
        _ if is_secret(path) => "hidden".into(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), without_secrets(name, value))).collect()
        }
        other => other.clone(),
    }
}

fn changed() -> Error {
    let message = "the options have changed in the meantime";
    Error::new(ErrorKind::Conflict, "fleetd_options_changed", message).remedy("read them again, and repeat the change")
}

fn refused(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::Changed(_)) => changed(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_log_has_no_secrets_and_no_long_values() {
        let options = |text: &str| Options::parse(text).unwrap();
        let long = "x".repeat(AUDITED_VALUE);
        let after = options(&format!(
            "config: {{options: {{aws_secret_access_key: hush, a: 1}}, schedule: {{q: {{query: {long}, interval: 1}}}}}}"
        ));
        let differences = after.differences_from(&options("config: {options: {a: 0}}"));
        let value = audited(2, &differences, |one| one.after.as_ref());
        assert_eq!(value["/config/options/aws_secret_access_key"], "hidden", "{value}");
        assert_eq!((&value["/config/options/a"], &value["version"]), (&json!(1), &json!(2)));
        assert_eq!(value["/config/schedule"], "too long");
        let whole = audited(2, &after.differences_from(&options("config: null")), |one| one.after.as_ref());
        assert!(!whole.to_string().contains("hush"), "{whole}");
    }
}
