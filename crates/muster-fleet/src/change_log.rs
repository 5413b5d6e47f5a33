//! The change log as callers see it: which objects were changed or deleted since a number, among those that they may read.
//!
//! A change names its object and carries no data. The numbers ascend in the order of commits, so a reader that continues after
//! the last number it has seen misses nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use muster_core::authorization::{
    AgentsRead, DownloadSourcesRead, EnrollmentRead, Grant, OpContext, OsqueryRead, OutputsRead, PoliciesRead,
    Privilege, ProxiesRead, QueriesRun, Scope, ScriptsRead, ServerHostsRead, SettingsRead,
};
use muster_core::change::Change;
use muster_core::id::{AgentId, SpaceId};
use muster_core::install::InstallWork;
use muster_core::network_object::NetworkObjectKind;
use muster_core::script::ScriptWork;
use muster_core::{Error, ErrorKind};
use muster_store::ChangeRow;
use tokio::sync::watch;

use super::authority::System;
use super::fleetd_options;
use super::space_settings::setting_name;
use super::watched_store::WatchedStore;
use super::{host_checks, labels, packs, saved_queries};

/// Maximum number of changes on a page.
pub const MAX_PAGE: u32 = 1_000;
/// Maximum number of streams of a caller at a server.
const MAX_STREAMS_OF_CALLER: usize = 10;
/// Maximum number of streams at a server.
const MAX_STREAMS: usize = 200;

/// A change of an object that the caller may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenChange {
    /// Its number.
    pub seq: i64,
    /// Kind of the object: `agent`, `policy` …
    pub kind: &'static str,
    /// Id of the object.
    pub id: String,
    /// Whether it was deleted.
    pub is_deleted: bool,
}

/// A page of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangePage {
    /// The changes, oldest first. Of several changes of an object, only the last one.
    pub changes: Vec<SeenChange>,
    /// The number after which to continue.
    pub next: i64,
    /// Whether more changes follow.
    pub has_more: bool,
}

/// The service of the change log.
pub struct ChangeLog {
    store: Arc<WatchedStore>,
    streams: Arc<Mutex<HashMap<String, usize>>>,
}

/// The place of a stream of changes. Dropping it frees the place.
#[derive(Debug)]
pub struct StreamPlace {
    streams: Arc<Mutex<HashMap<String, usize>>>,
    caller: String,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = streams.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.caller);
            }
        }
    }
}

impl ChangeLog {
    pub(crate) fn new(store: Arc<WatchedStore>) -> Self {
        Self { store, streams: Arc::default() }
    }

    /// Returns a receiver of the newest number of the change log.
    pub fn newest(&self) -> watch::Receiver<i64> {
        self.store.everywhere(&System).changes()
    }

    /// Takes the place of a stream.
    pub fn open_stream(&self, context: &OpContext) -> Result<StreamPlace, Error> {
        let caller = context.actor().to_string();
        // Counted together under one lock, so that two requests cannot both take the last place.
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let of_caller = streams.get(&caller).copied().unwrap_or(0);
        if of_caller >= MAX_STREAMS_OF_CALLER || streams.values().sum::<usize>() >= MAX_STREAMS {
            let message = format!("at most {MAX_STREAMS_OF_CALLER} streams of a caller, and {MAX_STREAMS} of a server");
            return Err(Error::new(ErrorKind::TooMany, "too_many_streams", message).remedy("close a stream"));
        }
        streams.insert(caller.clone(), of_caller + 1);
        Ok(StreamPlace { streams: Arc::clone(&self.streams), caller })
    }

    /// Returns the changes after a number, oldest first; without a number, none, and the newest number. Fails with
    /// `changes_pruned` if the log no longer contains all changes after the number.
    pub async fn after(&self, context: &OpContext, after: Option<i64>, limit: u32) -> Result<ChangePage, Error> {
        // Where a new reader begins: it has read the objects, or is about to.
        let Some(after) = after else {
            return Ok(ChangePage { changes: Vec::new(), next: *self.newest().borrow(), has_more: false });
        };
        if after < 0 {
            return Err(Error::invalid("after", "must not be negative"));
        }
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid("limit", format!("must be from 1 to {MAX_PAGE}")));
        }
        let log = self.store.everywhere(&System);
        // From one before: the newest row is never pruned, so that this finds a number that was never given.
        let mut rows = log.change_rows_since(after - 1, limit + 1).await?;
        // If the row itself was pruned, nothing is missing as long as the next one is there.
        let is_known = rows.first().map_or(after == 0, |first| first.seq == after || first.seq == after + 1);
        if !is_known {
            return Err(pruned(after, *self.newest().borrow()));
        }
        // The row of `after` itself was only read to learn that the log still reaches back to it.
        rows.retain(|row| row.seq > after);
        // The row beyond the limit is not returned, and tells that there is more.
        let has_more = rows.len() >= limit as usize;
        rows.truncate(limit as usize);
        // From the unfiltered rows: a page without a visible change still makes progress.
        let next = rows.last().map_or(after, |last| last.seq);
        Ok(ChangePage { changes: self.seen(context, rows).await?, next, has_more })
    }

    /// Selects the last change of each object that the caller may read.
    async fn seen(&self, context: &OpContext, rows: Vec<ChangeRow>) -> Result<Vec<SeenChange>, Error> {
        let mut known = HashSet::new();
        let mut latest = Vec::new();
        // Backwards, so that the last change of an object is the one that is kept. A deletion is kept beside it: an agent that moves to
        // another space is deleted in the one and changed in the other, and nobody may read both.
        for ChangeRow { seq, change, deleted_from } in rows.into_iter().rev() {
            if let Some(change) = change.filter(|change| known.insert((change.clone(), deleted_from.clone()))) {
                latest.push((seq, change, deleted_from));
            }
        }
        let agents = self.agents(context, &latest).await?;
        let mut seen: Vec<SeenChange> = Vec::with_capacity(latest.len());
        let mut told = HashSet::new();
        for (seq, change, deleted_from) in latest {
            if told.contains(&change) {
                continue;
            }
            let is_deleted = deleted_from.is_some();
            let is_seen = match (&change, &deleted_from) {
                (change, Some(space)) => may_see_deletion(context, change, space),
                (Change::Agent(id), None) => agents.contains(id),
                (change, None) => self.is_readable(context, change).await?,
            };
            if is_seen {
                let (kind, id) = name(&change);
                seen.push(SeenChange { seq, kind, id, is_deleted });
                told.insert(change);
            }
        }
        // Forwards again: readers get the oldest first.
        seen.reverse();
        Ok(seen)
    }

    /// Looks up all changed agents in one read.
    async fn agents(
        &self,
        context: &OpContext,
        changes: &[(i64, Change, Option<SpaceId>)],
    ) -> Result<BTreeSet<AgentId>, Error> {
        // Without the privilege, no agent is visible, and nothing is read.
        let Ok(grant) = context.grant::<AgentsRead>() else { return Ok(BTreeSet::new()) };
        let ids: Vec<&AgentId> = changes
            .iter()
            .filter_map(|(_, change, deleted)| match change {
                Change::Agent(id) if deleted.is_none() => Some(id),
                _ => None,
            })
            .collect();
        if ids.is_empty() {
            return Ok(BTreeSet::new());
        }
        Ok(self.store.seen_by(&grant).visible_among(ids.into_iter()).await?)
    }

    /// Returns whether an object exists among those that the caller may read. Agents are looked up together.
    async fn is_readable(&self, context: &OpContext, change: &Change) -> Result<bool, Error> {
        macro_rules! found {
            ($privilege:ty, $seen:ident => $read:expr) => {
                match context.grant::<$privilege>() {
                    Ok(grant) => {
                        let $seen = self.store.seen_by(&grant);
                        $read.await?.is_some()
                    }
                    Err(_) => false,
                }
            };
        }
        Ok(match change {
            // `Action` follows when the action is announced.
            Change::Agent(_) | Change::ActionBegun(_) | Change::DiskEscrow(_) | Change::Refetch(_) => false,
            // A caller with a limited scope sees only its own, whose end it learns from their results.
            Change::LiveQuery(id) => {
                let is_whole = |grant: &Grant<QueriesRun>| *grant.scope() == Scope::Whole;
                match context.grant::<QueriesRun>().ok().filter(is_whole) {
                    Some(grant) => self.store.seen_by(&grant).live_query(id).await?.is_some(),
                    None => false,
                }
            }
            Change::ScriptRun(id) => found!(ScriptsRead, seen => seen.run::<ScriptWork>(id)),
            Change::InstallRun(id) => found!(OsqueryRead, seen => seen.run::<InstallWork>(id)),
            Change::Action(id) => found!(AgentsRead, seen => seen.action(id)),
            Change::Policy(id) => found!(PoliciesRead, seen => seen.policy(id)),
            Change::EnrollmentKey(id) => found!(EnrollmentRead, seen => seen.enrollment_key(id)),
            Change::Output(id) => found!(OutputsRead, seen => seen.output(id)),
            Change::NetworkObject(kind, id) => match kind {
                NetworkObjectKind::ServerHost => found!(ServerHostsRead, seen => seen.network_object(*kind, id)),
                NetworkObjectKind::Proxy => found!(ProxiesRead, seen => seen.network_object(*kind, id)),
                NetworkObjectKind::DownloadSource => {
                    found!(DownloadSourcesRead, seen => seen.network_object(*kind, id))
                }
            },
            Change::Setting(name) if *name == setting_name(context.space()) => context.grant::<SettingsRead>().is_ok(),
            Change::Setting(name) => {
                let space = context.space();
                let of_osquery = [
                    fleetd_options::setting_name,
                    host_checks::setting_name,
                    labels::setting_name,
                    packs::setting_name,
                    saved_queries::setting_name,
                ];
                let names = of_osquery.map(|name| name(space));
                (names.contains(name) || *name == packs::setting_of_all()) && context.grant::<OsqueryRead>().is_ok()
            }
        })
    }
}

/// Returns whether a caller sees that an object was deleted. Which part of the space it belonged to is no longer known, except
/// for policies.
fn may_see_deletion(context: &OpContext, change: &Change, space: &SpaceId) -> bool {
    // A function of the privilege, because each kind of object has its own.
    fn scope<P: Privilege>(context: &OpContext) -> Option<Scope> {
        context.grant::<P>().ok().map(|grant| grant.scope().clone())
    }
    let scope = match change {
        Change::Agent(_) | Change::Action(_) => scope::<AgentsRead>(context),
        Change::Policy(_) => scope::<PoliciesRead>(context),
        Change::EnrollmentKey(_) => scope::<EnrollmentRead>(context),
        Change::Output(_) => scope::<OutputsRead>(context),
        Change::NetworkObject(NetworkObjectKind::ServerHost, _) => scope::<ServerHostsRead>(context),
        Change::NetworkObject(NetworkObjectKind::Proxy, _) => scope::<ProxiesRead>(context),
        Change::NetworkObject(NetworkObjectKind::DownloadSource, _) => scope::<DownloadSourcesRead>(context),
        Change::ActionBegun(_)
        | Change::DiskEscrow(_)
        | Change::LiveQuery(_)
        | Change::ScriptRun(_)
        | Change::InstallRun(_)
        | Change::Setting(_)
        | Change::Refetch(_) => None,
    };
    let covers = |scope: &Scope| match change {
        Change::Policy(id) => scope.has_policy(id),
        _ => *scope == Scope::Whole,
    };
    context.space() == space && scope.is_some_and(|scope| covers(&scope))
}

/// Returns the kind and the id under which the API knows an object.
fn name(change: &Change) -> (&'static str, String) {
    match change {
        Change::Setting(name) if fleetd_options::is_setting(name) => ("fleetd_options", "space".to_owned()),
        Change::Setting(name) if host_checks::is_setting(name) => ("host_checks", "space".to_owned()),
        Change::Setting(name) if labels::is_setting(name) => ("labels", "space".to_owned()),
        Change::Setting(name) if packs::is_setting(name) => ("packs", "space".to_owned()),
        Change::Setting(name) if saved_queries::is_setting(name) => ("saved_queries", "space".to_owned()),
        Change::Setting(_) => ("settings", "space".to_owned()),
        change => {
            let (kind, id) = change.to_row();
            (kind, id.to_owned())
        }
    }
}

fn pruned(after: i64, newest: i64) -> Error {
    let message = format!("the changes after {after} are not in the log");
    Error::conflict("changes_pruned", message)
        .remedy(format!("read the objects again, and continue with the changes after {newest}"))
}

#[cfg(test)]
mod tests {
    use muster_core::authorization::{Actor, BindingScope, Entitlement, PrivilegeName, PrivilegeSet, Selector};
    use muster_core::id::PolicyId;
    use muster_core::testing::bare_agent;
    use muster_store::{AgentWrite, Write};

    use super::*;
    use crate::testing::TestFleet;

    fn administrator() -> OpContext {
        OpContext::administrator(Actor::Local { uid: 0 })
    }

    fn with(names: &[PrivilegeName], scope: BindingScope) -> OpContext {
        let privileges: PrivilegeSet = names.iter().copied().collect();
        OpContext::entitled(Actor::Local { uid: 1 }, [Entitlement { privileges, scope }])
    }

    async fn seen(test: &TestFleet, context: &OpContext, after: i64) -> Vec<(&'static str, String, bool)> {
        let page = test.fleet.change_log().after(context, Some(after), 100).await.unwrap();
        page.changes.into_iter().map(|one| (one.kind, one.id, one.is_deleted)).collect()
    }

    /// A fleet with an agent on each of two policies, and the number of the newest change.
    async fn fleet() -> (TestFleet, i64) {
        let test = TestFleet::default();
        for name in ["a", "b"] {
            let policy = test.revised_policy(name, |_| {}).await;
            let mut record = bare_agent(name, test.now());
            record.policy_id = Some(policy);
            test.add_agent(record, Default::default()).await;
        }
        let newest = *test.store().changes().borrow();
        (test, newest)
    }

    fn changed(name: &str) -> [Write; 2] {
        [Write::Changed(Change::Agent(AgentId::trusted(name))), Write::Changed(Change::Policy(PolicyId::trusted(name)))]
    }

    #[tokio::test]
    async fn the_last_change_of_each_object_is_listed_in_order() {
        let (test, start) = fleet().await;
        test.commit(changed("a").into_iter().chain(changed("b")).chain(changed("a")).collect()).await;
        let all = seen(&test, &administrator(), start).await;
        let expected = [("agent", "b"), ("policy", "b"), ("agent", "a"), ("policy", "a")];
        assert_eq!(all, expected.map(|(kind, id)| (kind, id.to_owned(), false)));
        let first = test.fleet.change_log().after(&administrator(), Some(start), 2).await.unwrap();
        assert_eq!((first.next, first.has_more), (start + 2, true));
        assert_eq!(seen(&test, &administrator(), first.next).await.len(), 4);
    }

    #[tokio::test]
    async fn changes_of_other_spaces_scopes_and_kinds_are_hidden() {
        let (test, start) = fleet().await;
        test.commit(changed("a").into_iter().chain(changed("b")).collect()).await;
        let only = Selector::Policies(vec![PolicyId::trusted("a")]);
        let part = BindingScope::Part { space: SpaceId::default(), selector: only };
        let reads = [PrivilegeName::AgentsRead, PrivilegeName::PoliciesRead];
        let of_a = [("agent", "a".to_owned(), false), ("policy", "a".to_owned(), false)];
        assert_eq!(seen(&test, &with(&reads, part.clone()), start).await, of_a);
        let agents = with(&reads[..1], BindingScope::System);
        assert_eq!(
            seen(&test, &agents, start).await,
            [("agent", "a".to_owned(), false), ("agent", "b".to_owned(), false)]
        );
        assert!(seen(&test, &administrator().in_space(SpaceId::trusted("blue")), start).await.is_empty());

        let id = AgentId::trusted("a");
        let delete = AgentWrite::Delete { id: id.clone(), now: test.now() }.into();
        test.commit(vec![delete, Write::Deleted(Change::Agent(id), SpaceId::default())]).await;
        assert!(seen(&test, &agents, start).await.contains(&("agent", "a".to_owned(), true)));
        assert!(!seen(&test, &with(&reads, part), start).await.iter().any(|(kind, ..)| *kind == "agent"));
        assert!(seen(&test, &agents.in_space(SpaceId::trusted("blue")), start).await.is_empty());
    }

    #[tokio::test]
    async fn a_gap_in_the_log_is_reported() {
        let (test, start) = fleet().await;
        test.commit(changed("a").into_iter().chain(changed("b")).collect()).await;
        test.store().changes_prune(start + 2, 100).await.unwrap();
        let after = async |seq| {
            let page = test.fleet.change_log().after(&administrator(), Some(seq), 100).await;
            page.map(|page| page.changes.len()).map_err(|error| error.code)
        };
        assert_eq!(after(start + 1).await, Err("changes_pruned"));
        assert_eq!(after(start + 2).await, Ok(2), "nothing is missing");
        assert_eq!(after(start + 4).await, Ok(0));
        assert_eq!(after(start + 5).await, Err("changes_pruned"), "a number that was never given");
        assert_eq!(after(-1).await, Err("invalid"));
    }

    #[tokio::test]
    async fn streams_are_limited_for_each_caller() {
        let test = TestFleet::default();
        let log = test.fleet.change_log();
        let caller = |uid| OpContext::administrator(Actor::Local { uid });
        let mut open: Vec<_> = (0..MAX_STREAMS_OF_CALLER).map(|_| log.open_stream(&caller(0)).unwrap()).collect();
        assert_eq!(log.open_stream(&caller(0)).unwrap_err().code, "too_many_streams");
        open.pop();
        open.push(log.open_stream(&caller(0)).unwrap());
        for uid in 1.. {
            match log.open_stream(&caller(uid)) {
                Ok(place) => open.push(place),
                Err(_) => break,
            }
        }
        assert_eq!(open.len(), MAX_STREAMS);
    }
}
