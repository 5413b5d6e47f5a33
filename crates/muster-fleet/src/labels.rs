//! Labels of hosts: what hosts are asked and answer, and which labels they have. What people do with them is in `labels/manage.rs`.

mod manage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use muster_core::agent::Family;
use muster_core::denial::Denial;
use muster_core::documents::bytes_digest;
use muster_core::fleetd::details;
use muster_core::fleetd::labels::{self as decisions, BuiltIn, Label, name_key};
use muster_core::fleetd::platform::Platform;
use muster_core::hex::number_of;
use muster_core::id::{LabelId, SpaceId};
use muster_core::time::Clock;
use muster_core::{Entropy, Error};
use muster_store::query::AgentCondition;
use muster_store::search::Fact;
use muster_store::{AgentWrite, LabelWrite, Write};

pub use self::manage::{LabelDraft, LabelKind, LabelView};
pub(crate) use self::manage::{among, check_names, exist, gone, names_of};
use super::registry::AgentEntry;
use super::space_cache::SpaceCache;
use super::watched_store::WatchedStore;

/// Prefix of the subject of changes: the labels of a space are announced like a setting of it.
const PREFIX: &str = "labels:";

/// The service of labels.
pub struct Labels {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cache: SpaceCache<SpaceLabels>,
    loads: AtomicU64,
}

/// The cached labels of a space, with the names of their queries.
struct SpaceLabels {
    /// Number of the load: what was derived from another one is stale.
    load: u64,
    /// Hash of the labels that hosts answer, which are asked again when it changes.
    version: u64,
    labels: Vec<Label>,
    names: Vec<String>,
}

impl SpaceLabels {
    fn of(load: u64, labels: Vec<Label>) -> Self {
        let asked = labels.iter().filter(|label| label.is_dynamic());
        let versions: Vec<String> = asked.map(|label| format!("{}:{}", label.id, label.version)).collect();
        let parts: Vec<&[u8]> = versions.iter().map(String::as_bytes).collect();
        // A hash of all versions instead of a counter: it is the same on every server and after a restart.
        let digest = bytes_digest(&parts);
        Self { load, version: number_of(&digest), names: labels.iter().map(Label::query_name).collect(), labels }
    }

    fn queries(&self, platform: Option<Platform>) -> impl Iterator<Item = (&str, &str)> {
        let named = self.labels.iter().zip(&self.names);
        named.filter_map(move |(label, name)| Some((name.as_str(), label.query_for(platform)?)))
    }
}

/// Queries of labels that are due to a host.
pub struct DueLabels {
    space: Arc<SpaceLabels>,
    platform: Option<Platform>,
}

impl DueLabels {
    /// Iterates over the names and the SQL of the queries.
    pub fn queries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.space.queries(self.platform)
    }
}

/// The labels of a host, which decide which host checks and packs it gets.
pub struct HostLabels {
    space: Arc<SpaceLabels>,
    stored: Arc<[LabelId]>,
    os: String,
}

impl HostLabels {
    /// Returns whether the host has a label with this name.
    pub fn has(&self, name: &str) -> bool {
        if let Some(built_in) = BuiltIn::parse(name) {
            return built_in.has(&self.os);
        }
        let key = name_key(name);
        let found = self.space.labels.iter().find(|label| name_key(&label.name) == key);
        found.is_some_and(|label| self.stored.contains(&label.id))
    }

    /// Returns whether a selection of labels includes the host: it has one of them, or the selection is empty.
    pub fn is_among(&self, names: &[String]) -> bool {
        names.is_empty() || names.iter().any(|name| self.has(name))
    }
}

/// What hosts are asked and answer.
impl Labels {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { store, clock, entropy, cache: SpaceCache::default(), loads: AtomicU64::new(0) }
    }

    /// Returns the labels for which an agent's host must answer now: all after an hour with the jitter of its details, and whenever the
    /// dynamic labels of its space have changed.
    pub async fn due(&self, entry: &AgentEntry) -> Result<Option<DueLabels>, Error> {
        let record = entry.record().ok_or(Denial::UnknownKey)?;
        let space = self.of_space(entry, &record.space).await?;
        let answered = entry.labels_answered();
        // A host that has never answered is asked immediately, and so is every host after a change of labels.
        let is_new = answered.is_none_or(|(_, version)| version != space.version);
        let is_due = is_new || details::are_due(entry.id(), answered.map(|(at, _)| at), self.clock.now());
        Ok(is_due.then(|| DueLabels { space, platform: Platform::of(&record) }))
    }

    /// Stores the answers in the results of a request: JSON objects by query name. Writes nothing if the host has the same labels as
    /// before.
    pub async fn answered(
        &self,
        entry: &AgentEntry,
        queries: &str,
        statuses: &str,
        messages: &str,
    ) -> Result<(), Error> {
        if !decisions::has_answers(queries, statuses) {
            return Ok(());
        }
        let record = entry.record().ok_or(Denial::UnknownKey)?;
        let Some(host) = record.host_id.clone() else { return Ok(()) };
        let space = self.of_space(entry, &record.space).await?;
        // From the store, not from the cache: the differences must be those to the stored rows.
        let known = self.store.everywhere(entry).labels_of_host(&host).await?;
        let errors = self.store.everywhere(entry).label_errors_of_host(&host).await?;
        let platform = Platform::of(&record);
        let changes = decisions::decide(&space.labels, platform, &known, queries, statuses, messages);
        let errors = decisions::decide_errors(&space.labels, platform, &errors, queries, statuses, messages);
        if !(changes.is_empty() && errors.is_empty()) {
            // The record must not have changed: with another space, its host is another one.
            let unchanged = AgentWrite::Unchanged { id: record.id.clone(), version: record.version };
            let hosts = vec![host.clone()];
            let mut writes = vec![Write::Agent(unchanged)];
            if !changes.add.is_empty() {
                writes.push(LabelWrite::Add { labels: changes.add.clone(), hosts: hosts.clone() }.into());
            }
            if !changes.remove.is_empty() {
                writes.push(LabelWrite::Remove { labels: changes.remove.clone(), hosts }.into());
            }
            if !errors.put.is_empty() {
                writes.push(LabelWrite::Failed { host: host.clone(), errors: errors.put, at: self.clock.now() }.into());
            }
            if !errors.remove.is_empty() {
                writes.push(LabelWrite::Ran { host, labels: errors.remove }.into());
            }
            self.store.commit(entry, writes).await?;
        }
        // After the commit: a failed one leaves the labels due, and the host answers again.
        entry.remember_labels(self.clock.now(), space.version, !changes.is_empty());
        Ok(())
    }

    /// Returns the labels of an agent's host. Reads the store once after each change.
    pub async fn of_agent(&self, entry: &AgentEntry) -> Result<HostLabels, Error> {
        let record = entry.record().ok_or(Denial::UnknownKey)?;
        let space = self.of_space(entry, &record.space).await?;
        let stored = match (entry.known_labels(space.load), &record.host_id) {
            (Ok(known), _) => known,
            (Err(_), None) => Arc::default(),
            (Err(changes), Some(host)) => {
                let read: Arc<[LabelId]> = self.store.everywhere(entry).labels_of_host(host).await?.into();
                // Answers come from osqueryd, so that an orbit would not learn of changes.
                if record.family == Family::Osquery {
                    entry.cache_labels(space.load, changes, Arc::clone(&read));
                }
                read
            }
        };
        Ok(HostLabels { space, stored, os: record.os.clone() })
    }

    async fn of_space(&self, entry: &AgentEntry, space: &SpaceId) -> Result<Arc<SpaceLabels>, Error> {
        let load = async {
            let labels = self.store.everywhere(entry).labels(space).await?;
            // The number identifies the load, so what a host's entry has cached from an earlier one is recognized.
            Ok(SpaceLabels::of(self.loads.fetch_add(1, Ordering::Relaxed), labels))
        };
        self.cache.get(space, load).await
    }

    /// Handles a change of a setting.
    pub(crate) fn setting_changed(&self, name: &str) {
        if let Some(space) = name.strip_prefix(PREFIX) {
            self.cache.forget(space);
        }
    }

    /// Forgets what is cached, after changes may have been missed.
    pub(crate) fn clear(&self) {
        self.cache.clear();
    }
}

/// Returns the condition on an agent that its host has a label with this name. For a built-in label, that is a condition on what the agent
/// itself reports.
pub fn condition(name: &str) -> AgentCondition {
    use AgentCondition::{All, Any};
    let platform = |value: &str| AgentCondition::Os(Fact::Platform, value.to_owned(), false);
    let is_centos = || {
        let named = AgentCondition::Os(Fact::Name, "centos".to_owned(), true);
        Any(vec![platform("centos"), named])
    };
    match BuiltIn::parse(name) {
        None => AgentCondition::Labels(vec![name.to_owned()]),
        Some(BuiltIn::AllHosts) => AgentCondition::HasHost,
        Some(BuiltIn::MacOs) => platform("darwin"),
        Some(BuiltIn::Windows) => platform("windows"),
        Some(BuiltIn::AllLinux) => All(["", "darwin", "windows"].iter().map(|other| !platform(other)).collect()),
        Some(BuiltIn::Ubuntu) => platform("ubuntu"),
        Some(BuiltIn::CentOs) => is_centos(),
        Some(BuiltIn::RedHat) => All(vec![platform("rhel"), !is_centos()]),
        Some(BuiltIn::Fedora) => platform("fedora"),
    }
}

/// Returns the subject of changes of the labels of a space.
pub(crate) fn setting_name(space: &SpaceId) -> String {
    format!("{PREFIX}{space}")
}

/// Returns whether the subject of a change is the labels of a space.
pub(crate) fn is_setting(name: &str) -> bool {
    name.starts_with(PREFIX)
}
