//! Software of hosts: what they report, searches over a space, and the index behind them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use muster_core::agent::Family;
use muster_core::authorization::{Grant, OsqueryRead};
use muster_core::error_chain::chain;
use muster_core::fleetd::software::version::{self, Conditions};
use muster_core::fleetd::software::{self, Software, SoftwareId, unpacked};
use muster_core::id::AgentId;
use muster_core::time::{Clock, Timestamp};
use muster_core::{Error, ErrorKind};
use muster_store::query::{FoundSoftware, Listed, Page, SoftwareHosts, SoftwareSearch};
use muster_store::{LeaseName, Resources, SoftwareWrite, StoreError};

use super::agent_views::AgentView;
use super::authority::System;
use super::registry::AgentEntry;
use super::shutdown::Shutdown;
use super::watched_store::WatchedStore;

/// Interval at which lists that hosts reported are indexed. Longer ones index more hosts at once, which costs less.
const EVERY: Duration = Duration::from_secs(5);
/// Maximum matches of a search for versions: they are compared in memory.
const MOST_MATCHES: u32 = 10_000;

/// A search for software in a space.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Name and source.
    pub software: SoftwareSearch,
    /// Conditions on the version.
    pub versions: Option<Conditions>,
    /// The last software of the previous page, if the next one is wanted.
    pub after: Option<Software>,
}

/// The software of a host.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    /// The software by name.
    pub software: Vec<(SoftwareId, Software)>,
    /// Time of the last change; `None` if the host has reported none.
    pub changed_at: Option<Timestamp>,
    /// Number of packages that are left out because of a limit.
    pub left_out: u64,
}

/// The service of software.
pub struct SoftwareInventory {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    shutdown: Arc<Shutdown>,
}

/// What hosts report, and the index.
impl SoftwareInventory {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, shutdown: Arc<Shutdown>) -> Self {
        Self { store, clock, shutdown }
    }

    /// Stores the software in the results of a request, which are JSON objects by query name. Writes nothing if the host has
    /// the same software as before.
    pub async fn reported(&self, entry: &AgentEntry, queries: &str, statuses: &str) -> Result<(), Error> {
        let Some(mut report) = software::report(queries, statuses) else { return Ok(()) };
        let digest = report.digest();
        if entry.has_software(&digest) {
            return Ok(());
        }
        let stored = self.store.everywhere(entry).host_software(entry.id()).await?;
        let before: BTreeSet<SoftwareId> = stored.iter().flat_map(|stored| unpacked(&stored.list)).collect();
        let missing: Vec<SoftwareId> = before.iter().filter(|id| !report.software.contains_key(id)).copied().collect();
        if !missing.is_empty() {
            let known = self.store.everywhere(entry).software_by_id(&missing).await?;
            let kept: Vec<Software> =
                known.into_iter().map(|(_, known)| known).filter(|one| report.keeps(one)).collect();
            kept.into_iter().for_each(|software| report.add(software));
        }
        let (list, left_out) = (report.list(), report.left_out);
        if stored.is_none_or(|stored| stored.list != list || stored.left_out != left_out) {
            let added = report.software.into_iter().filter(|(id, _)| !before.contains(id)).collect();
            let new = self.unknown(entry, added).await?;
            let agent = entry.id().clone();
            let write = SoftwareWrite::List { agent, list, new, left_out, now: self.clock.now() };
            self.store.commit(entry, vec![write.into()]).await?;
        }
        entry.remember_software(digest);
        Ok(())
    }

    /// Returns the software that the store does not know. A read, because most software is known, and writes are dearer.
    async fn unknown(
        &self,
        entry: &AgentEntry,
        software: BTreeMap<SoftwareId, Software>,
    ) -> Result<Vec<Software>, Error> {
        let ids: Vec<SoftwareId> = software.keys().copied().collect();
        let known: HashSet<SoftwareId> = self.store.everywhere(entry).software_known(&ids).await?.into_iter().collect();
        Ok(software.into_iter().filter(|(id, _)| !known.contains(id)).map(|(_, software)| software).collect())
    }

    /// Returns the software of a host, for the user of the host: `agents` are those of its orbit's host
    /// ([`Agents::of_device`](crate::agents::Agents::of_device)).
    pub async fn of_device(&self, orbit: &AgentEntry, agents: &[AgentView]) -> Result<Installed, Error> {
        let mut records = agents.iter().map(|agent| &agent.details.record);
        let Some(record) = records.find(|record| record.family == Family::Osquery) else {
            return Ok(Installed::default());
        };
        Ok(installed(self.store.everywhere(orbit), &record.id).await?)
    }

    /// Indexes what hosts reported, until shutdown.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.shutdown.wait() => return,
            }
            if let Err(error) = self.index().await {
                tracing::warn!(error = %chain(&error), "failed to index software; retrying");
            }
        }
    }

    /// Indexes what hosts reported, unless another server does.
    pub async fn index(&self) -> Result<(), Error> {
        let store = self.store.everywhere(&System);
        while !self.shutdown.has_begun() && store.software_is_pending().await? {
            if store.take_lease(LeaseName::Software).await?.is_none() {
                return Ok(());
            }
            match store.software_index(self.clock.now()).await {
                // A host has reported to another server in this moment.
                Ok(_) | Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// For administrators.
impl SoftwareInventory {
    /// Returns a page of the software in the grant's space, by name. The versions of a name are in order if it is searched for.
    pub async fn list(
        &self,
        grant: &Grant<OsqueryRead>,
        search: &Search,
        page: Page,
    ) -> Result<Listed<FoundSoftware>, Error> {
        let seen = self.store.seen_by(grant);
        if !search.software.name.is_empty() {
            let most = Page { offset: 0, limit: MOST_MATCHES + 1 };
            let found = seen.software_list(&search.software, None, most).await?;
            if found.len() <= MOST_MATCHES as usize {
                return Ok(matching(found, search, page));
            }
        }
        if search.versions.is_some() {
            let message = format!("versions can be compared of at most {MOST_MATCHES} packages");
            return Err(Error::new(ErrorKind::Invalid, "too_many_matches", message).remedy("add a name"));
        }
        let items = seen.software_list(&search.software, search.after.as_ref(), page).await?;
        Ok(Listed { items, total: seen.software_count(&search.software).await?, unreadable: 0 })
    }

    /// Returns software of the grant's space.
    pub async fn find(&self, grant: &Grant<OsqueryRead>, id: &str) -> Result<FoundSoftware, Error> {
        let found = match SoftwareId::parse(id) {
            Some(id) => self.store.seen_by(grant).software(id).await?,
            None => None,
        };
        found.ok_or_else(|| Error::not_found("software", id))
    }

    /// Returns a page of the hosts that have software; `after`: those behind [`SoftwareHosts::next`] of the previous page.
    pub async fn hosts(
        &self,
        grant: &Grant<OsqueryRead>,
        id: &str,
        after: Option<u32>,
        page: Page,
    ) -> Result<(FoundSoftware, SoftwareHosts), Error> {
        let found = self.find(grant, id).await?;
        let hosts = self.store.seen_by(grant).software_hosts(found.id, after, page).await?;
        Ok((found, hosts))
    }
}

/// Returns the software on an agent's host.
pub(crate) async fn installed(store: &dyn Resources, agent: &AgentId) -> Result<Installed, StoreError> {
    let Some(stored) = store.host_software(agent).await? else { return Ok(Installed::default()) };
    let ids: Vec<SoftwareId> = unpacked(&stored.list).collect();
    let software = store.software_by_id(&ids).await?;
    Ok(Installed { software, changed_at: Some(stored.changed_at), left_out: stored.left_out })
}

/// Sorts matches by name and version, and returns a page of those that meet the conditions.
fn matching(mut found: Vec<FoundSoftware>, search: &Search, page: Page) -> Listed<FoundSoftware> {
    if let Some(conditions) = &search.versions {
        found.retain(|found| conditions.hold_for(&found.software.version));
    }
    found.sort_by(|one, other| in_order(&one.software, &other.software));
    let total = found.len() as u64;
    let follows = |found: &FoundSoftware| match &search.after {
        Some(after) => in_order(&found.software, after).is_gt(),
        None => true,
    };
    let items = found.into_iter().filter(follows).skip(page.offset as usize).take(page.limit as usize).collect();
    Listed { items, total, unreadable: 0 }
}

/// Compares names, and the versions of a name.
fn in_order(one: &Software, other: &Software) -> Ordering {
    let by_name = one.name_key().cmp(&other.name_key());
    by_name.then_with(|| version::compare(&one.version, &other.version)).then_with(|| one.cmp(other))
}
