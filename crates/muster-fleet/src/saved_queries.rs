//! Saved queries of spaces.

use std::sync::Arc;

use muster_core::authorization::{Grant, OpContext, OsqueryRead, OsqueryWrite, Privilege, QueriesRunSaved};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::error_chain::SharedError;
use muster_core::id::{SavedQueryId, SpaceId};
use muster_core::saved_query::{SavedQuery, check_all};
use muster_core::time::Clock;
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::{Precondition, SettingWrite, StoreError, Write};
use serde_json::json;

use super::audit::audit_line;
use super::watched_store::WatchedStore;

/// Prefix of the names of the settings that hold the saved queries.
const PREFIX: &str = "saved_queries:";

/// What is saved under a name.
#[derive(Clone, Debug, Default)]
pub struct SavedQueryDraft {
    /// Name. A saved query with this name is replaced.
    pub name: String,
    /// Description.
    pub description: String,
    /// SQL.
    pub sql: String,
    /// Whether only people who may run any SQL may run it.
    pub is_restricted: bool,
}

/// The service of saved queries.
pub struct SavedQueries {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl SavedQueries {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { store, clock, entropy }
    }

    /// Returns the saved queries by name, for those who may run or read them.
    pub async fn list(&self, context: &OpContext) -> Result<Vec<SavedQuery>, Error> {
        let mut queries = match context.grant::<OsqueryRead>() {
            Ok(grant) => self.read(&grant).await?.1,
            Err(_) => self.read(&context.grant::<QueriesRunSaved>()?).await?.1,
        };
        queries.sort_by_cached_key(|query| query.name.to_lowercase());
        Ok(queries)
    }

    /// Finds a saved query by id or name, for one who may run it.
    pub async fn find(&self, grant: &Grant<QueriesRunSaved>, named: &str) -> Result<SavedQuery, Error> {
        let found = self.read(grant).await?.1.into_iter().find(|query| query.is_named(named));
        found.ok_or_else(|| Error::not_found("saved query", format_args!("{named:?}")))
    }

    /// Saves a query under a name. Without a difference, nothing is written. `expected`: the version that the caller has seen, 0 if there
    /// was none.
    pub async fn save(
        &self,
        grant: &Grant<OsqueryWrite>,
        draft: SavedQueryDraft,
        expected: Option<i64>,
    ) -> Result<SavedQuery, Error> {
        let name = draft.name.clone();
        let replaced = |queries: &[SavedQuery], same_name: Option<usize>| {
            let version = same_name.map_or(0, |at| queries[at].version);
            match expected {
                Some(0) if version > 0 => Err(taken(&name)),
                Some(expected) if version != expected => Err(changed()),
                _ => Ok(same_name),
            }
        };
        self.put(grant, draft, replaced).await
    }

    /// Saves a query under a name that no other has.
    pub async fn create(&self, grant: &Grant<OsqueryWrite>, draft: SavedQueryDraft) -> Result<SavedQuery, Error> {
        self.save(grant, draft, Some(0)).await
    }

    /// Changes a saved query, and possibly its name.
    pub async fn update(
        &self,
        grant: &Grant<OsqueryWrite>,
        id: &str,
        draft: SavedQueryDraft,
    ) -> Result<SavedQuery, Error> {
        let name = draft.name.clone();
        let only_known = |queries: &[SavedQuery], same_name: Option<usize>| {
            let at = queries.iter().position(|query| query.id.as_str() == id);
            let at = at.ok_or_else(|| Error::not_found("saved query", id))?;
            if same_name.is_some_and(|other| other != at) { Err(taken(&name)) } else { Ok(Some(at)) }
        };
        self.put(grant, draft, only_known).await
    }

    /// Saves a query. `replaced` returns the place of the one that it replaces, from the queries and the place of the one with its
    /// name.
    async fn put(
        &self,
        grant: &Grant<OsqueryWrite>,
        draft: SavedQueryDraft,
        replaced: impl FnOnce(&[SavedQuery], Option<usize>) -> Result<Option<usize>, Error> + Send,
    ) -> Result<SavedQuery, Error> {
        let (text, mut queries) = self.read(grant).await?;
        let (now, name) = (self.clock.now(), draft.name.trim().to_owned());
        let same_name = queries.iter().position(|query| query.name.to_lowercase() == name.to_lowercase());
        let before = replaced(&queries, same_name)?.map(|at| queries.swap_remove(at));
        let after = SavedQuery {
            id: before.as_ref().map_or_else(|| self.new_id(), |before| before.id.clone()),
            version: before.as_ref().map_or(1, |before| before.version + 1),
            name,
            description: draft.description.trim().to_owned(),
            sql: draft.sql,
            is_restricted: draft.is_restricted,
            updated_by: grant.actor().to_string(),
            updated_at: now.as_micros(),
        };
        if let Some(before) = before.filter(|before| is_same(before, &after)) {
            return Ok(before);
        }
        queries.push(after.clone());
        check_all(&queries)?;
        let detail = json!({
            "name": after.name, "sql": after.sql, "restricted": after.is_restricted, "version": after.version,
        });
        self.write(grant, "saved_query.save", &after.id, detail, text, &queries).await?;
        Ok(after)
    }

    /// Deletes a saved query.
    pub async fn delete(&self, grant: &Grant<OsqueryWrite>, id: &str) -> Result<(), Error> {
        let (text, mut queries) = self.read(grant).await?;
        let at = queries.iter().position(|query| query.id.as_str() == id);
        let gone = queries.swap_remove(at.ok_or_else(|| Error::not_found("saved query", id))?);
        let detail = json!({"name": gone.name, "sql": gone.sql});
        self.write(grant, "saved_query.delete", &gone.id, detail, text, &queries).await
    }

    fn new_id(&self) -> SavedQueryId {
        SavedQueryId::trusted(random_uuid(&*self.entropy))
    }

    /// Returns the stored document, and the queries in it.
    async fn read<P: Privilege>(&self, grant: &Grant<P>) -> Result<(Option<String>, Vec<SavedQuery>), Error> {
        let text = self.store.seen_by(grant).saved_queries().await?;
        let queries = stored(text.as_deref())?;
        Ok((text, queries))
    }

    async fn write(
        &self,
        grant: &Grant<OsqueryWrite>,
        action: &str,
        id: &SavedQueryId,
        detail: serde_json::Value,
        before: Option<String>,
        queries: &[SavedQuery],
    ) -> Result<(), Error> {
        let name = setting_name(grant.space());
        let value = serde_json::to_string(queries).map_err(Error::internal)?;
        let writes = vec![
            SettingWrite::Swap { name: name.clone(), before, value }.into(),
            Write::Changed(Change::Setting(name)),
            audit_line(grant.origin(), self.clock.now(), action, format_args!("saved_query:{id}"), detail),
        ];
        self.store.commit(grant, writes).await.map(drop).map_err(refused)
    }
}

/// Returns whether two versions of a saved query say the same.
fn is_same(one: &SavedQuery, other: &SavedQuery) -> bool {
    let said = |query: &SavedQuery| (query.name.clone(), query.description.clone(), query.sql.clone());
    said(one) == said(other) && one.is_restricted == other.is_restricted
}

/// Parses stored saved queries.
pub(crate) fn stored(text: Option<&str>) -> Result<Vec<SavedQuery>, Error> {
    let parsed = text.map(serde_json::from_str).transpose();
    Ok(parsed.map_err(|error| Error::internal(SharedError::during("saved queries", error)))?.unwrap_or_default())
}

/// Returns the name of the setting that holds the saved queries of a space.
pub(crate) fn setting_name(space: &SpaceId) -> String {
    format!("{PREFIX}{space}")
}

/// Returns whether a setting holds the saved queries of a space.
pub(crate) fn is_setting(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn taken(name: &str) -> Error {
    Error::conflict("saved_query_exists", format!("there is already a saved query named {name:?}"))
}

fn refused(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::Changed(_)) => changed(),
        other => other.into(),
    }
}

fn changed() -> Error {
    let message = "the saved queries have changed in the meantime";
    Error::new(ErrorKind::Conflict, "saved_queries_changed", message).remedy("read them again, and repeat the change")
}
