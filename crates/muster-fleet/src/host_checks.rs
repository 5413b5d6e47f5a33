//! Host checks of spaces, and what hosts answer to them.

use std::collections::HashMap;
use std::sync::Arc;

use muster_core::agent::Family;
use muster_core::authorization::{Grant, OsqueryRead, OsqueryWrite};
use muster_core::change::Change;
use muster_core::denial::Denial;
use muster_core::entropy::random_uuid;
use muster_core::error_chain::SharedError;
use muster_core::fleetd::check_history::{CheckChange, CheckDay, KEPT_DAYS, day_of, until_now};
use muster_core::fleetd::checks::{self, Check, CheckResult};
use muster_core::fleetd::details;
use muster_core::fleetd::labels::{is_among, name_key};
use muster_core::fleetd::platform::Platform;
use muster_core::id::{HostCheckId, SpaceId};
use muster_core::time::Clock;
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::query::{CheckCounts, CheckedHost, CheckedHosts, Page};
use muster_store::{AgentWrite, HostCheckWrite, Precondition, SettingWrite, StoreError, Write};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::agent_views::AgentView;
use super::audit::{audit_line, with_changes};
use super::labels::{self, Labels};
use super::registry::AgentEntry;
use super::space_cache::SpaceCache;
use super::watched_store::WatchedStore;

/// Prefix of the names of the settings that hold the checks.
const PREFIX: &str = "host_checks:";

/// The checks of a space, as they are stored.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Stored {
    /// Number of changes.
    version: i64,
    checks: Vec<Check>,
}

/// A check with the numbers of hosts.
#[derive(Clone, Debug)]
pub struct CountedCheck {
    /// The check.
    pub check: Check,
    /// The numbers.
    pub counts: CheckCounts,
}

impl CountedCheck {
    /// Returns the number of hosts of a selection.
    pub fn number(&self, which: CheckedHosts) -> u64 {
        match which {
            CheckedHosts::Passing => self.counts.passing,
            CheckedHosts::Failing => self.counts.failing,
            CheckedHosts::Errors => self.counts.errors,
        }
    }
}

/// A check with what a host answered.
#[derive(Clone, Debug)]
pub struct AnsweredCheck {
    /// The check.
    pub check: Check,
    /// The answer; `None` if the host was not asked yet.
    pub result: Option<CheckResult>,
    /// The latest changes of the answer, the newest first; empty where only the present one is shown.
    pub history: Vec<CheckChange>,
}

/// The fields of a check that people set. Absent ones stay as they are.
#[derive(Clone, Debug, Default)]
pub struct CheckDraft {
    /// Name.
    pub name: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// SQL.
    pub query: Option<String>,
    /// Remedy for the user of a host.
    pub resolution: Option<String>,
    /// Platforms; empty for all.
    pub platforms: Option<Vec<String>>,
    /// Names of labels, of which the hosts have one; empty for all.
    pub labels: Option<Vec<String>>,
}

impl CheckDraft {
    fn apply(self, check: &mut Check) {
        let fields = [
            (self.name, &mut check.name),
            (self.description, &mut check.description),
            (self.query, &mut check.query),
            (self.resolution, &mut check.resolution),
        ];
        for (new, field) in fields {
            if let Some(new) = new {
                new.trim().clone_into(field);
            }
        }
        if let Some(platforms) = self.platforms {
            check.platforms = platforms;
        }
        if let Some(labels) = self.labels {
            check.labels = labels;
        }
    }
}

/// Queries that are due to a host.
pub struct DueChecks {
    space: Arc<SpaceChecks>,
    /// Positions of the checks that are for the host.
    own: Vec<usize>,
}

impl DueChecks {
    /// Iterates over the names and the SQL of the queries. If no check is for the host, they are one that tells that it was asked (FL29).
    pub fn queries(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.own.iter().map(|at| &self.space.checks[*at]);
        let instead = self.own.is_empty().then_some((checks::WILDCARD, details::ALWAYS));
        own.map(|(name, check)| (name.as_str(), check.query.as_str())).chain(instead)
    }

    /// Returns whether no check is for the host.
    pub fn are_none(&self) -> bool {
        self.own.is_empty()
    }
}

/// The cached checks of a space, with the names of their queries.
struct SpaceChecks {
    version: i64,
    checks: Vec<(String, Check)>,
}

/// The service of host checks.
pub struct HostChecks {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    labels: Arc<Labels>,
    cache: SpaceCache<SpaceChecks>,
}

/// What hosts are asked and answer.
impl HostChecks {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        labels: Arc<Labels>,
    ) -> Self {
        Self { store, clock, entropy, labels, cache: SpaceCache::default() }
    }

    /// Returns the checks that an agent's host must answer now: all after an hour with the jitter of its details, and
    /// whenever the checks of its space have changed.
    pub async fn due(&self, entry: &AgentEntry) -> Result<Option<DueChecks>, Error> {
        let record = entry.record().ok_or(Denial::UnknownKey)?;
        let space = self.of_space(entry, &record.space).await?;
        let answered = entry.checks_answered();
        let is_new = answered.is_none_or(|(_, version)| version != space.version);
        let is_due = is_new || details::are_due(entry.id(), answered.map(|(at, _)| at), self.clock.now());
        if !is_due {
            return Ok(None);
        }
        let own = self.for_host(entry, &space, Platform::of(&record)).await?;
        Ok(Some(DueChecks { space, own }))
    }

    /// Stores the answers in the results of a request: JSON objects by query name. Writes nothing if all are known.
    pub async fn answered(
        &self,
        entry: &AgentEntry,
        queries: &str,
        statuses: &str,
        messages: &str,
    ) -> Result<(), Error> {
        if !checks::has_answers(queries, statuses) {
            return Ok(());
        }
        let record = entry.record().ok_or(Denial::UnknownKey)?;
        let space = self.of_space(entry, &record.space).await?;
        let own = self.for_host(entry, &space, Platform::of(&record)).await?;
        let own: Vec<&Check> = own.into_iter().map(|at| &space.checks[at].1).collect();
        let answers = checks::answers(&own, queries, statuses, messages);
        let known = self.store.everywhere(entry).check_results(entry.id()).await?;
        let now = self.clock.now();
        let changes = checks::decide(&own, &known, answers, now);
        if !changes.is_empty() {
            // The record must not have changed: with another space, the host has other checks.
            let unchanged = AgentWrite::Unchanged { id: record.id.clone(), version: record.version };
            let results = HostCheckWrite::Results { agent: record.id.clone(), changes };
            self.store.commit(entry, vec![Write::Agent(unchanged), results.into()]).await?;
        }
        entry.remember_checks(now, space.version);
        Ok(())
    }

    /// Returns the positions of the checks that are for an agent's host, which has this platform.
    async fn for_host(
        &self,
        entry: &AgentEntry,
        space: &SpaceChecks,
        platform: Option<Platform>,
    ) -> Result<Vec<usize>, Error> {
        let applies = |at: &usize| space.checks[*at].1.applies_to(platform);
        let mut own: Vec<usize> = (0..space.checks.len()).filter(applies).collect();
        if own.iter().any(|at| !space.checks[*at].1.labels.is_empty()) {
            let labels = self.labels.of_agent(entry).await?;
            own.retain(|at| labels.is_among(&space.checks[*at].1.labels));
        }
        Ok(own)
    }

    async fn of_space(&self, entry: &AgentEntry, space: &SpaceId) -> Result<Arc<SpaceChecks>, Error> {
        let load = async {
            let stored = parse(self.store.everywhere(entry).setting(&setting_name(space)).await?.as_deref())?;
            let named = |check: Check| (check.query_name(), check);
            Ok(SpaceChecks { version: stored.version, checks: stored.checks.into_iter().map(named).collect() })
        };
        self.cache.get(space, load).await
    }

    /// Returns the checks of a host with its answers, for the user of the host: `agents` are those of its orbit's host
    /// ([`Agents::of_device`](crate::agents::Agents::of_device)).
    pub async fn of_device(&self, orbit: &AgentEntry, agents: &[AgentView]) -> Result<Vec<AnsweredCheck>, Error> {
        let mut records = agents.iter().map(|agent| &agent.details.record);
        let Some(record) = records.find(|record| record.family == Family::Osquery) else { return Ok(Vec::new()) };
        let space = self.of_space(orbit, &record.space).await?;
        let own = self.for_host(orbit, &space, Platform::of(record)).await?;
        let known = self.store.everywhere(orbit).check_results(&record.id).await?;
        Ok(answered(own.into_iter().map(|at| space.checks[at].1.clone()), known, Vec::new()))
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

/// For administrators.
impl HostChecks {
    /// Returns the checks of the grant's space by name, with the numbers of hosts.
    pub async fn list(&self, grant: &Grant<OsqueryRead>) -> Result<Vec<CountedCheck>, Error> {
        let seen = self.store.seen_by(grant);
        let mut checks = parse(seen.host_checks().await?.as_deref())?.checks;
        checks.sort_by_cached_key(|check| check.name.to_lowercase());
        let ids: Vec<HostCheckId> = checks.iter().map(|check| check.id.clone()).collect();
        let counts = seen.check_counts(&ids).await?;
        let counted = |(check, counts)| CountedCheck { check, counts };
        Ok(checks.into_iter().zip(counts).map(counted).collect())
    }

    /// Returns a check with the numbers of hosts.
    pub async fn find(&self, grant: &Grant<OsqueryRead>, id: &str) -> Result<CountedCheck, Error> {
        let found = self.list(grant).await?.into_iter().find(|counted| counted.check.id.as_str() == id);
        found.ok_or_else(|| Error::not_found("host check", id))
    }

    /// Returns the hosts that pass or fail a check, those that do so for the longest time first, or those on which its query does not
    /// run, the newest error first.
    pub async fn hosts(
        &self,
        grant: &Grant<OsqueryRead>,
        id: &str,
        which: CheckedHosts,
        page: Page,
    ) -> Result<(CountedCheck, Vec<CheckedHost>), Error> {
        let check = self.find(grant, id).await?;
        let hosts = self.store.seen_by(grant).checked_hosts(&check.check.id, which, page).await?;
        Ok((check, hosts))
    }

    /// Returns how many hosts passed and failed a check at the end of each of the last [`KEPT_DAYS`] days, the oldest first; the last
    /// one is today with the present numbers. Days on which no server ran, or nothing was answered, are missing.
    pub async fn days(&self, grant: &Grant<OsqueryRead>, id: &str) -> Result<(CountedCheck, Vec<CheckDay>), Error> {
        let found = self.find(grant, id).await?;
        let CheckCounts { passing, failing, .. } = found.counts;
        let today = CheckDay { day: day_of(self.clock.now()), passing, failing };
        let recorded = self.store.seen_by(grant).check_days(&found.check.id, today.day - KEPT_DAYS).await?;
        Ok((found, until_now(recorded, today)))
    }

    /// Creates a check.
    pub async fn create(&self, grant: &Grant<OsqueryWrite>, draft: CheckDraft) -> Result<Check, Error> {
        let mut check = Check {
            id: HostCheckId::trusted(random_uuid(&*self.entropy)),
            version: 1,
            name: String::new(),
            description: String::new(),
            query: String::new(),
            resolution: String::new(),
            platforms: Vec::new(),
            labels: Vec::new(),
        };
        draft.apply(&mut check);
        let added = check.clone();
        self.change(grant, "host_check.create", None, &check.id, |checks| checks.push(added)).await?;
        Ok(check)
    }

    /// Changes a check. `expected`: the version that the caller has seen.
    pub async fn update(
        &self,
        grant: &Grant<OsqueryWrite>,
        id: &str,
        draft: CheckDraft,
        expected: Option<i64>,
    ) -> Result<Check, Error> {
        let id = HostCheckId::trusted(id);
        let change = |checks: &mut Vec<Check>| {
            let known = checks.iter_mut().find(|check| check.id == id);
            if let Some(check) = known {
                let before = check.clone();
                draft.clone().apply(check);
                check.version += i64::from(*check != before);
            }
        };
        let (_, after) = self.change(grant, "host_check.update", expected, &id, change).await?;
        after.ok_or_else(|| Error::not_found("host check", &id))
    }

    /// Deletes a check. Its results are removed when the hosts answer the next time.
    pub async fn delete(&self, grant: &Grant<OsqueryWrite>, id: &str) -> Result<(), Error> {
        let id = HostCheckId::trusted(id);
        let (before, _) =
            self.change(grant, "host_check.delete", None, &id, |checks| checks.retain(|check| check.id != id)).await?;
        before.map(drop).ok_or_else(|| Error::not_found("host check", &id))
    }

    /// Changes the checks of the grant's space. Returns the check `id` before and after; without a difference, nothing is
    /// written.
    async fn change(
        &self,
        grant: &Grant<OsqueryWrite>,
        action: &str,
        expected: Option<i64>,
        id: &HostCheckId,
        change: impl FnOnce(&mut Vec<Check>) + Send,
    ) -> Result<(Option<Check>, Option<Check>), Error> {
        let text = self.store.seen_by(grant).host_checks().await?;
        let mut stored = parse(text.as_deref())?;
        let find = |checks: &[Check]| checks.iter().find(|check| check.id == *id).cloned();
        let before = find(&stored.checks);
        if before.as_ref().zip(expected).is_some_and(|(before, expected)| before.version != expected) {
            return Err(changed());
        }
        change(&mut stored.checks);
        let after = find(&stored.checks);
        if before == after {
            return Ok((before, after));
        }
        checks::check_all(&stored.checks)?;
        let mut writes = Vec::new();
        if let Some(after) = &after {
            labels::check_names(self.store.seen_by(grant), &after.labels).await?;
            writes.extend(labels::exist(grant.space(), &after.labels));
        }
        stored.version += 1;
        let (name, now) = (setting_name(grant.space()), self.clock.now());
        let value = serde_json::to_string(&stored).map_err(Error::internal)?;
        let detail = with_changes(json!({}), &described(before.as_ref())?, &described(after.as_ref())?);
        writes.extend([
            SettingWrite::Swap { name: name.clone(), before: text, value }.into(),
            Write::Changed(Change::Setting(name)),
            audit_line(grant.origin(), now, action, format_args!("host_check:{id}"), detail),
        ]);
        // A host that is offline must not show the answer to another question until it is back.
        if let (Some(before), Some(after)) = (&before, &after)
            && before.query != after.query
        {
            writes.push(HostCheckWrite::Forget { check: id.clone() }.into());
        }
        self.store.commit(grant, writes).await.map_err(refused)?;
        self.cache.forget(grant.space().as_str());
        Ok((before, after))
    }
}

/// Pairs checks with what is known of them.
pub(crate) fn answered(
    checks: impl Iterator<Item = Check>,
    mut known: Vec<CheckResult>,
    changes: Vec<CheckChange>,
) -> Vec<AnsweredCheck> {
    let mut histories: HashMap<HostCheckId, Vec<CheckChange>> = HashMap::new();
    for change in changes {
        histories.entry(change.check.clone()).or_default().push(change);
    }
    let mut answered = |check: Check| {
        let at = known.iter().position(|result| result.check == check.id);
        let history = histories.remove(&check.id).unwrap_or_default();
        AnsweredCheck { result: at.map(|at| known.swap_remove(at)), check, history }
    };
    checks.map(&mut answered).collect()
}

/// Returns the ids of stored checks.
pub(crate) fn check_ids(stored: Option<&str>) -> Result<Vec<HostCheckId>, Error> {
    Ok(parse(stored)?.checks.into_iter().map(|check| check.id).collect())
}

/// Returns the checks among stored ones that are for hosts of a platform with these labels.
pub(crate) fn applying(
    stored: Option<&str>,
    platform: Option<Platform>,
    labels: &[String],
) -> Result<Vec<Check>, Error> {
    let mut checks = parse(stored)?.checks;
    checks.retain(|check| check.applies_to(platform) && is_among(&check.labels, labels));
    Ok(checks)
}

/// Returns the name of a check among stored ones that is for hosts with a label.
pub(crate) fn with_label(stored: Option<&str>, label: &str) -> Result<Option<String>, Error> {
    let names = |check: &Check| check.labels.iter().any(|name| name_key(name) == name_key(label));
    Ok(parse(stored)?.checks.into_iter().find(names).map(|check| check.name))
}

/// Returns the name of the setting that holds the checks of a space.
pub(crate) fn setting_name(space: &SpaceId) -> String {
    format!("{PREFIX}{space}")
}

/// Returns whether a setting holds the checks of a space.
pub(crate) fn is_setting(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn parse(stored: Option<&str>) -> Result<Stored, Error> {
    let Some(stored) = stored else { return Ok(Stored::default()) };
    serde_json::from_str(stored).map_err(|error| Error::internal(SharedError::during("host checks", error)))
}

fn described(check: Option<&Check>) -> Result<Value, Error> {
    serde_json::to_value(check).map_err(Error::internal)
}

fn changed() -> Error {
    let message = "the host checks have changed in the meantime";
    Error::new(ErrorKind::Conflict, "host_checks_changed", message).remedy("read them again, and repeat the change")
}

fn refused(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::Changed(_)) => changed(),
        StoreError::Conflict(Precondition::Missing(_)) => labels::gone(),
        other => other.into(),
    }
}
