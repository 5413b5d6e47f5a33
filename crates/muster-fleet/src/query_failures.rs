//! Scheduled queries that do not work on hosts: osqueryd has denylisted them, or reports an error each time they run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_core::Error;
use muster_core::authorization::{Grant, OsqueryRead};
use muster_core::error_chain::chain;
use muster_core::fleetd::options::Options;
use muster_core::fleetd::schedule::{
    FailureChanges, QueryFailure, decide_denylisted, decide_failed, failures_in, name_of,
};
use muster_core::hex::sha256;
use muster_core::time::{Clock, Timestamp};
use muster_store::query::FailureCount;
use muster_store::{QueryFailureWrite, Write};
use serde_json::Value;

use super::fleetd_options::{self, FleetdOptions};
use super::packs::ScopedPack;
use super::registry::AgentEntry;
use super::watched_store::WatchedStore;

/// Numbers of hosts on which queries of a pack do not work, by the name of the query in the pack; without those that work everywhere.
pub type PackFailures = BTreeMap<String, FailureCount>;

/// The service of scheduled queries that do not work.
pub struct QueryFailures {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    options: Arc<FleetdOptions>,
}

impl QueryFailures {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, options: Arc<FleetdOptions>) -> Self {
        Self { store, clock, options }
    }

    /// Stores the names of all queries that an agent's host has denylisted. Writes nothing if they are known.
    pub async fn denylisted(&self, entry: &AgentEntry, names: &BTreeSet<String>) -> Result<(), Error> {
        let now = self.clock.now();
        let changes = decide_denylisted(&self.known(entry, now).await?, names, now);
        self.write(entry, changes).await
    }

    /// Stores the errors in lines of a status log, a JSON array. Reads and writes nothing if there are none, or this server has stored the
    /// same ones recently. The lines must not be sent again because of a failure, which is logged instead.
    pub async fn failed(&self, entry: &AgentEntry, lines: &str) {
        if let Err(error) = self.take(entry, lines).await {
            tracing::debug!(error = %chain(&error), agent = %entry.id(), "failed to store the errors of scheduled queries");
        }
    }

    async fn take(&self, entry: &AgentEntry, lines: &str) -> Result<(), Error> {
        let (mut failed, now) = (failures_in(lines), self.clock.now());
        failed.retain(|name, error| !entry.has_failure(digest(name, error), now));
        if failed.is_empty() {
            return Ok(());
        }
        let schedule = self.options.configuration(entry).await?.schedule;
        let changes = decide_failed(&self.known(entry, now).await?, &failed, &schedule, now);
        self.write(entry, changes).await?;
        let remember = |(name, error): (&String, &String)| {
            entry.remember_failure(digest(name, error), schedule.renewed_at(name, now));
        };
        failed.iter().for_each(remember);
        Ok(())
    }

    async fn known(&self, entry: &AgentEntry, now: Timestamp) -> Result<Vec<QueryFailure>, Error> {
        let known = self.store.everywhere(entry).query_failures(std::slice::from_ref(entry.id()), now).await?;
        Ok(known.into_iter().map(|(_, failure)| failure).collect())
    }

    async fn write(&self, entry: &AgentEntry, changes: FailureChanges) -> Result<(), Error> {
        if !changes.is_empty() {
            let write: Write = QueryFailureWrite { agent: entry.id().clone(), changes }.into();
            self.store.commit(entry, vec![write]).await?;
        }
        Ok(())
    }

    /// Counts the hosts of the grant's space on which queries of packs do not work, for each of the packs.
    pub async fn of_packs(&self, grant: &Grant<OsqueryRead>, packs: &[ScopedPack]) -> Result<Vec<PackFailures>, Error> {
        let seen = self.store.seen_by(grant);
        let options = fleetd_options::parse(seen.fleetd_options().await?.as_deref())?;
        // Hosts may name the same query differently.
        let delimiters = Options::stored(options.document())?.delimiters();
        let mut names: BTreeMap<String, (usize, &String)> = BTreeMap::new();
        for (at, one) in packs.iter().enumerate() {
            let queries = one.pack.document.get("queries").and_then(Value::as_object);
            for query in queries.into_iter().flat_map(|queries| queries.keys()) {
                names.extend(delimiters.iter().map(|between| (name_of(between, &one.pack.name, query), (at, query))));
            }
        }
        let mut found = vec![PackFailures::new(); packs.len()];
        if names.is_empty() {
            return Ok(found);
        }
        let wanted: Vec<String> = names.keys().cloned().collect();
        for count in seen.query_failure_counts(&wanted, self.clock.now()).await? {
            if let Some((at, query)) = names.get(&count.name) {
                let sum = found[*at].entry((*query).clone());
                let sum = sum.or_insert_with(|| FailureCount { failing: 0, denylisted: 0, ..count.clone() });
                sum.failing += count.failing;
                sum.denylisted += count.denylisted;
            }
        }
        Ok(found)
    }
}

/// Returns a number by which an error of a query is recognized.
fn digest(name: &str, error: &str) -> u64 {
    let hash = sha256(format!("{name}\n{error}").as_bytes());
    hash.into_iter().take(8).fold(0, |number, byte| number << 8 | u64::from(byte))
}
