//! The service of live queries: create, list, show, read results, stop. What hosts are asked and answer is in `running.rs`.

mod running;

use std::sync::Arc;
use std::time::Duration;

use muster_core::agent::Family;
use muster_core::authorization::{Grant, OpContext, Privilege, QueriesRun, QueriesRunSaved, Scope};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::id::LiveQueryId;
use muster_core::live_query::{
    EndReason, Ended, LiveQuery, LiveResult, MAX_TARGETS, check_sql, check_timeout, creator,
};
use muster_core::saved_query::SavedQuery;
use muster_core::time::Clock;
use muster_core::{Entropy, Error};
use muster_store::query::AgentFilter;
use muster_store::{LiveQueryWrite, Precondition, StoreError, Write};
use serde_json::json;

use self::running::Running;
pub use self::running::{Asked, Outcome};
use super::audit::audit_line;
use super::authority::Authorized;
use super::host_targets::HostSelection;
use super::shutdown::Shutdown;
use super::watched_store::WatchedStore;

/// Length of a page of results, bytes of JSON.
const PAGE_BYTES: u64 = 1 << 20;
/// Maximum number of results on a page.
pub const MAX_PAGE: u32 = 1_000;

/// Where the SQL of a live query comes from.
#[derive(Clone, Debug)]
pub enum QuerySource {
    /// From the caller, who must have the privilege to run any SQL.
    Sql(String),
    /// From a saved query.
    Saved(Box<SavedQuery>),
}

/// A new live query.
#[derive(Clone, Debug)]
pub struct NewLiveQuery {
    /// SQL, or the saved query that has it.
    pub sql: QuerySource,
    /// Names or ids of hosts; empty for all that match the filter.
    pub hosts: Vec<String>,
    /// Labels, of which the hosts have at least one; empty for all that match the filter.
    pub labels: Vec<String>,
    /// Filter for the agents. Those that are not osquery are ignored.
    pub filter: AgentFilter,
    /// Time after which it ends.
    pub timeout: Duration,
}

/// A live query, and the targets that can't answer now.
#[derive(Clone, Debug)]
pub struct LiveQueryView {
    /// The live query.
    pub query: LiveQuery,
    /// Number of targets that have not answered and are not connected.
    pub offline: u64,
    /// Names of the hosts that did not answer, at most [`MAX_SILENT`]; empty while the live query runs.
    pub silent: Vec<String>,
}

/// Maximum number of hosts without an answer that are named.
pub const MAX_SILENT: u32 = 20;

/// The service of live queries.
pub struct LiveQueries {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    shutdown: Arc<Shutdown>,
    running: Running,
}

impl LiveQueries {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { store, clock, entropy, shutdown, running: Running::default() }
    }

    /// Creates a live query, which its targets get with their next distributed read. In a dry run, returns it as it would be
    /// created.
    pub async fn create(&self, context: &OpContext, new: NewLiveQuery) -> Result<LiveQueryView, Error> {
        // Each with the hosts of its own privilege.
        match &new.sql {
            QuerySource::Sql(_) => self.create_by(context.grant::<QueriesRun>()?, new).await,
            QuerySource::Saved(saved) if saved.is_restricted => {
                self.create_by(context.grant::<QueriesRun>()?, new).await
            }
            QuerySource::Saved(_) => self.create_by(context.grant::<QueriesRunSaved>()?, new).await,
        }
    }

    async fn create_by<P: Privilege>(&self, grant: Grant<P>, new: NewLiveQuery) -> Result<LiveQueryView, Error> {
        let selection = HostSelection {
            family: Family::Osquery,
            program: "osquery",
            hosts: &new.hosts,
            labels: &new.labels,
            filter: &new.filter,
            limit: MAX_TARGETS,
        };
        let targets = selection.agents(self.store.seen_by(&grant)).await?;
        let (sql, saved) = match new.sql {
            QuerySource::Sql(sql) => (sql, None),
            QuerySource::Saved(saved) => (saved.sql, Some(saved.name)),
        };
        check_sql(&sql)?;
        check_timeout(new.timeout)?;
        let now = self.clock.now();
        let query = LiveQuery {
            id: LiveQueryId::trusted(random_uuid(&*self.entropy)),
            space: grant.space().clone(),
            sql,
            created_by: grant.actor().to_string(),
            created_at: now,
            expires_at: now.plus(new.timeout),
            targets: targets.len() as u64,
            answered: 0,
            failed: 0,
            gone: 0,
            rows: 0,
            bytes: 0,
            ended: None,
        };
        let insert = LiveQueryWrite::Insert { query: Box::new(query.clone()), targets: targets.clone() };
        let detail = json!({"sql": query.sql, "targets": query.targets, "timeout_seconds": new.timeout.as_secs()});
        let mut detail = selection.audited(detail, &targets);
        if let Some(saved) = saved {
            detail["saved_query"] = saved.into();
        }
        let line = audit_line(grant.origin(), now, "live_query.run", format_args!("live_query:{}", query.id), detail);
        let writes = vec![insert.into(), Write::Changed(Change::LiveQuery(query.id.clone())), line];
        self.store.commit(&grant, writes).await.map_err(refused)?;
        if grant.is_dry_run() {
            return Ok(LiveQueryView { query, offline: 0, silent: Vec::new() });
        }
        self.running.begin(&query, targets);
        // As it is stored: a target may have left the space since it was selected.
        let query = self.store.seen_by(&grant).live_query(&query.id).await?.unwrap_or(query);
        let offline = self.offline(&grant, &query).await?;
        Ok(LiveQueryView { query, offline, silent: Vec::new() })
    }

    /// Finds a live query that the caller may see. Its results may be of any host of the space and to any SQL, so a caller with a
    /// limited scope, or for saved queries only, sees only its own.
    pub async fn find(&self, context: &OpContext, id: &str) -> Result<Authorized<LiveQuery, QueriesRunSaved>, Error> {
        let grant = context.grant::<QueriesRunSaved>()?;
        let found = match LiveQueryId::parse(id) {
            Ok(id) => self.store.seen_by(&grant).live_query(&id).await?,
            Err(_) => None,
        };
        let query = found.filter(|query| is_seen(context, query)).ok_or_else(|| Error::not_found("live query", id))?;
        Ok(Authorized::new(query, grant))
    }

    /// Returns the live queries of the space that the caller may see, newest first.
    pub async fn list(&self, context: &OpContext) -> Result<Vec<LiveQuery>, Error> {
        let grant = context.grant::<QueriesRunSaved>()?;
        let mut found = self.store.seen_by(&grant).live_queries().await?;
        found.retain(|query| is_seen(context, query));
        Ok(found)
    }

    /// Returns a live query with the number of targets that can't answer now.
    pub async fn view(&self, query: &Authorized<LiveQuery, QueriesRunSaved>) -> Result<LiveQueryView, Error> {
        let mut view = LiveQueryView { query: (**query).clone(), offline: 0, silent: Vec::new() };
        if query.answered + query.gone < query.targets {
            view.offline = self.offline(query.grant(), query).await?;
            // Until then, it would be most of them.
            if query.ended.is_some() {
                view.silent = self.store.seen_by(query.grant()).live_query_silent(query, MAX_SILENT).await?;
                view.silent.sort_unstable();
            }
        }
        Ok(view)
    }

    /// Returns the number of targets that have not answered and are not connected, as it was at most a second ago: counting them reads
    /// all that have not answered, and whoever follows a live query asks many times a second.
    async fn offline<P>(&self, grant: &Grant<P>, query: &LiveQuery) -> Result<u64, Error> {
        let now = self.clock.now();
        if let Some(counted) = self.running.offline(&query.id, now) {
            return Ok(counted);
        }
        let counted = self.store.seen_by(grant).live_query_absent(query).await?;
        self.running.remember_offline(&query.id, counted, now);
        Ok(counted)
    }

    /// Returns the answers after a number, in order. Fewer than `limit` if they are large; none only if there are none yet.
    pub async fn results(
        &self,
        query: &Authorized<LiveQuery, QueriesRunSaved>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<LiveResult>, Error> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid("limit", format!("must be from 1 to {MAX_PAGE}")));
        }
        Ok(self.store.seen_by(query.grant()).live_query_results(query, after, PAGE_BYTES, limit).await?)
    }

    /// Returns whether the caller, or the user that it acts for, created a live query.
    pub fn is_creator(&self, context: &OpContext, query: &LiveQuery) -> bool {
        is_own(context, &query.created_by)
    }

    /// Lets a live query last for a time from its creation, if it would end before: somebody follows it now.
    pub async fn prolong(
        &self,
        query: &Authorized<LiveQuery, QueriesRunSaved>,
        lifetime: Duration,
    ) -> Result<(), Error> {
        let until = query.created_at.plus(lifetime);
        if query.ended.is_none() && query.expires_at < until {
            let prolong = LiveQueryWrite::Prolong { id: query.id.clone(), until };
            self.store.commit(query.grant(), vec![prolong.into()]).await?;
            self.running.prolong(&query.id, until);
        }
        Ok(())
    }

    /// Stops a live query. One that has ended stays as it is.
    pub async fn stop(&self, query: &Authorized<LiveQuery, QueriesRunSaved>) -> Result<LiveQuery, Error> {
        if query.ended.is_some() {
            return Ok((**query).clone());
        }
        let (grant, now, id) = (query.grant(), self.clock.now(), &query.id);
        let end = LiveQueryWrite::End { id: id.clone(), reason: EndReason::Stopped, now };
        let detail = json!({"targets": query.targets, "answered": query.answered});
        let line = audit_line(grant.origin(), now, "live_query.stop", format_args!("live_query:{id}"), detail);
        self.store.commit(grant, vec![end.into(), Write::Changed(Change::LiveQuery(id.clone())), line]).await?;
        if !grant.is_dry_run() {
            self.running.end(id);
        }
        // It may have ended by itself meanwhile, for another reason.
        let stored = self.store.seen_by(grant).live_query(id).await?;
        Ok(stored.unwrap_or_else(|| LiveQuery {
            ended: Some(Ended { at: now, reason: EndReason::Stopped }),
            ..(**query).clone()
        }))
    }
}

fn is_seen(context: &OpContext, query: &LiveQuery) -> bool {
    let is_whole = context.grant::<QueriesRun>().is_ok_and(|grant| *grant.scope() == Scope::Whole);
    is_whole || is_own(context, &query.created_by)
}

/// Returns whether the caller, or the user that it acts for, created something.
pub(crate) fn is_own(context: &OpContext, created_by: &str) -> bool {
    creator(&context.actor().to_string()) == creator(created_by)
}

fn refused(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::TooMany(_)) => {
            let remedy = "list them with `muster query list`, and stop one with `muster query stop ID`";
            Error::from(error).remedy(remedy)
        }
        other => other.into(),
    }
}
